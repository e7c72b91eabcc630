"""Generalised cross-entropy."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tnml.checks import number
from tnml.training.losses.base import Loss


@dataclass(frozen=True)
class GeneralizedCrossEntropy(Loss):
    """Between cross-entropy and the probability of a wrong answer, which wrong labels pull at less.

        l = (1 - p_y^q) / q

    Args:
        q: towards 0 it is the cross-entropy, at 1 it is 1 - p_y, half of the mean absolute error.

    Raises:
        InputError: `q` is not in (0, 1].

    Source: Zhang and Sabuncu, Generalized cross entropy loss for training deep neural networks with noisy
    labels, arXiv 1805.07836, eq. 6.

    Example:
        >>> GeneralizedCrossEntropy(q=1.0).values(torch.zeros(1, 2), torch.tensor([0]))
        tensor([0.5000])
    """

    q: float = 0.7

    for_labels: ClassVar[bool] = True
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        number("q", self.q, above=0.0, most=1.0)

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample; of target probabilities the mean over the classes they give."""
        every = -torch.expm1(self.q * outputs.log_softmax(-1)) / self.q
        if y.is_floating_point():
            return (y * every).sum(-1)
        return every.gather(-1, y.unsqueeze(-1)).squeeze(-1)

    def targets(self, y: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """One-hot labels `[b, c]`."""
        return one_hot(y, outputs).to(dtype)
