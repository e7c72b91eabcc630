"""The solvers of an estimator: which parameters and losses each of them uses, and their options."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from tnml.checks import whole
from tnml.errors import InputError, choose
from tnml.training import SweepOptions, TrainOptions
from tnml.training.batches import batch_count
from tnml.training.losses import Loss, loss_of
from tnml.training.tasks import Task

# Parameters that not all solvers use, by the solver they belong to, with the nearest one of another solver.
_OWN: Mapping[str, Mapping[str, str | None]] = {
    "gradient": {
        "preset": None,
        "n_estimators": None,
        "member_orders": None,
        "label_site": None,
        "noise": None,
        "bond_dropout": None,
        "site_dropout": None,
        "epochs": "sweeps",
        "lr": None,
        "optimizer": None,
        "weight_decay": "ridge",
        "decay_to": None,
        "schedule": None,
        "clip_norm": None,
        "average": None,
        "patience": None,
        "monitor": None,
        "monitor_mode": None,
    },
    "dmrg": {"sweeps": "epochs", "max_error": "bond_dim", "ridge": "weight_decay", "proximal": "lr"},
    "als": {},
}
_SHARED: Mapping[str, tuple[str, ...]] = {"als": ("sweeps", "max_error")}  # also used by this solver
SWEPT = ("dmrg", "als")
SMOOTHING = 0.05  # of labels, if no class is rare
_LEAST_EPOCHS, _MOST_EPOCHS, _LEAST_STEPS = 10, 200, 1000
_MOST_SAMPLES = 10_000  # of one half sweep; the next one draws different samples
_LEAST_DAMPING, _MOST_DAMPING = 0.1, 10.0


def unused_by(solver: str) -> set[str]:
    """The parameters that only other solvers use.

    Example:
        >>> "noise" in unused_by("dmrg"), "noise" in unused_by("gradient")
        (True, False)
    """
    every = {name for names in _OWN.values() for name in names}
    return every - {*_OWN[solver], *_SHARED.get(solver, ())}


def check_solver(parameters: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises unless the solver exists and parameters that only other solvers use have their defaults.

    Args:
        parameters: of the estimator, by name.
        defaults: their defaults, by name.

    Raises:
        InputError: the solver is unknown, or a parameter would have no effect.

    Example:
        >>> check_solver({"solver": "dmrg", "epochs": 9}, {"epochs": None})
        Traceback (most recent call last):
        tnml.errors.InputError: solver='dmrg' does not use epochs=9; ... its default (None) or set sweeps
    """
    solver = choose("solver", parameters["solver"], {name: name for name in _OWN})
    used = {*_OWN[solver], *_SHARED.get(solver, ())}
    for other, names in _OWN.items():
        for name, nearest in names.items():
            value, usual = parameters.get(name, defaults.get(name)), defaults.get(name)
            if name not in used and value is not usual and value != usual:
                fits = nearest in used or (
                    nearest is not None and not any(nearest in own for own in _OWN.values())
                )
                instead = f" or set {nearest}" if fits else f", or choose solver={other!r}"
                raise InputError(
                    f"solver={solver!r} does not use {name}={value!r}; leave it at its default ({usual!r})"
                    f"{instead}"
                )


def usual_smoothing(
    codes: Int64[ndarray, " b"], weight: Float64[ndarray, " b"] | None, classes: int
) -> float:
    """Label smoothing that spares rare classes: 0.05 min(1, 2 c p)^3, p the smallest share.

    Smoothing gives each of c classes s / c of every sample, so the many samples of other classes also count
    for a rare class, and its own few samples no longer stand out: if 2 % are positive, a fit with 0.05 finds
    a fifth of them, with 0.001 four fifths, and without smoothing nearly nine tenths. The smoothing stays
    0.05 if the rarest class has at least half of an equal share 1 / c.

    Args:
        codes: for each sample the index of its label among the classes.
        weight: of the samples; None if all count alike.
        classes: the number of classes; those without samples are not taken for the rarest.

    Example:
        >>> usual_smoothing(np.array([0, 1]), None, 2)
        0.05
        >>> round(usual_smoothing(np.repeat([0, 1], [90, 10]), None, 2), 9)
        0.0032
    """
    totals = np.bincount(codes, weights=weight, minlength=classes)
    rarest = totals[totals > 0].min() / totals.sum()
    return SMOOTHING * min(1.0, 2 * classes * float(rarest)) ** 3


def settled_loss(spec: Any, smoothing: float | None, usual: float) -> tuple[Any, float]:
    """The loss of a classifier and its label smoothing, which only the cross-entropy has.

    Args:
        spec: a name, a mapping or None, see `tnml.training.losses.LossSpec`.
        smoothing: the parameter `label_smoothing`. 0.05 was its default and, like None, says nothing about
            other losses.
        usual: the smoothing that None stands for.

    Raises:
        InputError: the smoothing is given twice.

    Example:
        >>> settled_loss("focal", None, 0.05), settled_loss(None, None, 0.05)
        (('focal', 0.0), (None, 0.05))
    """
    told = smoothing is not None and smoothing != SMOOTHING
    if smoothing is None:
        smoothing = usual
    if spec is None or spec == "cross-entropy":
        return spec, smoothing
    if isinstance(spec, Mapping) and spec.get("name") == "cross-entropy":
        if "smoothing" in spec and told:
            raise InputError(
                f"label_smoothing={smoothing!r} and loss={dict(spec)!r} both give a smoothing; give one"
            )
        return {"smoothing": smoothing, **spec}, 0.0
    return spec, smoothing if told else 0.0


def checked_loss(spec: Any, smoothing: float, task: Task, solver: str) -> Loss:
    """The loss of an estimator.

    Args:
        spec: a name, a mapping or None for the task's own.
        smoothing: of the cross-entropy.
        task: what is learned.
        solver: "gradient", "dmrg" or "als".

    Raises:
        InputError: it is not a loss, not one for this task, or the solver cannot use it.

    Example:
        >>> from tnml.training.tasks import REGRESSION
        >>> checked_loss("quantile", 0.0, REGRESSION, "gradient")
        Quantile(quantile=0.5)
    """
    loss = loss_of(task.default_loss if spec is None else spec, task.name, label_smoothing=smoothing)
    if solver == "als" and task.name != "regression":
        raise InputError("solver='als' is least squares for real targets; choose solver='gradient' or 'dmrg'")
    if solver == "als" and spec not in (None, "mse"):
        raise InputError(
            f"solver='als' solves least squares and has no use for loss={spec!r}; leave the loss out, or "
            "choose another solver"
        )
    if solver == "dmrg":
        try:
            SweepOptions(loss=spec, label_smoothing=smoothing).loss_for(task)
        except InputError as error:
            raise InputError(
                f"solver='dmrg' has no use for loss={spec!r}, which is not convex or has no curvature; "
                "choose solver='gradient' or another loss"
            ) from error
    return loss


def usual_batch(batch_size: Any, samples: int) -> int:
    """Samples of a step: `batch_size`, or a hundredth of the samples, between 32 and 100.

    Example:
        >>> usual_batch(None, 5000)
        50
    """
    return whole("batch_size", min(100, max(32, samples // 100)) if batch_size is None else batch_size, 1)


def train_options(
    parameters: Mapping[str, Any],
    sites: int,
    samples: int,
    *,
    one_pass: bool,
    feature_size: float = 1.0,
    **own: Any,
) -> TrainOptions:
    """The options of the next run on that many samples; numbers left at None are chosen as documented.

    Adam moves a weight by up to lr a step, so a rate of distance / steps lets it go that far whatever
    the size of the data: a lower rate underfits, a higher one fits noise. All sites move at once, hence
    1 / n. Few sites cannot fit much noise, and small steps leave them in poor minima (a product of two among
    three).
    A step of lr in all weights of a site changes its effect on a sample by lr times the sum of |phi_d|.

    Args:
        parameters: of the estimator, by name, as Python numbers.
        sites: of the network.
        samples: to train on.
        one_pass: whether to train for a single epoch.
        feature_size: the mean over samples and sites of the sum of |phi_d|, 1 for features that add up to 1.
        own: further options, which take precedence over these.

    Raises:
        InputError: an option is out of range.

    Example:
        >>> from tnml.estimators.parameters import Parameters
        >>> options = train_options(vars(Parameters()), 64, 50_000, one_pass=False, seed=3)
        >>> options.batch_size, options.epochs, options.lr
        (100, 10, 0.0004)
    """
    given = dict(parameters)
    epochs, lr = given["epochs"], given["lr"]
    batch = usual_batch(given["batch_size"], samples)
    steps_per_epoch = batch_count(samples, batch)
    if epochs is None:
        epochs = min(_MOST_EPOCHS, max(_LEAST_EPOCHS, math.ceil(_LEAST_STEPS / steps_per_epoch)))
    epochs = whole("epochs", epochs, 1)
    if lr is None and given["optimizer"] == "lbfgs":
        lr = 1.0
    elif lr is None:
        distance = max(2.0, 200.0 / sites**2)
        lr = max(3e-4, min(0.02, 0.2 / sites, distance / (epochs * steps_per_epoch))) / feature_size
    same = (
        "optimizer",
        "weight_decay",
        "decay_to",
        "clip_norm",
        "average",
        "monitor",
        "monitor_mode",
        "device",
    )
    chosen = {
        "epochs": 1 if one_pass else epochs,
        "batch_size": batch,
        "lr": lr,
        "schedule": "constant" if one_pass else given["schedule"],
        "validation": 0.0 if one_pass else given["validation_fraction"],
        "patience": None if one_pass else given["patience"],
        **{name: given[name] for name in same},
        **own,
    }
    return TrainOptions(**chosen)


def sweep_options(parameters: Mapping[str, Any], samples: int, *, one_pass: bool, **own: Any) -> SweepOptions:
    """The options of the next sweeps on that many samples; numbers left at None are chosen as documented.

    Args:
        parameters: of the estimator, by name, as Python numbers.
        samples: to train on.
        one_pass: whether to make a single sweep.
        own: further options, which take precedence over these; `sweeps`, `tolerance`, `max_error` and
            `proximal` only if the estimator does not set them.

    Raises:
        InputError: an option is out of range.

    Example:
        >>> from tnml.estimators.parameters import Parameters
        >>> sweep_options(vars(Parameters()), 50_000, one_pass=True, sweeps=5).batch_size
        10000
    """
    given = dict(parameters)
    batch = given["batch_size"]
    chosen = {
        "label": "travels",  # from bond dimension 1 it finds much better models than a label that stays
        "max_bond": whole("bond_dim", given["bond_dim"], 1),
        "ridge": given["ridge"],
        "batch_size": min(samples, _MOST_SAMPLES) if batch is None else whole("batch_size", batch, 1),
        "validation": 0.0 if one_pass else given["validation_fraction"],
        "device": given["device"],
        **own,
    }
    if given["sweeps"] is not None:
        chosen |= {"sweeps": whole("sweeps", given["sweeps"], 1), "tolerance": None}
    chosen |= {name: given[name] for name in ("max_error", "proximal") if given[name] is not None}
    return SweepOptions(**chosen | ({"sweeps": 1} if one_pass else {}))


def damping(weights: float, samples: float) -> float:
    """How strongly a regressor damps directions that the samples hardly determine: 10 weights / samples.

    It lies between 0.1 and 10. Products of many features are such directions. They have most of the weights
    of a chain, and with more weights than samples a least squares fit would use them to fit the noise.

    Args:
        weights: the number of weights that a local problem can have.
        samples: to train on; with sample weights, their sum.

    Example:
        >>> damping(8, 400), damping(1024, 400)
        (0.2, 10.0)
    """
    return min(_MOST_DAMPING, max(_LEAST_DAMPING, 10 * weights / samples))
