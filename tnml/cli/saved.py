"""The classifier or regressor in a model file."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32
from numpy import ndarray

from tnml.cli.console import complain
from tnml.cli.goals import Estimator, Goal, Labels, Reals
from tnml.cli.runs import MODEL
from tnml.data.scaling import clipping, to_unit
from tnml.errors import InputError
from tnml.estimators import MPSClassifier, MPSRegressor
from tnml.files import user_path
from tnml.models import load as load_model
from tnml.nn import TensorNetworkLayer
from tnml.pde import Solution


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedModel:
    """A classifier or a regressor from a file.

    Args:
        path: of the file.
        estimator: the fitted model, on the CPU.
        data: how its training data were prepared; empty if the file does not say.
    """

    path: Path
    estimator: Estimator
    data: dict[str, Any]

    @property
    def layer(self) -> TensorNetworkLayer:
        """The network."""
        return self.estimator.layer_

    @property
    def real_targets(self) -> bool:
        """Whether it is a regressor."""
        return isinstance(self.estimator, MPSRegressor)

    @property
    def goal(self) -> Goal:
        """The goal that it was trained for.

        Raises:
            InputError: it predicts several targets at once.
        """
        found: Goal
        if isinstance(self.estimator, MPSRegressor):
            found = Reals.of_model(self.estimator)
        else:
            found = Labels.of_model(self.estimator)
        return found

    @property
    def names(self) -> list[str] | None:
        """The names of the columns it was trained on; None if they had none."""
        names = getattr(self.estimator, "feature_names_in_", None)
        return None if names is None else [str(name) for name in names]

    @property
    def limits(self) -> npt.NDArray[np.float64] | None:
        """`[2, n]`, the values that the model scales to 0 and 1; None if it takes values unchanged."""
        return self.estimator.feature_range_

    @property
    def scales_itself(self) -> bool:
        """Whether the model scales raw values to [0, 1], as models fitted in Python or on tables do."""
        limits = self.limits
        return limits is not None and not (np.all(limits[0] == 0) and np.all(limits[1] == 1))

    @property
    def encoders(self) -> Sequence[Any]:
        """How it encodes each column of a table; empty if it takes numbers."""
        columns = self.estimator.columns_
        return () if columns is None else columns.encoders

    def for_data(self) -> Self:
        """This model, if it can be used on values from a file.

        Raises:
            InputError: it encodes columns itself, also text and gaps, which are not read from files.
        """
        if self.estimator.columns_ is not None:
            raise InputError(
                f"{self.path} was fitted in Python with features={self.estimator.features!r} and encodes the "
                "columns itself; use model.predict(X) and model.score(X, y) in Python"
            )
        return self

    @cached_property
    def ready(self) -> Estimator:
        """The estimator for inputs that are already in [0, 1], without names; it shares the layer."""
        model = copy.copy(self.estimator)
        model.layer_, model.feature_range_ = self.estimator.layer_, None
        if self.names is not None:
            del model.feature_names_in_
        return model

    def in_unit(self, values: npt.NDArray[Any]) -> Float32[ndarray, "b n"]:
        """Raw values `[b, n]` in the form that the network takes."""
        x = values.astype(np.float64)
        if self.limits is None:
            return x.astype(np.float32)
        told = clipping(x, self.limits)
        if told is not None:
            complain(told, title="note")
        return to_unit(x, self.limits)


def open_model(path: str | os.PathLike[str]) -> SavedModel:
    """The classifier or regressor in a model file, or in the folder of a run.

    Raises:
        InputError: the file is missing or damaged, or holds something else.

    Example:
        >>> open_model("nowhere.safetensors")
        Traceback (most recent call last):
        tnml.errors.InputError: no model file at nowhere.safetensors; check the path
    """
    place = user_path(path)
    if place.is_dir():
        place = place / MODEL
        if not place.exists():
            raise InputError(
                f"{path} holds no {MODEL}; is its run unfinished? `tnml train --resume {path}` continues it"
            )
    model = load_model(place)
    expected = "expected a classifier or a regressor"
    if isinstance(model, Solution):
        raise InputError(
            f"{place} holds the solution of an equation, {expected}; use `tnml pde evaluate {path}`"
        )
    if not isinstance(model, MPSClassifier | MPSRegressor):
        raise InputError(f"{place} holds an {type(model).__name__}, {expected}; use it in Python")
    return SavedModel(path=place, estimator=model, data=dict(model.data_ or {}))


def n_parameters(layer: TensorNetworkLayer) -> int:
    """The number of trainable parameters.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> n_parameters(MPSLayer(2, 3, bond_dim=2))
        20
    """
    return sum(p.numel() for p in layer.parameters())
