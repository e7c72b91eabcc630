"""The check of a solution: values, bounds and coverage against closed forms; doubts where there is cause."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import binom

from tnml.pde import (
    BlackScholesBarenblatt,
    HamiltonJacobiBellman,
    HeatEquation,
    LogNormal,
    Problem,
    SolveOptions,
    increments,
    preset,
    solve,
)
from tnml.pde.aposteriori.bounds import NORMAL, backwards, entropic, extrapolated, interval, sampled
from tnml.pde.aposteriori.check import check
from tnml.pde.aposteriori.curvature import Curvature, curvature
from tnml.pde.aposteriori.doubts import exact_is_another, may_blow_up, still_falling, wrong_sign
from tnml.pde.aposteriori.linearised import coarser, steps_are_exact, walk
from tnml.pde.aposteriori.slopes import gradient_of, jump_of

DOUBLE = torch.float64
LINEAR = Curvature("linear", 0.0, 0.0, None)


def noise(problem, m, n, seed=0):
    return increments(m, n, problem.dim, problem.horizon / n, seed=seed, step=0, dtype=DOUBLE)


def square(x):
    return x.square().sum(1, keepdim=True)


def own(**changes):
    given = {"name": "mine", "dim": 2, "horizon": 1.0, "x0": 1.0, "terminal": square, "diffusion": 1.0}
    return Problem(**{**given, **changes})


def riccati(d=2, seed=0):
    """A linear-quadratic control problem with dense matrices, its solution, and the cost of a worse policy.

    `dX = (A X + B a) dt + S dW`, cost `X'QX + a'Ra`, at the end `X'GX`. With the policy of the value `p x'Px`
    the cost is `x'Lx + l` with a linear equation for L.
    """
    rng = np.random.default_rng(seed)
    a = 0.4 * rng.standard_normal((d, d)) - 0.2 * np.eye(d)
    b = np.eye(d) + 0.3 * rng.standard_normal((d, d))
    s = 0.4 * (np.eye(d) + 0.4 * rng.standard_normal((d, d)))
    q, r, g = 0.5 * np.eye(d), np.eye(d) + 0.2, np.eye(d)
    gain = b @ np.linalg.inv(r) @ b.T

    def slopes(part):
        def rhs(_, y):
            p, cost = y[: d * d].reshape(d, d), y[d * d + 1 : 2 * d * d + 1].reshape(d, d)
            dp = a.T @ p + p @ a + q - p @ gain @ p
            k = part * p  # the policy is -R^-1 B' k x
            f = a - gain @ k
            dcost = f.T @ cost + cost @ f + q + k @ gain @ k
            means = [np.trace(s @ s.T @ p)], [np.trace(s @ s.T @ cost)]
            return np.concatenate([dp.ravel(), means[0], dcost.ravel(), means[1]])

        return rhs

    def solved(part):
        start = np.concatenate([g.ravel(), [0.0], g.ravel(), [0.0]])
        return solve_ivp(slopes(part), (0, 1), start, rtol=1e-10, atol=1e-12, dense_output=True)

    return a, s, q, gain, solved


def lq(part, coupled=False):
    """The problem, an approximation `part * u`, the truth and the cost of that approximation's policy."""
    a, s, q, gain, solved = riccati()
    found = solved(part)
    a, q, gain = (torch.tensor(matrix) for matrix in (a, q, gain))

    def form(x, matrix):
        return (x @ matrix * x).sum(1, keepdim=True)

    def approximation(t, x):
        y = torch.tensor(found.sol(1 - float(t[0]))[:5])
        return part * (form(x, y[:4].view(2, 2)) + y[4]) + (1 - part) * square(x) * (float(t[0]) == 1)

    def drift(t, x):
        return x @ a.T

    shared = {"x0": [1.0, -0.5], "diffusion": torch.tensor(s), "name": "lq"}
    if coupled:
        problem = own(
            coupled_drift=lambda t, x, y, z: drift(t, x) - z @ gain / 2,
            driver=lambda t, x, y, z: -form(x, q) - form(z, gain) / 4,
            **shared,
        )
    else:
        problem = own(drift=drift, driver=lambda t, x, y, z: form(z, gain) / 4 - form(x, q), **shared)
    end, x = found.y[:, -1], problem.x0.numpy()
    return (
        problem,
        approximation,
        x @ end[:4].reshape(2, 2) @ x + end[4],
        x @ end[5:9].reshape(2, 2) @ x + end[9],
    )


def test_the_policy_of_a_control_problem_costs_what_lyapunov_says():
    problem, v, truth, cost = lq(0.6)
    assert cost > 1.002 * truth
    fine = noise(problem, 1500, 20)
    one, two = walk(problem, v, fine, keep=True), walk(problem, v, coarser(fine))
    found = sampled(2 * one.value - two.value)
    assert abs(found.mean - cost) < 4 * found.error + 3e-3 * cost  # what the steps leave: some (1/20)^2 of it
    rows = slice(0, 400, 20)
    points = [part[10, rows] for part in (one.t, one.x, one.y, one.z)]
    near = curvature(problem, *points, near_y=0.1, near_z=0.5)
    assert near.shape == "convex"
    low, high = interval(
        near,
        extrapolated(one.value, two.value),
        one.value,
        None,
        horizon=1.0,
        missed=0.1,
        inflation=one.inflation,
    )
    assert low < truth < cost < high
    assert high < cost + 8 * found.error


def test_the_curvature_is_the_largest_generalised_eigenvalue():
    problem = lq(0.9)[0]
    _, s, _, gain, _ = riccati()
    inverse = np.linalg.inv(s)
    expected = np.linalg.eigvalsh(inverse @ gain @ inverse.T / 2).max()
    t, x = torch.zeros(6, 1, dtype=DOUBLE), torch.randn(6, 2, dtype=DOUBLE, generator=torch.Generator())
    found = curvature(problem, t, x, x[:, :1], x, near_y=0.1, near_z=0.3)
    assert found.most == pytest.approx(expected, rel=1e-9)
    assert found.of_z == pytest.approx(0.3 * expected, rel=1e-9)
    assert found.of_y == 0


def test_a_coupled_drift_gives_the_same_paths_as_in_the_driver():
    """A v with the right ends: there both have the same tangent."""
    (coupled, v, _, _), (free, _, _, _) = lq(0.8, coupled=True), lq(0.8)
    dw = noise(free, 20, 6)
    one, two = walk(coupled, v, dw), walk(free, v, dw)
    torch.testing.assert_close(one.value, two.value, rtol=1e-10, atol=1e-10)


def test_the_dual_bound_of_hjb_is_its_solution():
    """Cole and Hopf: `-ln E exp(-C)` is u(0, x0), for any v that ends in g."""
    problem = HamiltonJacobiBellman(3)

    def v(t, x):
        return torch.log((1 + square(x) + 4 * (1 - t)) / 2)

    fine = noise(problem, 1500, 20)
    values = [walk(problem, v, dw).value for dw in (fine, coarser(fine))]
    logs = [-torch.log(torch.exp(-part).mean()) for part in values]
    error = entropic(values[0], 1.0).error
    truth = problem.true_value().value
    assert abs(float(2 * logs[0] - logs[1]) - truth) < 4 * error + 3e-3
    assert sampled(values[0]).mean > truth + 1e-3, "the policy is not the best"


@pytest.mark.parametrize(("power", "shape"), [(2, "convex"), (-2, "concave")])
def test_an_equation_without_space_is_solved_backwards_exactly(power, shape):
    """`u' = s u^2` from u(T) = 1: u(0) = 1 / (1 + s T); v = 1 is far off."""
    sign = math.copysign(1.0, power)
    problem = own(
        horizon=0.5, terminal=lambda x: 1 + 0 * x[:, :1], driver_value=lambda t, x, y: sign * y.abs() ** 2
    )
    fine = noise(problem, 4, 40)

    def one(t, x):
        return 1 + 0 * x[:, :1]

    walks = [walk(problem, one, dw, keep=True) for dw in (fine, coarser(fine))]
    dual = tuple(backwards(problem, part) for part in walks)
    truth = 1 / (1 + sign * 0.5)
    torch.testing.assert_close(
        2 * dual[0] - dual[1], torch.full((4,), truth, dtype=DOUBLE), rtol=1e-3, atol=0.0
    )
    near = Curvature(shape, 1.0, 0.0, 0.0)
    values = [part.value for part in walks]
    low, high = interval(near, extrapolated(*values), values[0], dual, horizon=0.5, missed=0.5, inflation=1.0)
    assert low - 1e-3 <= truth <= high + 1e-3
    assert (high if sign < 0 else low) == pytest.approx(truth, rel=1e-3)
    assert abs((low if sign < 0 else high) - truth) > 0.01


@pytest.mark.parametrize("name", ["bsb", "heat"])
def test_intervals_of_linear_problems_cover_the_truth_as_often_as_they_say(name):
    """Whatever v is: here it is 10 % off, and its gradient 20 %. 40 intervals of 95 %."""
    problem = BlackScholesBarenblatt(2) if name == "bsb" else HeatEquation(2)

    def v(t, x):
        return square(x) * (1 + 0.1 * (1 - t)) + 0.3 * (1 - t) * torch.sin(x.sum(1, keepdim=True))

    found = []
    for seed in range(40):
        fine = noise(problem, 64, 4, seed)
        one = walk(problem, v, fine).value
        values = one if steps_are_exact(problem) else extrapolated(one, walk(problem, v, coarser(fine)).value)
        found.append(interval(LINEAR, values, one, None, horizon=1.0, missed=1.0, inflation=1.0))
    low, high = np.array(found).T
    truth = problem.true_value().value
    covered = int(((low < truth) & (truth < high)).sum())
    assert covered >= binom.ppf(1e-4, 40, 0.94)
    ratio = ((low + high) / 2).std() / ((high - low) / (2 * NORMAL)).mean()
    assert 0.65 < ratio < 1.45  # the deviation of 40 means, five standard errors


def test_the_second_order_leaves_nothing_of_a_square():
    problem = HeatEquation(3)
    values = walk(problem, problem.exact, noise(problem, 6, 4)).value
    torch.testing.assert_close(values, torch.full((6,), 6.0, dtype=DOUBLE))
    bent = walk(problem, lambda t, x: problem.exact(t, x).sin(), noise(problem, 6, 4)).value
    assert bent.std() > 0.1


def test_the_gradient_is_measured():
    problem = HeatEquation(2)
    fine = noise(problem, 300, 10)
    for part in (1.0, 0.8, 1.3):

        def v(t, x, part=part):
            return part * problem.exact(t, x)

        one, two = walk(problem, v, fine), walk(problem, v, coarser(fine))
        found = gradient_of(one.raw, one.value, two.value)
        assert found.error == pytest.approx(abs(1 - part), abs=0.02)
        assert found.size.mean == pytest.approx(1 / part, rel=0.02)


def test_what_the_steps_leave_is_no_error_of_the_gradient():
    problem = BlackScholesBarenblatt(3)
    fine = noise(problem, 1000, 6)
    one, two = walk(problem, problem.exact, fine), walk(problem, problem.exact, coarser(fine))
    left = float((one.value.var() / one.raw.var()).sqrt())
    assert left > 0.05
    assert gradient_of(one.raw, one.value, two.value).error < 0.5 * left


def test_jumps_of_the_slope():
    call = own(dim=1, diffusion=None, log_normal=LogNormal(0.05, 0.2), x0=100.0)

    def kinked(width):
        return lambda t, x: torch.nn.functional.softplus((x - 104) / width) * width

    assert jump_of(call, kinked(5.0), DOUBLE) is None
    time, jump, share = jump_of(call, kinked(1e-6), DOUBLE)
    assert (time, jump, share) == (0.0, pytest.approx(1.0), pytest.approx(1.0))


def test_doubts_of_the_equation_and_of_the_training():
    assert still_falling([{"loss": 1.0}] * 8) is None
    assert still_falling([{"loss": 1.0}] * 6 + [{"loss": -0.3}] * 2).name == "training"
    ends = torch.ones(5, 2, dtype=DOUBLE)
    for power, horizon, name in ((3, 0.2, None), (3, 2.0, "blow-up"), (1, 12.0, None)):
        made = own(horizon=horizon, driver_value=lambda t, x, y, power=power: -(y**power))
        found = may_blow_up(made, ends * 0.7)
        assert (found and found.name) == name
    cubic = own(horizon=2.0, driver_value=lambda t, x, y: -(y**3), terminal=lambda x: x[:, :1])
    ends = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.1, 0.0]], dtype=DOUBLE)
    assert may_blow_up(cubic, ends) is None  # from the mean, .37, after 3.7
    assert may_blow_up(cubic, ends, largest=True).name == "blow-up"  # from 1 after a half
    ends = torch.ones(5, 2, dtype=DOUBLE)
    market = {"diffusion": None, "log_normal": LogNormal(0.05, 0.2)}
    one = torch.ones(4, 1, dtype=DOUBLE)
    for rate, name in ((0.05, None), (-0.05, "sign"), (-0.04, None)):
        made = own(driver_value=lambda t, x, y, rate=rate: rate * y, **market)
        found = wrong_sign(made, one, ends[:4], one)
        assert (found and found.name) == name
    heat = HeatEquation(2)
    assert exact_is_another(heat, ends) is None
    slipped = dataclasses.replace(heat, driver=lambda t, x, y, z: 0.1 * y)
    assert exact_is_another(slipped, ends).name == "exact"


def names(found):
    return {flag.name for flag in found.flags}


def checked(problem, v, **changes):
    x = problem.start(DOUBLE)[None]
    given = {"time_steps": 10, "dtype": DOUBLE, "paths": 256, "tolerance": 0.03}
    return check(problem, v, float(v(x.new_zeros(1, 1), x)), **{**given, **changes})


def test_a_check_says_what_is_wrong():
    problem = BlackScholesBarenblatt(2)
    right = checked(problem, problem.exact)
    assert right.passed
    assert right.kind == "unbiased"
    assert right.interval[0] < problem.true_value().value < right.interval[1]
    off = checked(problem, lambda t, x: problem.exact(t, x) * (1 + 0.2 * (1 - t)))
    assert {"off", "trivial"} <= names(off)
    assert not off.passed
    assert off.standard_errors > 5
    wrong = checked(problem, lambda t, x: problem.exact(t, x) - 3 * (1 - t) * square(x))
    assert "gradient" in names(wrong)
    assert wrong.error < wrong.deviation / math.sqrt(wrong.paths)  # the martingale counts in its best size
    rough = checked(
        problem, lambda t, x: problem.exact(t, x) + (1 - t) * torch.sin(5 * x.sum(1, keepdim=True))
    )
    assert "gradient" in names(rough)
    stiff = own(driver_value=lambda t, x, y: 40 * y)
    assert "stiff" in names(checked(stiff, lambda t, x: square(x)))
    lost = checked(problem, lambda t, x: problem.exact(t, x) / (t < 0.5))
    assert names(lost) >= {"paths"}
    assert lost.interval is None
    assert lost.kind == "none"
    json.dumps(lost.record(), allow_nan=False)


def test_a_check_is_repeatable_and_stops_in_time():
    problem = HeatEquation(2)

    def v(t, x):
        return problem.exact(t, x) * (2 - t)

    first, second = (checked(problem, v, paths=512) for _ in range(2))
    assert dataclasses.replace(first, seconds=0.0) == dataclasses.replace(second, seconds=0.0)
    assert first.paths == 512
    assert checked(problem, v, paths=512, seconds=1e-9).paths == 256
    assert checked(problem, v, seed=1).value != first.value


@pytest.mark.parametrize("loss", ["auto", "deep-bsde"])
def test_a_solution_is_checked_in_its_summary(loss):
    network = {} if loss == "deep-bsde" else {"width": 8}
    options = SolveOptions(loss=loss, iterations=3, paths=4, time_steps=4, device="cpu", **network)
    solution = solve(HeatEquation(2), options=options)
    found = solution.check(paths=64)
    assert abs(found.value - 4) < 4.5 * found.error + 1e-5
    assert found.interval == pytest.approx(
        (found.value - NORMAL * found.error, found.value + NORMAL * found.error)
    )
    assert found.network == solution.value
    rows = solution.summary(check=found)
    assert set(found.summary()) <= set(rows)
    assert dict(rows)["check"] == ("passed" if found.passed else "failed")
    assert json.loads(json.dumps(found.record(), allow_nan=False))["paths"] == 64


@pytest.mark.slow
def test_a_trained_solution_passes():
    options = preset(
        "bsb", iterations=300, reports=8, paths=8, time_steps=10, width=16, lr=1e-2, device="cpu"
    )
    solution = solve(BlackScholesBarenblatt(3), options=options)
    found = solution.check()
    assert found.passed, found.flags
    assert found.interval[0] < solution.true_value.value < found.interval[1]
