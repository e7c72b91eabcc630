"""A bond under several short rates of Cox, Ingersoll and Ross."""

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


def CoxIngersollRossBond(  # noqa: N802
    dim: int = 10,
    *,
    start: float = 0.04,
    reversion: float = 0.8,
    mean: float = 0.05,
    volatility: float = 0.2,
    horizon: float = 2.0,
) -> Problem:
    """A zero-coupon bond whose short rate is the mean of `dim` rates of Cox, Ingersoll and Ross.

    `dX = reversion (mean - X) dt + volatility sqrt(X) dW` for each, `phi = y mean(x)`, `g = 1`. The price is
    an exponential in x. Rates may reach zero if `2 reversion mean < volatility^2`.

    Args:
        dim: rates.
        start: of each.
        reversion: their speed of return.
        mean: to which they return.
        volatility: of each.
        horizon: when the bond pays.

    Raises:
        InputError: a value is out of range.

    Source:
        Cox, Ingersoll, Ross, Econometrica 53 (1985) 385, equation (23).

    Example:
        >>> round(CoxIngersollRossBond().true_value().value, 6)
        0.913985
    """
    raw = {"start": start, "reversion": reversion, "mean": mean, "volatility": volatility}
    given: dict[str, Any] = {name: as_number(name, value, above=0.0) for name, value in raw.items()}
    dim, horizon = whole("dim", dim, 1), as_number("horizon", horizon, above=0.0)
    process: dict[str, Any] = {name: given[name] for name in ("reversion", "mean")}
    return Problem(
        name="cir-bond",
        dim=dim,
        horizon=horizon,
        x0=float(given["start"]),
        terminal=_one,
        drift=partial(_return, **process),
        diffusion=partial(_noise, volatility=given["volatility"]),
        driver_value=_discount,
        inside=_positive,
        exact=partial(cir_bond, volatility=given["volatility"], horizon=horizon, **process),
        smoothed_terminal=partial(_at_the_present_rate, horizon=horizon),
        options={"dim": dim, **given, "horizon": horizon},
    )


def cir_bond(
    t: Float[Tensor, "m 1"],
    x: Float[Tensor, "m d"],
    *,
    reversion: float = 0.8,
    mean: float = 0.05,
    volatility: float = 0.2,
    horizon: float = 2.0,
) -> Float[Tensor, "m 1"]:
    """`exp(d A(T - t) - B(T - t) sum x)`, the product of the affine prices of all rates.

    Example:
        >>> round(float(cir_bond(torch.zeros(1, 1), torch.full((1, 1), 0.04))), 6)
        0.91465
    """
    d, left = x.shape[1], time_to_go(t, horizon)
    h = math.sqrt(reversion**2 + 2 * volatility**2 / d)
    grown = torch.expm1(h * left)
    below = (reversion + h) * grown + 2 * h
    slope = 2 / d * grown / below
    level = torch.log(2 * h * torch.exp((reversion + h) * left / 2) / below)
    constant = 2 * reversion * mean / volatility**2 * level
    return torch.exp(d * constant - slope * x.double().clamp(min=0).sum(1, keepdim=True))


def _positive(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def _one(x: Tensor) -> Tensor:
    return torch.ones_like(x[:, :1])


def _return(t: Tensor, x: Tensor, *, reversion: float, mean: float) -> Tensor:
    return reversion * (mean - x.clamp(min=0))


def _noise(t: Tensor, x: Tensor, v: Tensor, *, volatility: float) -> Tensor:
    """`volatility sqrt(x) v`, whose derivative is zero where the rate is."""
    inside = x > 0
    root = torch.where(inside, torch.where(inside, x, 1.0).sqrt(), 0.0)
    return volatility * root * v


def _discount(t: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return x.clamp(min=0).mean(1, keepdim=True) * y


def _at_the_present_rate(t: Tensor, x: Tensor, *, horizon: float) -> Tensor:
    return torch.exp(-(horizon - t) * x.clamp(min=0).mean(1, keepdim=True))


EQUATION = Equation(problem=CoxIngersollRossBond, truth=cir_bond, recipe={"time_steps": 20})
