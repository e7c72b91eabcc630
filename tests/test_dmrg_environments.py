"""What samples look like left and right of a site: against dense contractions, in any memory budget."""

import numpy as np
import oracles
import pytest
import torch
from bounds import assert_same_sums

from tnml import InputError
from tnml.nn import MPSLayer
from tnml.training import SweepOptions, sweep_classifier
from tnml.training.dmrg import environments
from tnml.training.dmrg.environments import Environments

BONDS = [1, 2, 3, 4, 2, 3, 2, 1]
SITES, SAMPLES = len(BONDS) - 1, 5


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cores_of(bonds, label=None):
    """Physical dimension 2, or 3 outputs at the label core."""
    return [rand(bonds[i], 3 if i == label else 2, bonds[i + 1], seed=i) for i in range(len(bonds) - 1)]


def features_of(sites, label=None, seed=50):
    features = list(rand(sites, SAMPLES, 2, seed=seed))
    if label is not None:
        features[label] = None
    return features


def dense_left(features, cores, site):
    """`[b, l]`, or `[b, c, l]` where the label core, whose features are None, is among the sites."""
    vector, label = np.ones((SAMPLES, 1)), False
    for phi, core in zip(features[:site], cores[:site], strict=True):
        if phi is None:
            vector, label = np.einsum("bl,lcr->bcr", vector, core), True
        else:
            vector = np.einsum("bcl,bd,ldr->bcr" if label else "bl,bd,ldr->br", vector, phi, core)
    return vector


def dense_right(features, cores, site):
    mirrored = [None if core is None else core.permute(2, 1, 0) for core in reversed(cores)]
    return dense_left(features[::-1], mirrored, len(cores) - site)


def assert_same_vectors(found, expected, dense, features, cores, site):
    """At every site two multiplications, and fewer additions than its core has numbers for one result."""
    absolute = [None if phi is None else phi.abs() for phi in features]
    magnitude = dense(absolute, [core.abs() for core in cores], site)
    operations = sum(1 + core.shape[1] * max(core.shape[0], core.shape[2]) for core in cores)
    assert_same_sums(found, expected, magnitude, operations)


def budget_of(vectors, widest=4, samples=SAMPLES):
    """Bytes of that many vectors of the widest bond."""
    return 8 * widest * samples * vectors


def test_the_oracle_by_hand_is_the_dense_contraction():
    features, cores = features_of(SITES), cores_of(BONDS)
    stacked = torch.stack(features, 1)
    found, expected = dense_left(features, cores, 4), oracles.half_chain(stacked[:, :4], cores[:4])
    assert_same_vectors(found, expected, dense_left, features, cores, 4)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("label", [None, 0, 3, SITES - 1])
@pytest.mark.parametrize("chunk", [1 << 22, 1])
def test_every_site_in_any_order(stride, label, chunk, monkeypatch):
    monkeypatch.setattr(environments, "_stride", lambda *sizes: stride)
    monkeypatch.setattr(environments, "_CHUNK_BYTES", chunk)
    features, cores = features_of(SITES, label), cores_of(BONDS, label)
    around = Environments(features, cores, 4, 1e9)
    order = [3, 0, 7, 1, 6, 2, 5, 4, *range(SITES + 1), *reversed(range(SITES + 1))]
    for site in order:
        for found, dense in ((around.left(site), dense_left), (around.right(site), dense_right)):
            assert_same_vectors(found, dense(features, cores, site), dense, features, cores, site)
        if site < SITES:
            left, right = around.left(site), around.right(site + 1)
            one, two = around.left_side(site, joined=False), around.right_side(site, joined=False)
            assert torch.equal(one.vectors, left)
            assert torch.equal(two.vectors, right)
            one, two = around.left_side(site).vectors, around.right_side(site).vectors
            if site != label:
                phi = features[site]
                left = np.einsum("b...m,bd->b...md", left, phi).reshape(*left.shape[:-1], -1)
                right = np.einsum("b...m,bd->b...dm", right, phi).reshape(*right.shape[:-1], -1)
            np.testing.assert_allclose(one, left, rtol=1e-12)
            np.testing.assert_allclose(two, right, rtol=1e-12)


def test_many_samples_go_in_chunks(monkeypatch):
    count = 700
    features, cores = list(rand(3, count, 2)), cores_of([1, 2, 2, 1])
    whole = Environments(features, cores, 2, 1e9).left(3)
    monkeypatch.setattr(environments, "_CHUNK_BYTES", 1)
    assert torch.allclose(Environments(features, cores, 2, 1e9).left(3), whole, rtol=1e-12)


@pytest.mark.parametrize(("vectors", "stride"), [(31, 1), (23, 2), (20, 3), (19, 4)])
def test_a_moving_center_forgets_what_is_gone(vectors, stride):
    """As a sweep does: the core left behind is new, and so is everything beyond it."""
    sites = 30
    bonds = [1, *[2] * (sites - 1), 1]
    features, cores = features_of(sites), cores_of(bonds)
    budget = budget_of(vectors, 2)
    around = Environments(features, cores, 2, budget)
    assert around.stride == stride
    truth = list(cores)
    path = [*range(sites), *reversed(range(sites - 1))]
    seed = 1000
    for before, at in zip([None, *path], path, strict=False):
        if before is not None:
            seed += 1
            truth[before] = cores[before] = rand(bonds[before], 2, bonds[before + 1], seed=seed)
        cores[at] = None
        around.recenter(at)
        left, right = around.left(at), around.right(at + 1)
        assert around.kept_bytes() <= budget
        if at in (0, 7, 15, 29):
            for found, dense, site in ((left, dense_left, at), (right, dense_right, at + 1)):
                assert_same_vectors(found, dense(features, truth, site), dense, features, truth, site)


def test_the_center_has_no_environment_beyond_it():
    cores = cores_of(BONDS)
    cores[3] = None
    around = Environments(features_of(SITES), cores, 4, 1e9)
    assert (around.left(3).shape, around.right(4).shape) == ((SAMPLES, 4), (SAMPLES, 2))
    for get, site in ((around.left, 4), (around.right, 3)):
        with pytest.raises(AssertionError, match="site 3 is the center"):
            get(site)


def test_memory_that_does_not_suffice_is_one_clear_error():
    features, cores = features_of(SITES), cores_of(BONDS)
    with pytest.raises(InputError, match=r"need at least .* GB, memory_gb is .*; raise memory_gb, or lower"):
        Environments(features, cores, 4, budget_of(2))


def problem(sites=40, samples=60):
    x = torch.rand(samples, sites, generator=torch.Generator().manual_seed(3))
    return x, (x[:, 3] + x[:, 30] > 1).long()


def layer(sites=40):
    return MPSLayer(sites, 2, bond_dim=2, seed=1)


MORE = {
    "two-site": {},
    "one-site": {"sites": 1},
    "batches": {"batch_size": 40},
    "shifts": {"max_shift": 1},
    "travels": {"label": "travels"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_a_training_in_little_memory_has_the_same_bits(name, monkeypatch):
    x, y = problem()
    options = {"sweeps": 2, "max_bond": 4, "device": "cpu", **MORE[name]}
    plain = layer()
    shape = (5, 8)
    expected = sweep_classifier(plain, x, y, SweepOptions(**options), image_shape=shape)
    kept, strides = [], []

    class Watched(Environments):
        def _get(self, side, site):
            found = super()._get(side, site)
            kept.append(self.kept_bytes())
            strides.append(self.stride)
            return found

        def _advance(self, side, vector, at):
            kept.append(self.kept_bytes())
            return super()._advance(side, vector, at)

    monkeypatch.setattr("tnml.training.dmrg.sweep.Environments", Watched)
    count = 40 if name == "batches" else len(x)
    wide = 4 if name == "travels" else 8  # bond dimension, times two outputs with a label core
    memory = 4 * wide * count * 26 / 1e9  # 26 of 42 vectors
    little = layer()
    found = sweep_classifier(little, x, y, SweepOptions(memory_gb=memory, **options), image_shape=shape)
    assert min(strides) > 1
    assert max(kept) <= memory * 1e9
    for key, tensor in expected.state.items():
        assert torch.equal(tensor, found.state[key]), key
    assert found.bonds == expected.bonds


def test_a_training_in_too_little_memory_is_refused():
    x, y = problem()
    with pytest.raises(InputError, match="memory_gb"):
        sweep_classifier(layer(), x, y, SweepOptions(max_bond=4, memory_gb=1e-6, device="cpu"))
