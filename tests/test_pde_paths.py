"""Brownian increments and paths: what they depend on, their moments, convergence, bad input."""

import math

import numpy as np
import pytest
import torch
from pde_oracles import brownian_bridge

from tnml.errors import InputError
from tnml.pde import BlackScholesBarenblatt, HestonCall, Problem, euler_maruyama, increments
from tnml.pde.paths import noise
from tnml.pde.paths.noise import bridge, sign_design

METHODS = ["normal", "signs", "sobol"]


def square(x):
    return x.square().sum(1, keepdim=True)


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_any_part_of_a_batch_is_what_one_process_draws(method, antithetic):
    options = {"seed": 5, "step": 2, "method": method, "antithetic": antithetic}
    whole = increments(50, 3, 4, 0.1, **options)
    for first, count in [(0, 50), (0, 25), (25, 25), (7, 1), (15, 18), (49, 1)]:
        assert torch.equal(increments(count, 3, 4, 0.1, first=first, **options), whole[first : first + count])
    assert torch.equal(increments(80, 3, 4, 0.1, **options)[:50], whole)


@pytest.mark.parametrize("method", METHODS)
def test_seed_step_and_stream_change_every_path(method):
    def drawn(**options):
        return increments(40, 3, 4, 0.1, method=method, **{"seed": 1, "step": 1, **options})

    before = drawn()
    for change in ({"seed": 2}, {"step": 2}, {"stream": 1}):
        assert (drawn(**change) != before).flatten(1).any(1).all()


@pytest.mark.parametrize("method", METHODS)
def test_moments(method):
    n, d, dt = 4, 3, 0.25
    dw = increments(2**13, n, d, dt, seed=3, step=0, method=method, dtype=torch.float64).flatten(1)
    size = len(dw)
    assert dw.mean(0).abs().max() < 4.5 * math.sqrt(dt / size)
    covariance = dw.T @ dw / size
    assert (covariance - dt * torch.eye(n * d)).abs().max() < 5 * math.sqrt(2 / size) * dt
    if method == "signs":
        assert torch.allclose(dw.abs(), torch.full_like(dw, math.sqrt(dt)))
    else:
        assert (dw**4).mean().item() == pytest.approx(3 * dt**2, rel=0.05)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8])
def test_sign_designs_have_the_moments_of_a_normal_vector(d):
    found = sign_design(d).double()
    assert set(found.unique().tolist()) <= {-1.0, 1.0}
    count = len(found)
    torch.testing.assert_close(found.mean(0), torch.zeros(d, dtype=torch.float64))
    torch.testing.assert_close(found.T @ found / count, torch.eye(d, dtype=torch.float64))
    assert torch.einsum("ka,kb,kc->abc", found, found, found).abs().max() == 0


def test_points_outside_the_domain_are_seen_inside():
    """Heston's variance: the steps go on from the state below zero, u is asked at zero."""
    problem = HestonCall()
    dw = increments(200, 20, 2, problem.horizon / 20, seed=0, step=0, dtype=torch.float64)
    paths = euler_maruyama(problem, dw)
    state = problem.start(torch.float64).expand(200, -1)
    below = 0
    for k in range(20):
        t = torch.full((200, 1), k * paths.dt, dtype=torch.float64)
        state = state + problem.mu(t, state) * paths.dt + problem.sigma(t, state, dw[:, k])
        below += int((state[:, 1] < 0).sum())
        seen = torch.stack([state[:, 0], state[:, 1].clamp(min=0)], 1)
        torch.testing.assert_close(paths.x[:, k + 1], seen)
    assert below > 50


def test_antithetic_paths_are_pairs():
    dw = increments(20, 3, 2, 0.1, seed=0, step=0, antithetic=True)
    assert torch.equal(dw[::2], -dw[1::2])
    assert len(torch.unique(dw.abs().flatten(1), dim=0)) == 10


@pytest.mark.parametrize("n", [1, 2, 5, 8, 13])
def test_bridge_is_orthogonal_and_the_textbook_bridge(n, generator):
    matrix = bridge(n)
    assert torch.allclose(matrix @ matrix.T, torch.eye(n, dtype=torch.float64), atol=1e-14)
    z = torch.randn(n, dtype=torch.float64, generator=generator)
    assert np.allclose(torch.cumsum(z @ matrix, 0), brownian_bridge(z)[1:], atol=1e-13)


def test_sobol_sequences_are_set_up_once_and_stay_as_they_were(monkeypatch):
    made = []
    engine = torch.quasirandom.SobolEngine

    def counted(dimensions):
        made.append(dimensions)
        return engine(dimensions)

    counted.MAXDIM = engine.MAXDIM
    monkeypatch.setattr(torch.quasirandom, "SobolEngine", counted)
    noise._sobol_engine.cache_clear()
    options = {"seed": 0, "method": "sobol", "dtype": torch.float64}
    before = increments(8, 3, 5, 0.1, step=0, **options)
    for step in range(1, 4):
        increments(6, 3, 5, 0.1, step=step, first=4 * step, **options)
    assert made == [15]
    assert torch.equal(increments(8, 3, 5, 0.1, step=0, **options), before)
    noise._sobol_engine.cache_clear()
    assert torch.equal(increments(8, 3, 5, 0.1, step=0, **options), before)


def test_sobol_integrates_better_than_chance():
    """The mean of |W_T|^2, which the first coordinates of the bridge carry."""

    def error(method):
        found = [
            increments(256, 16, 3, 1 / 16, seed=s, step=0, method=method, dtype=torch.float64)
            .sum(1)
            .square()
            .sum(1)
            for s in range(8)
        ]
        return np.sqrt(np.mean([(values.mean().item() - 3) ** 2 for values in found]))

    assert error("sobol") < error("normal") / 5


def test_euler_by_definition(generator):
    d, n, m = 3, 4, 5
    matrix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    problem = Problem(
        name="own",
        dim=d,
        horizon=2.0,
        x0=[0.1, 0.2, 0.3],
        terminal=square,
        drift=lambda t, x: torch.sin(x) + t,
        diffusion=lambda t, x, v: torch.cos(x) * (v @ matrix.T) + t * v,
    )
    dw = increments(m, n, d, 0.375, seed=0, step=0, dtype=torch.float64)
    paths = euler_maruyama(problem, dw, t0=0.5)
    assert torch.allclose(paths.times, torch.tensor([0.5, 0.875, 1.25, 1.625, 2.0], dtype=torch.float64))
    for j in range(m):
        x = np.array([0.1, 0.2, 0.3])
        for k in range(n):
            t = 0.5 + 0.375 * k
            sigma = np.diag(np.cos(x)) @ matrix.numpy() + t * np.eye(d)
            assert np.allclose(paths.sdw[j, k], sigma @ dw[j, k].numpy())
            assert np.allclose(paths.x[j, k], x)
            x = x + (np.sin(x) + t) * 0.375 + sigma @ dw[j, k].numpy()
        assert np.allclose(paths.x[j, n], x)


def test_own_starts():
    problem = BlackScholesBarenblatt(2)
    dw = increments(3, 2, 2, 0.5, seed=0, step=0)
    one = euler_maruyama(problem, dw, x0=torch.tensor([2.0, 3.0]))
    many = euler_maruyama(problem, dw, x0=torch.tensor([[2.0, 3.0]] * 3))
    assert torch.equal(one.x, many.x)
    assert one.x[:, 0].tolist() == [[2.0, 3.0]] * 3


def geometric_end(dw, sigma, x0):
    """X_T of `dX = sigma X dW`."""
    return x0 * np.exp(sigma * dw.sum(1).numpy() - sigma**2 / 2)


def test_geometric_steps_are_exact_and_euler_converges():
    problem = BlackScholesBarenblatt(2, sigma=0.4)
    fine = increments(4000, 256, 2, 1 / 256, seed=0, step=0, dtype=torch.float64)
    truth = geometric_end(fine, 0.4, problem.start(torch.float64).numpy())
    errors = []
    for n in (16, 64, 256):
        dw = fine.view(4000, n, -1, 2).sum(2)
        assert np.allclose(euler_maruyama(problem, dw).x[:, -1], truth, rtol=1e-12)
        assert torch.equal(euler_maruyama(problem, dw, steps="exact").x, euler_maruyama(problem, dw).x)
        end = euler_maruyama(problem, dw, steps="euler").x[:, -1].numpy()
        errors.append(np.sqrt(np.mean((end - truth) ** 2)))
    rates = np.log2(np.array(errors[:-1]) / errors[1:]) / 2
    assert (np.abs(rates - 0.5) < 0.1).all()


def test_parts_and_points():
    problem = BlackScholesBarenblatt(2)
    dw, fresh = increments(6, 3, 2, 1 / 3, seed=0, step=0), torch.rand(6, 3, 4, 2)
    paths = euler_maruyama(problem, dw, fresh=fresh)
    part = paths.part(2, 5)
    assert len(part) == 3
    assert torch.equal(part.fresh, fresh[2:5])
    assert torch.equal(part.sdw, euler_maruyama(problem, dw[2:5]).sdw)
    t, x = paths.points(1, 3)
    assert torch.equal(x.view(6, 2, 2), paths.x[:, 1:3])
    assert torch.equal(t.view(6, 2)[3], paths.times[1:3])


def coupled_problem():
    return Problem(
        name="coupled",
        dim=2,
        horizon=1.0,
        x0=0.5,
        terminal=square,
        diffusion=0.3,
        coupled_drift=lambda t, x, y, z: 0.1 * y * x + 0.2 * z,
    )


def test_coupled_paths_wait_for_a_solution():
    problem = coupled_problem()
    dw = increments(3, 4, 2, 0.25, seed=0, step=0, dtype=torch.float64)
    alone = euler_maruyama(problem, dw)
    assert alone.x.shape == (3, 1, 2)
    assert alone.sdw.shape == (3, 0, 2)
    paths = euler_maruyama(problem, dw, solution=lambda t, x: t + square(x))
    x = torch.full((3, 2), 0.5, dtype=torch.float64)
    for k in range(4):
        x = x + (0.1 * (k * 0.25 + square(x)) * x + 0.4 * x) * 0.25 + 0.3 * dw[:, k]
        assert torch.allclose(paths.x[:, k + 1], x)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"m": 0}, "m must be a whole number, at least 1"),
        ({"dt": 0.0}, "dt must be a number, above 0"),
        ({"dt": math.nan}, "dt must be a number, above 0"),
        ({"first": -1}, "first must be a whole number, at least 0"),
        ({"method": "sobl"}, "did you mean 'sobol'"),
        ({"method": "sobol", "n": 300, "d": 100}, "21201"),
    ],
)
def test_bad_increments(change, text):
    with pytest.raises(InputError, match=text):
        increments(**{"m": 2, "n": 3, "d": 4, "dt": 0.1, "seed": 0, "step": 0, **change})


@pytest.mark.parametrize(
    ("d", "options", "text"),
    [
        (3, {}, "3 dimensions.*has 2"),
        (2, {"t0": 1.0}, "t0 must lie"),
        (2, {"t0": -0.1}, "t0 must lie"),
        (2, {"x0": torch.zeros(3)}, "x0 must be"),
        (2, {"steps": "exact"}, "geometric"),
        (2, {"steps": "eulr"}, "did you mean 'euler'"),
    ],
)
def test_bad_paths(d, options, text):
    heat = Problem(name="heat", dim=2, horizon=1.0, x0=0.0, terminal=square, diffusion=1.0)
    with pytest.raises(InputError, match=text):
        euler_maruyama(heat, torch.zeros(4, 2, d), **options)
