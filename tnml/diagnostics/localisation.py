"""Whether weights are spread over all inputs or look at few."""

from jaxtyping import Float
from torch import Tensor


def inverse_participation(weights: Float[Tensor, "... n"]) -> Float[Tensor, "..."]:
    """The inverse participation ratio of weight vectors: 1 / n where all are alike, 1 where one is alone.

    Args:
        weights: vectors on the last axis; a vector of zeros has no ratio and gives NaN.

    Returns:
        `sum w^4 / (sum w^2)^2`.

    Source: Ingrosso and Goldt, Data-driven emergence of convolutional structure in neural networks, arXiv
    2202.00565.

    Example:
        >>> import torch
        >>> inverse_participation(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 2.0, 0.0, 0.0]]))
        tensor([0.2500, 1.0000])
    """
    scaled = weights / weights.abs().amax(-1, keepdim=True)
    squares = scaled.square()
    return squares.square().sum(-1) / squares.sum(-1).square()
