"""Squared error of real targets, and of one-hot labels."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, one_hot

from tnml.training.losses.base import Loss


@dataclass(frozen=True)
class SquaredError(Loss):
    """The squared error of outputs and real targets, its mean over the outputs.

    Example:
        >>> loss, _ = SquaredError()(torch.nn.Identity(), torch.tensor([[1.0], [3.0]]), torch.ones(2, 1))
        >>> loss
        tensor(2.)
    """

    native: ClassVar[str | None] = "mse"

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample."""
        return (outputs - y).square().mean(-1)

    def mean(self, outputs: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """The mean, by one call of torch where there are no weights."""
        if weight is not None:
            return super().mean(outputs, y, weight)
        return mse_loss(outputs, y) if outputs.dim() == 2 else _mean_square(outputs - y)

    def gradient(self, outputs: Tensor, y: Tensor) -> Tensor:
        """`2 (f - y) / c`."""
        return (outputs - y) * (2 / outputs.shape[-1])

    def curvature(self, outputs: Tensor, y: Tensor, direction: Tensor) -> Tensor:
        """`2 v / c`."""
        del y
        return direction * (2 / outputs.shape[-1])

    def mean_and_gradient(
        self, outputs: Tensor, y: Tensor, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both from one difference."""
        if weight is not None:
            return super().mean_and_gradient(outputs, y, weight)
        off = outputs - y
        return _mean_square(off), off * (2.0 / (off.shape[-2] * off.shape[-1]))


@dataclass(frozen=True)
class LabelSquaredError(Loss):
    """The squared error of outputs and one-hot labels, its mean over the classes.

    Example:
        >>> loss, _ = LabelSquaredError()(torch.nn.Identity(), torch.ones(1, 2), torch.tensor([0]))
        >>> loss
        tensor(0.5000)
    """

    for_labels: ClassVar[bool] = True
    logits: ClassVar[bool] = False

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample."""
        return _SQUARES.values(outputs, _one_hot(y, outputs))

    def mean(self, outputs: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """The mean."""
        return _SQUARES.mean(outputs, _one_hot(y, outputs), weight)

    def gradient(self, outputs: Tensor, y: Tensor) -> Tensor:
        """`2 (f - y) / c`."""
        return _SQUARES.gradient(outputs, _one_hot(y, outputs))

    def curvature(self, outputs: Tensor, y: Tensor, direction: Tensor) -> Tensor:
        """`2 v / c`."""
        return _SQUARES.curvature(outputs, y, direction)

    def mean_and_gradient(
        self, outputs: Tensor, y: Tensor, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both from one difference."""
        return _SQUARES.mean_and_gradient(outputs, _one_hot(y, outputs), weight)

    def targets(self, y: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """One-hot labels `[b, c]`."""
        return one_hot(y, outputs).to(dtype)


_SQUARES = SquaredError()


def _mean_square(off: Tensor) -> Tensor:
    """The means `[...]` of the squares of errors `[..., b, c]`, without a tensor of squares."""
    flat = off.flatten(-2)
    sums: Tensor = torch.linalg.vecdot(flat, flat)
    return sums / flat.shape[-1]


def _one_hot(y: Tensor, outputs: Tensor) -> Tensor:
    """Labels `[..., b]` as `[..., b, c]`; what is that already stays."""
    return y if y.is_floating_point() else one_hot(y, outputs.shape[-1]).to(outputs.dtype)
