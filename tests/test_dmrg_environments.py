"""What samples look like left and right of a site: against dense contractions, in any memory budget."""

import numpy as np
import oracles
import pytest
import torch

from tnml import InputError
from tnml.nn import MPSLayer
from tnml.training import SweepOptions, sweep_classifier
from tnml.training.dmrg import environments
from tnml.training.dmrg.environments import Environments, join

BONDS = [1, 2, 3, 4, 2, 3, 2, 1]
SITES, SAMPLES = len(BONDS) - 1, 5


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cores_of(bonds):
    return [rand(bonds[i], 2, bonds[i + 1], seed=i) for i in range(len(bonds) - 1)]


def dense_left(features, cores, site):
    return oracles.half_chain(features.transpose(0, 1)[:, :site], cores[:site])


def dense_right(features, cores, site):
    mirrored = [core.permute(2, 1, 0) for core in reversed(cores[site:])]
    return oracles.half_chain(features.transpose(0, 1)[:, site:].flip(1), mirrored)


def budget_of(vectors, widest=4, samples=SAMPLES):
    """Bytes of that many vectors of the widest bond."""
    return 8 * widest * samples * vectors


def test_join_is_the_product_of_two_vectors():
    first, second = rand(4, 3), rand(4, 2, seed=1)
    np.testing.assert_array_equal(
        join(first, second), np.stack([np.kron(a, b) for a, b in zip(first, second, strict=True)])
    )


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_site_in_any_order(stride, monkeypatch):
    monkeypatch.setattr(environments, "_stride", lambda *sizes: stride)
    features, cores = rand(SITES, SAMPLES, 2, seed=50), cores_of(BONDS)
    around = Environments(features, cores, 4, 1e9)
    order = [3, 0, 7, 1, 6, 2, 5, 4, *range(SITES + 1), *reversed(range(SITES + 1))]
    for site in order:
        np.testing.assert_allclose(around.left(site), dense_left(features, cores, site), rtol=1e-12)
        np.testing.assert_allclose(around.right(site), dense_right(features, cores, site), rtol=1e-12)
    other = rand(SITES, SAMPLES, 2, seed=51)
    around.renew(other)
    for site in order:
        np.testing.assert_allclose(around.left(site), dense_left(other, cores, site), rtol=1e-12)
        np.testing.assert_allclose(around.right(site), dense_right(other, cores, site), rtol=1e-12)


@pytest.mark.parametrize(("vectors", "stride"), [(31, 1), (23, 2), (20, 3), (19, 4)])
def test_a_moving_center_forgets_what_is_gone(vectors, stride):
    """As a sweep does: the core left behind is new, and so is everything beyond it."""
    sites = 30
    bonds = [1, *[2] * (sites - 1), 1]
    features, cores = rand(sites, SAMPLES, 2, seed=50), cores_of(bonds)
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
            vector = np.ones((SAMPLES, 1))
            for site in range(at):
                vector = np.einsum("bl,bd,ldr->br", vector, features[site], truth[site])
            np.testing.assert_allclose(left, vector, rtol=1e-10)
            vector = np.ones((SAMPLES, 1))
            for site in reversed(range(at + 1, sites)):
                vector = np.einsum("br,bd,ldr->bl", vector, features[site], truth[site])
            np.testing.assert_allclose(right, vector, rtol=1e-10)


def test_the_center_has_no_environment_beyond_it():
    cores = cores_of(BONDS)
    cores[3] = None
    around = Environments(rand(SITES, SAMPLES, 2), cores, 4, 1e9)
    assert (around.left(3).shape, around.right(4).shape) == ((SAMPLES, 4), (SAMPLES, 2))
    for get, site in ((around.left, 4), (around.right, 3)):
        with pytest.raises(AssertionError, match="site 3 is the center"):
            get(site)


def test_memory_that_does_not_suffice_is_one_clear_error():
    features, cores = rand(SITES, SAMPLES, 2), cores_of(BONDS)
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
}


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
    memory = 4 * 4 * len(x) * 24 / 1e9  # 24 of 41 vectors
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
