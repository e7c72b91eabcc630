"""The losses against their step-by-step definition: values, gradients through Z, expectations, bad input."""

import dataclasses
import math

import pytest
import torch
from pde_cases import NETWORKS, PROBLEMS, D, coupled, curved_in_z, equation, held, linear_in_z, network
from pde_oracles import deep_bsde_loss, euler_loss, two_group_loss

from tnml.errors import InputError
from tnml.pde import (
    Ansatz,
    BlackScholesBarenblatt,
    DeepBSDE,
    DeepBSDELoss,
    EulerLoss,
    GeometricBasketCall,
    HamiltonJacobiBellman,
    UnbiasedLoss,
    euler_maruyama,
    increments,
)
from tnml.pde.paths.noise import sign_design
from tnml.pde.paths.pilot import sample_paths

M, N = 5, 4
KINDS = ["soft", "multiplicative", "additive", "smoothed"]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(7)


def paths_of(problem, m=M, n=N, fresh=0, **options):
    dt, d = problem.horizon / n, problem.dim
    dw = increments(m, n, d, dt, seed=1, step=0, dtype=torch.float64)
    more = None
    if fresh:
        more = increments(m, n * fresh, d, dt, seed=1, step=0, stream=1, dtype=torch.float64)
        more = more.view(m, n, fresh, d)
    return euler_maruyama(problem, dw, fresh=more, **options)


def assert_same(one, other, parameters, tolerance=1e-10):
    """Both values, and the gradients of all parameters, agree relative to their size."""
    assert torch.allclose(one, other, rtol=tolerance, atol=0)
    found, expected = (
        torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
        for loss in (one, other)
    )
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= tolerance * max(1.0, b.abs().max())
    assert any(g.abs().max() > 1e-6 for g in expected)


def ansatz_of(problem, kind="tnn", terminal="soft"):
    made = Ansatz(network(kind, problem.dim), problem, terminal)
    if made.a is not None:
        torch.nn.init.constant_(made.a, 0.3)
    return made


def start(problem):
    return problem.start(torch.float64)


@pytest.mark.parametrize("mode", ["auto", "reverse"])
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("make", [linear_in_z, curved_in_z])
def test_euler_loss_by_definition_for_every_network(make, kind, mode):
    problem = make()
    u = ansatz_of(problem, kind)
    expected = euler_loss(u, equation(problem), paths_of(problem).dw, start(problem))
    found = EulerLoss(mode=mode, reduction="sum")(u, problem, paths_of(problem))
    assert_same(found, expected, list(u.parameters()))


@pytest.mark.parametrize("terminal", KINDS)
@pytest.mark.parametrize("kind", ["dense", "tnn"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_euler_loss_by_definition_for_every_problem(name, kind, terminal):
    problem = PROBLEMS[name]()
    u = ansatz_of(problem, kind, terminal)
    paths = paths_of(problem)
    expected = euler_loss(u, equation(problem), paths.dw, start(problem), path=paths.x, soft=not u.hard)
    assert_same(EulerLoss()(u, problem, paths), expected / M, list(u.parameters()))


@pytest.mark.parametrize("terminal", KINDS)
@pytest.mark.parametrize("kind", ["sequential", "dense", "tnn"])
def test_coupled_paths_are_stepped_with_their_gradient(kind, terminal):
    problem = coupled()
    u = ansatz_of(problem, kind, terminal)
    paths = paths_of(problem)
    expected = euler_loss(u, equation(problem), paths.dw, start(problem), soft=not u.hard)
    assert_same(EulerLoss(reduction="sum")(u, problem, paths), expected, list(u.parameters()))
    assert_same(EulerLoss(reduction="sum", chunk=5)(u, problem, paths), expected, list(u.parameters()))


@pytest.mark.parametrize("terminal", ["soft", "additive"])
def test_coupled_paths_are_seen_inside_and_go_on_outside(terminal):
    problem = held()
    u = ansatz_of(problem, "dense", terminal)
    paths = paths_of(problem)
    expected = euler_loss(
        u, equation(problem), paths.dw, start(problem), soft=not u.hard, inside=problem.inside
    )
    assert_same(EulerLoss(reduction="sum")(u, problem, paths), expected, list(u.parameters()))
    stepped = paths_of(problem, solution=u)
    x = start(problem).expand(M, -1)
    outside = 0
    for k in range(N):
        t = paths.times[k].expand(M, 1)
        y, z = u.value_and_gradient(t, x.clamp(min=0.2))
        x = x + problem.mu(t, x, y, z) * paths.dt + 0.5 * paths.dw[:, k]
        outside += int((x < 0.2).sum())
        torch.testing.assert_close(stepped.x[:, k + 1], x.clamp(min=0.2))
    assert outside > 2


def test_a_detached_gradient_would_be_noticed():
    """The part of the gradient that flows through Z is not small."""
    problem = linear_in_z()
    u = ansatz_of(problem, "dense")
    paths = paths_of(problem)
    t, x = paths.points(0, N)
    _, z = u.value_and_gradient(t, x)
    through_z = torch.autograd.grad(z.square().sum(), u.network.layers[1].weight)[0]
    assert through_z.abs().max() > 1e-3


@pytest.mark.parametrize("make", [linear_in_z, curved_in_z])
@pytest.mark.parametrize(("relative", "group"), [(False, 3), (True, 2), (False, 1)])
@pytest.mark.parametrize("kind", ["sequential", "dense", "tnn"])
def test_two_group_loss_by_definition(make, kind, relative, group):
    problem = make()
    u = ansatz_of(problem, kind)
    loss = UnbiasedLoss(group=group, relative=relative)
    paths = paths_of(problem, fresh=loss.fresh_increments)
    typical = problem.g(sample_paths(problem).x[:, -1]).abs().mean()
    expected = two_group_loss(u, equation(problem), paths.x, paths.fresh, relative=relative, typical=typical)
    assert_same(loss(u, problem, paths), expected, list(u.parameters()))


@pytest.mark.parametrize("factor", [1.0, 1e-9, 0.0])
def test_relative_residuals_stay_finite_where_u_is_small(factor):
    """A call out of the money: u is zero at some points or all, which are measured by a floor of its size."""
    problem = GeometricBasketCall(2)
    typical = problem.g(sample_paths(problem).x[:, -1]).abs().mean().item()
    paths = paths_of(problem, fresh=4)
    weight = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def u(t, x):
        return factor * weight * (problem.g(x) + 0 * t) + (1 - factor) * 1e-12 * weight

    assert (problem.g(paths.x.flatten(0, 1)) == 0).any()
    loss = UnbiasedLoss(group=2, relative=True)
    expected = two_group_loss(u, equation(problem), paths.x, paths.fresh, relative=True, typical=typical)
    assert expected.isfinite()
    assert_close = torch.testing.assert_close
    assert_close(loss(u, problem, paths), expected)
    chunked = UnbiasedLoss(group=2, relative=True, chunk=1)
    assert_close(chunked(u, problem, paths), expected)


@pytest.mark.parametrize(("groups", "ahead"), [(1, 1.0), (2, 0.3), (1, 0.05)])
def test_shorter_looks_ahead_and_one_group_by_definition(groups, ahead):
    problem = curved_in_z()
    u = ansatz_of(problem, "tnn")
    loss = UnbiasedLoss(group=3, groups=groups, ahead=ahead)
    paths = paths_of(problem, fresh=loss.fresh_increments)
    expected = two_group_loss(u, equation(problem), paths.x, paths.fresh, groups=groups, ahead=ahead)
    assert_same(loss(u, problem, paths), expected, list(u.parameters()))


@pytest.mark.parametrize("name", PROBLEMS)
def test_two_group_loss_for_every_problem(name):
    problem = PROBLEMS[name]()
    u = ansatz_of(problem, "tnn", "smoothed")
    paths = paths_of(problem, fresh=4)
    expected = two_group_loss(u, equation(problem), paths.x, paths.fresh)
    assert_same(UnbiasedLoss(group=2)(u, problem, paths), expected, list(u.parameters()))


@pytest.mark.parametrize("name", PROBLEMS)
def test_deep_bsde_by_definition(name):
    problem = PROBLEMS[name]()
    model = DeepBSDE(problem, N, hidden=(7, 6)).double()
    for bias in model.biases:
        torch.nn.init.normal_(bias)

    def gradient_at(k, x):
        if k == 0:
            return model.z0.expand(len(x), -1)
        h = (x - model.shift) * model.factor
        for place, (weight, bias) in enumerate(zip(model.weights, model.biases, strict=True)):
            h = h @ weight[k - 1] + bias[k - 1]
            h = torch.tanh(h) if place < len(model.weights) - 1 else h
        return h * model.scale

    paths = paths_of(problem)
    expected = deep_bsde_loss(model.y0, gradient_at, equation(problem), paths.dw, paths.x)
    assert_same(DeepBSDELoss(reduction="sum")(model, problem, paths), expected, list(model.parameters()))
    assert_same(
        DeepBSDELoss(reduction="sum", chunk=10)(model, problem, paths), expected, list(model.parameters())
    )
    with torch.no_grad():
        assert model.value == model(paths)[0, 0].item()


def test_deep_bsde_is_scaled_like_the_terminal_value():
    """Of 1000 g instead of g: the start is 1000 times as large, and so is a step of the parameters."""
    small, large = HamiltonJacobiBellman(2), HamiltonJacobiBellman(2)
    large = dataclasses.replace(
        large,
        exact=None,
        terminal=lambda x: 1000 * small.terminal(x),
        terminal_gradient=lambda x: 1000 * small.terminal_gradient(x),
    )
    found = []
    for problem in (small, large):
        model = DeepBSDE(problem, N)
        before = model.y0.item(), model.z0.detach().clone()
        with torch.no_grad():
            for parameter in (model.first_y, model.first_z):
                assert not parameter.any()
                parameter.fill_(0.01)
        found.append((before[0], model.y0.item() - before[0], *(model.z0.detach() - before[1]).tolist()))
        ends = problem.g(sample_paths(problem).x[:, -1])
        assert before[0] == pytest.approx(ends.mean().item())
        assert found[-1][1] == pytest.approx(0.01 * ends.std().item(), rel=1e-3)
    assert torch.allclose(torch.tensor(found[1]), 1000 * torch.tensor(found[0]), rtol=1e-3)
    flat = dataclasses.replace(
        small, exact=None, terminal=lambda x: 0 * x[:, :1] + 2, terminal_gradient=lambda x: 0 * x
    )
    assert DeepBSDE(flat, N).spread == 1


def test_deep_bsde_learns():
    """The start of BSB from a poor guess, in a few hundred steps."""
    problem = BlackScholesBarenblatt(2)
    model = DeepBSDE(problem, 5)
    loss, optimizer = DeepBSDELoss(), torch.optim.Adam(model.parameters(), 0.01)
    torch.nn.init.constant_(model.first_y, (1.0 - model.y0.item()) / model.spread.item())
    assert model.value == pytest.approx(1.0)
    for step in range(300):
        paths = euler_maruyama(problem, increments(64, 5, 2, 0.2, seed=0, step=step))
        optimizer.zero_grad()
        loss(model, problem, paths).backward()
        optimizer.step()
    assert model.value == pytest.approx(problem.true_value().value, rel=0.01)


@pytest.mark.parametrize(
    "loss", [EulerLoss, lambda **o: EulerLoss(mode="reverse", **o), lambda **o: UnbiasedLoss(group=2, **o)]
)
@pytest.mark.parametrize("chunk", [1, 10, 27, 10**6])
def test_chunks_change_nothing(loss, chunk):
    problem = linear_in_z()
    u = ansatz_of(problem, "tnn", "soft")
    paths = paths_of(problem, m=7, fresh=4)
    whole = loss()(u, problem, paths)
    assert_same(loss(chunk=chunk)(u, problem, paths), whole, list(u.parameters()), 1e-12)
    with torch.no_grad():
        assert loss(chunk=chunk)(u, problem, paths).item() == pytest.approx(whole.item(), rel=1e-12)


def test_chunks_bound_what_the_network_sees():
    problem, seen = linear_in_z(), []
    u = ansatz_of(problem, "sequential")
    u.network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    EulerLoss(chunk=2 * (N + 1), mode="reverse")(u, problem, paths_of(problem))
    assert seen == [10, 10, 5]
    seen.clear()
    EulerLoss(mode="reverse")(u, problem, paths_of(problem))
    assert seen == [M * (N + 1)], "one call for all points"


def test_halves_of_a_batch_add_up_to_the_whole():
    """Two processes with their paths: the mean of their losses and gradients is that of one process."""
    problem = curved_in_z()
    u = ansatz_of(problem)
    losses = []
    for first, count in [(0, 8), (0, 4), (4, 4)]:
        shared = {"seed": 3, "step": 9, "first": first, "dtype": torch.float64}
        dw = increments(count, N, D, problem.horizon / N, **shared)
        fresh = increments(count, 6 * N, D, problem.horizon / N, stream=1, **shared).view(count, N, 6, D)
        losses.append(UnbiasedLoss(group=3)(u, problem, euler_maruyama(problem, dw, fresh=fresh)))
    assert_same((losses[1] + losses[2]) / 2, losses[0], list(u.parameters()), 1e-12)


def exact_of(problem):
    def u(t, x):
        return problem.exact(t, x).to(x.dtype)

    return u


def bsb_curvature(problem, paths, sigma):
    """`1/2 tr((sigma' D2u sigma)^2)` of BSB along the paths: D2u is 2 exp(..), sigma is sigma diag(x)."""
    t, x = paths.points(0, paths.steps)
    factor = 2 * torch.exp((0.05 + sigma**2) * (problem.horizon - t[:, 0]))
    return 0.5 * ((factor * sigma**2)[:, None] * x.square()).square().sum(1)


def test_euler_loss_keeps_a_bias_of_the_size_known():
    problem = BlackScholesBarenblatt(4)
    n = 200
    paths = paths_of(problem, m=1000, n=n, steps="euler")
    loss = EulerLoss().per_path(exact_of(problem), problem, paths)
    expected = bsb_curvature(problem, paths, 0.4).view(1000, n).sum(1) * paths.dt**2
    assert loss.mean().item() == pytest.approx(expected.mean().item(), rel=0.05)


@pytest.mark.parametrize("method", ["normal", "signs"])
def test_two_groups_have_no_bias(method):
    """The exact solution: expectation zero up to (dt/2 d phi/dt)^2, where Euler's bias is its curvature."""
    problem, m, n, k = BlackScholesBarenblatt(4), 2000, 20, 6
    dt = problem.horizon / n
    dw = increments(m, n, 4, dt, seed=0, step=0, dtype=torch.float64)
    fresh = increments(m, n * k, 4, dt, seed=0, step=0, stream=1, method=method, dtype=torch.float64)
    paths = euler_maruyama(problem, dw, fresh=fresh.view(m, n, k, 4))
    loss = UnbiasedLoss(group=3).per_path(exact_of(problem), problem, paths)
    error = loss.std().item() / math.sqrt(m)
    t, x = paths.points(0, n)
    y = problem.exact(t, x)
    rate, growth = 0.05, 0.16  # E u(t + dt, X + sigma e) = u exp(-(rate + growth) dt) (1 + growth dt)
    step = (math.exp(-(rate + growth) * dt) * (1 + growth * dt) - 1 + rate * dt) * y
    known = (step / dt).square().mean().item()
    assert abs(loss.mean().item() - known) < 3 * error
    bias = bsb_curvature(problem, paths, 0.4).mean().item()
    assert known + 3 * error < 0.1 * bias


def test_sign_increments_are_quieter():
    problem, m, n, k = HamiltonJacobiBellman(20), 64, 8, 2
    u = exact_of(problem)
    smooth = {}
    for method in ("normal", "signs"):
        dw = increments(m, n, 20, 1 / n, seed=0, step=0, dtype=torch.float64)
        fresh = increments(m, n * k, 20, 1 / n, seed=0, step=0, stream=1, method=method, dtype=torch.float64)
        paths = euler_maruyama(problem, dw, fresh=fresh.view(m, n, k, 20))
        smooth[method] = UnbiasedLoss(group=1).per_path(u, problem, paths).std().item()
    assert smooth["signs"] < 0.3 * smooth["normal"]


def test_a_shorter_look_ahead_has_less_bias():
    """BSB's exact solution and a design without noise: the residual left is the bias, of order h."""
    problem, m, n = BlackScholesBarenblatt(2), 8, 10
    dw = increments(m, n, 2, problem.horizon / n, seed=0, step=0, dtype=torch.float64)
    design = sign_design(2).double() * math.sqrt(problem.horizon / n)
    paths = euler_maruyama(problem, dw, fresh=design.expand(m, n, 4, 2))
    left = [
        UnbiasedLoss(group=4, groups=1, ahead=ahead)(exact_of(problem), problem, paths).sqrt().item()
        for ahead in (1.0, 0.1)
    ]
    assert left[1] == pytest.approx(0.1 * left[0], rel=0.05)
    assert left[0] > 1e-3


def test_fresh_increments_are_drawn_where_none_are_given():
    problem = linear_in_z()
    u, paths = ansatz_of(problem), paths_of(problem)
    torch.manual_seed(0)
    one = UnbiasedLoss()(u, problem, paths)
    two = UnbiasedLoss()(u, problem, paths)
    torch.manual_seed(0)
    assert one == UnbiasedLoss()(u, problem, paths) != two


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: EulerLoss(chunk=0), "chunk must be a whole number, at least 1"),
        (lambda: EulerLoss(reduction="avg"), "unknown reduction"),
        (lambda: EulerLoss(mode="forwards"), "did you mean 'forward'"),
        (lambda: EulerLoss(terminal_weight=-1.0), "must not be negative"),
        (lambda: UnbiasedLoss(ahead=0.0), "above 0 and at most 1"),
        (lambda: UnbiasedLoss(groups=3), "groups must be 2, or 1"),
        (lambda: UnbiasedLoss(group=0), "group must be a whole number, at least 1"),
        (lambda: DeepBSDE(coupled(), 3), "coupled"),
        (lambda: DeepBSDE(linear_in_z(), 0), "steps must be"),
        (lambda: DeepBSDE(linear_in_z(), 3, hidden=(0,)), "positive"),
        (
            lambda: EulerLoss(mode="forward")(
                ansatz_of(curved_in_z()), curved_in_z(), paths_of(curved_in_z())
            ),
            "linear in z",
        ),
        (lambda: UnbiasedLoss()(ansatz_of(coupled()), coupled(), paths_of(coupled())), "use loss 'euler'"),
        (
            lambda: UnbiasedLoss(group=2)(
                ansatz_of(curved_in_z()), curved_in_z(), paths_of(curved_in_z(), fresh=6)
            ),
            r"needs paths.fresh \[5, 4, 4, 3\]",
        ),
        (
            lambda: DeepBSDELoss()(ansatz_of(curved_in_z()), curved_in_z(), paths_of(curved_in_z())),
            "for a DeepBSDE",
        ),
        (lambda: DeepBSDE(curved_in_z(), 3)(paths_of(curved_in_z())), "is for 3 steps"),
    ],
)
def test_bad_input(make, text):
    with pytest.raises(InputError, match=text):
        make()
