"""TNN: outputs by definition, starting weights, gradients, sizes, and bad input."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from forks import complete
from oracles import relative
from scipy import integrate, special
from torch import nn

from tnml.errors import InputError
from tnml.nn import TNN, TTLinear
from tnml.nn.tt.network import ACTIVATIONS, activation_moments, starting_scales

FUNCTIONS = {
    "sin": np.sin,
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * special.ndtr(x),
    "softplus": lambda x: np.logaddexp(x, 0),
    "identity": lambda x: x,
}


def gaussian_mean(function):
    """E[function(z)] for a standard normal z."""

    def density(z):
        return function(np.float64(z)) * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

    left, right = (integrate.quad(density, *ends, epsabs=1e-13)[0] for ends in ((-12, 0), (0, 12)))
    return left + right


def dense_weight(layer):
    """The matrix of a layer; of a tensor train entry by entry, by one einsum over its cores."""
    if isinstance(layer, nn.Linear):
        return layer.weight.detach().numpy()
    product = np.ones((1, 1, 1))
    for core in (parameter.detach().numpy() for parameter in layer.cores):
        joined = np.einsum("oil,lpjr->opijr", product, core)
        product = joined.reshape(product.shape[0] * core.shape[1], -1, core.shape[3])
    return product[: layer.out_features, : layer.in_features, 0]


def network_by_definition(network, x, function, norm, skip):
    """The outputs of a network that is not training, in numpy."""
    mean, square = gaussian_mean(function), gaussian_mean(lambda z: function(z) ** 2)
    widths = network.widths
    runs, length = [], 0  # how many blocks with a skip stand in a row at each block
    for k in range(len(widths) - 2):
        length = length + 1 if skip and widths[k] == widths[k + 1] else 0
        runs.append(length)
    for k in reversed(range(len(runs) - 1)):
        runs[k] = runs[k + 1] if runs[k] and runs[k + 1] else runs[k]
    for k, n in enumerate(runs):
        y = x @ dense_weight(network.layers[k]).T + network.layers[k].bias.detach().numpy()
        if norm == "layer":
            y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
        if norm == "batch":
            known = network.norms[k]
            y = (y - known.running_mean.numpy()) / np.sqrt(known.running_var.numpy() + known.eps)
        if norm:
            y = y * network.norms[k].weight.detach().numpy() + network.norms[k].bias.detach().numpy()
        y = function(y)
        x = x + y / math.sqrt(n * (square - mean**2) + n**2 * mean**2) if n else y
    last = network.layers[-1]
    return x @ dense_weight(last).T + last.bias.detach().numpy()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(5)


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize(("norm", "skip"), [(None, False), (None, True), ("layer", True), ("batch", True)])
def test_outputs_are_those_of_the_definition(activation, norm, skip, generator):
    widths = (6, 6, 9, 9, 9, 9, 3)
    network = TNN(widths, rank=3, activation=activation, norm=norm, skip=skip, dtype=torch.float64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    network(x)  # batch norm learns its statistics
    network.eval()
    expected = network_by_definition(network, x.numpy(), FUNCTIONS[activation], norm, skip)
    assert relative(network(x).detach(), expected) <= 1e-12


@pytest.mark.parametrize("name", FUNCTIONS)
def test_moments_of_activations(name):
    make, _ = ACTIVATIONS[name]
    mean, square = activation_moments(make(1.0))
    function = FUNCTIONS[name]
    assert mean == pytest.approx(gaussian_mean(function), abs=1e-11)
    assert square == pytest.approx(gaussian_mean(lambda z: function(z) ** 2), abs=1e-11)
    closed = {"sin": (1 - math.exp(-2)) / 2, "relu": 0.5, "identity": 1.0}
    assert square == pytest.approx(closed.get(name, square), abs=1e-10)


@pytest.mark.parametrize(("name", "alpha"), [*((name, 1.0) for name in FUNCTIONS), ("elu", 0.5)])
def test_smooth_says_whether_the_derivative_is_continuous(name, alpha):
    x = torch.tensor([-1e-9, 1e-9], dtype=torch.float64, requires_grad=True)
    ACTIVATIONS[name][0](alpha)(x).sum().backward()
    continuous = abs(float(x.grad[1] - x.grad[0])) < 1e-6
    assert TNN([4, 4, 2], activation=name, alpha=alpha).smooth is continuous


def test_smooth_is_unknown_for_other_activations():
    assert TNN([4, 4, 2], activation=torch.square).smooth is None
    assert TNN([4, 4, 2], activation=nn.ReLU()).smooth is None


def test_variance_of_starting_weights_is_matched_to_the_activation():
    network = TNN([100, 64, 64, 10], rank=3, activation="sin", last="tt")
    sine = (1 - math.exp(-2)) / 2
    expected = [1 / 100, 1 / sine / 64, 1 / 64]
    found = [float(layer.weight.detach().square().mean()) for layer in network.layers]
    assert found == pytest.approx(expected, rel=1e-4)
    assert not any(layer.bias.any() for layer in network.layers)


def preactivations(network, x):
    """Mean square of what every layer gives, and of what the last one gets."""
    sizes = []
    for layer in network.layers:
        layer.register_forward_hook(lambda _, x, y: sizes.append((x[0].square().mean(), y.square().mean())))
    with torch.no_grad():
        network(x)
    return [float(y) for _, y in sizes[:-1]], float(sizes[-1][0])


@pytest.mark.parametrize("rank", [4, None])
@pytest.mark.parametrize("activation", ["sin", "tanh", "elu"])
def test_signals_keep_their_size_at_any_depth(activation, rank, generator):
    network = TNN([256] * 17 + [10], rank=rank, activation=activation)
    sizes, _ = preactivations(network, torch.randn(300, 256, generator=generator))
    assert sizes == pytest.approx([1.0] * 16, rel=0.3)


@pytest.mark.parametrize("depth", [4, 32])
@pytest.mark.parametrize("activation", FUNCTIONS)
def test_skips_do_not_let_the_sum_grow_with_the_depth(activation, depth, generator):
    network = TNN([128] * (depth + 1) + [10], rank=8, activation=activation, skip=True)
    sizes, last = preactivations(network, torch.randn(200, 128, generator=generator))
    assert sizes == pytest.approx([1.0] * depth, rel=0.35)
    assert 1.3 <= last <= 3.0  # the input's 1, and 1 from all blocks together


def test_scales_of_runs_of_skips():
    gains, scales = starting_scales([8, 4, 4, 4, 2, 2, 1], skip=True, mean=0.5, square=1.0)
    pair, one = (2 * 0.75 + 4 * 0.25) ** -0.5, 1.0
    assert scales == [None, pytest.approx(pair), pytest.approx(pair), None, pytest.approx(one)]
    reached = 1 + pair**2 + 2 * pair * 0.5 * 0.5
    again = reached + pair**2 + 2 * pair * 0.5 * (0.5 + pair * 0.5)
    assert gains == pytest.approx([1, 1, reached**-0.5, again**-0.5, 1, 1])


def test_gradients_of_first_and_second_order(generator):
    network = TNN([4, 4, 4, 2], rank=2, skip=True, norm="layer", dtype=torch.float64)
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    names, values = zip(*network.named_parameters(), strict=True)

    def outputs(x, *values):
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(outputs, (x, *values))
    assert torch.autograd.gradgradcheck(outputs, (x, *values))


def test_gradients_per_sample_with_torch_func(generator):
    network = TNN([8, 8, 8, 2], rank=2, skip=True).double()
    x = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    parameters = dict(network.named_parameters())

    def loss(parameters, sample):
        return torch.func.functional_call(network, parameters, (sample,)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for number, sample in enumerate(x):
        each = torch.autograd.grad(loss(parameters, sample), list(parameters.values()))
        for name, gradient in zip(parameters, each, strict=True):
            assert torch.allclose(found[name][number], gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_numbers_of_parameters():
    network = TNN([64, 64, 64, 10], rank=4, n_cores=2)
    cores = 2 * (8 * 8 * 4 + 4 * 8 * 8)
    assert network.n_parameters == cores + 64 + 64 + 64 * 10 + 10
    assert network.dense_parameters == 2 * (64 * 64 + 64) + 64 * 10 + 10
    for options in ({"norm": "batch", "activation": nn.PReLU()}, {"first": "dense", "last": "tt"}):
        dense = TNN([64, 64, 64, 10], rank=None, **options)
        assert TNN([64, 64, 64, 10], **options).dense_parameters == dense.n_parameters
        assert dense.dense_parameters == dense.n_parameters
        assert not any(isinstance(module, TTLinear) for module in dense.modules())


def test_first_and_last_layers_are_of_the_kind_asked_for():
    def kinds(widths, **options):
        return ["tt" if isinstance(layer, TTLinear) else "dense" for layer in TNN(widths, **options).layers]

    assert kinds([9, 9, 9, 4]) == ["tt", "tt", "dense"]
    assert kinds([9, 9, 9, 4], first="dense", last="tt") == ["dense", "tt", "tt"]
    assert kinds([9, 4], first="tt") == ["dense"]
    assert kinds([9, 4], first="dense", last="tt") == ["tt"]


def test_modules_as_activations_are_copied_for_every_block():
    given = nn.PReLU()
    network = TNN([9, 9, 9, 4], activation=given)
    assert len({id(given), *(id(module) for module in network.activations)}) == 3
    network.activations[0].weight.data.fill_(2.0)
    assert network.activations[1].weight.item() == given.weight.item() == 0.25


def test_dropout_acts_in_training_only(generator):
    network = TNN([16, 16, 400, 2], dropout=0.4)
    seen = []
    network.layers[-1].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    x = torch.randn(50, 16, generator=generator)
    network(x)
    network.eval()(x)
    trained, evaluated = (float((values == 0).float().mean()) for values in seen)
    assert 0.37 < trained < 0.43
    assert evaluated == 0


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
@pytest.mark.parametrize("leading", [(), (3,), (0,), (2, 3), (2, 0, 4)])
def test_any_leading_dimensions(leading, norm, generator):
    network = TNN([6, 6, 5], norm=norm, skip=True).double().eval()
    x = torch.randn(*leading, 6, generator=generator, dtype=torch.float64)
    y = network(x)
    assert y.shape == (*leading, 5)
    assert torch.allclose(y.reshape(-1, 5), network(x.reshape(-1, 6)), rtol=1e-9, atol=1e-9)


def test_numbers_by_numpy():
    given = TNN(np.array([64, 64, 10]), rank=np.int64(3), n_cores=np.int64(2), alpha=np.float32(1))
    assert repr(given) == repr(TNN([64, 64, 10], rank=3))
    assert (given.rank, type(given.rank)) == (3, int)
    assert TNN([64, 64, 10], rank=np.array([2, 3]), n_cores=3).layers[0].ranks == (1, 2, 3, 1)


class Halved(nn.Module):
    """Leaves the second half of the batch as it is: what it does depends on the place."""

    def forward(self, x):
        return torch.cat([torch.sin(x[: len(x) // 2]), x[len(x) // 2 :]])


@pytest.mark.parametrize(
    "activation",
    [
        nn.Softmax(-1),
        Halved(),
        torch.relu_,
        nn.ReLU(inplace=True),
        nn.RReLU(),
        lambda x: x.float().sin().to(x.dtype),
    ],
)
def test_only_functions_of_every_entry_are_activations(activation):
    if isinstance(activation, nn.Softmax | Halved):
        with pytest.raises(InputError, match="every entry by itself, alike every time: this one gives other"):
            TNN([12, 12, 3], activation=activation)
    else:
        assert TNN([12, 12, 3], activation=activation)(torch.ones(2, 12)).shape == (2, 3)


def test_copies_pickles_and_state_dicts_give_the_same_outputs(generator):
    network = TNN([10, 10, 4], activation=torch.square, norm="batch")
    x = torch.randn(7, 10, generator=generator)
    network(x)
    network.eval()
    again = TNN([10, 10, 4], activation=torch.square, norm="batch").eval()
    assert not torch.equal(again(x), network(x))
    again.load_state_dict(network.state_dict())
    for other in (again, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(x), network(x))


@pytest.mark.parametrize("rank", [4, None])
def test_weights_come_from_the_global_random_state(rank):
    torch.manual_seed(1)
    network = TNN([9, 9, 4], rank=rank)
    torch.manual_seed(1)
    again = TNN([9, 9, 4], rank=rank)
    before = [value.clone() for value in network.state_dict().values()]
    assert all(map(torch.equal, before, again.state_dict().values()))
    network.reset_parameters()
    assert not all(map(torch.equal, before, network.state_dict().values()))
    torch.manual_seed(1)
    network.reset_parameters()
    assert all(map(torch.equal, before, network.state_dict().values()))


def test_repr_names_widths_and_parameters():
    text = repr(TNN([64, 64, 64, 10], skip=True))
    assert "64 -> 64 -> 64 -> 10, rank=4, activation='sin', skips=2" in text
    assert "1,802 parameters (8,970 if dense)" in text


@pytest.mark.slow
def test_compiles_as_one_graph():
    code = (
        "import torch; from tnml.nn import TNN\n"
        "network = TNN([16, 16, 16, 4], norm='layer', skip=True)\n"
        "compiled = torch.compile(network, backend='eager', fullgraph=True)\n"
        "x = torch.randn(5, 16)\n"
        "print(torch.allclose(compiled(x), network(x), atol=1e-6))\n"
    )
    assert complete(["-c", code]) == "True\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": [4]}, "at least two positive integers"),
        ({"widths": [4, 0, 2]}, "at least two positive integers"),
        ({"widths": [4, 2.0]}, "at least two positive integers"),
        ({"activation": "sine"}, "did you mean 'sin'"),
        ({"activation": 3}, "a name, a function or a module, got int"),
        ({"activation": torch.sum}, "maps every entry by itself"),
        ({"activation": nn.PReLU(12)}, "maps every entry by itself, .*: it failed for"),
        ({"activation": nn.Linear(4, 4)}, "maps every entry by itself, .*: it failed for"),
        ({"activation": nn.Softmax(-1)}, "maps every entry by itself"),
        (
            {"activation": lambda x: x.cumsum(0)},
            "maps every entry by itself, .*: this one gives other values",
        ),
        ({"activation": lambda x: x.flip(0)}, "maps every entry by itself, .*: this one gives other values"),
        (
            {"activation": lambda x: x - x.mean()},
            "maps every entry by itself, .*: this one gives other values",
        ),
        ({"activation": lambda x: x > 0}, r"maps every entry by itself, .*, got \(600,\), torch.bool"),
        ({"activation": lambda x: None}, "maps every entry by itself, .*, got NoneType"),
        ({"widths": 5}, "at least two positive integers, .*; got 5"),
        ({"widths": [4, True, 2]}, "at least two positive integers"),
        ({"alpha": "1"}, "alpha must be a number, got '1'"),
        ({"dropout": "0.5"}, "dropout must be a number, at least 0 and below 1"),
        ({"rank": 2.5}, r"rank must be a whole number, at least 1, got 2\.5"),
        ({"rank": "ab"}, "rank must be a whole number, at least 1, got 'ab'"),
        ({"widths": [12, 3], "rank": 2.5}, "rank must be a whole number"),
        ({"widths": [12, 3], "first": "bogus"}, "unknown kind of layer 'bogus'"),
        ({"rank": None, "last": "bogus"}, "unknown kind of layer 'bogus'"),
        ({"rank": None, "plan": "bogus"}, "unknown plan 'bogus'"),
        ({"rank": None, "n_cores": 7}, "n_cores must be a whole number, from 1 to 6, got 7"),
        ({"activation": torch.zeros_like}, "must be positive and finite"),
        ({"activation": torch.log}, "must be positive and finite"),
        ({"alpha": 0.5}, "alpha belongs to the activation 'elu'"),
        ({"activation": "elu", "alpha": -1.0}, "alpha must be positive"),
        ({"norm": "bach"}, "did you mean 'batch'"),
        ({"dropout": 1.0}, "dropout must be a number, at least 0 and below 1"),
        ({"first": "densed"}, "did you mean 'dense'"),
        ({"last": "tr"}, "unknown kind of layer 'tr'"),
        ({"rank": 0}, "rank"),
        ({"n_cores": 9}, "cores"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        TNN(**{"widths": [4, 4, 2], **options})


@pytest.mark.parametrize("shape", [(), (3,), (4, 5)])
def test_bad_inputs(shape):
    with pytest.raises(InputError, match=r"expected inputs \[..., 4\]"):
        TNN([4, 4, 2])(torch.zeros(shape))
