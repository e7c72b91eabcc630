"""The named problems, each a function that makes its record, and the lookup by name."""

import math
from functools import partial

import torch
from torch import Tensor

from tnml.errors import InputError
from tnml.pde import references
from tnml.pde.problem import LogNormal, Problem


def BlackScholesBarenblatt(  # noqa: N802 - problems are named like the equations they are
    dim: int = 100, *, sigma: float = 0.4, rate: float = 0.05, horizon: float = 1.0
) -> Problem:
    """The Black-Scholes-Barenblatt equation of Raissi: geometric Brownian motion and `g = |x|^2`.

    `mu = 0`, `sigma(x) = sigma diag(x)`, `phi = rate (y - z . x)`, `x0 = (1, .5, 1, .5, ..)`; the solution is
    `exp((rate + sigma^2)(T - t)) |x|^2`.

    Args:
        dim: space coordinates.
        sigma: volatility of each.
        rate: interest rate.
        horizon: final time.

    Raises:
        InputError: a value is out of range.

    Source:
        Raissi, arXiv 1804.07010, section 4.1.

    Example:
        >>> BlackScholesBarenblatt(10).true_value().value
        7.7104878747...
    """
    _check_positive(sigma=sigma)
    return Problem(
        name="bsb",
        dim=dim,
        horizon=horizon,
        x0=[1.0 if i % 2 == 0 else 0.5 for i in range(dim)],
        terminal=_square,
        terminal_gradient=_twice,
        log_normal=LogNormal(0.0, sigma),
        driver_value=partial(_times_y, rate=rate),
        driver_direction=partial(_times_x, factor=-rate),
        exact=partial(references.black_scholes_barenblatt, sigma=sigma, rate=rate, horizon=horizon),
        options={"dim": dim, "sigma": sigma, "rate": rate, "horizon": horizon},
    )


def HamiltonJacobiBellman(  # noqa: N802
    dim: int = 100, *, horizon: float = 1.0
) -> Problem:
    """The Hamilton-Jacobi-Bellman equation of a controlled Brownian motion, `phi = |z|^2`.

    `mu = 0`, `sigma = sqrt2`, `g = ln(.5 (1 + |x|^2))`, `x0 = 0`. The smoothed terminal value is g at the second
    moment of X_T, `ln(.5 (1 + |x|^2 + 2 d (T - t)))`. The trivial answer is near at high dimension: 2.2e-3 at
    d = 100.

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
    return Problem(
        name="hjb",
        dim=dim,
        horizon=horizon,
        x0=0.0,
        terminal=_log_half_square,
        terminal_gradient=_log_half_square_gradient,
        diffusion=math.sqrt(2),
        driver=_square_of_z,
        exact=partial(references.hamilton_jacobi_bellman, horizon=horizon),
        smoothed_terminal=partial(_smoothed_log, horizon=horizon),
        options={"dim": dim, "horizon": horizon},
    )


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"{name} must be a positive finite number, got {value!r}")


def _square(x: Tensor) -> Tensor:
    return x.square().sum(1, keepdim=True)


def _twice(x: Tensor) -> Tensor:
    return 2 * x


def _times_y(t: Tensor, x: Tensor, y: Tensor, *, rate: float) -> Tensor:
    return rate * y


def _times_x(t: Tensor, x: Tensor, *, factor: float) -> Tensor:
    return factor * x


def _log_half_square(x: Tensor) -> Tensor:
    return torch.log((1 + _square(x)) / 2)


def _log_half_square_gradient(x: Tensor) -> Tensor:
    return 2 * x / (1 + _square(x))


def _square_of_z(t: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return _square(z)


def _smoothed_log(t: Tensor, x: Tensor, *, horizon: float) -> Tensor:
    return torch.log((1 + _square(x) + 2 * x.shape[1] * (horizon - t)) / 2)
