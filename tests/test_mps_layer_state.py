"""Layers and states: outputs against the dense tensor contracted by numpy, round trips, compression."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

import tnml
from tnml import InputError
from tnml.mps import MatrixProductState
from tnml.nn import MPSLayer

DTYPES = ["float64", "complex128"]


def make(label_site: int | None = 2, dtype: str = "float64", **settings: object) -> MPSLayer:
    """A layer of 5 sites whose cores are all different and far from the identity."""
    layer = MPSLayer(5, 3, 4, label_site=label_site, dtype=dtype, **settings)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return layer


def dense(cores: list[torch.Tensor]) -> npt.NDArray[np.complex128]:
    """The tensor of all physical legs, by numpy."""
    found = np.ones((1,), dtype=np.complex128)
    for core in cores:
        found = np.tensordot(found, core.detach().numpy().astype(np.complex128), axes=1)
    return found[..., 0]


def tensor_of(layer: MPSLayer) -> npt.NDArray[np.complex128]:
    """The weight tensor of a layer from its own cores, the label leg at its place."""
    cores, place = layer.cores, layer.label_site
    return dense([*cores[:place], layer.label_core, *cores[place:]])


def outputs(tensor: npt.NDArray[np.complex128], place: int, phi: npt.NDArray[np.float64]) -> object:
    """f_c of one sample's features `[n, d]`: every physical leg but the label's is summed."""
    found = np.moveaxis(tensor, place, -1)
    for site in phi:
        found = np.tensordot(site, found, axes=(0, 0))
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("label_site", [0, 2, 5])
def test_outputs_are_those_of_the_dense_state(label_site: int, dtype: str) -> None:
    layer = make(label_site, dtype, order=[3, 0, 4, 1, 2])
    state = layer.to_state()
    assert (state.n_sites, state.label_site) == (6, label_site)
    assert state.physical_dims[label_site] == 3
    scale = float(torch.as_tensor(state.log_scale).exp())
    tensor = dense(list(state.cores)) * scale
    x = torch.rand(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for row, found in zip(x.numpy(), layer(x).detach().numpy(), strict=True):
        chain = row[[3, 0, 4, 1, 2]]
        phi = np.stack([1 - chain, chain], axis=1)
        np.testing.assert_allclose(found, outputs(tensor, label_site, phi), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("label_site", [0, 3, 5])
def test_round_trip(label_site: int, dtype: str) -> None:
    layer = make(label_site, dtype, order="spiral")
    again = MPSLayer.from_state(layer.to_state(), order="spiral")
    assert again.bond_dims == layer.bond_dims
    x = torch.rand(9, 5, dtype=torch.float64)
    torch.testing.assert_close(again(x), layer(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(tensor_of(again), tensor_of(layer), rtol=1e-12, atol=1e-12)
    assert again.label.data_ptr() != layer.label.data_ptr(), "a copy"


def test_gradients_reach_the_layer_through_the_state() -> None:
    layer = make()
    sum(core.square().sum() for core in layer.to_state().cores).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(layer.weight.grad, 2 * layer.weight.detach())
    torch.testing.assert_close(layer.label.grad, 2 * layer.label.detach())


@pytest.mark.parametrize("log_scale", [1.5, -300.0, 400.0])
def test_the_scale_of_a_state_stays_in_the_layer(log_scale: float) -> None:
    layer = make()
    state = layer.to_state()
    scaled = MatrixProductState(list(state.cores), log_scale=log_scale, label_site=2)
    x = torch.rand(3, 5, dtype=torch.float64)
    value, log = MPSLayer.from_state(scaled).log_forward(x)
    expected, before = layer.log_forward(x)
    torch.testing.assert_close(
        value.abs().log() + log[:, None], expected.abs().log() + before[:, None] + log_scale
    )


def test_settings_of_a_layer_from_a_state() -> None:
    state = make(features={"name": "legendre", "dim": 3}).to_state()
    layer = MPSLayer.from_state(
        state, features={"name": "legendre", "dim": 3}, bond_dropout=0.2, engine="reference", order="snake"
    )
    assert layer.config["bond_dropout"] == 0.2
    assert layer.config["engine"] == "reference"
    with pytest.raises(InputError, match=r"site 0 has physical dimension 3, the features have dimension 2"):
        MPSLayer.from_state(state)
    with pytest.raises(InputError, match=r"label_site is given by the state"):
        MPSLayer.from_state(make().to_state(), label_site=1)


def test_states_that_are_no_layer() -> None:
    cores = list(make().to_state().cores)
    with pytest.raises(InputError, match="has no label core"):
        MPSLayer.from_state(MatrixProductState(cores))
    with pytest.raises(InputError, match="the label core alone"):
        MPSLayer.from_state(MatrixProductState([torch.ones(1, 3, 1)], label_site=0))
    for log_scale in (5e3, 1e6):
        with pytest.raises(InputError, match="float64; convert the normalized state"):
            MPSLayer.from_state(MatrixProductState(cores, label_site=2, log_scale=log_scale))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "limits", [{"max_bond": 2}, {"max_bond": 1}, {"max_error": 0.2}, {"max_bond": [2, 3, 3, 2, 1]}]
)
def test_the_error_is_that_of_the_dense_tensor(limits: dict[str, object], dtype: str) -> None:
    layer = make(2, dtype)
    before = tensor_of(layer)
    smaller, error = layer.compressed(**limits)  # type: ignore[arg-type]
    measured = np.linalg.norm(tensor_of(smaller) - before) / np.linalg.norm(before)
    assert error == pytest.approx(measured, rel=1e-8, abs=1e-12)
    assert 0 < error < 1
    if "max_error" in limits:
        assert error <= 0.2
    elif isinstance(limits["max_bond"], int):
        assert max(smaller.bond_dims) == limits["max_bond"]
    else:
        inner = smaller.bond_dims[1:3] + smaller.bond_dims[3:-1]
        assert all(bond <= limit for bond, limit in zip(inner, [2, 3, 3, 2, 1], strict=True))
    np.testing.assert_array_equal(tensor_of(layer), before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limits", [{"max_bond": 2}, {"max_error": 0.3}])
def test_the_error_by_samples_is_that_of_independent_sites(limits: dict[str, object], dtype: str) -> None:
    """Dense, by numpy: the root of every site's moments on its leg, then the norm of all entries."""
    layer = make(2, dtype, order=[3, 0, 4, 1, 2])
    x = torch.rand(50, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64) ** 2
    x[:, 3] = 0.0  # a pixel without information
    smaller, error = layer.compressed(samples=x, **limits)  # type: ignore[arg-type]
    chain = x.numpy()[:, [3, 0, 4, 1, 2]]
    sizes = []
    for tensor in (tensor_of(smaller) - tensor_of(layer), tensor_of(layer)):
        for leg, values in zip((0, 1, 3, 4, 5), chain.T, strict=True):
            phi = np.stack([1 - values, values])
            moments = phi @ phi.T
            moments = 2 * moments / np.trace(moments) + 0.01 * np.eye(2)
            root = np.linalg.cholesky(moments)
            tensor = np.moveaxis(np.tensordot(root.T, tensor, axes=(1, leg)), 0, leg)  # noqa: PLW2901
        sizes.append(np.linalg.norm(tensor))
    assert error == pytest.approx(sizes[0] / sizes[1], rel=1e-8)
    assert 0 < error <= 0.3 or "max_bond" in limits


def test_samples_that_do_not_fit() -> None:
    layer = make()
    with pytest.raises(InputError, match=r"expected inputs \[b, 5\]"):
        layer.compressed(max_bond=2, samples=torch.rand(4, 6))
    with pytest.raises(InputError, match="finite and at least one"):
        layer.compressed(max_bond=2, samples=torch.rand(0, 5))
    with pytest.raises(InputError, match="finite and at least one"):
        layer.compressed(max_bond=2, samples=torch.full((3, 5), torch.nan))


def test_each_single_cut_is_the_best_one() -> None:
    """One bond truncated: no matrix of that rank is closer, by Eckart, Young and Mirsky."""
    layer = make(5)
    tensor = tensor_of(layer)
    values = np.linalg.svd(tensor.reshape(8, -1), compute_uv=False)
    _, error = layer.compressed(max_bond=[99, 99, 1, 99, 99])
    assert error == pytest.approx(np.sqrt((values[1:] ** 2).sum() / (values**2).sum()), rel=1e-8)


def test_no_error_where_nothing_is_lost() -> None:
    layer = make()
    padded = MPSLayer(5, 3, [1, 9, 9, 9, 9, 9, 1], label_site=2, dtype="float64", seed=3)
    with torch.no_grad():
        for mine, core in zip(padded.cores, layer.cores, strict=True):
            mine.zero_()[: core.shape[0], :, : core.shape[2]] = core
        left, _, right = layer.label.shape
        padded.label.zero_()[:left, :, :right] = layer.label
    smaller, error = padded.compressed(max_error=1e-9)
    assert error < 1e-9
    assert all(a <= b for a, b in zip(smaller.bond_dims, layer.bond_dims, strict=True))
    x = torch.rand(6, 5, dtype=torch.float64)
    torch.testing.assert_close(smaller(x), layer(x), rtol=1e-10, atol=1e-10)


def test_settings_survive_compression() -> None:
    layer = MPSLayer(
        16,
        3,
        6,
        features={"name": "rbf", "dim": 3},
        order="hilbert",
        shape=(2, 8),
        label_site=5,
        bond_dropout=0.1,
        site_dropout=0.2,
        engine="torch",
    ).rescale_(torch.rand(100, 16))
    smaller, _ = layer.eval().compressed(max_bond=3)
    assert {**layer.config, "bond_dim": None} == {**smaller.config, "bond_dim": None}
    assert torch.equal(smaller.neutral, layer.neutral), "what a dropped site holds"
    assert torch.equal(smaller.order, layer.order)
    assert not smaller.training
    assert [p.shape for p in smaller.parameters()] == [(smaller.chain_shape.n_weights,), (3, 3, 3)]


def test_own_features_and_training_survive_compression() -> None:
    layer = MPSLayer(6, 2, 4, features=lambda x: torch.stack([1 - x, x], -1), bond_dropout=0.3)
    layer(torch.rand(3, 6)).sum().backward()
    smaller, _ = layer.compressed(max_bond=2)
    assert smaller.training
    assert smaller.weight.grad is None
    smaller(torch.rand(3, 6)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in smaller.parameters() if p.grad is not None)
    assert layer.weight.grad is not None


def test_long_chains_keep_their_outputs() -> None:
    """784 sites in float32: the norm of the weight tensor, about 2^392, fits no float."""
    layer = MPSLayer(784, 10, 6, seed=1)
    smaller, error = layer.compressed(max_bond=6)
    assert error < 1e-6
    x = torch.rand(8, 784, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(smaller(x), layer(x), rtol=2e-3, atol=2e-3)
    largest = [core.abs().max().item() for core in smaller.cores]
    assert 0.05 < min(largest) <= max(largest) < 20, "every core can be trained at the same rate"


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_label_cores_whose_squares_fit_no_float(scale: float) -> None:
    layer = MPSLayer(12, 3, 4, seed=1)
    with torch.no_grad():
        layer.label.mul_(scale)
    smaller, error = layer.compressed(max_bond=4)
    assert error < 1e-6
    x = torch.rand(8, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(smaller(x) / scale, layer(x) / scale, rtol=1e-4, atol=1e-4)


def test_compressed_layers_are_saved_and_trained(tmp_path: object) -> None:
    smaller, _ = make(dtype="float32").compressed(max_bond=2)
    smaller.save(f"{tmp_path}/small.safetensors")
    again = tnml.load(f"{tmp_path}/small.safetensors")
    assert isinstance(again, MPSLayer)
    x = torch.rand(4, 5)
    assert torch.equal(again(x), smaller(x))
    optimizer = torch.optim.Adam(smaller.parameters(), lr=1e-2)
    labels = torch.tensor([0, 1, 2, 0])
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(smaller(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("limits", "pattern"),
    [
        ({}, r"give max_bond, max_error or both"),
        ({"max_bond": 0}, r"max_bond must be a whole number, at least 1, got 0"),
        ({"max_bond": 2.5}, r"max_bond .* got 2\.5"),
        ({"max_bond": True}, r"max_bond .* got True"),
        ({"max_bond": "4"}, r"max_bond .* got '4'"),
        ({"max_bond": [2, 0, 2, 2, 2]}, r"every entry of max_bond .* got 0"),
        ({"max_bond": [2, 2]}, r"max_bond must name 5 inner bonds .* got 2"),
        ({"max_error": -0.1}, r"max_error .* at least 0 and below 1, got -0\.1"),
        ({"max_error": 1.0}, r"max_error .* got 1\.0"),
        ({"max_error": float("nan")}, r"max_error .* got nan"),
        ({"max_error": "small"}, r"max_error .* got 'small'"),
    ],
)
def test_limits_out_of_range(limits: dict[str, object], pattern: str) -> None:
    with pytest.raises(InputError, match=pattern):
        make().compressed(**limits)  # type: ignore[arg-type]


def test_estimators_are_compressed_into_copies(tmp_path: object) -> None:
    data = tnml.data.load("digits", split="train", pool=2)
    model = tnml.MPSClassifier(bond_dim=8, epochs=3, random_state=0).fit(data.x, data.y)
    before = model.predict_proba(data.x)
    smaller = model.compressed(max_bond=4)
    assert (model.bond_dim, smaller.bond_dim, max(smaller.layer_.bond_dims)) == (8, 4, 4)
    np.testing.assert_array_equal(model.predict_proba(data.x), before)
    assert model.data_ is None
    assert smaller.data_ is not None
    assert smaller.data_["compression"]["bond_dim_before"] == 8
    assert 0 < smaller.data_["compression"]["relative_error"] < 1
    assert model.compressed(max_bond=3, X=data.x).score(data.x, data.y) > (
        model.compressed(max_bond=3).score(data.x, data.y)
    )
    smaller.save(f"{tmp_path}/small.safetensors")
    again = tnml.load(f"{tmp_path}/small.safetensors")
    assert isinstance(again, tnml.MPSClassifier)
    np.testing.assert_array_equal(again.predict_proba(data.x), smaller.predict_proba(data.x))
    assert again.data_ == smaller.data_
    assert max(again.fit(data.x, data.y).layer_.bond_dims) == 4


def test_regressors_are_compressed() -> None:
    x = np.random.default_rng(0).random((80, 6))
    model = tnml.MPSRegressor(bond_dim=6, epochs=20, random_state=0).fit(x, 3 * x[:, 0] * x[:, 5] + 10)
    exact = model.compressed(max_error=0.0)
    np.testing.assert_allclose(exact.predict(x), model.predict(x), rtol=1e-4)
    with pytest.raises(InputError, match="max_bond"):
        model.compressed(max_bond=0)
    assert model.compressed(max_bond=np.int64(2)).bond_dim == 2
