"""The Black-Scholes-Barenblatt equation."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.checks import whole
from tnml.pde.checks import as_number
from tnml.pde.equations.equation import Equation
from tnml.pde.equations.terms import time_to_go, times_y
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
    dim, rate = whole("dim", dim, 1), as_number("rate", rate)
    sigma, horizon = as_number("sigma", sigma, above=0.0), as_number("horizon", horizon, above=0.0)
    return Problem(
        name="bsb",
        dim=dim,
        horizon=horizon,
        x0=[1.0 if i % 2 == 0 else 0.5 for i in range(dim)],
        terminal=_square,
        terminal_gradient=_twice,
        log_normal=LogNormal(0.0, sigma),
        driver_value=partial(times_y, rate=rate),
        driver_direction=partial(_times_x, factor=-rate),
        exact=partial(black_scholes_barenblatt, sigma=sigma, rate=rate, horizon=horizon),
        options={"dim": dim, "sigma": sigma, "rate": rate, "horizon": horizon},
    )


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
    left, x = time_to_go(t, horizon), x.double()
    return torch.exp((rate + sigma**2) * left) * x.square().sum(1, keepdim=True)


def _square(x: Tensor) -> Tensor:
    return x.square().sum(1, keepdim=True)


def _twice(x: Tensor) -> Tensor:
    return 2 * x


def _times_x(t: Tensor, x: Tensor, *, factor: float) -> Tensor:
    return factor * x


EQUATION = Equation(
    problem=BlackScholesBarenblatt,
    truth=black_scholes_barenblatt,
    recipe={
        "terminal": "multiplicative",
        "relative": True,
        "paths": 8,
        "iterations": 10_000,
        "ema_decay": 0.999,
    },
)
