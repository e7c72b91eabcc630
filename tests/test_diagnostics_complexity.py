"""Geometric complexity: linear layers, the dense tensor by numpy, exact enumeration, Monte Carlo."""

import itertools

import numpy as np
import pytest
import torch
from diagnosed import grown
from numpy.polynomial import legendre
from torch import nn

from tnml import InputError
from tnml.diagnostics import feature_moments, geometric_complexity, mps_geometric_complexity
from tnml.mps import MatrixProductState
from tnml.nn import MPSLayer, TTLinear

ORDER = [2, 0, 3, 1]


def legendre_table(x, d):
    """sqrt(2k+1) P_k(2x-1) and its derivative by x, `[d]` each, by numpy."""
    values, slopes = np.zeros(d), np.zeros(d)
    for k in range(d):
        unit = np.zeros(d)
        unit[k] = np.sqrt(2 * k + 1)
        values[k] = legendre.legval(2 * x - 1, unit)
        slopes[k] = 2 * legendre.legval(2 * x - 1, legendre.legder(unit)) if k else 0.0
    return values, slopes


def dense(state):
    found = np.ones((1,))
    for core in state.cores:
        found = np.tensordot(found, core.detach().numpy(), axes=1)
    found = found[..., 0] * np.exp(float(state.log_scale))
    return found[..., None] if state.label_site is None else np.moveaxis(found, state.label_site, -1)


def squared_slope(tensor, chain, d):
    """|df/dx|² at one input in chain order, from the dense tensor `[d, .., d, c]`."""
    tables = [legendre_table(x, d) for x in chain]
    total = 0.0
    for j in range(len(chain)):
        found = tensor
        for site, (values, slopes) in enumerate(tables):
            found = np.tensordot(slopes if site == j else values, found, axes=(0, 0))
        total += (np.abs(found) ** 2).sum()
    return total


def make(label_site, dtype="float64", d=3):
    features = {"name": "legendre", "dim": d}
    return grown(MPSLayer(4, 2, 3, label_site=label_site, dtype=dtype, features=features, order=ORDER))


@pytest.mark.parametrize("label_site", [0, 1, 2, 4])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_closed_form_is_the_integral_over_the_dense_tensor(label_site, dtype):
    layer = make(label_site, dtype)
    tensor = dense(layer.to_state())
    points, weights = legendre.leggauss(3)  # exact to degree 5; squares have degree 4
    points, weights = (points + 1) / 2, weights / 2
    expected = sum(
        np.prod(weights[list(index)]) * squared_slope(tensor, points[list(index)], 3)
        for index in itertools.product(range(3), repeat=4)
    )
    found = mps_geometric_complexity(layer, *feature_moments(layer.features))
    assert found.dtype == torch.float64
    assert float(found.detach()) == pytest.approx(expected, rel=1e-11)


def test_closed_form_of_sites_that_differ_is_the_mean_over_all_inputs():
    layer = make(1)
    tensor = dense(layer.to_state())
    values = np.random.default_rng(3).random((4, 2))  # site i of the input takes one of two values
    inputs = np.array(list(itertools.product(*values)))
    expected = np.mean([squared_slope(tensor, row[ORDER], 3) for row in inputs])
    x = torch.from_numpy(inputs)
    moments = feature_moments(layer.features, x)
    assert moments.second.shape == (4, 3, 3)
    found = mps_geometric_complexity(layer, *moments)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-11)
    by_autograd = geometric_complexity(layer, x, batch_size=5)
    assert float(by_autograd) == pytest.approx(expected, rel=1e-11)
    chain = [moment[ORDER] for moment in moments]
    assert float(mps_geometric_complexity(layer.to_state(), *chain).detach()) == pytest.approx(expected)
    wrong = mps_geometric_complexity(layer.to_state(), *moments)
    assert float(wrong.detach()) != pytest.approx(expected, rel=1e-3), "the order of the sites does matter"


def test_both_have_the_same_gradient():
    layer = make(2)
    values = np.random.default_rng(4).random((4, 2))
    x = torch.from_numpy(np.array(list(itertools.product(*values))))
    gradients = []
    for found in (
        geometric_complexity(layer, x, differentiable=True),
        mps_geometric_complexity(layer, *feature_moments(layer.features, x)),
    ):
        gradients.append(torch.autograd.grad(found, list(layer.parameters())))
    for one, other in zip(*gradients, strict=True):
        assert float(one.abs().max()) > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_closed_form_passes_gradcheck(dtype):
    state = MatrixProductState.random(3, 2, 2, dtype=dtype, seed=1)
    cores = [core.clone().requires_grad_() for core in state.cores]
    moments = feature_moments("legendre")
    assert torch.autograd.gradcheck(
        lambda *c: mps_geometric_complexity(MatrixProductState(list(c), log_scale=0.3), *moments), cores
    )


@pytest.mark.parametrize("features", ["trigonometric", "linear", "legendre", {"name": "rbf", "dim": 3}])
def test_closed_form_is_within_three_standard_errors_of_monte_carlo(features):
    layer = grown(MPSLayer(12, 3, 6, features=features, dtype="float64"), size=0.15)
    x = torch.rand(20_000, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    each = geometric_complexity(layer, x, reduction="none", batch_size=5000)
    error = float(each.std()) / len(x) ** 0.5
    found = float(mps_geometric_complexity(layer, *feature_moments(layer.features)).detach())
    assert abs(found - float(each.mean())) < 3 * error
    assert error < 0.05 * found, "a test that could fail"


def test_long_chains_neither_overflow_nor_vanish():
    n, w = 800, torch.tensor([3.0, 0.03])
    second, of_derivative = feature_moments("affine")
    size = float(w.double() @ second @ w.double())
    state = MatrixProductState([w.reshape(1, 2, 1)] * n, log_scale=-n * np.log(size) / 2)
    found = mps_geometric_complexity(state, second, of_derivative)
    assert float(found) == pytest.approx(n * 0.03**2 / size, rel=1e-5)
    grows = MatrixProductState([w.reshape(1, 2, 1)] * n)
    assert torch.isinf(mps_geometric_complexity(grows, second, of_derivative))


@pytest.mark.parametrize("net", [nn.Linear(7, 4), TTLinear(8, 6, rank=3), nn.Linear(7, 1)])
def test_a_linear_layer_has_the_norm_of_its_weight(net):
    x = torch.randn(5, net.in_features, generator=torch.Generator().manual_seed(0))
    expected = float(net.weight.detach().double().square().sum())
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            assert float(geometric_complexity(net, x)) == pytest.approx(expected, rel=1e-6)
    each = geometric_complexity(net, x, reduction="none", batch_size=2)
    assert each.tolist() == pytest.approx([expected] * 5, rel=1e-6)


def test_features_and_images_are_inputs_as_well():
    layer = grown(MPSLayer(4, 2, 3, dtype="float64"))
    x = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    phi = layer.features(x)
    one = geometric_complexity(layer, phi, reduction="none")
    for row, found in zip(phi, one, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda p: layer(p[None])[0], row)
        assert float(found) == pytest.approx(float(jacobian.square().sum()), rel=1e-10)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    image = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = [
        float(torch.autograd.functional.jacobian(lambda p: net(p[None])[0], row).square().sum())
        for row in image
    ]
    assert geometric_complexity(net, image, reduction="none").tolist() == pytest.approx(expected, rel=1e-5)


def test_outputs_without_an_axis_of_classes():
    net = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    assert float(geometric_complexity(net, torch.rand(4, 3))) == pytest.approx(
        float(net[0].weight.detach().double().square().sum()), rel=1e-6
    )


def test_hutchinson_has_no_bias_and_the_known_variance():
    net = nn.Linear(5, 4).double()
    gram = (net.weight @ net.weight.T).detach()
    expected, variance = float(gram.trace()), 2 * float(gram.square().sum())
    each = geometric_complexity(net, torch.rand(20_000, 5).double(), "hutchinson", reduction="none")
    assert abs(float(each.mean()) - expected) < 3 * (variance / len(each)) ** 0.5
    assert float(each.var()) == pytest.approx(variance, rel=0.15)
    x = torch.rand(4000, 5).double()
    several = geometric_complexity(net, x, "hutchinson", n_proj=8, reduction="none")
    assert float(several.var()) == pytest.approx(variance / 8, rel=0.2)
    other = geometric_complexity(net, x, "hutchinson", seed=1)
    assert float(other) != float(geometric_complexity(net, x, "hutchinson", seed=2))


def test_a_penalty_on_a_linear_layer_has_the_gradient_two_w():
    net = nn.Linear(3, 2).double()
    (found,) = torch.autograd.grad(
        geometric_complexity(net, torch.rand(4, 3).double(), differentiable=True), net.weight
    )
    torch.testing.assert_close(found, 2 * net.weight.detach())
    assert not geometric_complexity(net, torch.rand(4, 3).double()).requires_grad


def test_moments_of_known_maps():
    second, of_derivative = feature_moments({"name": "polynomial", "dim": 4})
    hilbert = [[1 / (i + j + 1) for j in range(4)] for i in range(4)]
    slopes = [[i * j / (i + j - 1) if i and j else 0.0 for j in range(4)] for i in range(4)]
    np.testing.assert_allclose(second, hilbert, rtol=1e-13)
    np.testing.assert_allclose(of_derivative, slopes, rtol=1e-13)
    x = torch.tensor([[0.0, 0.5], [1.0, 0.5]])
    found = feature_moments("affine", x)
    np.testing.assert_allclose(found.second, [[[1, 0.5], [0.5, 0.5]], [[1, 0.5], [0.5, 0.25]]])
    np.testing.assert_allclose(found.second_of_derivative, [[[0, 0], [0, 1]]] * 2)


def test_bad_input_is_told():
    net, x = nn.Linear(3, 2), torch.rand(4, 3)
    with pytest.raises(InputError, match="unknown method 'exakt'; did you mean 'exact'"):
        geometric_complexity(net, x, "exakt")
    with pytest.raises(InputError, match="unknown reduction"):
        geometric_complexity(net, x, reduction="sum")
    with pytest.raises(InputError, match="n_proj must be a whole number"):
        geometric_complexity(net, x, "hutchinson", n_proj=0)
    with pytest.raises(InputError, match="floating dtype"):
        geometric_complexity(net, torch.zeros(4, 3, dtype=torch.int64))
    with pytest.raises(InputError, match="at least one input"):
        geometric_complexity(net, x[:0])
    with pytest.raises(InputError, match="depend on x"):
        geometric_complexity(Detached(), x)
    with pytest.raises(InputError, match="real outputs"):
        geometric_complexity(MPSLayer(3, 2, dtype="complex64"), x)
    layer = MPSLayer(4, 2)
    second, of_derivative = feature_moments("linear")
    with pytest.raises(InputError, match=r"second_moment must be \[2, 2\] or \[4, 2, 2\]"):
        mps_geometric_complexity(layer, second.expand(5, 2, 2), of_derivative)
    with pytest.raises(InputError, match="second_moment_of_derivative must be"):
        mps_geometric_complexity(layer, second, of_derivative[0])
    with pytest.raises(InputError, match="NaN or infinite"):
        mps_geometric_complexity(layer, second * torch.nan, of_derivative)
    with pytest.raises(InputError, match="at least one sample"):
        feature_moments("linear", torch.zeros(0, 4))
    with pytest.raises(InputError, match="nodes must be"):
        feature_moments("linear", nodes=0)


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()
