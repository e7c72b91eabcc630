"""Negative log-likelihood."""

from dataclasses import dataclass

from torch import Tensor

from tnml.training.losses.base import Loss


@dataclass(frozen=True)
class NegativeLogLikelihood(Loss):
    """Minus the log-likelihood that a density model gives as its one output; in nats. There are no targets.

    Example:
        >>> import torch
        >>> NegativeLogLikelihood().values(torch.tensor([[-2.0]]), torch.zeros(1, 0))
        tensor([2.])
    """

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample."""
        del y
        return -outputs.squeeze(-1)
