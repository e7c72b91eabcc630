"""The Black-Scholes equation with default risk."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from tnml.checks import whole
from tnml.pde.checks import as_number
from tnml.pde.equations.equation import Equation
from tnml.pde.equations.extremes import mean_of_function_of_maximum
from tnml.pde.equations.grid import one_asset, published
from tnml.pde.problem import LogNormal, Problem, Reference

_RATE, _VOLATILITY, _LOST = 0.02, 0.2, 1 / 3
_MOST, _LEAST = 0.2, 0.02  # intensities of default, below and above these values of the claim:
_LOW, _HIGH = 50.0, 70.0


def DefaultRisk(dim: int = 100, *, horizon: float = 1.0) -> Problem:  # noqa: N802
    """The least of `dim` assets, by a debtor who defaults the sooner the less the claim is worth.

    `phi = 1/3 Q(y) y + .02 y`, where the intensity Q falls from .2 at y = 50 to .02 at y = 70; `g = min x`,
    `x0 = 100`, rate .02, volatility .2.

    Args:
        dim: assets.
        horizon: expiry.

    Raises:
        InputError: a value is out of range.

    Source:
        Han, Jentzen, E, PNAS 115 (2018) 8505, arXiv 1707.02568, the nonlinear Black-Scholes equation.

    Example:
        >>> DefaultRisk().true_value().value
        57.3
    """
    dim, horizon = whole("dim", dim, 1), as_number("horizon", horizon, above=0.0)
    return Problem(
        name="default-risk",
        dim=dim,
        horizon=horizon,
        x0=100.0,
        terminal=_least,
        driver_value=_risk,
        log_normal=LogNormal(_RATE, _VOLATILITY),
        smoothed_terminal=partial(_smoothed_least, horizon=horizon),
        reference=partial(default_risk, dim) if dim == 1 or (dim, horizon) == (100, 1) else None,
        options={"dim": dim, "horizon": horizon},
    )


def default_risk(dim: int = 100) -> Reference:
    """The value at the start: as published for 100 assets, by finite differences for one; horizon 1.

    Args:
        dim: 1 or 100.

    Raises:
        InputError: another number of assets.

    Example:
        >>> default_risk(100)
        Reference(value=57.3, error=0.0005, source='published: multilevel Picard iteration')
    """
    if dim != 1:
        return published(dim, 57.300)
    value = one_asset(
        lambda x: x,
        lambda y, _: _LOST * np.clip(_MOST - (y - _LOW) * _FALL, _LEAST, _MOST) * y + _RATE * y,
        rate=_RATE, volatility=_VOLATILITY, start=100.0, horizon=1.0,
    )  # fmt: skip
    return Reference(value, 1e-4 * value, "finite differences")


_FALL = (_MOST - _LEAST) / (_HIGH - _LOW)


def _least(x: Tensor) -> Tensor:
    return x.min(1, keepdim=True).values


def _risk(t: Tensor, x: Tensor, y: Tensor) -> Tensor:
    intensity = torch.clamp(_MOST - (y - _LOW) * _FALL, min=_LEAST, max=_MOST)
    return (_LOST * intensity + _RATE) * y


def _smoothed_least(t: Tensor, x: Tensor, *, horizon: float) -> Tensor:
    """The mean of the least, without any driver but the discount at a middle intensity."""
    left = (horizon - t).clamp(min=0)
    means = -x.clamp(min=1e-30).log() - (_RATE - _VOLATILITY**2 / 2) * left
    found = mean_of_function_of_maximum(torch.reciprocal, means, _VOLATILITY * left.sqrt())
    return torch.exp(-(_RATE + _LOST * (_MOST + _LEAST) / 2) * left) * found


EQUATION = Equation(problem=DefaultRisk, truth=default_risk, recipe={"loss": "multistep", "time_steps": 20})
