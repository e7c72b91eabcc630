"""A call on the geometric mean of log-normal assets."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.pde.equations.baskets import basket_options, equal_assets, log_normal_market
from tnml.pde.equations.calls import EXPIRED, bachelier_call, black_call
from tnml.pde.equations.equation import Equation
from tnml.pde.problem import Problem

_LEAST_TIME = 1e-14  # to go, in smoothed terminal values: what that adds at the strike is below float32


def GeometricBasketCall(  # noqa: N802
    dim: int = 10,
    *,
    spot: float = 100.0,
    strike: float = 100.0,
    rate: float = 0.05,
    volatility: float = 0.2,
    correlation: float = 0.5,
    horizon: float = 1.0,
) -> Problem:
    """A call on the geometric mean of `dim` log-normal assets, equal weights and correlations.

    The price has a formula. The smoothed terminal value is not that one but Bachelier's, with the basket's
    mean and variance, so that there is something left to learn.

    Args:
        dim: assets.
        spot: price of each at time 0.
        strike: K.
        rate: interest rate.
        volatility: of each asset.
        correlation: of each two.
        horizon: expiry.

    Raises:
        InputError: a value is out of range.

    Example:
        >>> round(GeometricBasketCall(10).true_value().value, 6)
        7.949269
    """
    options = basket_options(locals())
    factor, covariance = equal_assets(options)
    market: dict[str, Any] = {name: options[name] for name in ("strike", "rate", "horizon")}
    return Problem(
        name="geometric-basket",
        terminal=partial(_call_on_geometric_mean, strike=market["strike"]),
        exact=partial(geometric_basket_call, covariance=covariance, **market),
        smoothed_terminal=partial(_smoothed_geometric, covariance=covariance, **market),
        options=options,
        **log_normal_market(options, factor),
    )


def geometric_basket_call(
    t: Float[Tensor, "m 1"],
    x: Float[Tensor, "m d"],
    *,
    strike: float,
    rate: float,
    covariance: Float[Tensor, "d d"],
    horizon: float = 1.0,
) -> Float[Tensor, "m 1"]:
    """A call on the geometric mean of log-normal assets, which is log-normal itself.

    Args:
        t: times.
        x: spots.
        strike: K.
        rate: interest rate.
        covariance: of the log-returns per unit of time.
        horizon: expiry.

    Example:
        >>> covariance = 0.04 * (0.5 * torch.eye(10) + 0.5)
        >>> x = torch.full((1, 10), 100.0)
        >>> market = dict(strike=100.0, rate=0.05, covariance=covariance)
        >>> round(float(geometric_basket_call(torch.zeros(1, 1), x, **market)), 5)
        7.94927
    """
    t, x = t.double(), x.double()
    left = (horizon - t).clamp(min=EXPIRED)
    forward, variance = geometric_moments(left, x, rate=rate, covariance=covariance.double().to(x.device))
    return torch.exp(-rate * left) * black_call(forward, strike, variance)


def geometric_moments(
    left: Float[Tensor, "m 1"], x: Float[Tensor, "m d"], *, rate: float, covariance: Float[Tensor, "d d"]
) -> tuple[Float[Tensor, "m 1"], Float[Tensor, "m 1"]]:
    """The mean of the geometric basket after the time `left`, and the variance of its logarithm.

    Example:
        >>> one = torch.ones(1, 1)
        >>> mean, variance = geometric_moments(one, one, rate=0.0, covariance=one)
        >>> float(mean), float(variance)
        (1.0, 1.0)
    """
    variance = covariance.mean() * left
    drift = (rate - covariance.diagonal().mean() / 2) * left + variance / 2
    return torch.exp(x.clamp(min=1e-30).log().mean(1, keepdim=True) + drift), variance


def _call_on_geometric_mean(x: Tensor, *, strike: float) -> Tensor:
    return (x.clamp(min=1e-30).log().mean(1, keepdim=True).exp() - strike).clamp(min=0)


def _smoothed_geometric(
    t: Tensor, x: Tensor, *, strike: float, rate: float, covariance: Tensor, horizon: float
) -> Tensor:
    left = (horizon - t).clamp(min=_LEAST_TIME)
    forward, variance = geometric_moments(left, x, rate=rate, covariance=covariance.to(x))
    return torch.exp(-rate * left) * bachelier_call(forward, strike, forward.square() * torch.expm1(variance))


EQUATION = Equation(problem=GeometricBasketCall, truth=geometric_basket_call, recipe={"iterations": 4000})
