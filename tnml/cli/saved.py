"""The classifier in a model file, and data prepared as those it was trained on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tnml.cli.console import say
from tnml.cli.runs import MODEL
from tnml.data import Dataset, available, fetch, load
from tnml.data.dataset import Scale
from tnml.data.shipped import SHIPPED
from tnml.errors import InputError
from tnml.estimators import MPSClassifier
from tnml.models import load as load_model
from tnml.nn import TensorNetworkLayer
from tnml.pde import Solution


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedModel:
    """A classifier from a file.

    Args:
        path: of the file.
        classifier: the fitted model, on the CPU.
        data: how its training data were made; empty where the file does not say.
    """

    path: Path
    classifier: MPSClassifier
    data: dict[str, Any]

    @property
    def layer(self) -> TensorNetworkLayer:
        """The network."""
        return self.classifier.layer_

    @property
    def scales_itself(self) -> bool:
        """Whether the model brings raw values to [0, 1], as those fitted by `MPSClassifier` in Python do."""
        limits = self.classifier.feature_range_
        return limits is not None and not (np.all(limits[0] == 0) and np.all(limits[1] == 1))


def open_model(path: str | os.PathLike[str]) -> SavedModel:
    """The classifier in a model file, or in the folder of a run.

    Raises:
        InputError: no such file, a damaged one, or one that holds no classifier.

    Example:
        >>> open_model("nowhere.safetensors")
        Traceback (most recent call last):
        tnml.errors.InputError: no model file at nowhere.safetensors; check the path
    """
    place = Path(path)
    if place.is_dir():
        place = place / MODEL
        if not place.exists():
            raise InputError(
                f"{path} holds no {MODEL}; is its run unfinished? `tnml train --resume {path}` continues it"
            )
    model = load_model(place)
    if isinstance(model, Solution):
        raise InputError(
            f"{place} holds the solution of an equation, expected a classifier; "
            f"use `tnml pde evaluate {path}`"
        )
    if not isinstance(model, MPSClassifier):
        raise InputError(f"{place} holds an {type(model).__name__}, expected a classifier; use it in Python")
    return SavedModel(path=place, classifier=model, data=dict(model.data_ or {}))


def data_for(model: SavedModel, name: str | None, split: str, scale: Scale | None) -> Dataset:
    """A data set read as the model's training data were: same pooling, size and scaling.

    Args:
        model: whose file says how.
        name: of the data set; None takes the one the model was trained on.
        split: "train", "test" or "all".
        scale: instead of the stored one.

    Raises:
        InputError: the data cannot be read, or have another width than the model.
    """
    name = name or model.data.get("name")
    if name is None:
        raise InputError(f"{model.path} does not say what it was trained on; name the data")
    if model.scales_itself:
        raise InputError(
            f"{model.path} was fitted in Python on values it scales itself, data sets come in [0, 1]; "
            "use model.score(X, y) in Python"
        )
    known = name in ("digits", *SHIPPED)
    data = read_data(
        name,
        split=split,
        pool=model.data.get("pool", 1),
        resize=pair(model.data.get("resize")),
        scale="auto" if known and scale is None else chosen_scale(model, scale),
    )
    if data.x.shape[1] != model.layer.n_sites:
        raise InputError(
            f"{data.name} has {data.x.shape[1]} values in each sample, but {model.path} has "
            f"{model.layer.n_sites} sites; give data like those the model was trained on"
        )
    return data


def read_data(
    name: str,
    *,
    split: str,
    pool: int = 1,
    resize: tuple[int, int] | None = None,
    scale: Scale = "auto",
    download: bool = True,
    option: str = "--scale",
) -> Dataset:
    """`tnml.data.load`, whose advice about scaling is put in the words of the command line.

    Raises:
        InputError: as `load`.

    Example:
        >>> read_data("digits", split="test", pool=2).image_shape
        (4, 4)
    """
    with scaling_advice(option):
        if download and name in {record.name for record in available() if not record.present}:
            fetch(name, report=say)  # minutes, perhaps: say so
        return load(name, split=split, pool=pool, resize=resize, scale=scale, download=download)


@contextmanager
def scaling_advice(option: str = "--scale") -> Iterator[None]:
    """Turns what the library says about values outside [0, 1] into what to type.

    Example:
        >>> with scaling_advice():
        ...     raise InputError("x must lie in [0, 1], got 16; pass scale=(low, high)")
        Traceback (most recent call last):
        tnml.errors.InputError: x must lie in [0, 1], got 16; give their range, as in --scale [0,255]
    """
    try:
        yield
    except InputError as error:
        fact, _, advice = str(error).partition("; ")
        if "scale=(low, high)" not in advice:
            raise
        raise InputError(f"{fact}; give their range, as in {option} [0,255]") from error


def chosen_scale(model: SavedModel, asked: Scale | None) -> Scale:
    """The scaling asked for, or that of the model's training data."""
    stored = asked if asked is not None else model.data.get("scale", "auto")
    return stored if isinstance(stored, str) else (float(stored[0]), float(stored[1]))


def pair(values: Any) -> tuple[int, int] | None:
    """Two numbers from a JSON list, or None.

    Example:
        >>> pair([2, 3])
        (2, 3)
    """
    return None if values is None else (int(values[0]), int(values[1]))


def n_parameters(layer: TensorNetworkLayer) -> int:
    """How many numbers training can change.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> n_parameters(MPSLayer(2, 3, bond_dim=2))
        20
    """
    return sum(p.numel() for p in layer.parameters())
