"""True values of the named problems: closed forms and integrals at any (t, x), in float64."""

import torch
from jaxtyping import Float
from numpy.polynomial.legendre import leggauss
from torch import Tensor

_NODES = 256  # Gauss-Legendre nodes of the half line; 200 give twelve digits up to d = 250


def black_scholes_barenblatt(
    t: Float[Tensor, "m 1"],
    x: Float[Tensor, "m d"],
    *,
    sigma: float = 0.4,
    rate: float = 0.05,
    horizon: float = 1.0,
) -> Float[Tensor, "m 1"]:
    """`exp((rate + sigma^2)(T - t)) |x|^2`, the solution with the terminal value `|x|^2`.

    Example:
        >>> x = torch.tensor([[1.0, 0.5] * 5], dtype=torch.float64)
        >>> float(black_scholes_barenblatt(torch.zeros(1, 1), x))
        7.7104878747...
    """
    t, x = t.double(), x.double()
    return torch.exp((rate + sigma**2) * (horizon - t)) * x.square().sum(1, keepdim=True)


def half_line(nodes: int = _NODES) -> tuple[Tensor, Tensor]:
    """Nodes s and weights of integrals over (0, inf): Gauss-Legendre in v with `s = v / (1 - v)`.

    Example:
        >>> s, weights = half_line()
        >>> float((weights * torch.exp(-s)).sum())
        1.0000000000...
    """
    points, weights = (torch.from_numpy(part) for part in leggauss(nodes))
    v = (points + 1) / 2
    return v / (1 - v), weights / 2 / (1 - v).square()


def hamilton_jacobi_bellman(
    t: Float[Tensor, "m 1"], x: Float[Tensor, "m d"], *, horizon: float = 1.0
) -> Float[Tensor, "m 1"]:
    """The solution with `phi = |z|^2`, `sigma = sqrt2` and the terminal value `ln(.5 (1 + |x|^2))`.

    By the transform of Cole and Hopf, `u = -ln E[2 / (1 + |X_T|^2)]`; the fraction is the integral of
    `2 exp(-s (1 + |X_T|^2))` over s > 0, whose mean over the Gaussian X_T is known. What is left is one
    integral over s. Its scale falls with `2 d (T - t) + |x|^2`, so s is measured in it.

    Example:
        >>> float(hamilton_jacobi_bellman(torch.zeros(1, 1), torch.zeros(1, 100)))
        4.5901617246...
    """
    t, x = t.double(), x.double()
    spread, square = 4 * (horizon - t), x.square().sum(1, keepdim=True)
    d = x.shape[1]
    scale = 20 / (1 + d * spread / 2 + square)
    s, weights = (part.to(x.device) for part in half_line())
    s = scale.detach() * s
    growth = 1 + s * spread
    exponent = -s - d / 2 * torch.log(growth) - s * square / growth
    return -torch.log(2 * scale.detach() * (weights * torch.exp(exponent)).sum(1, keepdim=True))
