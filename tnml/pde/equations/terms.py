"""Terms that several equations share."""

import torch
from torch import Tensor


# Stored runs know it by its code, to which the docstring belongs: leave both as they are.
def times_y(t: Tensor, x: Tensor, y: Tensor, *, rate: float) -> Tensor:
    """The driver `rate y`, of discounting.

    Example:
        >>> one = torch.ones(1, 1)
        >>> times_y(one, one, one, rate=0.5)
        tensor([[0.5000]])
    """
    return rate * y


def time_to_go(t: Tensor, horizon: float) -> Tensor:
    """`horizon - t` in float64; 0 after the horizon; float32's 0.3, for example, lies after 0.3.

    Example:
        >>> time_to_go(torch.tensor([[0.25], [2.0]]), 1.0).tolist()
        [[0.75], [0.0]]
    """
    return torch.clamp(horizon - t.double(), min=0)
