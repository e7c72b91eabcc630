"""What is to be learned: how targets are checked, which loss is usual, what is measured and watched."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tnml.errors import InputError
from tnml.training.inputs import as_tensor, checked_inputs

Array = npt.NDArray[Any] | Tensor

_ANY_LABELS = "tnml.MPSClassifier takes any labels"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of training.

    Args:
        name: what `tnml.training.losses.LOSSES` and error messages call it.
        default_loss: the loss where none is named.
        metrics: what its losses measure beside "loss".
        checked: `checked(name, y, rows, outputs, dtype)`, the targets as a tensor on the CPU with one row
            for each of `rows` inputs; raises `InputError`.
        stratified: whether a held-out part has the same share of every target.
        from_images: whether `max_shift` and `label_smoothing` make sense.

    Example:
        >>> CLASSIFICATION.monitors
        ('val_loss', 'val_accuracy', 'loss', 'accuracy')
    """

    name: str
    default_loss: str
    metrics: tuple[str, ...]
    checked: Callable[[str, Any, int, int, torch.dtype], Tensor]
    stratified: bool = False
    from_images: bool = False

    @property
    def monitors(self) -> tuple[str, ...]:
        """The columns that early stopping can watch, those of the held-out part first."""
        names = ("loss", *self.metrics)
        return (*(f"val_{name}" for name in names), *names)


def labels(name: str, y: Array, rows: int, outputs: int, dtype: torch.dtype) -> Tensor:
    """Labels `[b]`, whole numbers from 0 to `outputs` - 1, as int64; floats of whole value and `[b, 1]`, too.

    Raises:
        InputError: they are something else.

    Example:
        >>> labels("y", np.array([1, 0], np.uint8), 2, 2, torch.float32)
        tensor([1, 0])
    """
    del dtype
    found = y.detach().cpu() if isinstance(y, Tensor) else as_tensor(name, y, _ANY_LABELS)
    if found.dtype.is_complex or (found.dtype.is_floating_point and not torch.equal(found, found.round())):
        raise InputError(f"{name} must be whole numbers, got {found.dtype}; {_ANY_LABELS}")
    if found.shape == (rows, 1):
        found = found[:, 0]
    if found.shape != (rows,):
        inputs = "x" + name.removeprefix("y")
        raise InputError(f"{name} must have shape [{rows}] as {inputs} has, got {list(found.shape)}")
    found = found.to(torch.int64)  # what does not fit into it is negative then, and refused
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= outputs:
        raise InputError(f"{name} must lie in 0..{outputs - 1}, the layer's outputs, got {low}..{high}")
    return found


def real_targets(name: str, y: Array, rows: int, outputs: int, dtype: torch.dtype) -> Tensor:
    """Real targets `[b, c]`; `[b]` becomes `[b, 1]`.

    Raises:
        InputError: they are something else.

    Example:
        >>> real_targets("y", np.ones(3), 3, 1, torch.float32).shape
        torch.Size([3, 1])
    """
    found = checked_inputs(name, y, dtype)
    found = found[:, None] if found.dim() == 1 else found
    if found.shape != (rows, outputs):
        raise InputError(
            f"{name} must be [{rows}, {outputs}] as x and the layer say, got {list(np.shape(y))}"
        )
    return found


def no_targets(name: str, y: None, rows: int, outputs: int, dtype: torch.dtype) -> Tensor:
    """An empty tensor `[b, 0]`: densities have no targets, and their models one output, the log-density.

    Raises:
        InputError: there are targets, or another number of outputs.

    Example:
        >>> no_targets("y", None, 3, 1, torch.float32).shape
        torch.Size([3, 0])
    """
    if y is not None:
        raise InputError(f"a density has no targets, got {name}; leave it out")
    if outputs != 1:
        raise InputError(f"a density model has one output, its log-density, got {outputs}")
    return torch.zeros(rows, 0, dtype=dtype)


CLASSIFICATION = Task(
    name="classification",
    default_loss="cross-entropy",
    metrics=("accuracy",),
    checked=labels,
    stratified=True,
    from_images=True,
)
REGRESSION = Task(name="regression", default_loss="mse", metrics=(), checked=real_targets)
DENSITY = Task(name="density", default_loss="nll", metrics=(), checked=no_targets)

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, REGRESSION, DENSITY)}
