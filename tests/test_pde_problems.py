"""Problems: exact solutions solve their equations, coefficients are the written ones, errors are clear."""

import json
import math
import pickle

import numpy as np
import pytest
import torch

from tnml.errors import InputError
from tnml.pde import (
    PROBLEMS,
    AllenCahn,
    ArithmeticBasketCall,
    BlackScholesBarenblatt,
    GeometricBasketCall,
    HamiltonJacobiBellman,
    HeatEquation,
    HestonCall,
    LogNormal,
    Problem,
    Reference,
    problem,
)

DOUBLE = torch.float64


def square(x):
    return x.square().sum(1, keepdim=True)


def own(**changes):
    return Problem(
        **{"name": "own", "dim": 3, "horizon": 1.0, "x0": 0.5, "terminal": square, "diffusion": 1.0} | changes
    )


def cases():
    """Problems with an exact solution, and points inside the domain."""
    gen = torch.Generator().manual_seed(7)

    def around(center, width, d):
        return center + width * (2 * torch.rand(6, d, dtype=DOUBLE, generator=gen) - 1)

    heston = torch.cat([around(100.0, 25.0, 1), around(0.05, 0.04, 1)], 1)
    return {
        "bsb": (BlackScholesBarenblatt(4), around(1.0, 0.5, 4)),
        "bsb own": (BlackScholesBarenblatt(3, sigma=0.3, rate=0.1, horizon=2.0), around(1.0, 0.5, 3)),
        "hjb 1": (HamiltonJacobiBellman(1), around(0.0, 2.0, 1)),
        "hjb 5": (HamiltonJacobiBellman(5, horizon=0.7), around(0.0, 2.0, 5)),
        "allen-cahn raissi": (AllenCahn(4), around(0.0, 1.5, 4)),
        "allen-cahn han": (AllenCahn(12, convention="han"), around(0.0, 1.5, 12)),
        "heston": (HestonCall(), heston),
        "heston calm": (HestonCall(v0=0.04, theta=0.04, kappa=2.0, xi=0.3, rate=0.05), heston),
        "geometric": (GeometricBasketCall(4), around(100.0, 20.0, 4)),
        "geometric negative": (
            GeometricBasketCall(3, correlation=-0.3, volatility=0.4),
            around(90.0, 20.0, 3),
        ),
        "heat": (HeatEquation(5, sigma=0.8), around(0.0, 2.0, 5)),
    }


@pytest.mark.parametrize("name", cases())
def test_the_exact_solution_solves_the_equation(name):
    """u_t + 1/2 Tr(sigma sigma' D2u) + mu . Du - phi = 0 by autograd; this checks problem and solution."""
    made, points = cases()[name]
    times = made.horizon * torch.linspace(0.03, 0.9, len(points), dtype=DOUBLE)
    for time, point in zip(times, points, strict=True):
        both = torch.cat([time[None], point]).requires_grad_()
        u = made.exact(both[None, :1], both[None, 1:])
        (slope,) = torch.autograd.grad(u.sum(), both, create_graph=True)
        hessian = torch.stack([torch.autograd.grad(part, both, retain_graph=True)[0] for part in slope])[
            1:, 1:
        ]
        t, x, z, y = time.view(1, 1), point[None], slope[None, 1:].detach(), u.detach()
        matrix = torch.cat([made.sigma(t, x, e[None]) for e in torch.eye(made.dim, dtype=DOUBLE)]).T
        parts = [
            slope[0].detach(),
            torch.trace(matrix @ matrix.T @ hessian) / 2,
            (made.mu(t, x) * z).sum(),
            -made.phi(t, x, y, z).sum(),
        ]
        size = max(1.0, *(abs(float(part)) for part in parts))
        assert abs(float(sum(parts))) < 1e-8 * size


@pytest.mark.parametrize("name", cases())
def test_the_exact_solution_ends_in_the_terminal_value(name):
    made, points = cases()[name]
    end = torch.full((len(points), 1), made.horizon, dtype=DOUBLE)
    torch.testing.assert_close(made.exact(end, points), made.g(points), rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_coefficients_keep_the_dtype(name, dtype):
    made = problem(name, **({} if name == "heston" else {"dim": 5}))
    x = made.start(dtype).expand(4, -1) * torch.linspace(0.9, 1.1, 4, dtype=dtype)[:, None]
    t, y = torch.full((4, 1), 0.1, dtype=dtype), torch.ones(4, 1, dtype=dtype)
    found = [made.g(x), made.g_gradient(x), made.mu(t, x), made.sigma(t, x, x), made.phi(t, x, y, x)]
    found.append(made.step(t, x, 0.01, torch.ones_like(x)))
    if made.smoothed_terminal is not None:
        found.append(made.smoothed_terminal(t, x))
    assert {part.dtype for part in found} == {dtype}
    assert all(bool(part.isfinite().all()) for part in found)


@pytest.mark.parametrize("name", PROBLEMS)
def test_given_gradient_is_that_of_the_terminal_value(name):
    made = problem(name, **({} if name == "heston" else {"dim": 4}))
    gen = torch.Generator().manual_seed(1)
    x = made.start(DOUBLE) * 1.1 + torch.rand(5, made.dim, dtype=DOUBLE, generator=gen)
    inputs = x.clone().requires_grad_()
    value = made.terminal(inputs).sum() + 0 * inputs.sum()  # a bond pays the same whatever x is
    (expected,) = torch.autograd.grad(value, inputs)
    torch.testing.assert_close(made.g_gradient(x), expected)


@pytest.mark.parametrize("name", ["hjb", "allen-cahn", "heston", "geometric-basket", "arithmetic-basket"])
def test_smoothed_terminal_ends_in_the_terminal_value_with_finite_slopes(name):
    made = problem(name, **({} if name == "heston" else {"dim": 4}))
    x = made.start() * torch.linspace(0.8, 1.2, 5)[:, None]  # one of them at the strike
    if name == "heston":
        x[0, 1] = -0.01  # where Euler steps can lead
    end = torch.full((5, 1), made.horizon)
    scale = float(made.g(x).abs().max())
    torch.testing.assert_close(made.smoothed_terminal(end, x), made.g(x), rtol=0, atol=1e-6 * scale)
    for time in (0.0, made.horizon):
        t, inputs = torch.full((5, 1), time, requires_grad=True), x.clone().requires_grad_()
        slopes = torch.autograd.grad(made.smoothed_terminal(t, inputs).sum(), (t, inputs))
        assert all(bool(slope.isfinite().all()) for slope in slopes)


def test_a_driver_in_two_parts_is_their_sum():
    made = BlackScholesBarenblatt(4, rate=0.07)
    t, x, y, z = (torch.rand(6, k, dtype=DOUBLE) for k in (1, 4, 1, 4))
    expected = [[0.07 * (float(b) - float(c @ a))] for a, b, c in zip(x, y[:, 0], z, strict=True)]
    np.testing.assert_allclose(made.phi(t, x, y, z), expected, rtol=0, atol=1e-15)  # 0.07 of 5 terms below 1
    assert made.linear_in_z
    assert not HamiltonJacobiBellman(3).linear_in_z


@pytest.mark.parametrize("kind", ["number", "diagonal", "matrix", "function"])
def test_sigma_times_v_is_the_explicit_matrix(kind):
    gen = torch.Generator().manual_seed(3)
    x, v = (torch.rand(5, 3, dtype=DOUBLE, generator=gen) for _ in range(2))
    diagonal, matrix = torch.tensor([1.0, 2.0, 3.0]), torch.rand(3, 3, generator=gen)
    given, explicit = {
        "number": (0.4, lambda point: 0.4 * np.eye(3)),
        "diagonal": (diagonal, lambda point: np.diag(diagonal.numpy())),
        "matrix": (matrix, lambda point: matrix.numpy()),
        "function": (lambda t, x, v: x * v.flip(1), lambda point: np.diag(point) @ np.eye(3)[::-1]),
    }[kind]
    made = own(diffusion=given)
    found = made.sigma(torch.zeros(5, 1, dtype=DOUBLE), x, v)
    expected = [explicit(point) @ row for point, row in zip(x.numpy(), v.numpy(), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (made.constant_diffusion is None) == (kind == "function")


def test_sigma_of_baskets_and_heston_is_the_explicit_matrix():
    gen = torch.Generator().manual_seed(3)
    x, v = (torch.rand(5, 3, dtype=DOUBLE, generator=gen) for _ in range(2))
    equal = np.full((3, 3), 0.25) + 0.75 * np.eye(3)
    factor = 0.3 * np.linalg.cholesky(equal)
    basket = GeometricBasketCall(3, volatility=0.3, correlation=0.25)
    expected = [np.diag(a) @ factor @ b for a, b in zip(x.numpy(), v.numpy(), strict=True)]
    np.testing.assert_allclose(basket.sigma(torch.zeros(5, 1, dtype=DOUBLE), x, v), expected, rtol=1e-12)

    x, v = torch.tensor([[90.0, 0.04], [110.0, -0.01]], dtype=DOUBLE), v[:2, :2]
    heston = HestonCall(xi=0.5, rho=-0.6)
    matrix = np.array([[0.2 * 90, 0.0], [0.2 * 0.5 * -0.6, 0.2 * 0.5 * 0.8]])
    found = heston.sigma(torch.zeros(2, 1, dtype=DOUBLE), x, v)
    np.testing.assert_allclose(found[0], matrix @ v[0].numpy(), rtol=1e-12)
    np.testing.assert_array_equal(found[1], [0.0, 0.0])
    drift = heston.mu(torch.zeros(2, 1, dtype=DOUBLE), x)
    np.testing.assert_allclose(drift, [[0.0319 * 90, 6.21 * (0.019 - 0.04)], [0.0319 * 110, 6.21 * 0.019]])


@pytest.mark.parametrize("factor", [0.2, torch.tensor([0.1, 0.3]), torch.tensor([[0.2, 0.0], [0.1, 0.3]])])
def test_a_log_normal_step_is_the_formula(factor):
    made = own(dim=2, x0=1.0, diffusion=None, log_normal=LogNormal(0.05, factor))
    x, dw = torch.tensor([[1.0, 2.0]], dtype=DOUBLE), torch.tensor([[0.3, -0.4]], dtype=DOUBLE)
    matrix = np.asarray(factor, dtype=float)
    matrix = matrix if matrix.ndim == 2 else matrix * np.eye(2)
    change = (0.05 - (matrix**2).sum(1) / 2) * 0.5 + matrix @ dw[0].numpy()
    found = made.step(torch.zeros(1, 1, dtype=DOUBLE), x, 0.5, dw)
    np.testing.assert_allclose(found[0], x[0].numpy() * np.exp(change), rtol=1e-6)
    np.testing.assert_allclose(made.mu(torch.zeros(1, 1, dtype=DOUBLE), x), 0.05 * x, rtol=1e-6)


def test_other_steps_are_those_of_euler():
    made = own(drift=lambda t, x: t - x, diffusion=0.5)
    x, dw = torch.rand(4, 3, dtype=DOUBLE), torch.rand(4, 3, dtype=DOUBLE)
    t = torch.full((4, 1), 0.2, dtype=DOUBLE)
    torch.testing.assert_close(made.step(t, x, 0.1, dw), x + 0.1 * (0.2 - x) + 0.5 * dw)


def test_the_trivial_answer_is_the_known_mean():
    """BSB: |x0|^2 exp(sigma^2 T), as the driver is left out; a drift takes many steps to the same law."""
    value, error, _ = BlackScholesBarenblatt(10).trivial(40_000, seed=5)
    assert abs(value - 6.25 * math.exp(0.16)) < 3 * error < 0.1
    back = own(drift=lambda t, x: -x, diffusion=0.5).trivial(40_000)
    dt, mean, second = 0.01, 0.5, 0.25
    for _ in range(100):  # Euler's own moments
        second = (1 - dt) ** 2 * second + 0.25 * dt
        mean *= 1 - dt
    assert abs(back.value - 3 * second) < 3 * back.error < 0.05


def test_the_trivial_answer_of_hjb_is_near_the_truth():
    """The trap: at d = 100 it is within .3 percent of 4.590161724605."""
    value, error, _ = HamiltonJacobiBellman(100).trivial(2**17)
    assert abs(value - 4.60022) < 3 * error + 1e-5


def test_the_true_value_is_the_best_known():
    known = Reference(2.0, 0.1, "a table")
    assert own().true_value() is None
    assert own(reference=known).true_value() == known
    calls = []

    def computed():
        calls.append(1)
        return known

    made = own(reference=computed)
    assert not calls, "only when asked for"
    assert made.true_value() == made.true_value() == known
    assert len(calls) == 1
    exact = own(exact=lambda t, x: square(x) + 3 * (1 - t), reference=known).true_value()
    assert exact.value == 3.75


def test_coupled_problems_ask_for_the_solution():
    made = own(coupled_drift=lambda t, x, y, z: y * z)
    assert made.coupled
    t, x = torch.zeros(2, 1), torch.ones(2, 3)
    torch.testing.assert_close(made.mu(t, x, torch.full((2, 1), 2.0), x), 2 * x)
    with pytest.raises(InputError, match="depends on y and z"):
        made.mu(t, x)
    with pytest.raises(InputError, match="coupled"):
        made.trivial()


@pytest.mark.parametrize("name", PROBLEMS)
def test_named_problems_can_be_made_again_and_sent(name):
    made = problem(name, **({"xi": 0.5} if name == "heston" else {"dim": 4}))
    again = problem(made.name, **made.options)
    sent = pickle.loads(pickle.dumps(made))
    t, x = torch.zeros(1, 1), made.start()[None]
    for other in (again, sent):
        assert other.options == made.options
        assert torch.equal(other.g(x), made.g(x))
        assert torch.equal(other.sigma(t, x, x), made.sigma(t, x, x))


def test_the_record_is_frozen_and_x0_is_kept_in_double_precision():
    made = own(x0=[0.1, 0.2, 0.3])
    assert made.x0.dtype == DOUBLE
    assert made.start().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert made.start().dtype == torch.float32
    with pytest.raises(AttributeError):
        made.dim = 4


WRONG = {
    "dim": ({"dim": 0}, "dim must be a whole number, at least 1, got 0"),
    "horizon": ({"horizon": -1.0}, "horizon must be a number, above 0, got -1.0"),
    "x0 length": ({"x0": [1.0, 2.0]}, r"x0 must .* dim = 3 numbers, got shape \(2,\)"),
    "x0 nan": ({"x0": math.nan}, "x0 must be finite"),
    "no diffusion": ({"diffusion": None}, "diffusion is missing"),
    "diffusion shape": ({"diffusion": torch.ones(2)}, r"diffusion must be a number or a tensor \[3\]"),
    "diffusion type": ({"diffusion": "one"}, "diffusion must be a function, a number or a tensor, got str"),
    "both diffusions": ({"log_normal": LogNormal(0.0, 0.1)}, "leave those out"),
    "terminal shape": (
        {"terminal": lambda x: x.sum(1)},
        r"terminal must return \[4, 1\] for 4 points, got \[4\]",
    ),
    "terminal number": ({"terminal": lambda x: 1.0}, "terminal must return .* got float"),
    "drift shape": ({"drift": lambda t, x: t}, r"drift must return \[4, 3\]"),
    "driver nan": ({"driver": lambda t, x, y, z: y * math.nan}, r"driver is not finite at \(0, x0\)"),
    "driver shape": ({"driver": lambda t, x, y, z: z}, "driver must return"),
    "value shape": ({"driver_value": lambda t, x, y: x}, "driver_value must return"),
    "direction shape": ({"driver_direction": lambda t, x: t}, "driver_direction must return"),
    "two drivers": (
        {"driver": lambda t, x, y, z: y, "driver_value": lambda t, x, y: y},
        "the driver is given twice",
    ),
    "two drifts": (
        {"drift": lambda t, x: x, "coupled_drift": lambda t, x, y, z: x},
        "coupled_drift is the whole drift",
    ),
    "discount": ({"discount": 0.1}, "phi grows by 0 when y grows by 1"),
    "exact shape": ({"exact": lambda t, x: x}, "exact must return"),
    "rate shape": (
        {"diffusion": None, "log_normal": LogNormal(torch.ones(3, 3), 0.1)},
        "rate of log_normal must be",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("what", WRONG)
def test_bad_problems_give_one_clear_error(what):
    changes, text = WRONG[what]
    with pytest.raises(InputError, match=text):
        own(**changes)


SINGLE = torch.eye(3)

FAILS = {
    "dtype": ({"terminal": lambda x: square(x @ SINGLE)}, r"^terminal fails .*dtype.*`A.to\(x\)`"),
    "shape": ({"drift": lambda t, x: x @ torch.eye(2, dtype=DOUBLE)}, "^the drift fails .*shapes"),
    "inner shape": ({"driver_value": lambda t, x, y: y.view(7)}, "^driver_value fails"),
    "arguments": ({"driver": lambda t, x, y: y}, "^driver fails .*argument"),
    "index": ({"exact": lambda t, x: x[:, 5:6] + x[:, 5]}, "^exact fails"),
    "diffusion": ({"diffusion": lambda t, x: x}, "^diffusion fails .*argument"),
    "smoothed": ({"smoothed_terminal": lambda x: x}, "^smoothed_terminal fails .*argument"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("what", FAILS)
def test_a_function_that_fails_is_named(what):
    changes, text = FAILS[what]
    with pytest.raises(InputError, match=text) as caught:
        own(**changes)
    assert isinstance(caught.value.__cause__, RuntimeError | TypeError | IndexError)


@pytest.mark.usefixtures("unchecked")
def test_a_driver_without_a_value_where_the_payoff_is_zero_is_fair():
    """g(x0) = 0 at the strike, where y ln y is 0 times -inf; u is positive before the horizon."""

    def call(x):
        return (x.sum(1, keepdim=True) - 1.5).clamp(min=0)

    made = own(terminal=call, driver_value=lambda t, x, y: y * y.log())
    assert float(made.g(made.start(DOUBLE)[None])) == 0
    own(terminal=call, coupled_drift=lambda t, x, y, z: x / y)
    own(terminal=call, driver_value=lambda t, x, y: 0.1 * (y * y) / y, discount=0.1)
    with pytest.raises(InputError, match="driver_value is not finite"):
        own(terminal=call, driver_value=lambda t, x, y: (-y).log())
    with pytest.raises(InputError, match="driver must return"):
        own(terminal=call, driver=lambda t, x, y, z: (y * y.log())[:, 0])


@pytest.mark.parametrize("name", PROBLEMS)
def test_dimensions_may_be_numpy_integers(name):
    if name == "heston":
        return
    made = problem(name, dim=np.int64(3))
    assert type(made.dim) is int
    assert json.loads(json.dumps(dict(made.options)))["dim"] == 3
    for wrong in (3.0, "3", True, None, np.float64(3)):
        with pytest.raises(InputError, match="dim must be a whole number"):
            problem(name, dim=wrong)


def test_own_dimensions_may_be_numpy_integers():
    assert type(own(dim=np.int32(3)).dim) is int


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: BlackScholesBarenblatt(0), "dim must be"),
        (lambda: BlackScholesBarenblatt(3, sigma=-1.0), "sigma must be a number, above 0"),
        (lambda: AllenCahn(3, convention="raisi"), "did you mean 'raissi'"),
        (lambda: AllenCahn(3, horizon=-1.0), "horizon must be"),
        (lambda: HestonCall(rho=-1.0), "rho must lie"),
        (lambda: HestonCall(v0=0.0), "v0 must be a number, above 0"),
        (lambda: ArithmeticBasketCall(3, correlation=-0.5), "correlation must lie between -0.5 and 1"),
        (lambda: GeometricBasketCall(3, volatility=0.0), "volatility must be"),
        (lambda: problem("bbs"), "did you mean 'bsb'"),
        (lambda: problem("hjb", dims=3), "unknown option of problem 'hjb' 'dims'; did you mean 'dim'"),
        (lambda: HeatEquation(3).trivial(samples=2), "samples must be a whole number, at least 4"),
        (lambda: HeatEquation(3).trivial(steps=0), "steps must be a whole number, at least 1"),
    ],
)
def test_bad_options_give_one_clear_error(make, text):
    with pytest.raises(InputError, match=text):
        make()
