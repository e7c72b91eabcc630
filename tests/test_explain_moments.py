"""Moments of outputs and of gradients: against all inputs with their probabilities, samples, closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from toy_network import ToyLayer

from tnml.diagnostics import mps_geometric_complexity
from tnml.diagnostics.complexity import geometric_complexity
from tnml.errors import InputError
from tnml.explain import IndependentInputs, MarkovInputs, moments, sobol, squared_gradients
from tnml.nn import NETWORKS, MPSLayer, make_layer
from tnml.nn.layer import Chain
from tnml.training import SweepOptions, sweep_regressor

ORDER = [2, 0, 3, 1]
NAMES = ("mean", "covariance", "third", "fourth")


def layer_of(n_sites=4, outputs=3, **options):
    order = ORDER if n_sites == 4 else "raster"
    settings = {"bond_dim": 3, "noise": 0.7, "dtype": "float64", "order": order, **options}
    return MPSLayer(n_sites, outputs, **settings)


def samples(count, n_sites=4, seed=0):
    return torch.rand(count, n_sites, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(outputs, share):
    """Mean and central moments of outputs `[b, c]` that have these probabilities."""
    mean = share @ outputs
    off = outputs - mean
    letters = ("bi,bj->bij", "bij,bk->bijk", "bijk,bl->bijkl")
    found, products = [mean], off
    for letter in letters:
        products = torch.einsum(letter, products, off)
        found.append(torch.tensordot(share, products, 1))
    return found


def same(found, expected):
    for name, value in zip(NAMES, expected, strict=True):
        got = getattr(found, name)
        assert got.shape == value.shape
        assert (got - value).abs().max() <= 1e-10 * value.abs().max(), name


@pytest.mark.parametrize("label_site", [0, 1, 4])
@pytest.mark.parametrize("features", ["linear", {"name": "legendre", "dim": 3}])
def test_independent_columns_by_all_combinations(features, label_site):
    layer, x = layer_of(features=features, label_site=label_site), samples(3)
    weight = torch.tensor([0.5, 2.0, 1.0]).double()
    places = torch.tensor(list(itertools.product(range(3), repeat=4)))
    every, share = x[places, torch.arange(4)], (weight / weight.sum())[places].prod(1)
    expected = by_definition(layer(every).detach(), share)
    found = moments(layer, x, 4, weight=weight)
    same(found, expected)
    raw = torch.einsum("k,k...->...", weight / weight.sum(), layer.features(x))
    second = torch.einsum("k,kni,knj->nij", weight / weight.sum(), *[layer.features(x)] * 2)
    known = IndependentInputs.of_moments(raw, second)
    assert torch.allclose(moments(layer, known).covariance, found.covariance, rtol=1e-10)
    own = found.fourth[1, 1, 1, 1] / found.covariance[1, 1] ** 2
    assert torch.allclose(found.kurtosis[1], own)
    assert torch.allclose(found.skewness, found.third[range(3), range(3), range(3)] / found.deviation**3)
    assert torch.allclose(found.covariance, sobol(layer, x, weight).covariance)
    mixed = torch.tensor([[1.0, 0.5], [-1.0, 0.0], [0.0, 2.0]]).double()
    combined = moments(layer, x, 3, mixed, weight=weight)
    third = torch.einsum("ijk,ia,jb,kc->abc", expected[2], mixed, mixed, mixed)
    assert (combined.third - third).abs().max() <= 1e-10 * third.abs().max()
    assert combined.fourth is None
    assert moments(layer, x, 1, 2).mean.shape == (1,)


@pytest.mark.parametrize("label_site", [0, 2, 4])
@pytest.mark.parametrize("kind", ["one matrix", "own values", "features"])
def test_markov_chains_by_all_paths(kind, label_site):
    layer = layer_of(features={"name": "legendre", "dim": 3}, label_site=label_site)
    generator = torch.Generator().manual_seed(1)
    start, steps = torch.rand(3, generator=generator).double(), torch.rand(3, 3, 3, generator=generator)
    start, steps = start / start.sum(), steps.double() / steps.double().sum(2, keepdim=True)
    values = samples(3, 4, seed=2)
    if kind == "one matrix":
        steps, values = steps[:1].expand(3, -1, -1), values[:, :1].expand(-1, 4)
    given = {"one matrix": values[:, 0], "own values": values, "features": layer.features(values)}[kind]
    law = MarkovInputs(start=start, transition=steps[0] if kind == "one matrix" else steps, values=given)
    paths = torch.tensor(list(itertools.product(range(3), repeat=4)))  # along the network's sites
    share = start[paths[:, 0]]
    for site in range(3):
        share = share * steps[site, paths[:, site], paths[:, site + 1]]
    inputs = torch.empty(len(paths), 4).double()
    for site, place in enumerate(ORDER):
        inputs[:, place] = values[paths[:, site], place]
    same(moments(layer, law, 4), by_definition(layer(inputs).detach(), share))
    if kind == "features":
        with pytest.raises(InputError, match="need the inputs"):
            squared_gradients(layer, law)
        return
    assert_gradients(squared_gradients(layer, law), layer, inputs, share)


def assert_gradients(found, layer, inputs, share):
    """Against autograd at every input."""
    x = inputs.clone().requires_grad_()
    for output in range(layer.out_features):
        (slope,) = torch.autograd.grad(layer(x)[:, output].sum(), x)
        expected = share @ slope.square()
        assert (found[:, output] - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("label_site", [0, 1, 4])
def test_gradients_of_independent_columns(label_site):
    layer, x = layer_of(features={"name": "legendre", "dim": 3}, label_site=label_site), samples(3)
    weight = torch.tensor([0.5, 0.0, 1.0]).double()
    places = torch.tensor(list(itertools.product(range(3), repeat=4)))
    share = (weight / weight.sum())[places].prod(1)
    found = squared_gradients(layer, x, weight=weight)
    assert_gradients(found, layer, x[places, torch.arange(4)], share)
    kept = x[[0, 2, 2]]
    law = IndependentInputs.of_columns(layer, kept)
    whole = mps_geometric_complexity(
        layer, law.central[0] + law.mean[:, :, None] * law.mean[:, None], law.slopes
    )
    assert torch.allclose(found.sum(), whole)
    every = torch.cartesian_prod(*kept.T)
    assert torch.allclose(whole, geometric_complexity(layer, every))
    assert torch.allclose(squared_gradients(layer, x, [1], weight=weight), found[:, 1:2])


def test_a_mean_far_from_zero_costs_no_digits():
    """The covariance is a sum of variances, not the difference of two large numbers."""
    layer, x = layer_of(1, 1, bond_dim=1, label_site=1), samples(50, 1)
    with torch.no_grad():  # 1e6 + x
        layer.cores[0].copy_(torch.tensor([[[1e6], [1e6 + 1]]]))
        layer.label.fill_(1.0)
    found, off = moments(layer, x, 4), x - x.mean()
    for power, name in enumerate(NAMES[1:], 2):
        expected = float((off**power).mean())
        assert float(getattr(found, name).squeeze()) == pytest.approx(expected, rel=1e-8), name


def test_long_chains_and_dependence_only_on_what_varies():
    layer = layer_of(100, 2, bond_dim=4, noise=1e-2)
    x = samples(5, 100)
    x[:, :90] = 0.25  # constant inputs
    both, slopes = sobol(layer, x), squared_gradients(layer, x)
    with torch.no_grad():  # 1e300 on the way, 1e10 in the end
        layer.weight.mul_(1e3)
        layer.label.mul_(1e-290)
    found = moments(layer, x, 2)
    assert torch.allclose(found.mean, 1e10 * both.mean, rtol=1e-9)
    assert torch.allclose(found.covariance, 1e20 * both.covariance, rtol=1e-6)
    assert torch.allclose(squared_gradients(layer, x), 1e20 * slopes, rtol=1e-9)
    assert torch.equal(moments(layer, x[:1], 3).covariance, torch.zeros(2, 2).double())


def test_every_network_has_a_mean_and_chains_have_more():
    x, law = samples(3), IndependentInputs.of_columns(layer_of(order="raster"), samples(3))
    chains = []
    for name in NETWORKS:
        layer = make_layer(name, 4, 2, dtype="float64").eval()
        if not layer.multilinear:
            with pytest.raises(InputError, match="linear in every site's features"):
                moments(layer, law, 1)
            continue
        every = layer(torch.cartesian_prod(*x.T)).detach()
        assert torch.allclose(moments(layer, x, 1).mean, every.mean(0)), name
        if isinstance(layer, Chain):
            chains.append(name)
            assert torch.allclose(moments(layer, x).covariance, every.T.cov(correction=0)), name
    assert set(chains) >= {"mps", "uniform"}
    layer = ToyLayer(4, 2, dtype="float64")
    assert torch.allclose(moments(layer, x, 1).mean, layer(torch.cartesian_prod(*x.T)).detach().mean(0))
    with pytest.raises(InputError, match="network that is a chain, got ToyLayer"):
        moments(layer, x)
    with pytest.raises(InputError, match="network that is a chain, got ToyLayer"):
        squared_gradients(layer, x)


HALF = torch.full((2, 2), 0.5)
ENDS = torch.tensor([0.0, 1.0])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda layer: moments(layer, samples(3), 5), "order must be"),
        (lambda layer: moments(layer, samples(3), 3, memory_gb=1e-6), "take a copy with bonds of at most 1"),
        (
            lambda layer: moments(layer, samples(3), 4, memory_gb=1e-9),
            "GB, more than memory_gb=1e-09; ask for",
        ),
        (lambda _: moments(layer_of(dtype="complex128"), samples(3)), "real outputs"),
        (lambda _: squared_gradients(layer_of(dtype="complex128"), samples(3)), "real outputs"),
        (lambda layer: moments(layer, samples(3, 5)), r"expected inputs \[b, 4\]"),
        (
            lambda layer: moments(layer, IndependentInputs.of_columns(layer, samples(3)), 3),
            "make the inputs with order=3",
        ),
        (lambda layer: squared_gradients(layer, layer.features(samples(3))), "these inputs lack them"),
        (lambda _: IndependentInputs.of_moments(torch.ones(4, 2), torch.ones(4, 2)), r"\[4, 2, 2\]"),
        (lambda _: IndependentInputs.of_moments(torch.ones(4)), "expected the moments"),
        (
            lambda layer: moments(layer, IndependentInputs.of_moments(torch.ones(5, 2)), 1),
            r"expected moments of \[4, 2\] features",
        ),
        (lambda _: MarkovInputs(start=ENDS, transition=2 * HALF, values=ENDS), "add up to 1 in each row"),
        (lambda _: MarkovInputs(start=HALF[0], transition=HALF[:1], values=ENDS), r"expected a transition"),
        (lambda _: MarkovInputs(start=HALF[0], transition=HALF, values=ENDS[:1]), r"expected values \[2\]"),
        (
            lambda layer: moments(
                layer, MarkovInputs(start=HALF[0], transition=HALF.expand(2, 2, 2), values=ENDS)
            ),
            "expected 3 transitions",
        ),
        (
            lambda layer: moments(
                layer, MarkovInputs(start=HALF[0], transition=HALF, values=ENDS), weight=torch.ones(2)
            ),
            "weights belong to samples",
        ),
        (lambda layer: moments(layer, samples(3), 2).skewness, "call moments with order=3"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(InputError, match=match):
        call(layer_of())


@pytest.mark.slow
@pytest.mark.parametrize("law", ["uniform", "markov"])
def test_a_million_samples(law):
    """Within 3 standard errors, the 14 different moments of two outputs; one in 26 seeds fails by chance."""
    layer = layer_of(12, 2, features={"name": "legendre", "dim": 3}, bond_dim=4, noise=0.05)
    generator = torch.Generator().manual_seed(5)
    if law == "uniform":
        x = torch.rand(1_000_000, 12, generator=generator, dtype=torch.float64)
        nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(10))
        found = moments(layer, ((nodes + 1) / 2).unsqueeze(1).expand(-1, 12), 4, weight=weights)
    else:
        levels = torch.tensor([0.0, 0.3, 1.0]).double()
        steps = torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.2, 0.6]]).double()
        start = torch.tensor([0.5, 0.25, 0.25]).double()
        found = moments(layer, MarkovInputs(start=start, transition=steps, values=levels), 4)
        drawn = torch.rand(1_000_000, 12, generator=generator, dtype=torch.float64)
        states = [torch.searchsorted(start.cumsum(0), drawn[:, 0].contiguous())]
        for site in range(1, 12):
            states.append((drawn[:, site, None] > steps.cumsum(1)[states[-1]]).sum(1).clamp_max(2))
        x = levels[torch.stack(states, 1)]
    with torch.no_grad():
        outputs = torch.cat([layer(some) for some in x.split(50_000)])
    off = outputs - found.mean
    for power, name in enumerate(NAMES, 1):
        for chosen in itertools.combinations_with_replacement(range(2), power):
            products = off[:, chosen].prod(1) if power > 1 else outputs[:, chosen[0]]
            error = float(products.std()) / 1000
            assert abs(float(products.mean() - getattr(found, name)[chosen])) <= 3 * error, (name, chosen)


def fitted(function, n_sites, features, bond_dim):
    """A chain fitted to a function on the unit cube, with a relative error of 1e-6 at most on new points."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6000, n_sites, generator=generator, dtype=torch.float64)
    y = function(x)
    layer = MPSLayer(n_sites, 1, bond_dim=bond_dim, features=features, dtype="float64", noise=0.5)
    options = {"max_error": 0.0, "metric": "frobenius", "ridge": 0.0, "max_bond": bond_dim}
    sweep_regressor(
        layer, x[:5000], y[:5000], SweepOptions(sweeps=12, sites=1, solver="als", loss="mse", **options)
    )
    with torch.no_grad():
        off = layer(x[5000:])[:, 0] - y[5000:]
    assert off.norm() <= 1e-6 * y[5000:].norm()
    return layer


def in_pieces(n_sites):
    """Nodes and weights on [0, 1], from two pieces because of a kink in the middle."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(24))
    half = (nodes + 1) / 4
    return torch.cat([half, half + 0.5]).unsqueeze(1).expand(-1, n_sites), weights.repeat(2)


@pytest.mark.slow
def test_sobol_indices_of_the_ishigami_function():
    """sin t1 + 7 sin² t2 + 0.1 t3⁴ sin t1 of t uniform on [-pi, pi]; Ishigami and Homma 1990."""

    def function(x):
        t = math.pi * (2 * x - 1)
        return t[:, 0].sin() + 7 * t[:, 1].sin() ** 2 + 0.1 * t[:, 2] ** 4 * t[:, 0].sin()

    layer = fitted(function, 3, {"name": "legendre", "dim": 20}, 2)
    found = sobol(layer, *in_pieces(3))
    first = torch.tensor([(1 + math.pi**4 / 50) ** 2 / 2, 49 / 8, 0.0])
    both = math.pi**8 * (1 / 18 - 1 / 50) / 100  # of t1 and t3 together
    variance = float(first.sum()) + both
    total = first + torch.tensor([both, 0.0, both])
    assert float(found.covariance) == pytest.approx(variance, rel=1e-5)
    assert (found.first[:, 0] - first / variance).abs().max() <= 1e-5
    assert (found.total[:, 0] - total / variance).abs().max() <= 1e-5
    assert float(moments(layer, in_pieces(3)[0], weight=in_pieces(3)[1]).mean) == pytest.approx(3.5, rel=1e-5)


@pytest.mark.slow
def test_sobol_indices_of_the_g_function_from_a_fit():
    """prod (|4 x - 2| + a) / (1 + a); Saltelli and Sobol' 1995."""
    a = torch.tensor([0.0, 1.0, 4.5, 9.0, 99.0, 99.0], dtype=torch.float64)

    def kinked(x):
        return torch.stack([torch.ones_like(x), x, (2 * x - 1).abs()], -1)

    layer = fitted(lambda x: (((4 * x - 2).abs() + a) / (1 + a)).prod(1), 6, kinked, 2)
    found = sobol(layer, *in_pieces(6))
    each = 1 / (3 * (1 + a) ** 2)
    variance = (1 + each).prod() - 1
    assert float(found.covariance) == pytest.approx(float(variance), rel=1e-5)
    assert (found.first[:, 0] - each / variance).abs().max() <= 1e-5
    assert (found.total[:, 0] - each * (1 + each).prod() / (1 + each) / variance).abs().max() <= 1e-5
