"""A layer's weights as the chain of a sweep, and the change of its gauge, against dense numpy."""

import numpy as np
import oracles
import pytest
import torch

from tnml.nn import MPSLayer
from tnml.training import SweepOptions
from tnml.training.dmrg.chain import chain_of, put_into
from tnml.training.dmrg.sweep import SweepBatch, Sweeper
from tnml.training.losses import SquaredError


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LAYERS = [  # sites, outputs, bonds, label site, features
    (2, 1, 1, 0, "linear"),
    (2, 3, 2, 1, "linear"),
    (2, 2, 2, 2, "fourier"),
    (5, 2, [1, 2, 5, 3, 4, 2, 1], 2, "linear"),
    (6, 3, [1, 2, 3, 1, 2, 3, 2, 1], 3, "legendre"),
    (7, 1, 4, 0, "trigonometric"),
    (7, 1, 4, 7, "trigonometric"),
    (6, 4, [1, 2, 9, 20, 9, 4, 2, 1], 6, "linear"),
]


def random_layer(sites, outputs, bonds, label_site, features):
    layer = MPSLayer(sites, outputs, bonds, label_site=label_site, features=features, dtype="float64")
    with torch.no_grad():
        layer.weight.copy_(rand(len(layer.weight), seed=3))
        layer.label.copy_(rand(*layer.label.shape, seed=4))
    return layer


def dense_outputs(layer, x):
    cores, at = [core.detach() for core in layer.cores], layer.label_site
    return oracles.outputs(
        layer.local_features(x).detach(), cores[:at], layer.label_core.detach(), cores[at:]
    )


def chain_outputs(chain, features):
    """By einsum, site by site, of features `[b, n, d]`; legs of dimension 1 are no legs."""
    vector, features = np.ones((len(features), 1, 1)), list(features.transpose(0, 1))
    if chain.label is not None:
        features.insert(chain.label, None)
    for core, phi in zip(chain.cores, features, strict=True):
        if phi is None:
            label = chain.center.squeeze(1) if core is None else core
            vector = np.einsum("bal,lcr->bcr", vector, label)
        elif core is None:
            wide = np.einsum("bal,bd,ldcr->bacr", vector, phi, chain.center)
            vector = wide.reshape(len(wide), -1, wide.shape[3])
        else:
            vector = np.einsum("bcl,bd,ldr->bcr", vector, phi, core)
    return vector[:, :, 0]


def sweeper_of(layer, chain, x, targets=None, **options):
    features = list(layer.local_features(x).detach().transpose(0, 1).contiguous())
    if chain.label is not None:
        features.insert(chain.label, None)
    targets = torch.zeros(len(x), layer.out_features).double() if targets is None else targets
    settings = SweepOptions(loss="mse", device="cpu", **{"max_bond": 100, **options})
    return Sweeper(chain, lambda half: SweepBatch(features, targets), SquaredError(), settings)


def features_beside(chain, features):
    return features if chain.label is None else [*features[: chain.label], None, *features[chain.label :]]


TRAVELS = pytest.mark.parametrize("travels", [False, True], ids=["stays", "travels"])


@pytest.mark.parametrize("case", LAYERS, ids=str)
@TRAVELS
def test_a_layer_and_its_chain_say_the_same(case, travels):
    layer = random_layer(*case)
    x = torch.rand(20, layer.n_sites, generator=torch.Generator().manual_seed(2)).double()
    expected = dense_outputs(layer, x)
    chain = chain_of(layer, travels=travels)
    assert chain.label == (None if travels else layer.label_site)
    assert chain.at == (max(0, layer.label_site - 1) if travels else layer.label_site)
    assert [site for site, core in enumerate(chain.cores) if core is None] == [chain.at]
    np.testing.assert_allclose(chain_outputs(chain, layer.local_features(x)), expected, rtol=1e-9, atol=1e-9)
    own = {core.data_ptr() for core in layer.cores}
    assert not own & {core.data_ptr() for core in [*chain.cores, chain.center] if core is not None}


@pytest.mark.parametrize("case", LAYERS, ids=str)
@pytest.mark.parametrize("metric", ["data", "frobenius"])
@TRAVELS
def test_the_gauge_of_a_sweep_changes_no_output(case, metric, travels):
    layer = random_layer(*case)
    x = torch.rand(200, layer.n_sites, generator=torch.Generator().manual_seed(2)).double()
    expected, place = layer(x).detach(), layer.label_site
    assert oracles.relative(expected, dense_outputs(layer, x)) < 1e-10
    sweeper = sweeper_of(layer, chain_of(layer, travels=travels), x, metric=metric)
    sweeper.prepare()
    chain, features = sweeper.chain, layer.local_features(x).detach()
    assert chain.at == 0
    assert oracles.relative(chain_outputs(chain, features), expected) < 1e-5
    put_into(layer, chain)
    assert layer.label_site == (1 if travels else place)
    assert layer.bond_dims[2 if travels else 1 : -1] == chain.bond_dims
    assert oracles.relative(layer(x).detach(), expected) < 1e-5
    right = np.ones((len(x), 1, 1))
    along = features_beside(chain, list(features.transpose(0, 1)))
    for site in reversed(range(1, len(chain.cores))):  # isometries, scaled so that samples have size one
        core, near = chain.core(site), along[site]
        if metric == "frobenius":
            gram = np.einsum("ldr,mdr->lm", core, core)
            np.testing.assert_allclose(gram, gram[0, 0] * np.eye(len(core)), rtol=1e-9, atol=1e-9)
        if near is None:
            right = np.einsum("bar,lcr->bcl", right, core)
        else:
            right = np.einsum("bd,bcr,ldr->bcl", near, right, core)
        assert np.square(right).sum((1, 2)).mean() == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("case", LAYERS, ids=str)
@TRAVELS
def test_weights_go_back_into_a_layer_exactly(case, travels):
    """And out again: where the center is at site 0 the chain is the same bit for bit."""
    layer = random_layer(*case)
    chain = chain_of(layer, travels=travels)
    sweeper_of(layer, chain, torch.rand(30, layer.n_sites).double(), metric="frobenius").prepare()
    put_into(layer, chain)
    again = chain_of(layer, travels=travels)
    own = chain.center if travels else chain.center.flatten(1, 2)  # of what is at site 0
    if travels:
        assert again.at == 0
        assert torch.equal(again.center, own)
    else:
        first = again.center.flatten(1, 2) if again.at == 0 else again.core(0)
        assert torch.equal(first, own)
    for site in range(1, len(chain.cores)):
        found = again.center.flatten(1, 2) if site == again.at else again.core(site)
        assert torch.equal(found, chain.core(site))


@pytest.mark.parametrize("case", LAYERS, ids=str)
@TRAVELS
@pytest.mark.parametrize("sites", [1, 2])
@pytest.mark.parametrize("metric", ["data", "frobenius"])
def test_steps_without_a_change_keep_the_outputs(case, travels, sites, metric):
    """Targets that are met already: a whole sweep only moves the center, with no limit on the bonds."""
    layer = random_layer(*case)
    x = torch.rand(60, layer.n_sites, generator=torch.Generator().manual_seed(2)).double()
    expected = layer(x).detach()
    sweeper = sweeper_of(
        layer,
        chain_of(layer, travels=travels),
        x,
        expected,
        metric=metric,
        sites=sites,
        max_error=0.0,
        ridge=0.0,
        label="travels" if travels else "stays",
    )
    sweeper.prepare()
    features, count = layer.local_features(x).detach(), sweeper.steps_per_half
    assert count == len(sweeper.chain.cores) - 1
    for index in range(2 * count):
        row = sweeper.step(0, index)
        right = index < count
        assert row["bond"] == (index if right else 2 * count - 1 - index)
        assert sweeper.chain.at == (index + 1 if right else 2 * count - 1 - index)
        assert row["bond_dim"] == sweeper.chain.bond_dims[row["bond"]]
        if sites == 1 and travels and layer.out_features > 1:
            continue  # the bonds, which one-site sweeps keep, are too small for a label leg that passes
        assert row["loss"] < 1e-9 * expected.square().mean().item()
        assert oracles.relative(chain_outputs(sweeper.chain, features), expected) < 1e-5
