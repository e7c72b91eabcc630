"""A call on the mean of log-normal assets, whose price is sampled."""

import math
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.pde.equations.baskets import basket_options, equal_assets, log_normal_market
from tnml.pde.equations.calls import black_call, normal_distribution
from tnml.pde.equations.equation import Equation
from tnml.pde.paths.sampling import controlled_mean
from tnml.pde.problem import Problem, Reference

_LEAST_TIME = 1e-14  # to go, in smoothed terminal values: what that adds at the strike is below float32


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
    options = basket_options(locals())
    factor, covariance = equal_assets(options)
    market: dict[str, Any] = {name: options[name] for name in ("strike", "rate", "horizon")}
    spots = torch.full((options["dim"],), float(options["spot"]), dtype=torch.float64)
    return Problem(
        name="arithmetic-basket",
        terminal=partial(_call_on_mean, strike=market["strike"]),
        reference=partial(arithmetic_basket_call, spots, factor=factor, **market),
        smoothed_terminal=partial(_smoothed_arithmetic, covariance=covariance, **market),
        options=options,
        **log_normal_market(options, factor),
    )


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
        shifted = normal_distribution(above[:, None] + shared / shared.mean().sqrt())
        return (shifted * forwards).mean(1) - strike * normal_distribution(above)

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


def _call_on_mean(x: Tensor, *, strike: float) -> Tensor:
    return (x.mean(1, keepdim=True) - strike).clamp(min=0)


def _smoothed_arithmetic(
    t: Tensor, x: Tensor, *, strike: float, rate: float, covariance: Tensor, horizon: float
) -> Tensor:
    left = (horizon - t).clamp(min=_LEAST_TIME)
    forward, variance = arithmetic_moments(left, x, rate=rate, covariance=covariance.to(x))
    return torch.exp(-rate * left) * black_call(forward, strike, variance)


EQUATION = Equation(problem=ArithmeticBasketCall, truth=arithmetic_basket_call, recipe={"iterations": 4000})
