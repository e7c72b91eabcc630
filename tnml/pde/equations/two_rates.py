"""Different rates of interest for borrowing and lending."""

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

_GROWTH, _VOLATILITY, _LENDING, _BORROWING = 0.06, 0.2, 0.04, 0.06
_FIRST, _SECOND = 120.0, 150.0  # strikes


def TwoRates(dim: int = 100, *, horizon: float = 0.5) -> Problem:  # noqa: N802
    """A spread of calls on the largest of `dim` assets, hedged with a higher rate for borrowing.

    `phi = .04 y + .02 x . z - .02 max(x . z - y, 0)` and `g = (max x - 120)+ - 2 (max x - 150)+`, from
    `x0 = 100`, with growth .06 and volatility .2.

    Args:
        dim: assets.
        horizon: expiry.

    Raises:
        InputError: a value is out of range.

    Source:
        Bergman, Rev. Financial Studies 8 (1995) 475; Han, Jentzen, E, PNAS 115 (2018) 8505, arXiv 1707.02568.

    Example:
        >>> TwoRates().true_value().value
        21.299
    """
    dim, horizon = whole("dim", dim, 1), as_number("horizon", horizon, above=0.0)
    return Problem(
        name="two-rates",
        dim=dim,
        horizon=horizon,
        x0=100.0,
        terminal=_spread_of_largest,
        driver=_hedge,
        log_normal=LogNormal(_GROWTH, _VOLATILITY),
        smoothed_terminal=partial(_smoothed_spread, horizon=horizon),
        reference=partial(two_rates, dim) if horizon == 0.5 and dim in (1, 100) else None,
        options={"dim": dim, "horizon": horizon},
    )


def two_rates(dim: int = 100) -> Reference:
    """The value at the start: as published for 100 assets, by finite differences for one; horizon 1/2.

    Args:
        dim: 1 or 100.

    Raises:
        InputError: another number of assets.

    Example:
        >>> two_rates(100)
        Reference(value=21.299, error=0.0005, source='published: multilevel Picard iteration')
    """
    if dim != 1:
        return published(dim, 21.299)
    value = one_asset(
        lambda x: np.maximum(x - _FIRST, 0) - 2 * np.maximum(x - _SECOND, 0),
        lambda y, e: _LENDING * y + (_GROWTH - _LENDING) * e - (_BORROWING - _LENDING) * np.maximum(e - y, 0),
        rate=_GROWTH, volatility=_VOLATILITY, start=100.0, horizon=0.5,
    )  # fmt: skip
    return Reference(value, 1e-3 * value, "finite differences")


def _spread(largest: Tensor) -> Tensor:
    return (largest - _FIRST).clamp(min=0) - 2 * (largest - _SECOND).clamp(min=0)


def _spread_of_largest(x: Tensor) -> Tensor:
    return _spread(x.max(1, keepdim=True).values)


def _hedge(t: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    held = (x * z).sum(1, keepdim=True)
    borrowed = (held - y).clamp(min=0)
    return _LENDING * y + (_GROWTH - _LENDING) * held - (_BORROWING - _LENDING) * borrowed


def _smoothed_spread(t: Tensor, x: Tensor, *, horizon: float) -> Tensor:
    """The price at the rate of borrowing alone."""
    left = (horizon - t).clamp(min=0)
    means = x.clamp(min=1e-30).log() + (_BORROWING - _VOLATILITY**2 / 2) * left
    found = mean_of_function_of_maximum(_spread, means, _VOLATILITY * left.sqrt())
    return torch.exp(-_BORROWING * left) * found


EQUATION = Equation(problem=TwoRates, truth=two_rates, recipe={"loss": "multistep", "time_steps": 20})
