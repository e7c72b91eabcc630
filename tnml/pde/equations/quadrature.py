"""Rules for integrals over the half line."""

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.quadrature import gauss_legendre


def half_line(nodes: int = 256) -> tuple[Tensor, Tensor]:
    """Nodes s and weights of integrals over (0, inf): Gauss-Legendre in v with `s = v / (1 - v)`.

    Half of the nodes lie below 1, so scale s to where the integrand is.

    Example:
        >>> s, weights = half_line()
        >>> round(float((weights * torch.exp(-s)).sum()), 9)
        1.0
    """
    points, weights = (torch.from_numpy(part) for part in gauss_legendre(nodes))
    v = (points + 1) / 2
    return v / (1 - v), weights / 2 / (1 - v).square()


def stretched(
    scale: Float[Tensor, "m 1"], end: Float[Tensor, "m 1"], nodes: int
) -> tuple[Float[Tensor, "m n"], Float[Tensor, "m n"]]:
    """Nodes r and weights of integrals over (0, end): Gauss-Legendre in q with `r = scale sinh(q)`.

    The nodes are even up to `scale` and grow as powers beyond, for integrands with a far tail.

    Args:
        scale: up to where the integrand varies most; float64.
        end: where it has ended.
        nodes: of the rule.

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> r, weights = stretched(one, 1e4 * one, 64)
        >>> float((weights / (1 + r) ** 2).sum())
        0.99990000999...
    """
    points, weights = (torch.from_numpy(part).to(end.device) for part in gauss_legendre(nodes))
    most = torch.asinh(end / scale)
    q = (points + 1) / 2 * most
    return scale * torch.sinh(q), weights / 2 * most * scale * torch.cosh(q)
