"""Quantile loss."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tnml.checks import number
from tnml.training.losses.base import Loss


@dataclass(frozen=True)
class Quantile(Loss):
    """The loss that a quantile of the targets minimises, the pinball loss; its mean over the outputs.

        l = q (y - f)  where y > f,   (1 - q) (f - y)  elsewhere

    Args:
        quantile: q, above 0 and below 1; 0.5 is half the absolute error and gives the median.

    Raises:
        InputError: `quantile` is not between 0 and 1.

    Source: Koenker and Bassett, Regression quantiles, Econometrica 46 (1978).

    Example:
        >>> Quantile(0.9).values(torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]]))
        tensor([0.9000, 0.1000])
    """

    quantile: float = 0.5

    smooth: ClassVar[bool] = False

    def __post_init__(self) -> None:
        number("quantile", self.quantile, above=0.0, below=1.0)

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample."""
        off = y - outputs
        return torch.maximum(self.quantile * off, (self.quantile - 1) * off).mean(-1)
