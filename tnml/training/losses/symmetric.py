"""Symmetric cross-entropy."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tnml.checks import keep_number, number
from tnml.training.losses.base import Loss


@dataclass(frozen=True)
class SymmetricCrossEntropy(Loss):
    """Cross-entropy and the cross-entropy with label and prediction exchanged, in which log 0 is a number.

        l = - alpha log p_y - beta floor (1 - p_y)

    Args:
        alpha: weight of the cross-entropy.
        beta: weight of the exchanged one, which wrong labels pull at less.
        floor: what log 0 counts as; negative.

    Raises:
        InputError: a weight is negative, or `floor` is not.

    Source: Wang et al., Symmetric cross entropy for robust learning with noisy labels, arXiv 1908.06112,
    eq. 7 and section 3.2.

    Example:
        >>> SymmetricCrossEntropy(alpha=0.0).values(torch.zeros(1, 2), torch.tensor([0]))
        tensor([2.])
    """

    alpha: float = 0.1
    beta: float = 1.0
    floor: float = -4.0

    for_labels: ClassVar[bool] = True
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        keep_number(self, "alpha", "beta", least=0.0)
        number("floor", self.floor, below=0.0)

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample; of target probabilities the mean over the classes they give."""
        logs = outputs.log_softmax(-1)
        every = self.beta * self.floor * torch.expm1(logs) - self.alpha * logs
        if y.is_floating_point():
            return (y * every).sum(-1)
        return every.gather(-1, y.unsqueeze(-1)).squeeze(-1)

    def targets(self, y: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """One-hot labels `[b, c]`."""
        return one_hot(y, outputs).to(dtype)
