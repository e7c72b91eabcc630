"""European calls as problems: Heston's model, and baskets of log-normal assets."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tnml.errors import InputError
from tnml.pde.checks import check_dim, check_positive
from tnml.pde.option_prices import (
    arithmetic_basket_call,
    arithmetic_moments,
    bachelier_call,
    black_call,
    geometric_basket_call,
    geometric_moments,
    heston_call,
    mean_variance,
)
from tnml.pde.problem import LogNormal, Problem

_LEAST_TIME = 1e-14  # to go, in smoothed terminal values: what it leaves at the strike is below float32


def HestonCall(  # noqa: N802 - problems are named like the equations they are
    spot: float = 100.0,
    strike: float = 100.0,
    horizon: float = 1.0,
    rate: float = 0.0319,
    v0: float = 0.010201,
    kappa: float = 6.21,
    theta: float = 0.019,
    xi: float = 0.61,
    rho: float = -0.7,
) -> Problem:
    """A call under Heston's model: `x = (spot, variance)`, d = 2.

    `dS = rate S dt + sqrt(v) S dW_1`, `dv = kappa (theta - v) dt + xi sqrt(v) (rho dW_1 + sqrt(1 - rho^2)
    dW_2)`. Euler steps can make v negative: drift, diffusion and u then take 0 for it (full truncation). The
    smoothed terminal value is Black's price at the mean variance to come.

    Args:
        spot: S at time 0.
        strike: K.
        horizon: expiry.
        rate: interest rate.
        v0: variance at time 0.
        kappa: speed of the variance's return to its mean.
        theta: that mean.
        xi: volatility of the variance.
        rho: correlation of spot and variance, in (-1, 1).

    Raises:
        InputError: a value is out of range.

    Source:
        Heston, Review of Financial Studies 6 (1993); full truncation: Lord, Koekkoek, van Dijk, Quantitative
        Finance 10 (2010).

    Example:
        >>> round(HestonCall().true_value().value, 6)
        6.806113
    """
    options = dict(locals())
    check_positive(**{name: value for name, value in options.items() if name not in ("rate", "rho")})
    if not -1 < rho < 1:
        raise InputError(f"rho must lie between -1 and 1, got {rho!r}")
    names = ("strike", "rate", "kappa", "theta", "horizon")
    market: dict[str, Any] = {name: options[name] for name in names}
    return Problem(
        name="heston",
        dim=2,
        horizon=horizon,
        x0=[spot, v0],
        terminal=partial(_call_on_first, strike=strike),
        drift=partial(_heston_drift, rate=rate, kappa=kappa, theta=theta),
        diffusion=partial(_heston_diffusion, xi=xi, rho=rho),
        driver_value=partial(times_y, rate=rate),
        discount=rate,
        inside=_variance_not_negative,
        exact=partial(heston_call, xi=xi, rho=rho, **market),
        smoothed_terminal=partial(_smoothed_heston, **market),
        options=options,
    )


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
    dim = check_dim(dim)
    options = dict(locals())
    factor, covariance = _equal_assets(options)
    market: dict[str, Any] = {"strike": strike, "rate": rate, "horizon": horizon}
    return Problem(
        name="geometric-basket",
        terminal=partial(_call_on_geometric_mean, strike=strike),
        exact=partial(geometric_basket_call, covariance=covariance, **market),
        smoothed_terminal=partial(_smoothed_geometric, covariance=covariance, **market),
        options=options,
        **_log_normal_market(options, factor),
    )


def ArithmeticBasketCall(  # noqa: N802
    dim: int = 10,
    *,
    spot: float = 100.0,
    strike: float = 100.0,
    rate: float = 0.05,
    volatility: float = 0.2,
    correlation: float = 0.5,
    horizon: float = 1.0,
) -> Problem:
    """A call on the mean of `dim` log-normal assets, equal weights and correlations.

    There is no formula: the reference is sampled, when first asked for. The smoothed terminal value is
    Black's price for a basket of constant shares.

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
        >>> value, error, _ = ArithmeticBasketCall(10).true_value()
        >>> abs(value - 8.5324) < 4 * error + 1e-4
        True
    """
    dim = check_dim(dim)
    options = dict(locals())
    factor, covariance = _equal_assets(options)
    market: dict[str, Any] = {"strike": strike, "rate": rate, "horizon": horizon}
    spots = torch.full((dim,), float(spot), dtype=torch.float64)
    return Problem(
        name="arithmetic-basket",
        terminal=partial(_call_on_mean, strike=strike),
        reference=partial(arithmetic_basket_call, spots, factor=factor, **market),
        smoothed_terminal=partial(_smoothed_arithmetic, covariance=covariance, **market),
        options=options,
        **_log_normal_market(options, factor),
    )


def times_y(t: Tensor, x: Tensor, y: Tensor, *, rate: float) -> Tensor:
    """The driver `rate y`, of discounting.

    Example:
        >>> one = torch.ones(1, 1)
        >>> times_y(one, one, one, rate=0.5)
        tensor([[0.5000]])
    """
    return rate * y


def _equal_assets(options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Checks the options of a basket; Cholesky factor and covariance of the log-returns."""
    dim, correlation, volatility = options["dim"], options["correlation"], options["volatility"]
    check_positive(**{name: options[name] for name in ("spot", "strike", "volatility", "horizon")})
    least = -1 / (dim - 1) if dim > 1 else -1.0
    if not least < correlation < 1:
        raise InputError(
            f"correlation must lie between {least:.4g} and 1 for {dim} assets, got {correlation!r}"
        )
    equal = correlation + (1 - correlation) * torch.eye(dim, dtype=torch.float64)
    return volatility * torch.linalg.cholesky(equal), volatility**2 * equal


def _log_normal_market(options: Mapping[str, Any], factor: Tensor) -> dict[str, Any]:
    """What the two baskets share."""
    rate = options["rate"]
    return {
        "dim": options["dim"],
        "horizon": options["horizon"],
        "x0": float(options["spot"]),
        "log_normal": LogNormal(rate, factor),
        "driver_value": partial(times_y, rate=rate),
        "discount": rate,
    }


def _call_on_first(x: Tensor, *, strike: float) -> Tensor:
    return (x[:, :1] - strike).clamp(min=0)


def _call_on_mean(x: Tensor, *, strike: float) -> Tensor:
    return (x.mean(1, keepdim=True) - strike).clamp(min=0)


def _call_on_geometric_mean(x: Tensor, *, strike: float) -> Tensor:
    return (x.clamp(min=1e-30).log().mean(1, keepdim=True).exp() - strike).clamp(min=0)


def _variance_not_negative(x: Tensor) -> Tensor:
    return torch.cat([x[:, :1], x[:, 1:].clamp(min=0)], 1)


def _heston_drift(t: Tensor, x: Tensor, *, rate: float, kappa: float, theta: float) -> Tensor:
    return torch.cat([rate * x[:, :1], kappa * (theta - x[:, 1:].clamp(min=0))], 1)


def _heston_diffusion(t: Tensor, x: Tensor, v: Tensor, *, xi: float, rho: float) -> Tensor:
    variance = x[:, 1:]
    positive = variance > 0
    width = torch.where(positive, torch.where(positive, variance, 1.0).sqrt(), 0.0)  # finite slope at 0
    other = rho * v[:, :1] + math.sqrt(1 - rho**2) * v[:, 1:]
    return width * torch.cat([x[:, :1] * v[:, :1], xi * other], 1)


def _smoothed_heston(
    t: Tensor, x: Tensor, *, strike: float, rate: float, kappa: float, theta: float, horizon: float
) -> Tensor:
    left = (horizon - t).clamp(min=_LEAST_TIME)
    growth = torch.exp(rate * left)
    total = left * mean_variance(left, x[:, 1:], kappa=kappa, theta=theta)
    return black_call(x[:, :1].clamp(min=1e-30) * growth, strike, total) / growth


def _smoothed_geometric(
    t: Tensor, x: Tensor, *, strike: float, rate: float, covariance: Tensor, horizon: float
) -> Tensor:
    left = (horizon - t).clamp(min=_LEAST_TIME)
    forward, variance = geometric_moments(left, x, rate=rate, covariance=covariance.to(x))
    return torch.exp(-rate * left) * bachelier_call(forward, strike, forward.square() * torch.expm1(variance))


def _smoothed_arithmetic(
    t: Tensor, x: Tensor, *, strike: float, rate: float, covariance: Tensor, horizon: float
) -> Tensor:
    left = (horizon - t).clamp(min=_LEAST_TIME)
    forward, variance = arithmetic_moments(left, x, rate=rate, covariance=covariance.to(x))
    return torch.exp(-rate * left) * black_call(forward, strike, variance)
