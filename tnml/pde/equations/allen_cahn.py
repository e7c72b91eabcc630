"""The Allen-Cahn equation."""

import math
from functools import partial

from jaxtyping import Float
from torch import Tensor

from tnml.checks import whole
from tnml.errors import choose
from tnml.pde.checks import as_number
from tnml.pde.equations.equation import Equation
from tnml.pde.equations.radial import radial_solution
from tnml.pde.equations.terms import time_to_go
from tnml.pde.problem import Problem


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
    dim, horizon = whole("dim", dim, 1), as_number("horizon", horizon, above=0.0)
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
        exact=partial(allen_cahn, sigma2=sigma2, horizon=horizon),
        smoothed_terminal=partial(_smoothed_bump, sigma2=sigma2, horizon=horizon),
        options={"dim": dim, "convention": convention, "horizon": horizon},
    )


def allen_cahn(
    t: Float[Tensor, "m 1"], x: Float[Tensor, "m d"], *, sigma2: float = 1.0, horizon: float = 0.3
) -> Float[Tensor, "m 1"]:
    """The solution with `phi = -y + y^3`, `sigma = sqrt(sigma2)` and the terminal value `1 / (2 + .4 |x|^2)`.

    The solution depends on `rho = |x|^2` and the time to go only; it is solved for once per dimension,
    diffusion and horizon, to about ten digits (eight at horizons above 5), and evaluated as a polynomial.

    Args:
        t: times up to the horizon; later ones are taken as the horizon.
        x: points.
        sigma2: squared diffusion coefficient: 1 in Raissi's convention, 2 in that of Han, Jentzen and E.
        horizon: final time, at most 100.

    Raises:
        InputError: the horizon or sigma2 is out of range, or eight digits are out of reach.

    Cost: a second for the solution, some more at horizons above 10; then some hundred multiplications per
    point.

    Example:
        >>> import torch
        >>> round(float(allen_cahn(torch.zeros(1, 1), torch.zeros(1, 20))), 7)
        0.3086985
    """
    x = x.double()
    rho = x.square().sum(1, keepdim=True)
    return radial_solution(
        time_to_go(t, horizon), rho, dim=x.shape[1], sigma2=float(sigma2), horizon=float(horizon)
    )


def _square(x: Tensor) -> Tensor:
    return x.square().sum(1, keepdim=True)


def _bump(x: Tensor) -> Tensor:
    return 1 / (2 + 0.4 * _square(x))


def _bump_gradient(x: Tensor) -> Tensor:
    return -0.8 * x * _bump(x).square()


def _double_well(t: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return y**3 - y


def _smoothed_bump(t: Tensor, x: Tensor, *, sigma2: float, horizon: float) -> Tensor:
    return 1 / (2 + 0.4 * (_square(x) + x.shape[1] * sigma2 * (horizon - t)))


EQUATION = Equation(problem=AllenCahn, truth=allen_cahn, recipe={"iterations": 4000})
