"""The heat equation."""

from functools import partial

from jaxtyping import Float
from torch import Tensor

from tnml.checks import whole
from tnml.pde.checks import as_number
from tnml.pde.equations.equation import Equation
from tnml.pde.equations.terms import time_to_go
from tnml.pde.problem import Problem


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
    dim = whole("dim", dim, 1)
    sigma, horizon = as_number("sigma", sigma, above=0.0), as_number("horizon", horizon, above=0.0)
    return Problem(
        name="heat",
        dim=dim,
        horizon=horizon,
        x0=0.0,
        terminal=_square,
        terminal_gradient=_twice,
        diffusion=float(sigma),
        exact=partial(heat_equation, sigma=sigma, horizon=horizon),
        options={"dim": dim, "sigma": sigma, "horizon": horizon},
    )


def heat_equation(
    t: Float[Tensor, "m 1"], x: Float[Tensor, "m d"], *, sigma: float = 2**0.5, horizon: float = 1.0
) -> Float[Tensor, "m 1"]:
    """`|x|^2 + d sigma^2 (T - t)`, the mean of `|X_T|^2`.

    Example:
        >>> import torch
        >>> float(heat_equation(torch.zeros(1, 1), torch.ones(1, 10)))
        30.0000000...
    """
    left, x = time_to_go(t, horizon), x.double()
    return x.square().sum(1, keepdim=True) + x.shape[1] * sigma**2 * left


def _square(x: Tensor) -> Tensor:
    return x.square().sum(1, keepdim=True)


def _twice(x: Tensor) -> Tensor:
    return 2 * x


EQUATION = Equation(problem=HeatEquation, truth=heat_equation)
