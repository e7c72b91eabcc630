"""What solutions are built on: kinks in closed form, quadratics, and a coupled drift in the driver."""

import math

import pytest
import torch
from scipy.stats import norm

from tnml.errors import InputError
from tnml.pde import (
    HeatEquation,
    LinearQuadraticControl,
    LogNormal,
    MultistepLoss,
    Problem,
    SolveOptions,
    euler_maruyama,
    increments,
)
from tnml.pde.ansatz.bases import KinkBase, QuadraticBase, structure_of
from tnml.pde.ansatz.kinks import find_kinks
from tnml.pde.ansatz.quadratic import quadratic_at, quadratic_of
from tnml.pde.coupling import decoupled
from tnml.pde.derivatives import reverse_gradient
from tnml.pde.losses.multistep import step_weights

DOUBLE = torch.float64
RATE, WIDTH = 0.05, 0.2


def asset(terminal, d=1, **changes):
    correlation = 0.5 + 0.5 * torch.eye(d, dtype=DOUBLE)
    given = {
        "name": "mine", "dim": d, "horizon": 1.0, "x0": 100.0, "terminal": terminal, "discount": RATE,
        "log_normal": LogNormal(RATE, WIDTH * torch.linalg.cholesky(correlation)),
        "driver_value": lambda t, x, y: RATE * y,
    }  # fmt: skip
    return Problem(**{**given, **changes})


def geometric(x):
    return x.log().mean(1, keepdim=True).exp()


def mean(x):
    return x.mean(1, keepdim=True)


# terminal value, dimension, logarithms?, places times the normal's sum, jumps of g and of its slope
FOUND = {
    "put": (lambda x: (100 - x).clamp(min=0), 1, True, [math.log(100)], [(0.0, 100.0)]),
    "digital": (lambda x: (geometric(x) > 100).to(x), 10, True, [math.log(100)], [(1.0, 0.0)]),
    "basket": (lambda x: (mean(x) - 100).clamp(min=0), 10, False, [100.0], [(0.0, 1.0)]),
    "spread": (
        lambda x: (geometric(x) - 90).clamp(min=0) - 2 * (geometric(x) - 110).clamp(min=0),
        3, True, [math.log(90), math.log(110)], [(0.0, 90.0), (0.0, -220.0)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_planes_of_kinks_and_jumps_are_found(name):
    terminal, d, logarithms, places, jumps = FOUND[name]
    found = find_kinks(asset(terminal, d))
    assert found.logarithms == logarithms
    torch.testing.assert_close(found.normal, torch.full((d,), d**-0.5, dtype=DOUBLE), rtol=1e-4, atol=0.0)
    assert (found.places / d**0.5).tolist() == pytest.approx(places, rel=1e-6)
    assert found.jumps[:, 0].tolist() == pytest.approx([jump for jump, _ in jumps], abs=1e-6)
    assert (found.jumps[:, 1] * d**0.5).tolist() == pytest.approx([kink for _, kink in jumps], rel=1e-5)


@pytest.mark.parametrize(
    "terminal",
    [
        lambda x: x.square().sum(1, keepdim=True),
        lambda x: (x.max(1, keepdim=True).values - 100).clamp(min=0),
        lambda x: torch.ones_like(x[:, :1]),
        lambda x: (x - 100).norm(dim=1, keepdim=True),
    ],
)
def test_no_planes_are_made_up(terminal):
    assert find_kinks(asset(terminal, 3)) is None


def black(t, x, *, digital):
    """Price and delta of a call, or of a digital call, on one asset."""
    left, x = 1 - t.numpy(), x.numpy()
    width = WIDTH * left**0.5
    below = math.log(1.0) + (torch.log(torch.tensor(x / 100)).numpy() + (RATE - WIDTH**2 / 2) * left) / width
    discount = torch.exp(torch.tensor(-RATE * left)).numpy()
    if digital:
        return discount * norm.cdf(below), discount * norm.pdf(below) / width / x
    return x * norm.cdf(below + width) - 100 * discount * norm.cdf(below), norm.cdf(below + width)


@pytest.mark.parametrize("digital", [False, True])
def test_kinks_of_one_asset_are_smoothed_exactly(digital):
    terminal = (lambda x: (x > 100).to(x)) if digital else (lambda x: (x - 100).clamp(min=0))
    base = KinkBase(asset(terminal), 8)
    t = torch.tensor([[0.0], [0.5], [0.9], [0.99]], dtype=DOUBLE).repeat(25, 1)
    x = torch.linspace(70, 140, 100, dtype=DOUBLE)[:, None]
    price, delta = black(t, x, digital=digital)
    found, slope = reverse_gradient(lambda x: base(t, x), x)
    scale = 1.0 if digital else 100.0
    torch.testing.assert_close(found.detach(), torch.tensor(price), rtol=0.0, atol=1e-4 * scale)
    torch.testing.assert_close(slope.detach(), torch.tensor(delta), rtol=0.0, atol=1e-3)
    end = torch.ones(2, 1, dtype=DOUBLE)
    points = torch.tensor([[90.0], [105.0]], dtype=DOUBLE)
    torch.testing.assert_close(base(end, points), terminal(points), rtol=1e-9, atol=1e-6)


def test_waves_in_one_direction_are_smoothed_exactly():
    """`E sin(k (x + sqrt(s) W)) = exp(-k^2 s / 2) sin(k x)`, k = 5."""
    d, k = 7, 5.0

    def wave(x):
        return torch.sin(k * x.sum(1, keepdim=True) / math.sqrt(d))

    problem = asset(wave, d, log_normal=None, diffusion=1.0, discount=0.0, driver_value=None, x0=0.1)
    kinks, along = structure_of(problem)
    assert kinks is None
    assert float(along.abs().min()) == pytest.approx(d**-0.5)
    t = torch.tensor([[0.3], [0.8], [0.95]], dtype=DOUBLE)
    x = torch.randn(3, d, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        KinkBase(problem, 8)(t, x), torch.exp(-(k**2) * (1 - t) / 2) * wave(x), rtol=0.0, atol=1e-6
    )
    assert SolveOptions().settled(problem).terminal == "kinks"


def test_quadratics_are_the_riccati_solution():
    problem = LinearQuadraticControl(4, seed=3, horizon=0.7)
    found = quadratic_of(problem)
    t = 0.7 * torch.tensor([[0.0], [0.2], [0.6], [1.0]], dtype=DOUBLE)
    x = torch.randn(4, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(quadratic_at(found, t, x, 0.7), problem.exact(t, x), rtol=1e-4, atol=1e-4)
    base = QuadraticBase(problem)
    end = torch.full((4, 1), 0.7, dtype=DOUBLE)
    torch.testing.assert_close(base(end, x), problem.g(x), rtol=1e-12, atol=1e-12)
    curved = asset(lambda x: x.square().sum(1, keepdim=True), 2)  # sigma depends on x
    exact = 2 * 100**2 * math.exp(2 * RATE + WIDTH**2 - RATE)
    start = curved.start(DOUBLE)[None]
    assert quadratic_at(quadratic_of(curved), 0 * start[:, :1], start, 1.0).item() == pytest.approx(
        exact, rel=1e-4
    )


def test_where_there_is_no_quadratic():
    assert quadratic_of(asset(lambda x: (x - 100).clamp(min=0))) is None, "no curvature but at the kink"
    cubic = Problem(
        name="cubic", dim=1, horizon=5.0, x0=1.0, diffusion=1.0, terminal=lambda x: 1 + x**2,
        driver_value=lambda t, x, y: -(y**3),
    )  # fmt: skip
    assert quadratic_of(cubic) is None, "it explodes"
    with pytest.raises(InputError, match="terminal='quadratic' needs"):
        SolveOptions(terminal="quadratic").make_model(cubic)


DRIVERS = {
    "driver": {"driver": lambda t, x, y, z: y * z.sum(1, keepdim=True) + t},
    "parts": {"driver_value": lambda t, x, y: y**2, "driver_direction": lambda t, x: x - t},
    "none": {},
}


@pytest.mark.parametrize("name", DRIVERS)
def test_a_moved_drift_leaves_the_equation_as_it_is(name):
    """`mu . z - phi` is the same; the drift without the solution stays, where there is one."""
    source = torch.Generator().manual_seed(0)
    t = torch.rand(5, 1, dtype=DOUBLE, generator=source)
    x, z = (torch.randn(5, 2, dtype=DOUBLE, generator=source) for _ in range(2))
    y = torch.randn(5, 1, dtype=DOUBLE, generator=source)
    for drift in (lambda t, x, y, z: torch.sin(x) - y * z, lambda t, x, y, z: x * z / y):
        given = {"name": "mine", "dim": 2, "horizon": 1.0, "x0": 1.0, "terminal": lambda x: 1 + x[:, :1] ** 2}
        problem = Problem(**given, diffusion=1.0, coupled_drift=drift, **DRIVERS[name])
        free = decoupled(problem)
        assert not free.coupled
        assert decoupled(free) is free
        one = (problem.mu(t, x, y, z) * z).sum(1, keepdim=True) - problem.phi(t, x, y, z)
        two = (free.mu(t, x) * z).sum(1, keepdim=True) - free.phi(t, x, y, z)
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    assert not free.mu(t, x).any(), "x z / y is not finite without the solution"


def test_the_multistep_loss_of_the_heat_equation_is_its_steps():
    """A step of `|x|^2` leaves `|e|^2 - d dt`, of variance `2 d dt^2`; n - k of them are left at step k."""
    problem, m, n = HeatEquation(3, sigma=1.0), 4000, 8
    dw = increments(m, n, 3, 1 / n, seed=0, step=0, dtype=DOUBLE)
    found = MultistepLoss()(problem.exact, problem, euler_maruyama(problem, dw))
    assert found.item() == pytest.approx(2 * 3 / n**2 * n / 2, rel=0.1)


def test_a_stiff_driver_is_integrated_exactly():
    """`u_t = 40 (u - 1)` from u(T) = 3; the time step is 5 times what explicit steps bear."""
    rate, n = 40.0, 4
    problem = Problem(
        name="stiff", dim=2, horizon=1.0, x0=0.0, diffusion=1.0, terminal=lambda x: 3 + 0 * x[:, :1],
        driver_value=lambda t, x, y: rate * (y - 1),
    )  # fmt: skip
    paths = euler_maruyama(problem, increments(3, n, 2, 1 / n, seed=0, step=0, dtype=DOUBLE))

    def exact(t, x):
        return 1 + 2 * torch.exp(-rate * (1 - t)) + 0 * x[:, :1]

    assert MultistepLoss()(exact, problem, paths).item() < 1e-20
    k = torch.tensor([-3.0, -1e-3, 0.0, 5e-3, 0.02, 7.0], dtype=DOUBLE)
    s = (torch.arange(20000, dtype=DOUBLE) + 0.5) / 20000
    decay = torch.exp(-k[:, None] * s)
    first, last, factor = step_weights(k)
    torch.testing.assert_close(first, (decay * (1 - s)).mean(1), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(last, (decay * s).mean(1), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(factor, torch.exp(-k))
