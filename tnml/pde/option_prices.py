"""Prices of European calls: formulas at any (t, x), and sampling for the arithmetic basket."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.pde.problem import Reference
from tnml.pde.quadrature import stretched
from tnml.pde.sampling import controlled_mean

_TILT = math.tan(math.pi / 12)  # of the path of Heston's integral; below 1, else Black's part grows
_EARLY = 0.5  # Black's part ends that early, in units of where the other begins
_SMALL = 38.0  # exp(-38) = 3e-17: where that integral ends
_LEAST_TIME = 1e-20  # time to go below which prices are those at expiry, to double precision


def black_call(
    forward: Float[Tensor, "*b"], strike: float, variance: Float[Tensor, "*b"]
) -> Float[Tensor, "*b"]:
    """`E[max(F - K, 0)]` for a log-normal F of mean `forward`: Black's formula, not discounted.

    Args:
        forward: mean of F, positive.
        strike: K.
        variance: of ln F, positive.

    Source:
        Black, Journal of Financial Economics 3 (1976).

    Example:
        >>> forward, variance = torch.tensor([100.0, 100.0]), torch.tensor([0.04, 1e-20])
        >>> black_call(forward, 100.0, variance)
        tensor([7.9656, 0.0000])
    """
    width = variance.sqrt()
    above = torch.log(forward / strike) / width + width / 2
    return forward * _normal(above) - strike * _normal(above - width)


def bachelier_call(
    mean: Float[Tensor, "*b"], strike: float, variance: Float[Tensor, "*b"]
) -> Float[Tensor, "*b"]:
    """`E[max(F - K, 0)]` for a Gaussian F: Bachelier's formula, not discounted.

    Args:
        mean: of F.
        strike: K.
        variance: of F, positive.

    Source:
        Bachelier, Annales scientifiques de l'ENS 17 (1900).

    Example:
        >>> bachelier_call(torch.tensor([100.0]), 100.0, torch.tensor([400.0]))
        tensor([7.9788])
    """
    width = variance.sqrt()
    above = (mean - strike) / width
    density = torch.exp(-above.square() / 2) / math.sqrt(2 * math.pi)
    return (mean - strike) * _normal(above) + width * density


def mean_variance(
    left: Float[Tensor, "m 1"], variance: Float[Tensor, "m 1"], *, kappa: float, theta: float
) -> Float[Tensor, "m 1"]:
    """The expected mean of Heston's variance over the time `left`, at least 0 where it starts below 0.

    Example:
        >>> float(mean_variance(torch.tensor([[1.0]]), torch.tensor([[0.04]]), kappa=2.0, theta=0.04))
        0.0399999...
    """
    turned = kappa * left.clamp(min=_LEAST_TIME)
    weight = -torch.expm1(-turned) / turned
    series = turned / 2 - turned.square() / 6 + turned**3 / 24  # 1 - weight would lose its digits
    mean = theta * torch.where(turned < 1e-3, series, 1 - weight) + variance * weight
    return mean.clamp(min=_LEAST_TIME)


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
    left = (horizon - t).clamp(min=_LEAST_TIME)
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
    left = (horizon - t).clamp(min=_LEAST_TIME)
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


def arithmetic_moments(
    left: Float[Tensor, "m 1"], x: Float[Tensor, "m d"], *, rate: float, covariance: Float[Tensor, "d d"]
) -> tuple[Float[Tensor, "m 1"], Float[Tensor, "m 1"]]:
    """The mean of the arithmetic basket after the time `left`, and about the variance of its logarithm.

    The variance is that of a basket whose shares stay what they are now, so `black_call` of the two is near
    the price of the basket and right at expiry.

    Example:
        >>> one = torch.ones(1, 1)
        >>> mean, variance = arithmetic_moments(one, one, rate=0.0, covariance=one)
        >>> float(mean), float(variance)
        (1.0, 1.0)
    """
    share = x / x.sum(1, keepdim=True)
    variance = left * ((share @ covariance) * share).sum(1, keepdim=True)
    return x.mean(1, keepdim=True) * torch.exp(rate * left), variance


def arithmetic_basket_call(
    x: Float[Tensor, " d"],
    *,
    strike: float,
    rate: float,
    factor: Float[Tensor, "d d"],
    horizon: float = 1.0,
    samples: int = 2**18,
    seed: int = 0,
) -> Reference:
    """A call on the mean of log-normal assets at time 0, by Monte Carlo with a control variate.

    The control is A - K where the geometric basket G exceeds a level, else 0: it differs from the payoff on
    few paths, and its mean is known; the level is the one of the largest mean.

    Args:
        x: spots.
        strike: K.
        rate: interest rate.
        factor: matrix L with L L' the covariance of the log-returns per unit of time.
        horizon: expiry.
        samples: paths, in antithetic pairs.
        seed: of the noise.

    Source:
        The control is the lower bound of Rogers and Shi, Journal of Applied Probability 32 (1995), for
        baskets.

    Example:
        >>> factor = 0.2 * torch.linalg.cholesky(0.5 * torch.eye(10) + 0.5)
        >>> spots = torch.full((10,), 100.0)
        >>> found = arithmetic_basket_call(spots, strike=100.0, rate=0.05, factor=factor, samples=2**14)
        >>> abs(found.value - 8.5318) < 0.01
        True
    """
    x, factor = x.double(), factor.double()
    covariance = factor @ factor.T * horizon
    logs = x.log() + rate * horizon - covariance.diagonal() / 2
    shared = covariance.mean(1)  # covariance of each log-price with that of the geometric basket
    forwards = x * math.exp(rate * horizon)

    def known(levels: Tensor) -> Tensor:
        """E[(A - K) 1{ln G > level}], a lower bound of the price at every level."""
        above = (logs.mean() - levels) / shared.mean().sqrt()
        shifted = _normal(above[:, None] + shared / shared.mean().sqrt())
        return (shifted * forwards).mean(1) - strike * _normal(above)

    levels = math.log(strike) + torch.linspace(-0.5, 0.1, 601, dtype=torch.float64) * float(
        shared.max().sqrt()
    )
    bounds = known(levels)
    best = int(bounds.argmax())

    def payoffs(noise: Tensor) -> tuple[Tensor, Tensor]:
        ends = logs + math.sqrt(horizon) * noise @ factor.T
        gains = ends.exp().mean(1) - strike
        return gains.clamp(min=0), gains * (ends.mean(1) > levels[best])

    mean, error = controlled_mean(payoffs, float(bounds[best]), tuple(x.shape), samples, seed)
    discount = math.exp(-rate * horizon)
    source = f"Monte Carlo with a bound through the geometric basket as control, {samples:,} paths"
    return Reference(discount * mean, discount * error, source)


def _normal(z: Tensor) -> Tensor:
    """The distribution function of the standard normal law."""
    found: Tensor = torch.special.ndtr(z)
    return found
