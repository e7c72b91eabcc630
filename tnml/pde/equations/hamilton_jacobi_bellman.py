"""The Hamilton-Jacobi-Bellman equation of a controlled Brownian motion."""

import math
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.checks import whole
from tnml.pde.checks import as_number
from tnml.pde.equations.equation import Equation
from tnml.pde.equations.quadrature import half_line
from tnml.pde.equations.terms import time_to_go
from tnml.pde.problem import Problem


def HamiltonJacobiBellman(  # noqa: N802
    dim: int = 100, *, horizon: float = 1.0
) -> Problem:
    """The Hamilton-Jacobi-Bellman equation of a controlled Brownian motion, `phi = |z|^2`.

    `mu = 0`, `sigma = sqrt2`, `g = ln(.5 (1 + |x|^2))`, `x0 = 0`. The smoothed terminal value is g at the
    second moment of X_T, `ln(.5 (1 + |x|^2 + 2 d (T - t)))`. The trivial answer is near at high dimension:
    2.2e-3 at d = 100.

    Args:
        dim: space coordinates.
        horizon: final time.

    Raises:
        InputError: a value is out of range.

    Source:
        Han, Jentzen, E, arXiv 1707.02568; Raissi, arXiv 1804.07010, section 4.2.

    Example:
        >>> HamiltonJacobiBellman(100).true_value().value
        4.5901617246...
    """
    dim, horizon = whole("dim", dim, 1), as_number("horizon", horizon, above=0.0)
    return Problem(
        name="hjb",
        dim=dim,
        horizon=horizon,
        x0=0.0,
        terminal=_log_half_square,
        terminal_gradient=_log_half_square_gradient,
        diffusion=math.sqrt(2),
        driver=_square_of_z,
        exact=partial(hamilton_jacobi_bellman, horizon=horizon),
        smoothed_terminal=partial(_smoothed_log, horizon=horizon),
        options={"dim": dim, "horizon": horizon},
    )


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
    x = x.double()
    spread, square = 4 * time_to_go(t, horizon), x.square().sum(1, keepdim=True)
    d = x.shape[1]
    scale = 20 / (1 + d * spread / 2 + square)
    s, weights = (part.to(x.device) for part in half_line())
    s = scale.detach() * s
    growth = 1 + s * spread
    exponent = -s - d / 2 * torch.log(growth) - s * square / growth
    return -torch.log(2 * scale.detach() * (weights * torch.exp(exponent)).sum(1, keepdim=True))


def _square(x: Tensor) -> Tensor:
    return x.square().sum(1, keepdim=True)


def _log_half_square(x: Tensor) -> Tensor:
    return torch.log((1 + _square(x)) / 2)


def _log_half_square_gradient(x: Tensor) -> Tensor:
    return 2 * x / (1 + _square(x))


def _square_of_z(t: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return _square(z)


def _smoothed_log(t: Tensor, x: Tensor, *, horizon: float) -> Tensor:
    return torch.log((1 + _square(x) + 2 * x.shape[1] * (horizon - t)) / 2)


EQUATION = Equation(problem=HamiltonJacobiBellman, truth=hamilton_jacobi_bellman)
