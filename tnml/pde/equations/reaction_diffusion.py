"""A reaction-diffusion equation with an oscillating solution."""

import math
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.checks import whole
from tnml.pde.checks import as_number
from tnml.pde.equations.equation import Equation
from tnml.pde.equations.terms import time_to_go
from tnml.pde.problem import Problem


def ReactionDiffusion(  # noqa: N802
    dim: int = 100, *, frequency: float = 1.0, base: float = 1.6, horizon: float = 1.0
) -> Problem:
    """A reaction-diffusion equation whose solution oscillates along the diagonal.

    `phi = -min((y - u)^2, 1)` with `u = base + sin(k sum x) exp(-k^2 d (T - t) / 2)`, `k = frequency /
    sqrt(d)`, `sigma = 1`, `x0 = .1`. Errors grow backwards in time, up to another solution of the clipped
    reaction.

    Args:
        dim: space coordinates.
        frequency: of the oscillation along a unit of noise.
        base: around which it oscillates.
        horizon: final time.

    Raises:
        InputError: a value is out of range.

    Source:
        Gobet, Turkedjiev, Stochastic Process. Appl. 127 (2017) 1171; E, Han, Jentzen, arXiv 1706.04702,
        section 4.7, with x0 = 0 there.

    Example:
        >>> round(ReactionDiffusion(frequency=5.0).true_value().value, 5)
        1.6
    """
    dim = whole("dim", dim, 1)
    frequency, base = as_number("frequency", frequency, above=0.0), as_number("base", base)
    horizon = as_number("horizon", horizon, above=0.0)
    given: dict[str, Any] = {"frequency": frequency, "base": base, "horizon": horizon}
    return Problem(
        name="reaction-diffusion",
        dim=dim,
        horizon=horizon,
        x0=0.1,
        terminal=partial(_wave_at_the_end, frequency=frequency, base=base),
        driver_value=partial(_reaction, **given),
        diffusion=1.0,
        exact=partial(reaction_diffusion, **given),
        options={"dim": dim, **given},
    )


def reaction_diffusion(
    t: Float[Tensor, "m 1"],
    x: Float[Tensor, "m d"],
    *,
    frequency: float = 1.0,
    base: float = 1.6,
    horizon: float = 1.0,
) -> Float[Tensor, "m 1"]:
    """`base + sin(k sum x) exp(-k^2 d (T - t) / 2)`, a wave that the heat flattens.

    Example:
        >>> reaction_diffusion(torch.ones(1, 1), torch.zeros(1, 3)).item()
        1.6
    """
    faded = torch.exp(-(frequency**2) / 2 * time_to_go(t, horizon))
    return base + faded * torch.sin(_phase(x.double(), frequency))


def _phase(x: Tensor, frequency: float) -> Tensor:
    return frequency / math.sqrt(x.shape[1]) * x.sum(1, keepdim=True)


def _wave_at_the_end(x: Tensor, *, frequency: float, base: float) -> Tensor:
    return base + torch.sin(_phase(x, frequency))


def _reaction(t: Tensor, x: Tensor, y: Tensor, *, frequency: float, base: float, horizon: float) -> Tensor:
    faded = torch.exp(-(frequency**2) / 2 * (horizon - t))
    return -torch.clamp((y - base - faded * torch.sin(_phase(x, frequency))) ** 2, max=1.0)


EQUATION = Equation(problem=ReactionDiffusion, truth=reaction_diffusion, recipe={"terminal": "kinks"})
