"""A call under Heston's model of a random variance."""

import math
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.errors import InputError
from tnml.pde.checks import as_number
from tnml.pde.equations.calls import EXPIRED, black_call
from tnml.pde.equations.equation import Equation
from tnml.pde.equations.quadrature import stretched
from tnml.pde.equations.terms import times_y
from tnml.pde.problem import Problem

_TILT = math.tan(math.pi / 12)  # of the path of the price's integral; below 1, else Black's part grows
_EARLY = 0.5  # Black's part ends that early, in units of where the other begins
_SMALL = 38.0  # exp(-38) = 3e-17: where that integral ends
_LEAST_TIME = 1e-14  # to go, in smoothed terminal values: what that adds at the strike is below float32


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
    given = dict(locals())
    limits = {name: None if name in ("rate", "rho") else 0.0 for name in given}
    options = {name: as_number(name, value, above=limits[name]) for name, value in given.items()}
    xi, rho = options["xi"], options["rho"]
    if not -1 < rho < 1:
        raise InputError(f"rho must lie between -1 and 1, got {rho!r}")
    names = ("strike", "rate", "kappa", "theta", "horizon")
    market: dict[str, Any] = {name: options[name] for name in names}
    return Problem(
        name="heston",
        dim=2,
        horizon=market["horizon"],
        x0=[options["spot"], options["v0"]],
        terminal=partial(_call_on_first, strike=market["strike"]),
        drift=partial(_heston_drift, rate=market["rate"], kappa=market["kappa"], theta=market["theta"]),
        diffusion=partial(_heston_diffusion, xi=xi, rho=rho),
        driver_value=partial(times_y, rate=market["rate"]),
        discount=market["rate"],
        inside=_variance_not_negative,
        exact=partial(heston_call, xi=xi, rho=rho, **market),
        smoothed_terminal=partial(_smoothed_heston, **market),
        options=options,
    )


def heston_call(
    t: Float[Tensor, "m 1"],
    x: Float[Tensor, "m 2"],
    *,
    strike: float,
    rate: float,
    kappa: float,
    theta: float,
    xi: float,
    rho: float,
    horizon: float = 1.0,
    nodes: int = 128,
) -> Float[Tensor, "m 1"]:
    """A call under Heston's model, from the characteristic function of the log-price.

    Lewis' single integral along Im u = -1/2, of the difference to Black's model with the same mean variance:
    the pole at the ends of the strip cancels, and the price is right up to expiry. Away from the strike the
    path is turned to where the integrand decays instead of oscillating; its nodes follow its two scales. It
    is right to about 1e-9 of the strike also for tiny variances and far from the strike. Where the variance
    is negative, as Euler steps make it, its price is that of variance 0.

    Args:
        t: times.
        x: spot and variance.
        strike: K.
        rate: interest rate.
        kappa: speed of the variance's return to its mean.
        theta: that mean.
        xi: volatility of the variance.
        rho: correlation of the two noises.
        horizon: expiry.
        nodes: of the quadrature.

    Source:
        Heston, Review of Financial Studies 6 (1993); the branch of the square root and of the logarithm:
        Albrecher, Mayer, Schoutens, Tistaert, Wilmott Magazine (2007); the integral: Lewis, Option Valuation
        under Stochastic Volatility (2000); the turned path: Andersen, Lake, Wilmott Magazine (2019).

    Example:
        >>> x = torch.tensor([[100.0, 0.04]], dtype=torch.float64)
        >>> market = dict(strike=100.0, rate=0.05, kappa=2.0, theta=0.04, xi=0.3, rho=-0.7)
        >>> round(float(heston_call(torch.zeros(1, 1), x, **market)), 6)
        10.394219
    """
    t, x = t.double(), x.double()
    left = (horizon - t).clamp(min=EXPIRED)
    spot, start = x[:, :1].clamp(min=1e-300), x[:, 1:].clamp(min=0)
    total = left * mean_variance(left, start, kappa=kappa, theta=theta)
    moneyness = torch.log(spot / strike) + rate * left
    decay = (start + kappa * theta * left) / xi * math.sqrt(1 - rho**2)
    drift = moneyness - (start + kappa * theta * left) / xi * rho
    with torch.no_grad():  # the integral does not depend on the path
        turn, r, weights = _turned_path(total, moneyness, decay, drift, xi * left, nodes)
    u = r * turn
    w = u.square() + 0.25  # -(iu + 1/2)(iu - 1/2)
    slope = kappa - rho * xi / 2 - 1j * rho * xi * u
    root = torch.sqrt(slope.square() + xi**2 * w)
    ratio = (slope - root) / (slope + root)
    faded = torch.exp(-root * left)
    fading = torch.log(1 - ratio * faded) - torch.log(1 - ratio)
    mean_part = kappa * theta / xi**2 * ((slope - root) * left - 2 * fading)
    start_part = (slope - root) / xi**2 * (1 - faded) / (1 - ratio * faded)
    wave = 1j * u * moneyness
    values = torch.exp(wave + mean_part + start_part * start) - torch.exp(wave - w * total / 2)
    integral = (weights * (turn * values / w).real).sum(1, keepdim=True)
    forward = spot * torch.exp(rate * left)
    call = black_call(forward, strike, total) - torch.sqrt(forward * strike) / math.pi * integral
    return torch.exp(-rate * left) * call


def _turned_path(
    total: Tensor, moneyness: Tensor, decay: Tensor, drift: Tensor, spread: Tensor, nodes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A path u = r * turn from 0: the complex turn `[m, 1]`, nodes r and weights `[m, nodes]`.

    The integrand is at first about exp(i u moneyness - u^2 total / 2), from u = 1 / spread on about
    exp(i u drift - u decay). The path is turned so that the waves decay, where both go the same way or the
    second does not matter.
    """
    width = torch.sqrt(2 * _SMALL / total)
    tilt = _TILT * moneyness.sign() * ((moneyness * drift > 0) | (width * spread < _EARLY))
    near = _SMALL / (tilt * moneyness).clamp(min=1e-300)
    near = torch.minimum(width / torch.sqrt(1 - tilt.square()), near)
    end = torch.maximum(near, _SMALL / (decay + tilt * drift))
    end = torch.where(width * spread < _EARLY, near, end)
    r, weights = stretched(torch.minimum(total.rsqrt(), end), end, nodes)
    return torch.complex(torch.ones_like(tilt), tilt), r, weights


def mean_variance(
    left: Float[Tensor, "m 1"], variance: Float[Tensor, "m 1"], *, kappa: float, theta: float
) -> Float[Tensor, "m 1"]:
    """The expected mean of Heston's variance over the time `left`, at least 0 where it starts below 0.

    Example:
        >>> float(mean_variance(torch.tensor([[1.0]]), torch.tensor([[0.04]]), kappa=2.0, theta=0.04))
        0.0399999...
    """
    turned = kappa * left.clamp(min=EXPIRED)
    weight = -torch.expm1(-turned) / turned
    series = turned / 2 - turned.square() / 6 + turned**3 / 24  # 1 - weight would lose its digits
    mean = theta * torch.where(turned < 1e-3, series, 1 - weight) + variance * weight
    return mean.clamp(min=EXPIRED)


def _call_on_first(x: Tensor, *, strike: float) -> Tensor:
    return (x[:, :1] - strike).clamp(min=0)


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


EQUATION = Equation(
    problem=HestonCall,
    truth=heston_call,
    # Two dimensions: four sign vectors leave no noise, so that a short step shows what is left.
    recipe={"group_noise": "design", "dtype": "float64", "ahead": 0.2, "iterations": 4000},
)
