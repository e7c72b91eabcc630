"""`tnml train`: data, layer, training, model file, summary."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy.typing as npt
import torch

from tnml.cli.console import complain, facts, rank, say
from tnml.cli.goals import GOALS, Goal, shown
from tnml.cli.options import NOT_SWEPT, ModelOptions, RunOptions
from tnml.cli.reading import read_part, read_parts
from tnml.cli.request import Request
from tnml.cli.runs import MODEL, discard_unused, open_folder, remove_leftovers
from tnml.cli.saved import n_parameters
from tnml.data import Dataset
from tnml.diagnostics.callbacks import RunFacts, callbacks_of
from tnml.errors import InputError
from tnml.loop.protocols import Callback
from tnml.nn import TensorNetworkLayer, make_layer
from tnml.nn.networks import check_sweeps
from tnml.training import ProgressReporter
from tnml.training.presets import preset

INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """The parts of a run, and what the model file will say about the data."""

    train: Dataset
    test: Dataset
    goal: Goal
    targets: tuple[npt.NDArray[Any], npt.NDArray[Any]]  # of both parts, in the form that layers learn
    layer: TensorNetworkLayer
    callbacks: Sequence[Callback]
    record: dict[str, Any]


def run(request: Request) -> int:
    """The exit code of `tnml train` for a request from `request.read_request`.

    Raises:
        InputError: an option is invalid.
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
    except KeyboardInterrupt:  # in the loop, which has then saved a checkpoint, or outside it
        if folder is None:
            raise
        if main:
            complain(f"stopped; continue with `tnml train --resume {quote(str(folder))}`", title="tnml")
        return INTERRUPTED
    say(_summary(options, job, folder, results))
    return 0


def _prepared(options: RunOptions) -> _Job:
    """Reads the data and makes the layer."""
    kind = GOALS[options.task]
    train, test = read_parts(options, real_targets=kind.real_targets)
    goal: Goal = kind.of_data(train)
    targets = goal.targets(train), goal.targets(test)
    layer = _layer(options, train, goal.outputs)
    if layer.features.path(layer.n_sites) is None:  # its initial path must be fitted to samples
        layer.rescale_(torch.from_numpy(train.x[:: max(1, len(train) // 500)]).to(layer.dtype))
    measured = RunFacts(
        x_train=torch.from_numpy(train.x),
        x_test=torch.from_numpy(test.x),
        outputs=goal.outputs,
        task=options.task,
        solver=options.solver,
        seed=options.train.seed,
    )
    return _Job(
        train=train,
        test=test,
        goal=goal,
        targets=targets,
        layer=layer,
        callbacks=callbacks_of(options.callbacks, measured),
        record=_data_record(options, train),
    )


def _layer(options: RunOptions, train: Dataset, outputs: int) -> TensorNetworkLayer:
    """A new layer for the training data."""
    model, seed = dict(vars(options.model)), options.train.seed
    recipe = preset(options.dataset, options.preset, options.task)
    usual = {**vars(ModelOptions()), **recipe.model, "seed": seed}
    spec = options.model.spec
    if options.swept:
        check_sweeps(spec, "--solver dmrg")
        model = {name: value for name, value in model.items() if name not in NOT_SWEPT}
        start = options.sweep.starting_bond
        model |= {"bond_dim": start, "noise": 0.0 if start == 1 else None}
    for name in ("network", "options"):  # they are in the spec
        del model[name]
    return make_layer(
        spec,
        train.x.shape[1],
        outputs,
        usual=usual,
        **model,
        shape=train.image_shape,
        seed=seed,
    )


def _trained(job: _Job, options: RunOptions, folder: Path, *, resume: bool) -> dict[str, float]:
    """Trains, measures and writes the model file; returns the results."""
    main = rank() == 0
    try:
        result = job.goal.train(
            job.layer,
            job.train.x,
            job.targets[0],
            options.training,
            job.train.image_shape,
            x_test=job.test.x,
            y_test=job.targets[1],
            run_dir=folder,
            resume=resume,
            progress=ProgressReporter(unit="sweep" if options.swept else "epoch"),
            callbacks=job.callbacks,
        )
    except InputError:
        if main and not resume:
            discard_unused(folder)
        raise
    measured = job.goal.tested(result, job.layer, job.test)
    results = {**{f"test {name}": value for name, value in measured.items()}, "seconds": result.seconds}
    if main:
        model = job.goal.estimator(
            job.layer,
            image_shape=job.train.image_shape,
            feature_range=job.train.feature_range,
            feature_names=job.train.feature_names,
            history=result.history,
            data={**job.record, "results": results},
            loss=options.training.loss,
        )
        model.save(folder / MODEL)
    return results


def _opening(job: _Job, options: RunOptions, folder: Path) -> str:
    """A description of the run, shown before it starts."""
    train, test, layer = job.train, job.test, job.layer
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
        model = f"MPS whose bonds grow from {start} to at most {most}, in {sweeps} sweeps"
    return facts(
        [
            (
                "data",
                f"{train.name}, {len(train)} to train, {len(test)} to test, {sites}, {job.goal.about}",
            ),
            ("model", model),
            ("run", f"{folder} (Ctrl-C stops it, --resume continues it)"),
        ]
    )


def _data_record(options: RunOptions, train: Dataset) -> dict[str, Any]:
    """What a reader of the model file needs to prepare data in the same way."""
    data = options.data
    original = train.image_shape
    if data.pool != 1 or data.resize is not None:
        plain = replace(options, data=replace(data, pool=1, resize=None))
        original = read_part(plain, "test", real_targets=False).image_shape
    columns = {"target": options.target, "drop": data.dropped} if train.feature_names is not None else {}
    return {
        "name": options.dataset,
        "pool": data.pool,
        "resize": data.resize,
        "scale": data.scale,
        "image_shape": train.image_shape,
        "original_shape": original,
        **columns,
        "provenance": train.provenance,
    }


def _summary(options: RunOptions, job: _Job, folder: Path, results: dict[str, float]) -> str:
    model = folder / MODEL
    pairs: list[tuple[str, object]] = [
        (name, shown(name, value)) for name, value in results.items() if name != "seconds"
    ]
    if options.swept:
        pairs.append(("largest bond", max(job.layer.bond_dims)))
    pairs += [
        ("parameters", n_parameters(job.layer)),
        ("seconds", f"{results['seconds']:.1f}"),
        ("model", model),
    ]
    words = f"{quote(str(model))} {quote(options.dataset)}"
    return f"\n{facts(pairs)}\n\nnext: tnml evaluate {words} --figure {job.goal.figure}"
