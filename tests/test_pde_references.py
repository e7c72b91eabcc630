"""True values: the known digits, quadrature by other forms, sampling by other means."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from tnml.errors import InputError
from tnml.pde import (
    AllenCahn,
    ArithmeticBasketCall,
    BlackScholesBarenblatt,
    GeometricBasketCall,
    HamiltonJacobiBellman,
    HeatEquation,
    HestonCall,
    monte_carlo,
)
from tnml.pde.equations import radial
from tnml.pde.equations.calls import bachelier_call, black_call
from tnml.pde.references import (
    allen_cahn,
    arithmetic_basket_call,
    geometric_basket_call,
    hamilton_jacobi_bellman,
)

DOUBLE = torch.float64
OTHER = {"v0": 0.04, "theta": 0.04, "kappa": 2.0, "xi": 0.3, "rho": -0.7, "rate": 0.05}

# problem, known value, half a unit of its last digit
TABLE = {
    "bsb 10": (lambda: BlackScholesBarenblatt(10), 7.710487874729645, 1e-14),
    "bsb 50": (lambda: BlackScholesBarenblatt(50), 38.55243937364823, 1e-13),
    "bsb 100": (lambda: BlackScholesBarenblatt(100), 77.10487874729645, 1e-13),
    "hjb 10": (lambda: HamiltonJacobiBellman(10), 2.157022464825, 5e-13),
    "hjb 20": (lambda: HamiltonJacobiBellman(20), 2.921014735743, 5e-13),
    "hjb 50": (lambda: HamiltonJacobiBellman(50), 3.882006682196, 5e-13),
    "hjb 100": (lambda: HamiltonJacobiBellman(100), 4.590161724605, 5e-13),
    "hjb 250": (lambda: HamiltonJacobiBellman(250), 5.515459169993, 5e-13),
    "raissi 20": (lambda: AllenCahn(20), 0.3086985, 5e-8),
    "raissi 100": (lambda: AllenCahn(100), 0.0976357, 5e-8),
    "han 10": (lambda: AllenCahn(10, convention="han"), 0.3165127, 5e-8),
    "han 20": (lambda: AllenCahn(20, convention="han"), 0.2063548, 5e-8),
    "han 50": (lambda: AllenCahn(50, convention="han"), 0.0990812, 5e-8),
    "han 100": (lambda: AllenCahn(100, convention="han"), 0.0527814, 5e-8),
    "heston": (HestonCall, 6.806113, 5e-7),
    "heston calm": (lambda: HestonCall(**OTHER), 10.394219, 5e-7),
    "geometric 10": (lambda: GeometricBasketCall(10), 7.949269, 5e-7),
    "geometric 50": (lambda: GeometricBasketCall(50), 7.694590, 5e-7),
    "geometric 100": (lambda: GeometricBasketCall(100), 7.662222, 5e-7),
    "arithmetic 10": (lambda: ArithmeticBasketCall(10), 8.53180, 3 * 0.00095),
}


@pytest.mark.parametrize("name", TABLE)
def test_known_digits(name):
    make, known, half_a_digit = TABLE[name]
    assert make().true_value().value == pytest.approx(known, rel=0, abs=1.001 * half_a_digit)


def hjb_by_radius(d, left, distance):
    """-ln E[2 / (1 + R)], R = |x + sqrt(2 left) W|^2 a noncentral chi-squared variable, by its density."""
    law = (
        stats.ncx2(d, distance**2 / (2 * left), scale=2 * left) if distance else stats.chi2(d, scale=2 * left)
    )
    mean, width = law.mean(), law.std()
    edges = [0.0, *(mean + width * k for k in (-8, -4, -1, 0, 1, 4, 10, 20, 40) if mean + width * k > 0)]
    pieces = [
        integrate.quad(lambda r: 2 / (1 + r) * law.pdf(r), a, b, epsabs=1e-14, epsrel=1e-12, limit=400)[0]
        for a, b in pairwise(edges)
    ]
    return -math.log(sum(pieces))


def test_hjb_integral_against_adaptive_quadrature_of_another_form():
    rng = np.random.default_rng(11)
    dims = [1, 2, 3, 250, *np.exp(rng.uniform(0, np.log(250), 16)).astype(int)]
    for d in dims:
        t = rng.uniform(0, 0.95)
        x = rng.normal(size=d) * rng.uniform(0.2, 1.5)
        found = float(hamilton_jacobi_bellman(torch.tensor([[t]], dtype=DOUBLE), torch.from_numpy(x)[None]))
        assert found == pytest.approx(
            hjb_by_radius(int(d), 1 - t, float(np.linalg.norm(x))), rel=1e-8, abs=1e-9
        )


@pytest.mark.parametrize("d", [1, 10, 250])
@pytest.mark.parametrize("radius", [0.0, 0.3, 3.0, 40.0])
@pytest.mark.parametrize("left", [1e-9, 1e-3, 0.1, 1.0])
def test_hjb_integral_against_adaptive_quadrature_of_its_own_form(d, radius, left):
    """In the variable ln s, over the pieces where it lives; also far out and next to the end."""
    x = torch.full((1, d), radius / math.sqrt(d), dtype=DOUBLE)
    found = float(hamilton_jacobi_bellman(torch.tensor([[1 - left]], dtype=DOUBLE), x))
    left = 1 - (1 - left)

    def integrand(log_s):
        s = math.exp(log_s)
        growth = 1 + 4 * s * left
        return 2 * s * math.exp(-s - d / 2 * math.log(growth) - s * radius**2 / growth)

    edges = np.linspace(-40, 8, 49)
    total = sum(integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in pairwise(edges))
    assert found == pytest.approx(-math.log(total), rel=1e-11, abs=1e-11)


def test_hjb_against_sampling():
    rng = np.random.default_rng(2)
    t, x = 0.25, np.linspace(-1, 1, 20)
    ends = x + math.sqrt(2 * 0.75) * rng.normal(size=(100_000, 20))
    weights = 2 / (1 + (ends**2).sum(1))
    error = weights.std() / math.sqrt(len(weights)) / weights.mean()
    found = float(hamilton_jacobi_bellman(torch.tensor([[t]], dtype=DOUBLE), torch.from_numpy(x)[None]))
    assert abs(found + math.log(weights.mean())) < 3 * error < 0.01


def branching(rng, x, left, sigma, samples):
    """One sample of u(T - left, x) of Allen-Cahn per row: particles branch at rate 1 into 1 or 3.

    u - u^3 = (2 u - u^3) - u: at a branching the value 2 u - u^3 is sampled as 3 u with probability 2/3 and
    -3 u^3 with probability 1/3.
    """
    points, clocks, owners = np.tile(x, (samples, 1)), np.full(samples, left), np.arange(samples)
    products = np.ones(samples)
    while len(points):
        life = rng.exponential(size=len(points))
        time = np.minimum(life, clocks)
        points = points + sigma * np.sqrt(time)[:, None] * rng.normal(size=points.shape)
        ended = life >= clocks
        np.multiply.at(products, owners[ended], 1 / (2 + 0.4 * (points[ended] ** 2).sum(1)))
        points, clocks, owners = points[~ended], (clocks - time)[~ended], owners[~ended]
        triple = rng.random(len(points)) < 1 / 3
        np.multiply.at(products, owners, np.where(triple, -3.0, 3.0))
        children = np.repeat(np.arange(len(points)), np.where(triple, 3, 1))
        points, clocks, owners = points[children], clocks[children], owners[children]
    return products


@pytest.mark.parametrize(
    ("d", "sigma2", "t", "radius"), [(5, 1.0, 0.0, 0.0), (20, 2.0, 0.0, 0.0), (3, 2.0, 0.1, 1.5)]
)
def test_allen_cahn_against_branching_particles(d, sigma2, t, radius):
    x = np.full(d, radius / math.sqrt(d))
    values = branching(np.random.default_rng(4), x, 0.3 - t, math.sqrt(sigma2), 60_000)
    error = values.std() / math.sqrt(len(values))
    points = torch.from_numpy(x)[None]
    found = float(allen_cahn(torch.tensor([[t]], dtype=DOUBLE), points, sigma2=sigma2))
    assert abs(found - values.mean()) < 3 * error < 0.01


def test_allen_cahn_at_a_horizon_that_float32_rounds_up():
    t, x = torch.tensor([[0.3]]), torch.ones(1, 4)
    assert t.double() > 0.3
    assert float(allen_cahn(t, x)) == pytest.approx(1 / 3.6, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("d", "sigma2", "horizon"), [(1, 1.0, 4.0), (3, 2.0, 1.0), (20, 1.0, 1.5)])
def test_allen_cahn_at_long_horizons_against_a_finer_resolution(d, sigma2, horizon, monkeypatch):
    rng = np.random.default_rng(5)
    x = torch.zeros(300, d, dtype=DOUBLE)
    x[:, 0] = torch.from_numpy(10 ** rng.uniform(-2, 3, 300))  # to beyond where u is 1
    t = torch.from_numpy(rng.uniform(0, horizon, (300, 1)))
    found = allen_cahn(t, x, sigma2=sigma2, horizon=horizon)
    for name, value in {"_SPACE": 64, "_TIME": 14, "_LONGEST_PANEL": 0.25}.items():
        monkeypatch.setattr(radial, name, value)
    radial._solved.cache_clear()
    finer = allen_cahn(t, x, sigma2=sigma2, horizon=horizon)
    radial._solved.cache_clear()
    assert float((found - finer).abs().max()) < 2e-9


@pytest.mark.slow
def test_allen_cahn_after_a_long_time_is_one_near_and_the_reaction_far_out():
    x = torch.tensor([[0.0], [1e4]], dtype=DOUBLE)
    near, far = allen_cahn(torch.zeros(2, 1), x, horizon=12.0)[:, 0].tolist()
    start = (1 + 36e-8) / (2 + 0.4 * 1e8)  # the diffusion of 1 / x^2 over 12 times: 36 / x^2
    assert near == pytest.approx(1, abs=1e-8)
    assert far == pytest.approx(start * math.exp(12) / math.sqrt(1 + (start * math.exp(12)) ** 2), rel=1e-8)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"horizon": 101.0}, "at most 100"),
        ({"sigma2": -1.0}, "sigma2 positive"),
        ({"sigma2": 1000.0, "horizon": 1.0}, "cannot be solved to eight digits"),
    ],
)
def test_allen_cahn_refuses_what_it_cannot_solve(options, text):
    with pytest.raises(InputError, match=text):
        allen_cahn(torch.zeros(1, 1), torch.zeros(1, 1), **options)


def test_allen_cahn_refuses_newton_steps_that_do_not_end(monkeypatch):
    monkeypatch.setattr(radial, "_NEWTON", 1)
    radial._solved.cache_clear()
    with pytest.raises(InputError, match="Newton's method still moves"):
        allen_cahn(torch.zeros(1, 1), torch.zeros(1, 2), horizon=0.123)


@pytest.mark.parametrize("time", [1 + 1e-6, 1.0])
def test_after_the_horizon_the_solution_is_the_terminal_value(time):
    for made in (BlackScholesBarenblatt(4), HamiltonJacobiBellman(4), HeatEquation(4)):
        x = made.start(DOUBLE)[None] + 0.1
        found = made.exact(torch.full((1, 1), time, dtype=DOUBLE), x)
        torch.testing.assert_close(found, made.g(x), rtol=1e-10, atol=1e-10)


def test_allen_cahn_against_finite_differences():
    """Second order in r and in time, u(0, r) on a grid to r = 12, two grids extrapolated."""

    def solved(cells):
        d, sigma2, horizon, far = 3, 1.0, 0.3, 12.0
        r = (np.arange(cells) + 0.5) * far / cells
        faces = np.arange(cells + 1) * far / cells
        flow = sigma2 / 2 * (faces ** (d - 1)) / (far / cells)
        flow[-1] = 0.0
        volume = (faces[1:] ** d - faces[:-1] ** d) / d
        matrix = np.diag(-(flow[1:] + flow[:-1])) + np.diag(flow[1:-1], 1) + np.diag(flow[1:-1], -1)
        matrix /= volume[:, None]
        dt = horizon / (cells // 2)
        step = np.linalg.solve(np.eye(cells) - dt / 2 * matrix, np.eye(cells) + dt / 2 * matrix)

        def react(u, time):
            return u * np.exp(time) / np.sqrt(1 + u**2 * np.expm1(2 * time))

        u = 1 / (2 + 0.4 * r**2)
        for _ in range(cells // 2):
            u = react(step @ react(u, dt / 2), dt / 2)
        near = slice(np.searchsorted(r, 1.0) - 2, np.searchsorted(r, 1.0) + 2)
        return np.polyval(np.polyfit(r[near], u[near], 3), 1.0)

    coarse, fine = solved(150), solved(300)
    x = torch.tensor([[0.6, 0.8, 0.0]], dtype=DOUBLE)
    found = float(allen_cahn(torch.zeros(1, 1), x))
    assert found == pytest.approx((4 * fine - coarse) / 3, abs=2e-7)


def test_prices_under_a_gaussian_and_a_log_normal_law_against_quadrature():
    strike, mean, variance = 90.0, 100.0, 0.09
    z = np.linspace(-12, 12, 400_001)
    weight = stats.norm.pdf(z) * (z[1] - z[0])
    log_normal = mean * np.exp(0.3 * z - 0.045)
    args = (torch.tensor([mean], dtype=DOUBLE), strike, torch.tensor([variance], dtype=DOUBLE))
    expected = (np.maximum(log_normal - strike, 0) * weight).sum()
    assert float(black_call(*args)) == pytest.approx(expected, abs=1e-6)
    expected = (np.maximum(mean + 30 * z - strike, 0) * weight).sum()
    args = (args[0], strike, torch.tensor([900.0], dtype=DOUBLE))
    assert float(bachelier_call(*args)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "samples", "steps"),
    [
        (lambda: HeatEquation(7, sigma=0.6, horizon=2.0), 20_000, None),
        (lambda: GeometricBasketCall(10), 60_000, None),
        (
            lambda: GeometricBasketCall(3, spot=90.0, correlation=-0.2, volatility=0.3, rate=0.02),
            60_000,
            None,
        ),
        (lambda: HestonCall(**OTHER), 40_000, 100),
        (lambda: HestonCall(**(OTHER | {"horizon": 0.5, "spot": 110.0, "rho": 0.4})), 40_000, 100),
    ],
)
def test_formulas_against_monte_carlo(make, samples, steps):
    made = make()
    value, error, source = monte_carlo(made, samples, steps, seed=3)
    assert abs(value - made.true_value().value) < 3 * error
    assert error < 0.02 * value
    assert f"{samples:,} paths" in source


def test_monte_carlo_refuses_what_is_not_linear():
    for made in (HamiltonJacobiBellman(3), BlackScholesBarenblatt(3), AllenCahn(3)):
        with pytest.raises(InputError, match="the mean of g"):
            monte_carlo(made)


@pytest.mark.parametrize(
    "driver",
    [
        lambda t, x, y: 5 * t,
        lambda t, x, y: t * (1 - t) * y,
        lambda t, x, y: x.square().sum(1, keepdim=True),
        lambda t, x, y: 0.3 * (y - y.clamp(max=2.5)),
    ],
)
def test_monte_carlo_refuses_drivers_that_vanish_at_the_start(driver):
    made = dataclasses.replace(HeatEquation(3), driver_value=driver, options=None)
    with pytest.raises(InputError, match="is not discount"):
        monte_carlo(made)


def test_sampling_is_a_function_of_the_seed():
    made = GeometricBasketCall(3)
    assert monte_carlo(made, 1000, seed=1) == monte_carlo(made, 1000, seed=1)
    assert monte_carlo(made, 1000, seed=1) != monte_carlo(made, 1000, seed=2)


@pytest.mark.parametrize(("d", "correlation", "volatility"), [(3, 0.5, 0.2), (5, -0.1, 0.5)])
def test_arithmetic_basket_against_plain_sampling(d, correlation, volatility):
    covariance = volatility**2 * (correlation + (1 - correlation) * np.eye(d))
    spots, strike, rate, horizon = np.linspace(80, 120, d), 100.0, 0.05, 0.75
    rng = np.random.default_rng(8)
    noise = rng.multivariate_normal(np.zeros(d), covariance * horizon, size=200_000)
    ends = spots * np.exp((rate - volatility**2 / 2) * horizon + noise)
    pay = math.exp(-rate * horizon) * np.maximum(ends.mean(1) - strike, 0)
    plain_error = pay.std() / math.sqrt(len(pay))
    factor = torch.from_numpy(np.linalg.cholesky(covariance))
    market = {"strike": strike, "rate": rate, "factor": factor, "horizon": horizon}
    value, error, _ = arithmetic_basket_call(torch.from_numpy(spots), samples=2**15, **market)
    assert abs(value - pay.mean()) < 3 * math.hypot(error, plain_error)
    assert error < plain_error / 2, "the control helps"


def test_error_bars_are_honest():
    """Over 60 seeds the spread of the sampled values is what each of them says it is."""
    factor = 0.2 * torch.linalg.cholesky(0.5 * torch.eye(4, dtype=DOUBLE) + 0.5)
    market = {"strike": 100.0, "rate": 0.05, "factor": factor, "samples": 4000}
    found = [arithmetic_basket_call(torch.full((4,), 100.0), seed=seed, **market) for seed in range(60)]
    spread = np.std([value for value, _, _ in found])
    assert spread == pytest.approx(np.mean([error for _, error, _ in found]), rel=0.4)


def test_one_asset_is_black_and_scholes():
    expected = 10.450583572185565
    factor = torch.full((1, 1), 0.2, dtype=DOUBLE)
    spots = torch.full((1,), 100.0, dtype=DOUBLE)
    value, error, _ = arithmetic_basket_call(spots, strike=100.0, rate=0.05, factor=factor, samples=100)
    assert value == pytest.approx(expected, abs=1e-10)
    assert error < 1e-10
    geometric = geometric_basket_call(
        torch.zeros(1, 1), spots[None], strike=100.0, rate=0.05, covariance=factor @ factor.T
    )
    assert float(geometric) == pytest.approx(expected, abs=1e-10)
