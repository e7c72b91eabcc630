"""Training by sweeps as a whole: losses fall, records are complete, and a teacher is found again."""

import itertools

import numpy as np
import oracles
import pytest
import torch

from tnml.nn import MPSLayer
from tnml.training import SweepOptions, TrainingDiverged, sweep_classifier, sweep_regressor

SITES = 6


def data(samples=120, classes=3, seed=0, dtype=torch.float32):
    x = torch.rand(samples, SITES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = (2 * x[:, 0] + x[:, 3] * x[:, 5] > 1).long() + (x[:, 2] > 0.6).long() * (classes - 2)
    return x.to(dtype), y


def dense_outputs(layer, x):
    cores, at = [core.detach().double() for core in layer.cores], layer.label_site
    phi = layer.local_features(x).detach().double()
    return oracles.outputs(phi, cores[:at], layer.label_core.detach().double(), cores[at:])


def cross_entropy(outputs, y, smoothing=0.0):
    """By definition: minus the mean log-probability of the smoothed targets."""
    shifted = outputs - outputs.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    targets = np.eye(outputs.shape[1])[np.asarray(y)]
    targets = (1 - smoothing) * targets + smoothing / outputs.shape[1]
    return -(targets * logs).sum(1).mean()


def new_layer(**more):
    return MPSLayer(SITES, 3, **{"bond_dim": 2, "seed": 1, "dtype": "float64", **more})


def train(layer=None, test=False, x=None, **options):
    layer = new_layer() if layer is None else layer
    inputs, y = data(dtype=layer.weight.dtype)
    inputs = inputs if x is None else x
    settings = SweepOptions(**{"sweeps": 3, "max_bond": 6, "device": "cpu", **options})
    shown = dict(zip(("x_test", "y_test"), data(50, seed=9), strict=True)) if test else {}
    return sweep_classifier(layer, inputs, y, settings, image_shape=(2, 3), **shown)


CASES = {
    "defaults": {},
    "frobenius": {"metric": "frobenius"},
    "travels": {"label": "travels"},
    "one-site": {"sites": 1},
    "one-site-travels": {"sites": 1, "label": "travels", "metric": "frobenius"},
    "cg": {"solver": "cg"},
    "lbfgs": {"solver": "lbfgs", "label": "travels"},
    "als": {"solver": "als", "loss": "mse"},
    "newton-mse": {"loss": "mse", "proximal": 0.01},
    "smooth": {"label_smoothing": 0.2, "ridge": 0.0},
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_falls_and_records_are_complete(case):
    options = CASES[case]
    layer = new_layer()
    result = train(layer, **options)
    assert [row["sweep"] for row in result.history] == [1, 2, 3]
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    if options.get("loss") != "mse":
        assert result.history[-1]["loss"] < 0.9 * np.log(3)
    count = SITES - 1 if options.get("label") == "travels" else SITES
    way = [*range(count), *reversed(range(count))]
    assert [(row["sweep"], row["bond"]) for row in result.bonds] == [(s, b) for s in (1, 2, 3) for b in way]
    for row in result.bonds:
        assert list(row) == ["sweep", "bond", "loss", "bond_dim", "discarded_weight", "entropy"]
        assert 1 <= row["bond_dim"] <= 6
        assert 0 <= row["discarded_weight"] < 1
        assert 0 <= row["entropy"] <= np.log(row["bond_dim"]) + 1e-9
    for sweep, row in enumerate(result.history, 1):
        rows = [r for r in result.bonds if r["sweep"] == sweep]
        assert row["loss"] == pytest.approx(np.mean([r["loss"] for r in rows]), rel=1e-12)
        assert row["discarded_weight"] == pytest.approx(np.mean([r["discarded_weight"] for r in rows]))
        dims = [r["bond_dim"] for r in rows[count:]]  # those of the way back are those that stay
        assert row["largest_bond"] == max(dims)
        assert row["mean_bond"] == pytest.approx(np.mean(dims))
        assert row["seconds"] > 0
    last = {r["bond"]: r["bond_dim"] for r in result.bonds}
    assert layer.bond_dims[2 if options.get("label") == "travels" else 1 : -1] == list(last.values())[:count]
    assert (result.n_train, result.n_validation, result.test) == (120, 0, {})
    for name, tensor in layer.state_dict().items():
        assert torch.equal(result.state[name], tensor), name
    assert result.seconds >= sum(row["seconds"] for row in result.history) - 1e-9


@pytest.mark.parametrize("label", ["stays", "travels"])
@pytest.mark.parametrize("order", ["raster", [3, 0, 5, 1, 4, 2]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_last_recorded_loss_is_that_of_the_layer(label, order, smoothing):
    """Without truncation no split changes an output."""
    layer = new_layer(order=order)
    x, y = data(dtype=torch.float64)
    result = train(layer, max_bond=30, max_error=0.0, label=label, label_smoothing=smoothing, sweeps=2)
    expected = cross_entropy(dense_outputs(layer, x), y, smoothing)
    assert result.bonds[-1]["loss"] == pytest.approx(expected, rel=1e-7)


def test_single_and_double_precision_agree():
    """Where no truncation has to choose."""
    options = {"sweeps": 2, "max_bond": 30, "max_error": 1e-3, "metric": "frobenius"}
    one, two = new_layer(dtype="float32"), new_layer()
    first, second = train(one, **options), train(two, **options)
    assert first.bonds[-1]["loss"] == pytest.approx(second.bonds[-1]["loss"], rel=1e-2)
    assert one.weight.dtype == torch.float32


@pytest.mark.slow
def test_a_tensor_product_of_truth_needs_no_label_site_of_its_own():
    """From the first, the middle and the last label site, and from bond 1, the loss becomes small."""
    for place in (0, 3, SITES):
        layer = new_layer(bond_dim=1, label_site=place)
        result = train(layer, sweeps=6, max_bond=8, proximal=0.01, iterations=10, ridge=1e-5)
        assert layer.label_site == place
        assert result.history[-1]["largest_bond"] > 1
        assert result.history[-1]["loss"] < 0.3


def test_held_out_samples_and_the_test_set_are_measured_by_the_layer():
    layer = new_layer(site_dropout=0.5, bond_dropout=0.5)  # which sweeps do not use, nor measurements
    layer.train()
    x, y = data(dtype=torch.float64)
    result = train(layer, test=True, validation=0.25)
    assert result.n_train + result.n_validation == 120
    assert 28 <= result.n_validation <= 32  # a quarter of each class
    assert all({"val_loss", "val_accuracy"} <= row.keys() for row in result.history)
    assert layer.training
    plain = new_layer()
    again = train(plain, test=True, validation=0.25)
    assert torch.equal(plain.weight, layer.weight)
    assert again.history[-1]["val_loss"] == result.history[-1]["val_loss"]
    x_test, y_test = data(50, seed=9, dtype=torch.float64)
    outputs = dense_outputs(layer, x_test.float().double())
    assert result.test["loss"] == pytest.approx(cross_entropy(outputs, y_test), rel=1e-9)
    assert result.test["accuracy"] == pytest.approx((outputs.argmax(1) == y_test.numpy()).mean())
    outputs = dense_outputs(layer, x)
    right = (outputs.argmax(1) == y.numpy()).sum()
    held_out = result.n_validation * result.history[-1]["val_accuracy"]
    assert held_out == pytest.approx(round(held_out), abs=1e-6)
    assert 0 <= right - held_out <= result.n_train  # the rest are training samples


def test_a_schedule_of_bonds():
    result = train(sweeps=4, max_bond=(1, 3, 5), max_error=0.0, layer=new_layer(bond_dim=1))
    for sweep, limit in enumerate((1, 3, 5, 5), 1):
        dims = [row["bond_dim"] for row in result.bonds if row["sweep"] == sweep]
        assert max(dims) == limit
    assert [row["largest_bond"] for row in result.history][:3] == [1, 3, 5]


def test_one_site_sweeps_keep_the_bonds():
    layer = new_layer(bond_dim=3)
    before = layer.bond_dims
    result = train(layer, sites=1, max_bond=50, max_error=0.0)
    assert layer.bond_dims == before
    train(layer, sites=1, max_bond=2, max_error=0.0)
    assert max(layer.bond_dims) == 2
    assert result.history[-1]["discarded_weight"] == 0.0


def test_a_schedule_of_the_proximal_term():
    """A large one holds the layer where it is; the last one holds on."""
    x, y = data(dtype=torch.float64)
    layer = new_layer(bond_dim=3)
    start = cross_entropy(dense_outputs(layer, x), y)
    result = train(layer, sweeps=3, proximal=(1e9, 0.1), max_bond=20, max_error=0.0)
    assert result.history[0]["loss"] == pytest.approx(start, rel=1e-4)
    assert result.history[1]["loss"] < 0.95 * start
    assert result.history[2]["loss"] < result.history[1]["loss"]


@pytest.mark.parametrize("schedule", [0.3, (1.0, 0.3, 0.1)], ids=str)
def test_sweeps_end_where_the_loss_no_longer_falls(schedule):
    """After the first sweep, with the last value of every schedule, that gains less than the tolerance."""
    every = [row["loss"] for row in train(sweeps=12, proximal=schedule).history]
    gains = [1 - after / before for before, after in itertools.pairwise(every)]
    first = 0 if schedule == 0.3 else 1
    last = next(i for i, gain in enumerate(gains) if i >= first and gain < 0.08) + 2
    assert 2 < last < 12  # else this test would show nothing
    found = [row["loss"] for row in train(sweeps=12, proximal=schedule, tolerance=0.08).history]
    assert found == every[:last]
    assert len(train(sweeps=last - 1, proximal=schedule, tolerance=0.08).history) == last - 1


def test_a_schedule_is_waited_for():
    """The first sweeps may gain nothing, as here, where they hold the layer where it is."""
    result = train(sweeps=6, proximal=(1e9, 1e9, 1e9, 0.1), tolerance=0.05)
    losses = [row["loss"] for row in result.history]
    assert losses[2] > 0.99 * losses[0]
    assert losses[3] < 0.95 * losses[0]


@pytest.mark.parametrize("options", [{"batch_size": 40}, {"max_shift": 1}, {"noise": 0.1}], ids=str)
def test_chance_depends_on_the_seed_alone(options):
    layers = [new_layer() for _ in range(4)]
    for layer, seed in zip(layers, (0, 0, 1), strict=False):
        torch.manual_seed(seed + 100)
        train(layer, seed=seed, **options)
    train(layers[3])
    state = [layer.state_dict() for layer in layers]
    assert all(torch.equal(state[0][name], state[1][name]) for name in state[0])
    for other in (2, 3):
        assert not all(torch.equal(state[0][name], state[other][name]) for name in ("layout", "label"))


def test_a_batch_of_all_samples_is_no_batch():
    one, two = new_layer(), new_layer()
    assert train(one, batch_size=120).bonds == train(two, batch_size=None).bonds
    assert torch.equal(one.weight, two.weight)


def test_batches_and_shifts_still_learn():
    assert train(batch_size=60, sweeps=5).history[-1]["loss"] < 0.8
    assert train(max_shift=1, sweeps=5).history[-1]["loss"] < 1.05


def test_features_may_be_given():
    one, two = new_layer(features="legendre"), new_layer(features="legendre")
    x, _ = data(dtype=torch.float64)
    assert train(one, x=one.features(x)).bonds == train(two, x=x).bonds


def test_the_parameters_stay_the_same_objects():
    layer = new_layer()
    weight, label = layer.weight, layer.label
    train(layer)
    assert layer.weight is weight
    assert layer.label is label
    assert (weight.requires_grad, weight.grad) == (True, None)
    layer(data(dtype=torch.float64)[0]).sum().backward()
    assert torch.isfinite(weight.grad).all()


def test_on_bond_gets_every_record():
    rows = []
    result = sweep_classifier(
        new_layer(), *data(), SweepOptions(sweeps=1, max_bond=3, device="cpu"), on_bond=rows.append
    )
    assert rows == result.bonds


def test_several_real_targets():
    x, _ = data(dtype=torch.float64)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2] - x[:, 5], torch.ones(len(x)).double()], 1)
    layer = new_layer(bond_dim=1)
    result = sweep_regressor(layer, x, y)
    np.testing.assert_allclose(dense_outputs(layer, x), y, atol=1e-5)
    assert result.history[-1]["loss"] < 1e-10
    transposed = new_layer(bond_dim=1)  # targets in another memory order
    sweep_regressor(transposed, x, y.T.contiguous().T, SweepOptions(loss="mse", sweeps=1, device="cpu"))


def test_numbers_beyond_the_range_of_the_type_are_one_clear_error():
    x = torch.full((20, SITES), 1e30)
    layer = MPSLayer(SITES, 1, bond_dim=2)
    with pytest.raises((TrainingDiverged, ValueError), match="NaN or infinite"):
        sweep_regressor(layer, x, torch.ones(20), SweepOptions(loss="mse", device="cpu"))


def teacher_data(seed):
    """Noiseless values of a random matrix product state, of unit variance on the training samples."""
    generator = torch.Generator().manual_seed(1000 + seed)
    bonds = [1, 2, 4, 4, 4, 4, 4, 4, 4, 2, 1]
    x = torch.rand(4000, 10, generator=generator, dtype=torch.float64).numpy()
    legendre = np.stack([np.ones_like(x), np.sqrt(3) * (2 * x - 1)], 2)  # orthonormal on [0, 1]
    vector = np.ones((len(x), 1))
    for site in range(10):
        shape = bonds[site], 2, bonds[site + 1]
        core = torch.randn(shape, generator=generator, dtype=torch.float64)
        vector = np.einsum("bl,bd,ldr->br", vector, legendre[:, site], core)
    return x, vector[:, 0] / vector[:3000, 0].std()


TEACHER = {
    "loss": "mse",
    "solver": "als",
    "metric": "frobenius",
    "max_error": 1e-6,
    "ridge": 0.0,
    "max_bond": 8,
    "device": "cpu",
}


def teacher_found(seed, sweeps):
    """Whether one start is enough: the error on other samples and the bonds."""
    x, y = teacher_data(seed)
    layer = MPSLayer(10, 1, bond_dim=2, features="legendre", dtype="float64", seed=seed, noise=0.3)
    sweep_regressor(layer, x[:3000], y[:3000], SweepOptions(sweeps=sweeps, **TEACHER))
    with torch.no_grad():
        error = np.square(layer(torch.from_numpy(x[3000:]))[:, 0].numpy() - y[3000:]).mean()
    place = layer.label_site
    label_core_is_square = layer.bond_dims[place] == layer.bond_dims[place + 1]
    bonds = [*layer.bond_dims[:place], *layer.bond_dims[place + 1 :]]
    return error <= 1e-8 and label_core_is_square and bonds == [1, 2, 4, 4, 4, 4, 4, 4, 4, 2, 1]


@pytest.mark.slow
def test_a_teacher_is_found():
    assert teacher_found(0, sweeps=6)


@pytest.mark.slow
def test_nine_of_ten_teachers_are_found_without_a_restart():
    assert sum(teacher_found(seed, sweeps=8) for seed in range(10)) >= 9


@pytest.mark.gpu
@pytest.mark.parametrize("label", ["stays", "travels"])
def test_cuda_agrees_with_the_cpu(label):
    x, y = data(dtype=torch.float64)
    layers = [new_layer(), new_layer()]
    for layer, device in zip(layers, ["cpu", "cuda"], strict=True):
        options = SweepOptions(sweeps=1, max_bond=4, label=label, device=device)
        sweep_classifier(layer, x, y, options)
    assert layers[1].weight.device.type == "cpu"
    assert layers[0].bond_dims == layers[1].bond_dims
    assert oracles.relative(dense_outputs(layers[1], x), dense_outputs(layers[0], x)) < 1e-4
