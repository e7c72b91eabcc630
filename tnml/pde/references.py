"""True values of the named problems, in float64: closed forms and integrals at any (t, x), and sampling.

`allen_cahn` is solved for in `radial.py`; the prices of calls are in `option_prices.py`.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.errors import InputError
from tnml.pde.option_prices import arithmetic_basket_call, geometric_basket_call, heston_call
from tnml.pde.problem import Problem, Reference
from tnml.pde.quadrature import half_line
from tnml.pde.radial import allen_cahn

__all__ = [
    "allen_cahn",
    "arithmetic_basket_call",
    "black_scholes_barenblatt",
    "geometric_basket_call",
    "hamilton_jacobi_bellman",
    "heat_equation",
    "heston_call",
    "monte_carlo",
]


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
    left, x = _left(t, horizon), x.double()
    return torch.exp((rate + sigma**2) * left) * x.square().sum(1, keepdim=True)


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
    spread, square = 4 * _left(t, horizon), x.square().sum(1, keepdim=True)
    d = x.shape[1]
    scale = 20 / (1 + d * spread / 2 + square)
    s, weights = (part.to(x.device) for part in half_line())
    s = scale.detach() * s
    growth = 1 + s * spread
    exponent = -s - d / 2 * torch.log(growth) - s * square / growth
    return -torch.log(2 * scale.detach() * (weights * torch.exp(exponent)).sum(1, keepdim=True))


def heat_equation(
    t: Float[Tensor, "m 1"], x: Float[Tensor, "m d"], *, sigma: float = 2**0.5, horizon: float = 1.0
) -> Float[Tensor, "m 1"]:
    """`|x|^2 + d sigma^2 (T - t)`, the mean of `|X_T|^2`.

    Example:
        >>> float(heat_equation(torch.zeros(1, 1), torch.ones(1, 10)))
        30.0000000...
    """
    left, x = _left(t, horizon), x.double()
    return x.square().sum(1, keepdim=True) + x.shape[1] * sigma**2 * left


def _left(t: Tensor, horizon: float) -> Tensor:
    """The time to go: 0 after the horizon, which float32's 0.3 is for one."""
    return (horizon - t.double()).clamp(min=0)


def monte_carlo(problem: Problem, samples: int = 2**18, steps: int | None = None, seed: int = 0) -> Reference:
    """u(0, x0) of a linear problem, `exp(-r T) E[g(X_T)]`, with its standard error.

    Args:
        problem: with the driver `discount y` and no other.
        samples: paths, in antithetic pairs.
        steps: time steps of each path; None takes one where that is exact and 100 else.
        seed: of the noise.

    Raises:
        InputError: the driver is not `discount y`: then the mean is the trivial answer and not the solution,
            see `Problem.trivial`.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> value, error, _ = monte_carlo(HeatEquation(5), samples=10_000)
        >>> abs(value - 10) < 4 * error
        True
    """
    if problem.coupled or not _is_discounting(problem):
        raise InputError(
            f"the driver of {problem.name!r} is not discount * y, so the mean of g(X_T) is not the solution; "
            "problem.trivial() gives that mean"
        )
    return problem.trivial(samples, steps, seed)


def _is_discounting(problem: Problem) -> bool:
    """Whether phi = discount y, at points that one step from x0 leads to, at several times."""
    rows = 4
    start = problem.start(torch.float64).expand(rows, -1)
    noise = torch.randn(rows, problem.dim, dtype=start.dtype, generator=torch.Generator().manual_seed(0))
    noise[0] = 0
    for part in (0.0, 0.3, 0.8, 1.0):
        t = start.new_full((rows, 1), part * problem.horizon)
        dt = max(part, 0.01) * problem.horizon
        x = problem.step(torch.zeros_like(t), start, dt, math.sqrt(dt) * noise)
        y, z = problem.g(x) + torch.arange(rows)[:, None], torch.ones_like(x)
        for weight in (0, 1):
            if not torch.allclose(problem.phi(t, x, y, weight * z), problem.discount * y):
                return False
    return True
