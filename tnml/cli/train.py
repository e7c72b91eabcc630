"""`tnml train`: data, layer, training, model file, summary."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from tnml.cli.console import complain, facts, rank, say
from tnml.cli.options import NOT_SWEPT, ModelOptions, RunOptions
from tnml.cli.request import Request
from tnml.cli.runs import MODEL, discard_unused, open_folder, remove_leftovers
from tnml.cli.saved import n_parameters, read_data
from tnml.data import Dataset
from tnml.errors import InputError
from tnml.estimators import MPSClassifier
from tnml.nn import MPSLayer, TensorNetworkLayer, make_layer
from tnml.nn.networks import check_sweeps
from tnml.training import ProgressReporter, SweepResult, TrainResult, sweep_classifier, train_classifier
from tnml.training.presets import preset

INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """What a run is about: the data, the layer, and what the model file will say about the data."""

    train: Dataset
    test: Dataset
    classes: npt.NDArray[np.generic]
    targets: list[npt.NDArray[np.int64]]  # of both, as positions in `classes`
    layer: TensorNetworkLayer
    record: dict[str, Any]


def run(request: Request) -> int:
    """The exit code of `tnml train`, asked for what `request.read_request` read.

    Raises:
        InputError: something asked for cannot be used.
    """
    options, main, folder = request.options, rank() == 0, request.resume
    if options.swept and "TORCHELASTIC_RUN_ID" in os.environ:
        raise InputError("sweeps run in one process; start them without torchrun, or with --solver gradient")
    try:
        job = _prepared(options)
        if folder is None:
            folder = open_folder(options, request.out, claim=main)
        elif main:
            remove_leftovers(folder)
        say(_opening(job, options, folder))
        results = _trained(job, options, folder, resume=request.resume is not None)
    except KeyboardInterrupt:  # in the loop, which has saved then, or anywhere around it
        if folder is None:
            raise
        if main:
            complain(f"stopped; continue with `tnml train --resume {quote(str(folder))}`", title="tnml")
        return INTERRUPTED
    say(_summary(options, job.layer, folder, results))
    return 0


def _prepared(options: RunOptions) -> _Job:
    """Reads the data and makes the layer."""
    train, test = (_read(options, split) for split in ("train", "test"))
    classes = _classes(train)
    targets = [_indices(part, classes) for part in (train, test)]
    layer = _layer(options, train, len(classes))
    if layer.features.identity is None:  # its starting path has to be fitted to samples
        layer.rescale_(torch.from_numpy(train.x[:: max(1, len(train) // 500)]).to(layer.dtype))
    record = _data_record(options, train)
    return _Job(train=train, test=test, classes=classes, targets=targets, layer=layer, record=record)


def _layer(options: RunOptions, train: Dataset, outputs: int) -> TensorNetworkLayer:
    """A new layer for the training data."""
    model, seed = dict(vars(options.model)), options.train.seed
    usual = {**vars(ModelOptions()), **preset(options.dataset, options.preset).model, "seed": seed}
    if options.swept:
        check_sweeps(options.model.network, "--solver dmrg")
        model = {name: value for name, value in model.items() if name not in NOT_SWEPT}
        start = options.sweep.starting_bond
        model |= {"bond_dim": start, "noise": 0.0 if start == 1 else None}
    return make_layer(
        model.pop("network"),
        train.x.shape[1],
        outputs,
        usual=usual,
        **model,
        shape=train.image_shape,
        seed=seed,
    )


def _trained(job: _Job, options: RunOptions, folder: Path, *, resume: bool) -> dict[str, float]:
    """Trains, measures, writes the model file; gives the results."""
    main = rank() == 0
    given: dict[str, Any] = {
        "x_test": job.test.x,
        "y_test": job.targets[1],
        "image_shape": job.train.image_shape,
        "run_dir": folder,
        "resume": resume,
        "progress": ProgressReporter(unit="sweep" if options.swept else "epoch"),
    }
    samples = job.train.x, job.targets[0]
    result: TrainResult | SweepResult
    try:
        if options.swept:
            result = sweep_classifier(cast(MPSLayer, job.layer), *samples, options.sweep, **given)
        else:
            result = train_classifier(job.layer, *samples, options.train, **given)
    except InputError:
        if main and not resume:
            discard_unused(folder)
        raise
    results = {"test accuracy": result.test["accuracy"], "seconds": result.seconds}
    if main:
        data = {**job.record, "results": results}
        _keep(folder / MODEL, job.layer, job.classes, result.history, data)
    return results


def _keep(
    path: Path,
    layer: TensorNetworkLayer,
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


def _opening(job: _Job, options: RunOptions, folder: Path) -> str:
    """What will happen, before it does."""
    train, test, classes, layer = job.train, job.test, job.classes, job.layer
    sites = f"{train.x.shape[1]} sites"
    if train.image_shape is not None:
        sites += f" ({train.image_shape[0]} x {train.image_shape[1]})"
    model = (
        f"{layer.network.upper()} of bond dimension {max(layer.bond_dims)}, {n_parameters(layer)} parameters"
    )
    if options.swept:
        limits = options.sweep.max_bond
        most = limits if isinstance(limits, int) else max(limits)
        start, sweeps = options.sweep.starting_bond, options.sweep.sweeps
        model = f"MPS whose bonds grow from {start}, at most to {most}, in {sweeps} sweeps"
    return facts(
        [
            (
                "data",
                f"{train.name}, {len(train)} to train, {len(test)} to test, {sites}, {len(classes)} classes",
            ),
            ("model", model),
            ("run", f"{folder} (Ctrl-C stops it, --resume continues it)"),
        ]
    )


def _data_record(options: RunOptions, train: Dataset) -> dict[str, Any]:
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
    }


def _summary(options: RunOptions, layer: TensorNetworkLayer, folder: Path, results: dict[str, float]) -> str:
    model = folder / MODEL
    pairs: list[tuple[str, object]] = [
        ("test accuracy", f"{results['test accuracy']:.4f}"),
        ("parameters", n_parameters(layer)),
        ("seconds", f"{results['seconds']:.1f}"),
        ("model", model),
    ]
    if options.swept:
        pairs.insert(1, ("largest bond", max(layer.bond_dims)))
    lines = facts(pairs)
    words = f"{quote(str(model))} {quote(options.dataset)}"
    return f"\n{lines}\n\nnext: tnml evaluate {words} --figure confusion.png"
