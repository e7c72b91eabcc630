"""Means of functions of the largest of independent log-normal numbers."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

_EDGES = torch.linspace(-5.5, 5.5, 45, dtype=torch.float64)  # of cells, in deviations around the largest mean
_LEAST = 1e-3  # deviation below which the law is a point, to single precision


def mean_of_function_of_maximum(
    h: Callable[[Tensor], Tensor], log_means: Float[Tensor, "m d"], width: Float[Tensor, "m 1"]
) -> Float[Tensor, "m 1"]:
    """`E[h(max X_i)]` for independent log-normal X with these means of their logarithms and one deviation.

    A sum over cells of the probability that the largest is in the cell, times h at its middle: right to about
    1e-3 of the spread, and exactly h(max) where the deviation vanishes. For the least, negate the means and
    pass h of the reciprocal.

    Args:
        h: of positive numbers, for any shape.
        log_means: of ln X.
        width: deviation of ln X.

    Cost: 45 d values of the normal distribution function at every point.

    Example:
        >>> zero, one = torch.zeros(1, 1), torch.ones(1, 1)
        >>> round(mean_of_function_of_maximum(lambda x: x, zero, 0.2 * one).item(), 3)  # exp(.02)
        1.02
    """
    width = width.clamp_min(_LEAST)
    top = log_means.max(1, keepdim=True).values
    edges = _EDGES.to(log_means)
    away = (log_means - top) / width
    below = torch.special.log_ndtr(edges[None, :, None] - away[:, None, :]).sum(2).exp()
    ends = torch.zeros_like(top), torch.ones_like(top)
    mass = torch.cat([ends[0], below, ends[1]], 1).diff(dim=1)
    middles = torch.cat([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
    values = h(torch.exp(top + width * middles))
    exact = h(torch.exp(top))
    return exact + (mass * (values - exact)).sum(1, keepdim=True)
