"""The named problems, each a function that makes its record, and the lookup by name."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tnml.errors import choose
from tnml.pde import references
from tnml.pde.checks import check_dim, check_positive
from tnml.pde.option_problems import ArithmeticBasketCall, GeometricBasketCall, HestonCall, times_y
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
    dim = check_dim(dim)
    check_positive(sigma=sigma)
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
        exact=partial(references.black_scholes_barenblatt, sigma=sigma, rate=rate, horizon=horizon),
        options={"dim": dim, "sigma": sigma, "rate": rate, "horizon": horizon},
    )


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
    dim = check_dim(dim)
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


def AllenCahn(  # noqa: N802
    dim: int = 20, *, convention: str = "raissi", horizon: float = 0.3
) -> Problem:
    """The Allen-Cahn equation, `phi = -y + y^3` and `g = 1 / (2 + .4 |x|^2)`, from `x0 = 0`.

    Args:
        dim: space coordinates.
        convention: "raissi" takes `sigma = 1`, "han" takes `sigma = sqrt2`; the literature's values differ by
            it.
        horizon: final time.

    Raises:
        InputError: a value is out of range or the convention is unknown.

    Source:
        Raissi, arXiv 1804.07010, section 4.3; Han, Jentzen, E, arXiv 1707.02568.

    Example:
        >>> [round(AllenCahn(20, convention=name).true_value().value, 7) for name in ("raissi", "han")]
        [0.3086985, 0.2063548]
    """
    dim = check_dim(dim)
    check_positive(horizon=horizon)
    sigma2 = choose("convention", convention, {"raissi": 1.0, "han": 2.0})
    return Problem(
        name="allen-cahn",
        dim=dim,
        horizon=horizon,
        x0=0.0,
        terminal=_bump,
        terminal_gradient=_bump_gradient,
        diffusion=math.sqrt(sigma2),
        driver_value=_double_well,
        exact=partial(references.allen_cahn, sigma2=sigma2, horizon=horizon),
        smoothed_terminal=partial(_smoothed_bump, sigma2=sigma2, horizon=horizon),
        options={"dim": dim, "convention": convention, "horizon": horizon},
    )


def HeatEquation(  # noqa: N802
    dim: int = 100, *, sigma: float = 2**0.5, horizon: float = 1.0
) -> Problem:
    """The heat equation `u_t = -sigma^2 / 2 Laplace(u)` with `g = |x|^2`, from `x0 = 0`.

    The solution is `|x|^2 + d sigma^2 (T - t)`: the simplest check of a method.

    Args:
        dim: space coordinates.
        sigma: diffusion coefficient; sqrt2 makes the factor before the Laplacian 1.
        horizon: final time.

    Raises:
        InputError: a value is out of range.

    Example:
        >>> round(HeatEquation(100).true_value().value, 9)
        200.0
    """
    dim = check_dim(dim)
    check_positive(sigma=sigma)
    return Problem(
        name="heat",
        dim=dim,
        horizon=horizon,
        x0=0.0,
        terminal=_square,
        terminal_gradient=_twice,
        diffusion=float(sigma),
        exact=partial(references.heat_equation, sigma=sigma, horizon=horizon),
        options={"dim": dim, "sigma": sigma, "horizon": horizon},
    )


PROBLEMS: Mapping[str, Callable[..., Problem]] = MappingProxyType(
    {
        "bsb": BlackScholesBarenblatt,
        "hjb": HamiltonJacobiBellman,
        "allen-cahn": AllenCahn,
        "heston": HestonCall,
        "geometric-basket": GeometricBasketCall,
        "arithmetic-basket": ArithmeticBasketCall,
        "heat": HeatEquation,
    }
)


def problem(name: str, **options: Any) -> Problem:
    """The named problem, made with these options.

    Args:
        name: a key of `PROBLEMS`.
        options: what its maker takes; the makers' docstrings say what.

    Raises:
        InputError: the name or an option is unknown (the text gives the nearest known ones), or a value is
            out of range.

    Example:
        >>> problem("hjb", dim=20).dim
        20
        >>> problem("hbj")
        Traceback (most recent call last):
        tnml.errors.InputError: unknown problem 'hbj'; did you mean 'hjb'? Choose from: bsb, hjb, ...
    """
    maker = choose("problem", name, PROBLEMS)
    known = inspect.signature(maker).parameters
    for option in options:
        choose(f"option of problem {name!r}", option, known)
    return maker(**options)


def _square(x: Tensor) -> Tensor:
    return x.square().sum(1, keepdim=True)


def _twice(x: Tensor) -> Tensor:
    return 2 * x


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


def _bump(x: Tensor) -> Tensor:
    return 1 / (2 + 0.4 * _square(x))


def _bump_gradient(x: Tensor) -> Tensor:
    return -0.8 * x * _bump(x).square()


def _double_well(t: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return y**3 - y


def _smoothed_bump(t: Tensor, x: Tensor, *, sigma2: float, horizon: float) -> Tensor:
    return 1 / (2 + 0.4 * (_square(x) + x.shape[1] * sigma2 * (horizon - t)))
