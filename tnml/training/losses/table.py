"""The one table of losses, read by the loop, replicas, sweeps, estimators and the command line."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from tnml.errors import InputError, choose
from tnml.training.losses.base import Loss
from tnml.training.losses.cross_entropy import CrossEntropy
from tnml.training.losses.focal import Focal
from tnml.training.losses.generalized import GeneralizedCrossEntropy
from tnml.training.losses.huber import Huber
from tnml.training.losses.likelihood import NegativeLogLikelihood
from tnml.training.losses.quantile import Quantile
from tnml.training.losses.sparse_noise import SparseNoise
from tnml.training.losses.squared_error import LabelSquaredError, SquaredError
from tnml.training.losses.symmetric import SymmetricCrossEntropy
from tnml.training.losses.transition import BackwardCorrection, ForwardCorrection

LossSpec = str | Mapping[str, Any]
"""A name of `LOSSES`, or a mapping with the name and options, such as `{"name": "huber", "delta": 0.5}`."""

LOSSES: dict[str, Mapping[str, Callable[..., Loss]]] = {
    "cross-entropy": {"classification": CrossEntropy},
    "mse": {"classification": LabelSquaredError, "regression": SquaredError},
    "focal": {"classification": Focal},
    "gce": {"classification": GeneralizedCrossEntropy},
    "sce": {"classification": SymmetricCrossEntropy},
    "forward": {"classification": ForwardCorrection},
    "backward": {"classification": BackwardCorrection},
    "sop": {"classification": SparseNoise},
    "huber": {"regression": Huber},
    "quantile": {"regression": Quantile},
    "nll": {"density": NegativeLogLikelihood},
}
"""Name of a loss -> name of a task -> the loss's class. Add a row for a loss of your own."""


def loss_of(spec: LossSpec, task: str, *, label_smoothing: float = 0.0) -> Loss:
    """The loss that `spec` names, for a task.

    Args:
        spec: see `LossSpec`.
        task: "classification", "regression" or "density".
        label_smoothing: of the cross-entropy.

    Raises:
        InputError: the loss or an option is unknown or out of range, or the loss is not one of this task.

    Example:
        >>> loss_of({"name": "huber", "delta": 0.5}, "regression")
        Huber(delta=0.5)
        >>> loss_of("cross-entropy", "regression")
        Traceback (most recent call last):
        tnml.errors.InputError: loss='cross-entropy' is for classification, not for regression; choose ...
    """
    name, options = _parts(spec)
    row = choose("loss", name, LOSSES)
    if task not in row:
        fitting = ", ".join(other for other, tasks in LOSSES.items() if task in tasks)
        raise InputError(f"loss={name!r} is for {' and '.join(row)}, not for {task}; choose from {fitting}")
    if label_smoothing:
        if row[task] is not CrossEntropy:
            raise InputError(
                f"label_smoothing goes with loss='cross-entropy', got loss={name!r}; set it to 0"
            )
        options = {"smoothing": label_smoothing, **options}
    for option in options:
        choose(f"option of loss '{name}'", option, inspect.signature(row[task]).parameters)
    return row[task](**options)


def check_loss(spec: object) -> None:
    """Raises unless `spec` names a loss, whatever the task.

    Raises:
        InputError: it is neither the name of a loss nor a mapping with one.

    Example:
        >>> check_loss("mse")
    """
    choose("loss", _parts(spec)[0], LOSSES)


def loss_record(spec: LossSpec) -> str | dict[str, Any]:
    """The loss as text or a plain dictionary, for files.

    Example:
        >>> loss_record({"name": "huber", "delta": 0.5})
        {'name': 'huber', 'delta': 0.5}
    """
    return spec if isinstance(spec, str) else dict(spec)


def _parts(spec: object) -> tuple[str, dict[str, Any]]:
    """Name and options."""
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and isinstance(spec.get("name"), str):
        return spec["name"], {key: value for key, value in spec.items() if key != "name"}
    raise InputError(
        f"loss must be a name or a mapping with a 'name', got {spec!r}; names: {', '.join(LOSSES)}"
    )
