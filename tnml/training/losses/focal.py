"""Focal loss."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tnml.checks import number
from tnml.training.losses.base import Loss


@dataclass(frozen=True)
class Focal(Loss):
    """Cross-entropy in which a sample counts the less the surer the model is of its label.

        l = - (1 - p_y)^gamma log p_y

    Args:
        gamma: how much less; 0 is the cross-entropy.

    Raises:
        InputError: `gamma` is negative.

    Source: Lin et al., Focal loss for dense object detection, arXiv 1708.02002, eq. 4.

    Example:
        >>> Focal(gamma=0.0).values(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor([0.1269])
    """

    gamma: float = 2.0

    for_labels: ClassVar[bool] = True
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        number("gamma", self.gamma, least=0.0)

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample; of target probabilities the mean over the classes they give."""
        logs = outputs.log_softmax(-1)
        # 1 - p as -expm1(log p): exact where p is near 1, and its power has a finite derivative there
        others = (-torch.expm1(logs)).clamp_min(torch.finfo(logs.dtype).tiny)
        every = -(others**self.gamma) * logs
        if y.is_floating_point():
            return (y * every).sum(-1)
        return every.gather(-1, y.unsqueeze(-1)).squeeze(-1)

    def targets(self, y: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """One-hot labels `[b, c]`."""
        return one_hot(y, outputs).to(dtype)
