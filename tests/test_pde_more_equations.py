"""True values of equations: put into the equation by differences, against sampling and simpler formulas."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from tnml.errors import InputError
from tnml.pde import (
    Burgers,
    CoupledDoubleWell,
    CoxIngersollRossBond,
    DefaultRisk,
    DoubleWell,
    LinearQuadraticControl,
    ReactionDiffusion,
    TwoRates,
)
from tnml.pde.equations.default_risk import default_risk
from tnml.pde.equations.double_well import coupled_double_well
from tnml.pde.equations.grid import one_asset
from tnml.pde.equations.two_rates import two_rates

DOUBLE = torch.float64

SOLVED = {
    "burgers": lambda: Burgers(3, horizon=0.8),
    "reaction-diffusion": lambda: ReactionDiffusion(3, frequency=2.0, base=1.2, horizon=0.7),
    "linear-quadratic": lambda: LinearQuadraticControl(3, seed=5, horizon=0.6),
    "cir-bond": lambda: CoxIngersollRossBond(3, start=0.5, mean=0.4, volatility=0.6, horizon=1.5),
    "double-well": lambda: DoubleWell(3, height=0.6, weight=0.7, horizon=0.5),
}


@pytest.mark.parametrize("name", SOLVED)
def test_the_truth_solves_the_equation(name):
    """`u_t + mu . Du + 1/2 Tr(sigma sigma' D2u) - phi` by differences of fourth order, and the end."""
    problem = SOLVED[name]()
    d, u = 3, problem.exact
    source = torch.Generator().manual_seed(1)
    x = 0.5 * torch.rand(6, d, dtype=DOUBLE, generator=source) + 0.25
    t = problem.horizon * (0.1 + 0.7 * torch.rand(6, 1, dtype=DOUBLE, generator=source))
    h = 2e-3

    def first(f):
        return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)

    def second(f):
        return (16 * (f(h) + f(-h)) - (f(2 * h) + f(-2 * h)) - 30 * f(0.0)) / (12 * h**2)

    unit = torch.eye(d, dtype=DOUBLE)
    z = torch.cat([first(lambda s, e=e: u(t, x + s * e)) for e in unit], 1)
    trace = torch.zeros_like(t)
    for e in unit:
        column = problem.sigma(t, x, e.expand(6, -1))
        trace = trace + second(lambda s, column=column: u(t, x + s * column))
    terms = [
        first(lambda s: u(t + s, x)),
        (problem.mu(t, x) * z).sum(1, keepdim=True),
        trace / 2,
        -problem.phi(t, x, u(t, x), z),
    ]
    size = torch.cat(terms, 1).abs().max()
    assert float(sum(terms).abs().max() / size) < 1e-6
    end = torch.full_like(t, problem.horizon)
    torch.testing.assert_close(u(end, x), problem.g(x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("make", [DefaultRisk, TwoRates])
def test_smoothed_extremes_are_means(make):
    """For two assets against sampling; at the horizon they are the terminal value."""
    problem = make(2)
    x = torch.tensor([[110.0, 125.0], [90.0, 91.0]], dtype=DOUBLE)
    zero = torch.zeros(2, 1, dtype=DOUBLE)
    end = zero + problem.horizon
    torch.testing.assert_close(problem.smoothed_terminal(end, x), problem.g(x), rtol=1e-4, atol=1e-3)
    noise = torch.randn(100_000, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    growth, left = float(problem.log_normal.rate), problem.horizon
    for row in range(2):
        ends = x[row] * torch.exp((growth - 0.02) * left + 0.2 * math.sqrt(left) * noise)
        rate = 0.06 if make is TwoRates else 0.02 + 0.11 / 3
        values = math.exp(-rate * left) * problem.g(ends)[:, 0]
        error = float(values.std()) / math.sqrt(len(values))
        found = problem.smoothed_terminal(zero, x)[row].item()
        assert abs(found - float(values.mean())) < 4 * error + 2e-3 * float(values.std())


def test_finite_differences_of_one_asset():
    """The formula of Black and Scholes; with two rates a call's hedge always borrows, at its rate."""

    def price(rate):
        above = (rate + 0.02) * 0.5 / 0.2 / math.sqrt(0.5) + math.log(100 / 95) / 0.2 / math.sqrt(0.5)
        below = above - 0.2 * math.sqrt(0.5)
        return 100 * norm.cdf(above) - 95 * math.exp(-rate * 0.5) * norm.cdf(below)

    asset = {"rate": 0.06, "volatility": 0.2, "start": 100.0, "horizon": 0.5}

    def call(x):
        return np.maximum(x - 95, 0)

    assert one_asset(call, lambda y, _: 0.06 * y, **asset) == pytest.approx(price(0.06), rel=1e-4)

    def two(y, e):
        return 0.04 * y + 0.02 * e - 0.04 * np.maximum(e - y, 0)

    assert one_asset(call, two, **asset) == pytest.approx(price(0.08), rel=2e-4)


def test_values_of_one_asset():
    """Far above the values where defaults set in the claim is linear; two rates lie between each alone."""
    assert default_risk(1).value == pytest.approx(100 * math.exp(-0.02 / 3), rel=5e-4)

    def spread(rate):
        asset = {"rate": rate, "volatility": 0.2, "start": 100.0, "horizon": 0.5}
        return one_asset(
            lambda x: np.maximum(x - 120, 0) - 2 * np.maximum(x - 150, 0), lambda y, _: rate * y, **asset
        )

    assert min(spread(0.04), spread(0.06)) <= two_rates(1).value <= 1.05 * max(spread(0.04), spread(0.06))
    for known in (default_risk, two_rates):
        with pytest.raises(InputError, match="known for 1 and 100 assets"):
            known(7)
    with pytest.raises(InputError, match="known for 20 wells"):
        coupled_double_well(3)
    assert (
        DefaultRisk(7).true_value() is TwoRates(7).true_value() is CoupledDoubleWell(3).true_value() is None
    )


def test_coupled_wells_slide_down_their_potential():
    problem = CoupledDoubleWell(4, seed=1)
    coupling = torch.tensor(np.eye(4) + 0.1 * np.random.RandomState(1).randn(4, 4))
    x = torch.randn(5, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    wells = x.square() - 1
    potential = ((wells @ coupling) * wells).sum()
    (slope,) = torch.autograd.grad(potential, x)
    torch.testing.assert_close(problem.mu(x[:, :1], x), -slope)
