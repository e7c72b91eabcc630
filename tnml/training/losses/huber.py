"""Huber loss."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from tnml.checks import number
from tnml.training.losses.base import Loss


@dataclass(frozen=True)
class Huber(Loss):
    """Squared for small errors, linear for large ones, so that outliers pull less; its mean over the outputs.

        l = e^2 / 2  where |e| <= delta,   delta (|e| - delta / 2)  beyond

    Args:
        delta: where it becomes linear, in units of the targets (the regressor's have deviation 1).

    Raises:
        InputError: `delta` is not positive.

    Source: Huber, Robust estimation of a location parameter, Ann. Math. Statist. 35 (1964).

    Example:
        >>> Huber().values(torch.tensor([[0.5], [3.0]]), torch.zeros(2, 1))
        tensor([0.1250, 2.5000])
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        number("delta", self.delta, above=0.0)

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample."""
        return huber_loss(outputs, y, reduction="none", delta=self.delta).mean(-1)

    def gradient(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The error, cut off at delta, over c."""
        return (outputs - y).clamp(-self.delta, self.delta) / outputs.shape[-1]

    def curvature(self, outputs: Tensor, y: Tensor, direction: Tensor) -> Tensor:
        """`v / c` where the error is small, else 0."""
        return torch.where((outputs - y).abs() <= self.delta, direction, 0.0) / outputs.shape[-1]
