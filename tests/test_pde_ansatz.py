"""Ansatz: what it is by definition, its terminal condition, its quick derivatives, smoothing, bad input."""

import copy
import math
import pickle
import warnings

import pytest
import torch
from pde_cases import NETWORKS, PROBLEMS, D, coupled, curved_in_z, linear_in_z, network, square
from torch import nn

from tnml.errors import InputError
from tnml.nn import TNN
from tnml.pde import Ansatz, BlackScholesBarenblatt, HamiltonJacobiBellman, LogNormal, Problem
from tnml.pde.ansatz.network import make_network
from tnml.pde.ansatz.network_derivatives import jet, network_gradient, network_slope
from tnml.pde.ansatz.smoothing import smoothed, smoothing_nodes
from tnml.pde.paths.pilot import sample_paths

KINDS = ["soft", "multiplicative", "additive", "smoothed"]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


def points(problem, m=6):
    t = problem.horizon * torch.rand(m, 1, dtype=torch.float64)
    return t, torch.randn(m, problem.dim, dtype=torch.float64)


def made(problem, kind="dense", terminal="soft", **options):
    u = Ansatz(network(kind, problem.dim), problem, terminal, **options)
    if u.a is not None:
        nn.init.constant_(u.a, 0.7)
    return u


@pytest.mark.parametrize("scaling", ["paths", "none"])
@pytest.mark.parametrize("terminal", KINDS)
def test_by_definition(terminal, scaling):
    problem = HamiltonJacobiBellman(D)
    u = made(problem, terminal=terminal, scaling=scaling)
    t, x = points(problem)
    n = u.network((torch.cat([t, x], 1) - u.shift) * u.factor)
    left, g = 1 - t, torch.log((1 + x.square().sum(1, keepdim=True)) / 2)
    smooth = torch.log((1 + x.square().sum(1, keepdim=True) + 2 * D * left) / 2)
    expected = {
        "soft": u.offset + u.scale * n,
        "multiplicative": g * (1 + left * n),
        "additive": g + left * u.scale * (n + 0.7),
        "smoothed": smooth + left * u.scale * (n + 0.7),
    }[terminal]
    assert torch.allclose(u(t, x), expected, rtol=1e-13)
    if scaling == "none":
        assert (u.scale, u.offset) == (1, 0)
        assert torch.equal(u.factor, torch.ones(D + 1))
        assert not u.shift.any()


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("terminal", KINDS)
def test_hard_terminal_conditions_hold(name, terminal):
    problem = PROBLEMS[name]()
    u = made(problem, terminal=terminal)
    x = sample_paths(problem).x[:6, -1]  # where the problem makes sense: prices are positive
    t = torch.full((len(x), 1), problem.horizon, dtype=torch.float64)
    met = torch.allclose(u(t, x), problem.g(x), rtol=1e-13)
    assert met == u.hard == (terminal != "soft")


@pytest.mark.parametrize("terminal", KINDS)
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("make", [linear_in_z, PROBLEMS["hjb"]])
def test_derivatives_are_those_of_autograd(make, kind, terminal):
    """Values, slopes and gradients, and what the parameters learn through each of them."""
    problem = make()
    u = made(problem, kind, terminal)
    t, x = points(problem)
    v = torch.randn_like(x)
    inputs = x.clone().requires_grad_()
    y = u(t, inputs)
    (z,) = torch.autograd.grad(y.sum(), inputs, create_graph=True)
    wanted = y, z, (z * v).sum(1, keepdim=True)
    y1, z1 = u.value_and_gradient(t, x)
    y2, slope = u.value_and_slope(t, x, v)
    y3, z3 = u.value_and_gradient(t, inputs)  # a graph behind x
    y4, slope4 = u.value_and_slope(t, inputs, v)
    parameters = list(u.parameters())
    for found, place in [(y1, 0), (z1, 1), (y2, 0), (slope, 2), (y3, 0), (z3, 1), (y4, 0), (slope4, 2)]:
        assert torch.allclose(found, wanted[place], rtol=1e-11, atol=1e-12)
        a, b = (
            torch.autograd.grad(torch.sin(part).sum(), parameters, retain_graph=True, materialize_grads=True)
            for part in (found, wanted[place])
        )
        for one, other in zip(a, b, strict=True):
            assert torch.allclose(one, other, rtol=1e-10, atol=1e-11)
    with torch.no_grad():
        again = u.value_and_gradient(t, x)
        assert torch.allclose(again[1], z.detach())
        assert not again[1].requires_grad


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.SiLU(), nn.GELU(), TNN([1, 1, 1]).activations[0]])
def test_jets(activation):
    x = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: jet(activation, x), (x,))
    (slope,) = torch.autograd.grad(activation(x).sum(), x)
    assert torch.allclose(jet(activation, x)[1], slope)


@pytest.mark.parametrize("kind", ["sequential", "dense", "tnn"])
def test_networks_are_differentiated_by_hand(kind, monkeypatch):
    """The quick way is taken: torch's autograd is not asked for a gradient within the forward pass."""
    net, x = network(kind), torch.randn(4, D + 1, dtype=torch.float64)
    expected = net(x), network_gradient(net.forward, x)[1]

    def refuse(*arguments, **options):
        raise AssertionError("the generic way")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    y, z = network_gradient(net, x)
    assert torch.allclose(y, expected[0])
    assert torch.allclose(z, expected[1])
    assert torch.allclose(network_slope(net, x, x)[1], (z * x).sum(1, keepdim=True))


@pytest.mark.parametrize("terminal", KINDS)
def test_a_graph_behind_the_times_is_kept(terminal):
    problem = HamiltonJacobiBellman(D)
    u = made(problem, terminal=terminal)
    t, x = points(problem)
    t.requires_grad_()
    slopes = [
        torch.autograd.grad(y.sum(), t)[0]
        for y in (u(t, x), u.value_and_gradient(t, x)[0], u.value_and_slope(t, x, x)[0])
    ]
    assert torch.allclose(slopes[1], slopes[0])
    assert torch.allclose(slopes[2], slopes[0])


def test_inputs_are_standardised_along_paths():
    problem = BlackScholesBarenblatt(4)
    u = made(problem)
    paths = sample_paths(problem, seed=5)
    t = paths.times[None, :, None].expand(len(paths), -1, 1)
    inputs = (torch.cat([t, paths.x], 2) - u.shift) * u.factor
    assert inputs.mean((0, 1)).abs().max() < 0.1
    assert (inputs.flatten(0, 1).std(0) - 1).abs().max() < 0.3
    ends = problem.g(paths.x[:, -1])
    assert u.offset.item() == pytest.approx(ends.mean().item(), rel=0.1)
    assert u.scale.item() == pytest.approx(ends.std().item(), rel=0.5)


def test_a_coordinate_without_noise_is_not_blown_up():
    problem = Problem(
        name="flat", dim=2, horizon=1.0, x0=1.0, terminal=square, diffusion=torch.tensor([0.0, 1.0])
    )
    assert made(problem).factor[1] == 1


def log_normal(d):
    return Problem(
        name="geometric",
        dim=d,
        horizon=0.5,
        x0=1.0,
        terminal=lambda x: x.prod(1, keepdim=True).pow(1 / x.shape[1]),
        log_normal=LogNormal(0.03, 0.2 * torch.eye(d) + 0.1),
    )


@pytest.mark.parametrize("d", [1, 2, 30])
def test_nodes(d):
    for problem in (log_normal(d), HamiltonJacobiBellman(d)):
        nodes = smoothing_nodes(problem, 8, sample_paths(problem))
        assert torch.equal(nodes[:4], -nodes[4:])
        assert nodes.square().sum(1).mean().item() == pytest.approx(d, rel=1e-12)


def test_smoothing_is_near_the_mean_of_the_terminal_value():
    """Of a geometric mean, whose expectation is known; one direction matters, and the nodes know it."""
    problem, d = log_normal(20), 20
    nodes = smoothing_nodes(problem, 8, sample_paths(problem))
    x, t = 1 + torch.rand(5, d, dtype=torch.float64), torch.full((5, 1), 0.1, dtype=torch.float64)
    factor = 0.2 * torch.eye(d, dtype=torch.float64) + 0.1
    along = factor.sum(0) / d
    rate = 0.03 - factor.square().sum(1).mean() / 2 + along.square().sum() / 2
    truth = problem.g(x) * torch.exp(rate * 0.4)
    assert torch.allclose(smoothed(problem, nodes, t, x), truth, rtol=3e-4)
    assert not torch.allclose(problem.g(x), truth, rtol=4e-3)


def test_smoothing_of_squares_is_exact():
    """With the length of every node right, the mean of |X_T|^2 is right for Brownian motion."""
    heat = Problem(name="heat", dim=7, horizon=1.0, x0=0.0, terminal=square, diffusion=1.5)
    u = made(heat, terminal="smoothed")
    t, x = points(heat)
    assert torch.allclose(u.base(t, x), square(x) + 2.25 * 7 * (1 - t))


def test_smoothing_discounts():
    problem = Problem(
        name="bond",
        dim=1,
        horizon=2.0,
        x0=1.0,
        terminal=lambda x: 0 * x + 1,
        diffusion=1.0,
        driver_value=lambda t, x, y: 0.1 * y,
        discount=0.1,
    )
    u = made(problem, terminal="smoothed")
    assert u.base(torch.zeros(1, 1), torch.zeros(1, 1)).item() == pytest.approx(math.exp(-0.2))


def test_additive_starts_at_the_mean_of_the_terminal_value():
    """Of HJB the trivial answer is near; g(x0) is not."""
    problem = HamiltonJacobiBellman(50)
    u = Ansatz(lambda x: torch.zeros(len(x), 1, dtype=x.dtype), problem, "additive")
    x = problem.start()[None]
    trivial = problem.trivial().value
    assert u(torch.zeros(1, 1), x).item() == pytest.approx(trivial, rel=0.02)
    assert abs(problem.g(x).item() - trivial) > 3


def test_coupled_problems_are_scaled_without_their_coupling():
    assert made(coupled(), terminal="smoothed").factor.isfinite().all()


def test_names_and_functions():
    problem = HamiltonJacobiBellman(D)
    assert Ansatz("dense", problem).network.rank is None
    assert Ansatz("tnn", problem).network.rank == 4
    weight = torch.randn(D + 1, 1)
    u = Ansatz(lambda x: torch.tanh(x @ weight), problem, "additive")
    t, x = (part.float() for part in points(problem))
    assert u.value_and_gradient(t, x)[1].shape == (6, D)
    assert [name for name, _ in u.named_parameters()] == ["a"]


def test_copies_and_state():
    problem = HamiltonJacobiBellman(D)
    u = made(problem, "tnn", "smoothed")
    t, x = points(problem)
    for again in (copy.deepcopy(u), pickle.loads(pickle.dumps(u))):
        assert torch.equal(again(t, x), u(t, x))
    other = Ansatz(network("tnn"), problem, "smoothed")
    other.load_state_dict(u.state_dict())
    assert torch.equal(other(t, x), u(t, x))
    assert u.float()(t.float(), x.float()).dtype == torch.float32


def test_hooks_are_obeyed():
    problem = linear_in_z()
    u = made(problem)
    t, x = points(problem)
    u.network.layers[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    inputs = x.clone().requires_grad_()
    (z,) = torch.autograd.grad(u(t, inputs).sum(), inputs)
    assert torch.allclose(u.value_and_gradient(t, x)[1], z)


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm1d(4), nn.Dropout(0.1), nn.AlphaDropout(0.2)],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_make_no_function_are_refused(layer):
    with pytest.raises(InputError, match=rf"{type(layer).__name__} \(1\)"):
        Ansatz(nn.Sequential(nn.Linear(D + 1, 4), layer, nn.Linear(4, 1)), curved_in_z())


@pytest.mark.parametrize(
    ("activation", "kinked"),
    [(nn.ReLU(), True), (nn.LeakyReLU(), True), (nn.ELU(0.5), True), (nn.ELU(), False), (nn.Tanh(), False)],
)
def test_kinks_are_warned_of(activation, kinked):
    net = nn.Sequential(nn.Linear(D + 1, 4), activation, nn.Linear(4, 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Ansatz(net, curved_in_z())
        Ansatz(TNN((D + 1, 4, 1), activation="relu" if kinked else "sin"), curved_in_z())
    assert len(caught) == 2 * kinked
    assert all("is not smooth" in str(warning.message) for warning in caught)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Ansatz("dens", curved_in_z()), "did you mean 'dense'"),
        (lambda: Ansatz(3, curved_in_z()), "module, a function or a name"),
        (lambda: Ansatz("dense", curved_in_z(), "hard"), "unknown terminal"),
        (lambda: Ansatz("dense", curved_in_z(), scaling="path"), "did you mean 'paths'"),
        (lambda: Ansatz("dense", curved_in_z(), nodes=3), "even number"),
        (lambda: Ansatz(make_network("dense", 9), curved_in_z()), "has 10 inputs.*needs 4"),
        (lambda: Ansatz(nn.Linear(9, 1), curved_in_z()), "does not take inputs"),
        (lambda: Ansatz(nn.Linear(4, 2), curved_in_z()), r"gave \[2, 2\]"),
    ],
)
def test_bad_input(make, text):
    with pytest.raises(InputError, match=text):
        make()
