"""`tnml train`: data, layer, training, model file, summary."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tnml.cli.console import complain, facts, rank, say
from tnml.cli.options import RunOptions
from tnml.cli.request import Request
from tnml.cli.runs import MODEL, discard_unused, open_folder
from tnml.cli.saved import n_parameters, read_data
from tnml.data import Dataset
from tnml.errors import InputError
from tnml.estimators import MPSClassifier
from tnml.nn import MPSLayer
from tnml.training import ProgressReporter, TrainingInterrupted, train_classifier

INTERRUPTED = 130


def run(request: Request) -> int:
    """The exit code of `tnml train`, asked for what `request.read_request` read.

    Raises:
        InputError: something asked for cannot be used.
    """
    options = request.options
    train, test = (_read(options, split) for split in ("train", "test"))
    classes = _classes(train)
    targets = [_indices(part, classes) for part in (train, test)]
    sites = train.x.shape[1]
    layer = MPSLayer(
        sites, len(classes), **vars(options.model), shape=train.image_shape, seed=options.train.seed
    )
    if layer.features.identity is None:  # its starting path has to be fitted to samples
        layer.rescale_(torch.from_numpy(train.x[:: max(1, len(train) // 500)]).to(layer.weight.dtype))
    main = rank() == 0
    folder = request.resume or open_folder(options, request.out, claim=main)
    say(_opening(train, test, classes, layer, folder))
    try:
        result = train_classifier(
            layer,
            train.x,
            targets[0],
            options.train,
            x_test=test.x,
            y_test=targets[1],
            image_shape=train.image_shape,
            run_dir=folder,
            resume=request.resume is not None,
            progress=ProgressReporter(),
        )
    except TrainingInterrupted:
        if main:
            complain(f"stopped; continue with `tnml train --resume {quote(str(folder))}`", title="tnml")
        return INTERRUPTED
    except InputError:
        if main and request.resume is None:
            discard_unused(folder)
        raise
    results = {"test accuracy": result.test["accuracy"], "seconds": result.seconds}
    if main:
        _keep(folder / MODEL, layer, classes, result.history, _data_record(options, train, results))
    say(_summary(options, layer, folder, results))
    return 0


def _keep(
    path: Path,
    layer: MPSLayer,
    classes: npt.NDArray[np.generic],
    history: Sequence[dict[str, float]],
    data: dict[str, Any],
) -> None:
    """Writes the model file."""
    shape = data["image_shape"]
    MPSClassifier.from_layer(layer, classes, image_shape=shape, history=history, data=data).save(path)


def _read(options: RunOptions, split: str) -> Dataset:
    data = options.data
    return read_data(
        options.dataset,
        split=split,
        pool=data.pool,
        resize=data.resize,
        scale=data.scale,
        download=data.download,
        option="--data.scale",
    )


def _classes(train: Dataset) -> npt.NDArray[np.generic]:
    """The labels there are, sorted."""
    if train.y.dtype.kind not in "biuU":
        raise InputError(
            f"{train.name}: expected class labels (whole numbers, booleans or text), "
            f"got y of {train.y.dtype}; for real targets use tnml.MPSRegressor in Python"
        )
    classes = np.unique(train.y)
    if len(classes) < 2:
        raise InputError(
            f"{train.name}: expected two classes or more, got only {classes[0]}; add samples of another"
        )
    return classes


def _indices(dataset: Dataset, classes: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """The labels as positions in `classes`."""
    strange = np.setdiff1d(dataset.y, classes)
    if len(strange):
        raise InputError(
            f"{dataset.name} {dataset.split} holds the label {strange[0]}, which no training sample has; "
            "drop those samples or train on some"
        )
    return np.searchsorted(classes, dataset.y).astype(np.int64)


def _opening(
    train: Dataset,
    test: Dataset,
    classes: npt.NDArray[np.generic],
    layer: MPSLayer,
    folder: Path,
) -> str:
    """What will happen, before it does."""
    sites = f"{train.x.shape[1]} sites"
    if train.image_shape is not None:
        sites += f" ({train.image_shape[0]} x {train.image_shape[1]})"
    return facts(
        [
            (
                "data",
                f"{train.name}, {len(train)} to train, {len(test)} to test, {sites}, {len(classes)} classes",
            ),
            ("model", f"MPS of bond dimension {max(layer.bond_dims)}, {n_parameters(layer)} parameters"),
            ("run", f"{folder} (Ctrl-C stops it, --resume continues it)"),
        ]
    )


def _data_record(options: RunOptions, train: Dataset, results: dict[str, float]) -> dict[str, Any]:
    """What a reader of the model file has to know to prepare data in the same way."""
    data = options.data
    original = train.image_shape
    if data.pool != 1 or data.resize is not None:
        plain = replace(options, data=replace(data, pool=1, resize=None))
        original = _read(plain, "test").image_shape
    return {
        "name": options.dataset,
        "pool": data.pool,
        "resize": data.resize,
        "scale": data.scale,
        "image_shape": train.image_shape,
        "original_shape": original,
        "provenance": train.provenance,
        "results": results,
    }


def _summary(options: RunOptions, layer: MPSLayer, folder: Path, results: dict[str, float]) -> str:
    model = folder / MODEL
    lines = facts(
        [
            ("test accuracy", f"{results['test accuracy']:.4f}"),
            ("parameters", n_parameters(layer)),
            ("seconds", f"{results['seconds']:.1f}"),
            ("model", model),
        ]
    )
    words = f"{quote(str(model))} {quote(options.dataset)}"
    return f"\n{lines}\n\nnext: tnml evaluate {words} --figure confusion.png"
