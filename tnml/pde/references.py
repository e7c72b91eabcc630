"""True values of the named problems, in float64: closed forms and integrals at any (t, x), and sampling.

The truth of every row of `tnml.pde.equations.table.EQUATIONS` is here by its name, added rows included.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from tnml.errors import InputError
from tnml.pde.equations.allen_cahn import allen_cahn
from tnml.pde.equations.arithmetic_basket import arithmetic_basket_call
from tnml.pde.equations.black_scholes_barenblatt import black_scholes_barenblatt
from tnml.pde.equations.burgers import burgers
from tnml.pde.equations.cir_bond import cir_bond
from tnml.pde.equations.default_risk import default_risk
from tnml.pde.equations.double_well import coupled_double_well, double_well
from tnml.pde.equations.geometric_basket import geometric_basket_call
from tnml.pde.equations.hamilton_jacobi_bellman import hamilton_jacobi_bellman
from tnml.pde.equations.heat import heat_equation
from tnml.pde.equations.heston import heston_call
from tnml.pde.equations.linear_quadratic import linear_quadratic
from tnml.pde.equations.reaction_diffusion import reaction_diffusion
from tnml.pde.equations.table import EQUATIONS
from tnml.pde.equations.two_rates import two_rates
from tnml.pde.problem import Problem, Reference

__all__ = [
    "allen_cahn",
    "arithmetic_basket_call",
    "black_scholes_barenblatt",
    "burgers",
    "cir_bond",
    "coupled_double_well",
    "default_risk",
    "double_well",
    "geometric_basket_call",
    "hamilton_jacobi_bellman",
    "heat_equation",
    "heston_call",
    "linear_quadratic",
    "monte_carlo",
    "reaction_diffusion",
    "two_rates",
]


def __getattr__(name: str) -> Callable[..., Any]:
    """The truth of a row that is not imported above."""
    for equation in EQUATIONS.values():
        if equation.truth is not None and equation.truth.__name__ == name:
            return equation.truth
    raise AttributeError(f"module 'tnml.pde.references' has no attribute {name!r}")


def monte_carlo(problem: Problem, samples: int = 2**18, steps: int | None = None, seed: int = 0) -> Reference:
    """u(0, x0) of a linear problem, `exp(-r T) E[g(X_T)]`, with its standard error.

    Args:
        problem: with the driver `discount y` and no other.
        samples: paths, in antithetic pairs.
        steps: time steps of each path; None takes one if that is exact and 100 otherwise.
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
