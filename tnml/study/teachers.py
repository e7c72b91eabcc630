"""Regression on synthetic targets, by sweeps or by Adam: the runs behind overfitting curves."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from tnml.data.synthetic import Regression, regression, target
from tnml.data.targets import Target
from tnml.diagnostics import count_parameters
from tnml.errors import choose
from tnml.nn import MPSLayer
from tnml.study.plain_values import check_options
from tnml.training import SweepOptions, TrainOptions, TrainResult, sweep_regressor
from tnml.training.replicas.train import train_replicas, worth_it

_SOLVERS = {"als": "als", "adam": "adam"}
_FEATURES = "legendre"  # where no feature map is known to represent the target
_CURVE = 20  # points of a learning curve, about
_NEEDED = frozenset({"target", "target_options", "n_train", "n_test", "noise", "bond_dim", "seed", "solver"})
_OF = {"als": ("sweeps",), "adam": ("steps", "lr", "batch_size")}
_OPTIONAL = frozenset({"regularisation", "teacher", *(name for names in _OF.values() for name in names)})

Options = Mapping[str, Any]


def run(options: Options, folder: Path) -> dict[str, Any]:
    """One run: a layer of one bond dimension, trained on noisy samples of a target.

    Targets, training samples, test samples and starting weights are those of the run's seed, whatever the
    bond dimension and the solver.

    Args:
        options: "target" and "target_options" (see `tnml.data.synthetic.target`; "teacher" replaces
            the bond dimension among them), "n_train", "n_test",
            "noise" (standard deviation of what is added to the training targets), "bond_dim", "seed",
            "solver"; for "als" (one-site sweeps, least norm where many weights fit) also "sweeps"; for
            "adam" also "steps", "lr" and "batch_size". May be left out: "regularisation" (0), the ridge of
            "als" and the L2 penalty of "adam".
        folder: of the run; nothing is written.

    Raises:
        InputError: an option is unknown or missing, or its value is.
        TrainingDiverged: the loss became NaN or infinite.

    Example:
        >>> options = {"target": "mps", "target_options": {"n_sites": 4}, "n_train": 50, "n_test": 50,
        ...     "noise": 0.0, "bond_dim": 4, "solver": "als", "sweeps": 3, "seed": 0}
        >>> run(options, Path())["test_error"] < 1e-8
        True
    """
    check_options(options, {*_NEEDED, *_OF.get(str(options.get("solver")), ())}, _OPTIONAL)
    if choose("solver", options["solver"], _SOLVERS) == "als":
        return _by_sweeps(options)
    return _by_adam([options])[0]


def run_together(runs: Sequence[Options], folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The same for several runs that differ in their seed: by Adam all at once, where that is quicker.

    Raises:
        InputError: the solver or the target is unknown.
        TrainingDiverged: a loss became NaN or infinite.

    Example:
        >>> options = {"target": "mps", "target_options": {"n_sites": 4}, "n_train": 50, "n_test": 50,
        ...     "noise": 0.0, "bond_dim": 2, "solver": "adam", "steps": 10, "lr": 0.01, "batch_size": 25}
        >>> len(run_together([{**options, "seed": seed} for seed in range(3)], [Path()] * 3))
        3
    """
    first = runs[0]
    if first.get("solver") == "adam":
        check_options(first, {*_NEEDED, *_OF["adam"]}, _OPTIONAL)
        made = target(first["target"], **{**_of_target(first), "seed": first["seed"]})
        if worth_it(_layer(first, made), len(runs), first["batch_size"]):
            return _by_adam(runs)
    return [run(options, folder) for options, folder in zip(runs, folders, strict=True)]


def _by_adam(runs: Sequence[Options]) -> list[dict[str, Any]]:
    first = runs[0]
    data = [_data(options) for options in runs]
    layers = [
        _layer(options, made, dtype="float32") for options, (made, _, _) in zip(runs, data, strict=True)
    ]
    per_epoch = -(-first["n_train"] // first["batch_size"])
    epochs = max(1, round(first["steps"] / per_epoch))
    settings = [
        TrainOptions(
            epochs=epochs,
            lr=options["lr"],
            batch_size=options["batch_size"],
            loss="mse",
            clip_norm=1.0,
            weight_decay=options.get("regularisation", 0.0),
            seed=options["seed"],
            device="cpu",
        )
        for options in runs
    ]
    results = train_replicas(
        layers,
        [train.x.float() for _, train, _ in data],
        [train.y.float() for _, train, _ in data],
        settings,
        task="regression",
        x_test=[test.x.float() for _, _, test in data],
        y_test=[test.clean.float() for _, _, test in data],
        test_every=max(1, epochs // _CURVE),
    )
    found = []
    for options, (made, train, test), layer, each in zip(runs, data, layers, results, strict=True):
        result = cast("TrainResult", each)  # a loss that diverges has ended all of them
        curve = [
            {"epoch": row["epoch"], "train_error": row["loss"], "test_error": row["test_loss"]}
            for row in result.history
            if "test_loss" in row
        ]
        found.append(_record(options, made, layer, train, test, result.seconds, curve))
    return found


def _by_sweeps(options: Options) -> dict[str, Any]:
    made, train, test = _data(options)
    layer = _layer(options, made, dtype="float64", noise=1.0)
    settings = SweepOptions(
        sweeps=options["sweeps"],
        sites=1,
        max_bond=options["bond_dim"],
        max_error=0.0,
        metric="frobenius",
        solver="als",
        loss="mse",
        ridge=options.get("regularisation", 0.0),
        seed=options["seed"],
        device="cpu",
    )
    begin = time.perf_counter()
    result = sweep_regressor(layer, train.x, train.y, settings)
    curve = [{"epoch": row["sweep"], "train_error": row["loss"]} for row in result.history]
    return _record(options, made, layer, train, test, time.perf_counter() - begin, curve)


def _data(options: Options) -> tuple[Target, Regression, Regression]:
    """The target of the run's seed, its training samples and its test samples."""
    seed = options["seed"]
    made = target(options["target"], **{**_of_target(options), "seed": seed})
    train = regression(made, options["n_train"], noise=options["noise"], seed=2 * seed)
    return made, train, regression(made, options["n_test"], seed=2 * seed + 1)


def _of_target(options: Options) -> dict[str, Any]:
    """The target's options; the bond dimension of a teacher may be an option of its own."""
    found = dict(options["target_options"])
    return {**found, "bond_dim": options["teacher"]} if "teacher" in options else found


def _layer(options: Options, made: Target, **settings: Any) -> MPSLayer:
    """The layer takes the inputs as they come: it does not know the order of a permuted target."""
    features = made.features or _FEATURES
    return MPSLayer(
        made.n_sites, 1, bond_dim=options["bond_dim"], features=features, seed=options["seed"], **settings
    )


@torch.no_grad()
def _record(
    options: Options,
    made: Target,
    layer: MPSLayer,
    train: Regression,
    test: Regression,
    seconds: float,
    curve: list[dict[str, Any]],
) -> dict[str, Any]:
    """Errors are mean squared errors over the variance of the target, which is 1."""

    def error(x: torch.Tensor, y: torch.Tensor) -> float:
        return float((layer(x.to(layer.weight.dtype))[:, 0].double() - y).square().mean())

    counts = count_parameters(_layer(options, made))  # sweeps leave the label core a bond of its own
    return {
        "train_error": error(train.x, train.y),
        "test_error": error(test.x, test.clean),
        "error_name": "mean squared error",
        "n_parameters": counts.n_parameters,
        "gauge_free_parameters": counts.gauge_free_parameters,
        "largest_core": counts.largest_core,
        "teacher_bond": made.bond_dim,
        "seconds": seconds,
        "history": curve,
    }
