"""Prices under Heston's model: other forms of the integral, far options, where Euler steps lead, limits."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from tnml.pde.references import heston_call

DOUBLE = torch.float64
MARKET = {"strike": 100.0, "rate": 0.0319, "kappa": 6.21, "theta": 0.019, "xi": 0.61, "rho": -0.7}


@pytest.mark.parametrize("left", [1e-10, 1e-6, 1e-2, 0.3, 1.0])
def test_heston_integral_against_the_two_probabilities(left):
    """Heston's own form, P1 and P2 by adaptive quadrature."""
    strike, rate, kappa, theta, xi, rho = 100.0, 0.0319, 6.21, 0.019, 0.61, -0.7
    market = {"strike": strike, "rate": rate, "kappa": kappa, "theta": theta, "xi": xi, "rho": rho}

    def characteristic(u, spot, v):
        d = np.sqrt((rho * xi * 1j * u - kappa) ** 2 + xi**2 * (1j * u + u**2))
        g = (kappa - rho * xi * 1j * u - d) / (kappa - rho * xi * 1j * u + d)
        end = np.exp(-d * left)
        c = rate * 1j * u * left + kappa * theta / xi**2 * (
            (kappa - rho * xi * 1j * u - d) * left - 2 * np.log((1 - g * end) / (1 - g))
        )
        return np.exp(
            c
            + (kappa - rho * xi * 1j * u - d) / xi**2 * (1 - end) / (1 - g * end) * v
            + 1j * u * np.log(spot)
        )

    def price(spot, v):
        def probability(shift):
            def integrand(u):
                value = characteristic(u - 1j * shift, spot, v) / (
                    characteristic(-1j, spot, v) if shift else 1
                )
                return (np.exp(-1j * u * np.log(strike)) * value / (1j * u)).real

            edges = [1e-9, *np.geomspace(0.5, 60 / math.sqrt(left * 0.01), 25)]
            pairs = pairwise(edges)
            return 0.5 + sum(integrate.quad(integrand, a, b, limit=500)[0] for a, b in pairs) / math.pi

        return spot * probability(1) - strike * math.exp(-rate * left) * probability(0)

    t = torch.tensor([[1.0 - left]], dtype=DOUBLE)
    moves = (0.0, 0.5, 2.0) if left < 0.1 else (-3.0, 0.0, 1.0)
    for spot, v in [(100 * math.exp(k * math.sqrt(0.02 * left)), v) for k in moves for v in (0.01, 0.2)]:
        found = float(heston_call(t, torch.tensor([[spot, v]], dtype=DOUBLE), **market))
        assert found == pytest.approx(price(spot, v), abs=1e-6 * spot * math.sqrt(left) + 1e-7)


FAR = {
    "tiny variance": {"theta": 1e-6, "spot": 100.0, "v": 1e-6},
    "tiny variance, off the strike": {"theta": 1e-6, "spot": 97.0, "v": 1e-6},
    "far out of the money": {"strike": 200.0, "v": 1e-4, "horizon": 0.1},
    "slow return": {"kappa": 0.05, "xi": 1.0, "horizon": 5.0},
    "far in the money": {"spot": 1e4},
    "strong correlation": {"rho": -0.99, "v": 0.04},
    "off the strike at the end": {"horizon": 1e-5, "spot": 80.0, "v": 0.4},
}


@pytest.mark.parametrize("name", FAR)
def test_heston_far_from_the_usual_options(name):
    """Lewis' integral itself, not turned, adaptively and piece after piece of its oscillation."""
    given = {"spot": 100.0, "v": 0.010201, **MARKET, **FAR[name]}
    spot, v = given.pop("spot"), given.pop("v")
    found = float(
        heston_call(torch.zeros(1, 1, dtype=DOUBLE), torch.tensor([[spot, v]], dtype=DOUBLE), **given)
    )
    assert found == pytest.approx(heston_by_lewis(spot, v, **given), rel=0, abs=2e-8)


def heston_by_lewis(spot, v, *, strike, rate, kappa, theta, xi, rho, horizon=1.0):
    """F - sqrt(F K) / pi times the integral of Re(exp(ium) phi(u - i/2)) / (u^2 + 1/4), piecewise."""
    forward, m = spot * math.exp(rate * horizon), math.log(spot / strike) + rate * horizon
    tail = (v + kappa * theta * horizon) / xi * math.sqrt(1 - rho**2)
    end = max(40 / tail, 10 / math.sqrt(v * horizon))
    pieces = np.unique(
        np.concatenate([np.geomspace(1e-3, end, 200), np.arange(0, end, 20 / abs(m))[:50_000], [0, end]])
    )
    points, weights = np.polynomial.legendre.leggauss(24)
    total = 0.0
    for part in np.array_split(np.arange(len(pieces) - 1), max(1, len(pieces) // 2000)):
        low, high = pieces[part, None], pieces[part + 1, None]
        u = (low + high) / 2 + (high - low) / 2 * points
        w = u**2 + 0.25
        slope = kappa - rho * xi * (0.5 + 1j * u)
        root = np.sqrt(slope**2 + xi**2 * w)
        ratio = (slope - root) / (slope + root)
        gone = np.exp(-root * horizon)
        level = (
            kappa * theta / xi**2 * ((slope - root) * horizon - 2 * np.log((1 - ratio * gone) / (1 - ratio)))
        )
        value = np.exp(1j * u * m + level + (slope - root) / xi**2 * (1 - gone) / (1 - ratio * gone) * v)
        total += float(((high - low) / 2 * weights * value.real / w).sum())
    return math.exp(-rate * horizon) * (forward - math.sqrt(forward * strike) / math.pi * total)


def test_heston_is_defined_where_euler_steps_lead():
    x = torch.tensor([[100.0, -0.01], [100.0, 0.0], [-5.0, 0.02], [1e4, 3.0]], dtype=DOUBLE)
    for time in (0.0, 0.5, 1 - 1e-12, 1.0):
        found = heston_call(torch.full((4, 1), time, dtype=DOUBLE), x, **MARKET)
        assert bool(found.isfinite().all())
        assert found[0] == found[1]
        assert float(found[3]) == pytest.approx(1e4 - 100 * math.exp(-0.0319 * (1 - time)), rel=1e-3)


def test_heston_without_volatility_of_variance_is_black():
    x = torch.tensor([[95.0, 0.04]], dtype=DOUBLE)
    found = heston_call(
        torch.zeros(1, 1), x, strike=100.0, rate=0.05, kappa=1.0, theta=0.04, xi=1e-4, rho=0.0
    )
    spread = 0.2
    d1 = (math.log(0.95) + 0.05 + 0.02) / spread
    expected = 95 * stats.norm.cdf(d1) - 100 * math.exp(-0.05) * stats.norm.cdf(d1 - spread)
    assert float(found) == pytest.approx(expected, abs=1e-6)
