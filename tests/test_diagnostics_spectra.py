"""Spectra, counts and the tracker: dense tensors by numpy, ranks of Jacobians, gauges."""

import json
import math

import mps_oracles
import numpy as np
import pytest
import torch
from diagnosed import grown, restless
from torch import nn

from tnml import InputError
from tnml.diagnostics import (
    Tracker,
    count_parameters,
    gauge_free_parameters,
    matrices,
    schmidt,
    singular_values,
)
from tnml.mps import MatrixProductState
from tnml.nn import MPSLayer, TTEmbedding, TTLinear


def dense(cores):
    found = np.ones((1,))
    for core in cores:
        found = np.tensordot(found, core.detach().numpy(), axes=1)
    return found[..., 0]


def tensor_of(layer):
    place = layer.label_site
    return dense([*layer.cores[:place], layer.label_core, *layer.cores[place:]])


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("label_site", [0, 2, 5])
def test_schmidt_values_are_those_of_the_dense_tensor(label_site, dtype):
    layer = grown(MPSLayer(5, 3, 4, label_site=label_site, dtype=dtype))
    found, tensor = schmidt(layer), tensor_of(layer)
    rounding = 1e-5 if dtype == "float32" else 1e-11
    assert found.log_norm == pytest.approx(math.log(np.linalg.norm(tensor)), abs=rounding)
    for bond, expected in enumerate(mps_oracles.schmidt(tensor)):
        values = found.values[bond]
        assert values.dtype == torch.float64
        np.testing.assert_allclose(values, expected[: len(values)], atol=rounding)
        assert np.allclose(expected[len(values) :], 0, atol=rounding)
        entropy = mps_oracles.entropy(expected**2)
        assert float(found.entropies[bond]) == pytest.approx(entropy, abs=10 * rounding)
        assert float(found.effective_bond_dims[bond]) == pytest.approx(math.exp(entropy), abs=40 * rounding)
    assert len(found.values) == 5


def test_schmidt_values_do_not_depend_on_the_gauge():
    state = MatrixProductState.random(5, 3, seed=3)
    cores = state.cores
    gauge = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cores[1] = torch.einsum("ldr,rs->lds", cores[1], gauge)
    cores[2] = torch.einsum("sl,ldr->sdr", gauge.inverse(), cores[2])
    one, other = schmidt(state), schmidt(MatrixProductState(cores))
    assert one.log_norm == pytest.approx(other.log_norm)
    for a, b in zip(one.values, other.values, strict=True):
        torch.testing.assert_close(a, b)


def test_schmidt_of_long_chains_and_of_no_chain():
    found = schmidt(MPSLayer(300, 10, 3))
    assert math.isfinite(found.log_norm)
    assert bool(torch.isfinite(found.entropies).all())
    layer = MPSLayer(3, 2)
    with torch.no_grad():
        layer.weight.zero_()
    with pytest.raises(InputError, match="state is zero"):
        schmidt(layer)
    with pytest.raises(InputError, match="expected an MPSLayer"):
        schmidt(nn.Linear(2, 2))


def test_matrices_of_every_kind_of_layer():
    net = nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 8), TTLinear(8, 6, rank=2)
    )
    found = dict(matrices(net))
    shapes = {name: tuple(m.shape) for name, m in found.items()}
    tt = net[4]
    cores = {
        f"4.cores.{k}": (c.shape[0] * c.shape[1], c.shape[2] * c.shape[3]) for k, c in enumerate(tt.cores)
    }
    assert shapes == {"0.weight": (3, 8), "3.weight": (8, 12), "4.weight": (6, 8), **cores}
    assert found["3.weight"].data_ptr() == net[3].weight.data_ptr(), "a view"
    assert not any(m.requires_grad for m in found.values())
    np.testing.assert_array_equal(found["4.weight"], tt.weight.detach())
    values = singular_values(net)
    for name, matrix in found.items():
        expected = np.linalg.svd(matrix.numpy().astype(float), compute_uv=False)
        np.testing.assert_allclose(values[name], expected, atol=1e-12)


def test_matrices_of_a_matrix_product_state_are_its_bonds():
    layer = grown(MPSLayer(4, 2, 3, dtype="float64"))
    found = singular_values(nn.Sequential(nn.Identity(), layer))
    assert list(found) == [f"1.bond.{bond}" for bond in range(4)]
    for values, expected in zip(found.values(), mps_oracles.schmidt(tensor_of(layer)), strict=True):
        np.testing.assert_allclose(values, expected[: len(values)], atol=1e-12)
    assert [name for name, _ in matrices(layer)] == [f"bond.{bond}" for bond in range(4)]


def rank_of_jacobian(cores):
    """The dimension of the set of tensors with these bonds: the rank of the derivative by all entries."""
    columns = []
    for site, core in enumerate(cores):
        for index in np.ndindex(core.shape):
            unit = np.zeros_like(core)
            unit[index] = 1
            columns.append(mps_oracles.dense([*cores[:site], unit, *cores[site + 1 :]]).ravel())
    s = np.linalg.svd(np.array(columns), compute_uv=False)
    return int((s > 1e-9 * s[0]).sum())


@pytest.mark.parametrize(
    ("dims", "bonds"),
    [
        ((2, 2, 2), (1, 2, 2, 1)),
        ((2, 3, 2, 2), (1, 2, 3, 2, 1)),
        ((2, 2, 2, 2), (1, 2, 2, 2, 1)),
        ((2, 3, 2), (1, 5, 4, 1)),  # wider than the outer cores can use
        ((3, 2, 2), (1, 1, 4, 1)),
        ((2,), (1, 1)),
    ],
)
def test_gauge_free_count_is_the_dimension_of_the_set_of_tensors(dims, bonds):
    rng = np.random.default_rng(1)
    cores = [rng.normal(size=(l, d, r)) for l, d, r in zip(bonds[:-1], dims, bonds[1:], strict=True)]
    found = gauge_free_parameters(MatrixProductState([torch.from_numpy(core) for core in cores]))
    assert found == rank_of_jacobian(cores)


@pytest.mark.parametrize("label_site", [0, 1, 2, 4])
@pytest.mark.parametrize("outputs", [1, 3])
def test_gauge_free_count_of_a_layer(label_site, outputs):
    layer = grown(MPSLayer(4, outputs, 3, label_site=label_site, dtype="float64"))
    place = layer.label_site
    cores = [c.detach().numpy() for c in [*layer.cores[:place], layer.label_core, *layer.cores[place:]]]
    counts = count_parameters(layer)
    assert counts.gauge_free_parameters == rank_of_jacobian(cores)
    assert counts.n_parameters == sum(p.numel() for p in layer.parameters())
    assert counts.largest_core == max(core.size for core in cores)


def test_counts_of_modules_add_up():
    tt = TTLinear(8, 6, rank=2, bias=True)
    cores = [core.detach().double().flatten(1, 2).numpy() for core in tt.cores]
    free = rank_of_jacobian(cores)
    assert gauge_free_parameters(tt) == free + 6
    net = nn.Sequential(tt, nn.Linear(6, 4), MPSLayer(4, 2, 2))
    counts = count_parameters(net)
    assert counts.n_parameters == sum(p.numel() for p in net.parameters())
    assert counts.gauge_free_parameters == free + 6 + 28 + gauge_free_parameters(net[2])
    assert counts.largest_core == max(24, *(core.size for core in cores))
    table = TTEmbedding(9, 4, rank=3, row_factors=(3, 3), column_factors=(2, 2))
    assert gauge_free_parameters(table) == 6 * 3 * 2 - 9
    assert count_parameters(nn.ReLU()).largest_core == 0
    tied = nn.Sequential(net[1], net[1])
    assert count_parameters(tied).n_parameters == 28, "a layer that is used twice counts once"
    with pytest.raises(InputError, match="expected a module or a MatrixProductState, got int"):
        count_parameters(3)


def test_the_tracker_follows_norm_and_spectra():
    layer, tracker = grown(MPSLayer(5, 2, 3, dtype="float64")), Tracker()
    first = tracker(layer)
    with torch.no_grad():
        layer.label.mul_(2)
    second = tracker(layer)
    assert first["log_norm_growth"] == 0.0
    assert second["log_norm_growth"] == pytest.approx(math.log(2))
    found = schmidt(layer)
    assert second["log_norm"] == found.log_norm
    assert second["entropy_max"] == pytest.approx(float(found.entropies.max()))
    assert second["entropy_mean"] == pytest.approx(float(found.entropies.mean()))
    assert second["effective_bond_max"] == pytest.approx(float(found.effective_bond_dims.max()))
    assert second["effective_bond_mean"] == pytest.approx(float(found.effective_bond_dims.mean()))
    assert [entry["epoch"] for entry in tracker.history] == [1, 2]
    again = json.loads(json.dumps(tracker.history))
    assert again == tracker.history
    for values, expected in zip(again[1]["schmidt"], found.values, strict=True):
        assert values == expected.tolist()


def test_the_tracker_names_the_layers_of_a_model():
    net = nn.ModuleDict({"a": MPSLayer(4, 2, 2), "b": MPSLayer(5, 2, 3)})
    tracker = Tracker(spectra=False)
    row = tracker.on_epoch_end(net, None, 7)
    assert {name.split(".")[0] for name in row} == {"a", "b"}
    assert tracker.history == [{"epoch": 7, **row}]
    assert row["b.log_norm"] == schmidt(net["b"]).log_norm
    assert "3.log_norm" in Tracker()(restless())
    with pytest.raises(InputError, match="Linear has none"):
        tracker(nn.Linear(2, 2))
