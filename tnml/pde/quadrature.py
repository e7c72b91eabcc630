"""One rule for integrals over the half line."""

import functools

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

_legendre = functools.cache(leggauss)


def half_line(nodes: int = 256) -> tuple[Tensor, Tensor]:
    """Nodes s and weights of integrals over (0, inf): Gauss-Legendre in v with `s = v / (1 - v)`.

    Half of the nodes lie below 1, so scale s to where the integrand is.

    Example:
        >>> s, weights = half_line()
        >>> float((weights * torch.exp(-s)).sum())
        1.0000000000...
    """
    points, weights = (torch.from_numpy(part) for part in _legendre(nodes))
    v = (points + 1) / 2
    return v / (1 - v), weights / 2 / (1 - v).square()
