"""Layers trained together give the numbers of training them one by one, whatever differs between them."""

import copy

import numpy as np
import pytest
import torch

from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training import (
    TrainingDiverged,
    TrainingInterrupted,
    TrainOptions,
    train_classifier,
    train_regressor,
)
from tnml.training.replicas.train import train_replicas, worth_it

TIMES = {"seconds", "samples_per_second"}


@pytest.fixture
def data():
    """Inputs [90, 7], real targets and labels."""
    random = np.random.default_rng(3)
    x = random.random((90, 7))
    return x, np.sin(3 * x[:, 0]) * x[:, 4] + 0.1 * random.normal(size=90), (3 * x[:, 2]).astype(np.int64)


def layers_of(outputs=1, count=3, dtype="float64", **more):
    return [MPSLayer(7, outputs, bond_dim=3, dtype=dtype, seed=s, noise=0.3, **more) for s in range(count)]


def options_of(count=3, **more):
    base = {"epochs": 6, "batch_size": 16, "lr": 0.02, "device": "cpu"}
    return [TrainOptions(**{**base, "seed": 10 + s, **more}) for s in range(count)]


def assert_same(alone, together, layer, other, tolerance):
    """Histories, weights and verdicts of both trainings."""
    assert len(alone.history) == len(together.history)
    for one, two in zip(alone.history, together.history, strict=True):
        names = one.keys() - TIMES
        assert names <= two.keys()
        assert [two[n] for n in names] == pytest.approx([one[n] for n in names], rel=tolerance, abs=tolerance)
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(together.state[name], value, rtol=tolerance, atol=tolerance)
    assert (alone.stopped_early, alone.best_epoch) == (together.stopped_early, together.best_epoch)
    assert (alone.n_train, alone.n_validation) == (together.n_train, together.n_validation)


CASES = {
    "adam": {},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "beta2": 0.9},
    "sgd": {"optimizer": "sgd", "schedule": "step", "decay_every": 2, "weight_decay": 0.01},
    "to the path": {"optimizer": "adamw", "weight_decay": 0.5, "decay_to": "path", "lr": 0.05},
    "to the path, L2": {"weight_decay": 0.5, "decay_to": "path"},
    "clipped": {"clip_norm": 0.02, "schedule": "constant"},
    "averaged": {"average": "ema", "validation": 0.2},
    "stopped early": {"validation": 0.3, "patience": 1, "average": "ema", "lr": 0.3, "epochs": 12},
}


@pytest.mark.parametrize("case", CASES)
def test_regression_is_that_of_one_by_one(data, case):
    x, y, _ = data
    layers, options = layers_of(), options_of(**CASES[case])
    apart = copy.deepcopy(layers)
    found = train_replicas(layers, x, y, options, task="regression")
    alone = [train_regressor(layer, x, y, o) for layer, o in zip(apart, options, strict=True)]
    for one, two, layer, other in zip(alone, found, apart, layers, strict=True):
        assert_same(one, two, layer, other, 1e-9)
    if case == "stopped early":
        assert any(one.stopped_early for one in alone)


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("more", [{}, {"label_smoothing": 0.2}, {"loss": "mse", "validation": 0.2}])
def test_classification_in_single_precision(data, engine, more):
    x, _, labels = data
    layers, options = layers_of(3, dtype="float32", engine=engine), options_of(**more)
    apart = copy.deepcopy(layers)
    found = train_replicas(
        layers, x, labels, options, task="classification", x_test=x[:40], y_test=labels[:40]
    )
    for layer, other, o, two in zip(apart, layers, options, found, strict=True):
        one = train_classifier(layer, x, labels, o, x_test=x[:40], y_test=labels[:40])
        assert_same(one, two, layer, other, 1e-5)
        assert two.test == pytest.approx(one.test, rel=1e-5)


def test_everything_may_differ(data):
    """Data, learning rates, clipping, patience, order of sites: each replica has its own."""
    x, y, _ = data
    orders = ["raster", [6, 5, 4, 3, 2, 1, 0], "raster", "raster"]
    layers = [MPSLayer(7, 1, bond_dim=3, dtype="float64", seed=s, order=o) for s, o in enumerate(orders)]
    xs, ys = [x, x, x + 0.01, x], [y, y + 0.1, y, y]
    kinds = [
        {"lr": 0.05},
        {"clip_norm": 0.1},
        {"lr": 0.05, "patience": 1},
        {"schedule": "cosine", "average": "ema"},
    ]
    options = [options_of(1, epochs=8, seed=n, validation=0.2, **kind)[0] for n, kind in enumerate(kinds)]
    apart = copy.deepcopy(layers)
    found = train_replicas(layers, xs, ys, options, task="regression")
    for n, layer in enumerate(apart):
        one = train_regressor(layer, xs[n], ys[n], options[n])
        assert_same(one, found[n], layer, layers[n], 1e-9)


def test_features_made_late_and_features_given(data, monkeypatch):
    x, y, _ = data
    late, given = layers_of(), layers_of()
    apart = copy.deepcopy(late)
    monkeypatch.setattr("tnml.training.replicas.stack._FEATURE_BYTES", 100)
    found = train_replicas(late, x, y, options_of(), task="regression")
    features = late[0].features(torch.from_numpy(x))
    again = train_replicas(given, features, y, options_of(), task="regression")
    for n, layer in enumerate(apart):
        one = train_regressor(layer, x, y, options_of()[n])
        assert_same(one, found[n], layer, late[n], 1e-9)
        assert_same(one, again[n], layer, given[n], 1e-9)


def test_the_test_set_along_training(data):
    x, y, _ = data
    layers, seen = layers_of(), []
    found = train_replicas(
        layers, x, y, options_of(), task="regression", x_test=x[:20], y_test=y[:20], test_every=4,
        on_epoch=lambda n, row: seen.append((n, row["epoch"])),
    )  # fmt: skip
    for layer, result in zip(layers, found, strict=True):
        assert [row["epoch"] for row in result.history if "test_loss" in row] == [4, 6]
        with torch.no_grad():
            off = layer(torch.from_numpy(x[:20]))[:, 0].numpy() - y[:20]
        assert result.history[-1]["test_loss"] == pytest.approx(np.mean(off**2), rel=1e-9)
        assert result.test["loss"] == pytest.approx(np.mean(off**2), rel=1e-9)
    assert sorted(seen) == [(n, epoch) for n in range(3) for epoch in range(1, 7)]


def test_a_stopped_layer_keeps_its_weights_and_the_others_go_on(data):
    x, y, _ = data
    layers, options = layers_of(), options_of(schedule="constant")
    apart = copy.deepcopy(layers)
    found = train_replicas(
        layers, x, y, options, task="regression", stop=lambda n, row: n == 1 and row["epoch"] == 2
    )
    assert [(len(r.history), r.stopped_early) for r in found] == [(6, False), (2, True), (6, False)]
    for n, layer in enumerate(apart):
        short = options_of(schedule="constant", epochs=2 if n == 1 else 6)[n]
        train_regressor(layer, x, y, short)
        torch.testing.assert_close(layers[n].weight, layer.weight, rtol=1e-9, atol=1e-9)


def test_one_that_diverges_does_not_touch_the_others(data):
    x, y, _ = data
    layers, options = layers_of(), options_of(optimizer="sgd", momentum=0.0, schedule="constant")
    options[1] = options_of(optimizer="sgd", momentum=0.0, schedule="constant", lr=1e12)[1]
    apart = copy.deepcopy(layers)
    found = train_replicas(layers, x, y, options, task="regression", diverged="return")
    assert isinstance(found[1], TrainingDiverged)
    with pytest.raises(TrainingDiverged) as alone:
        train_regressor(apart[1], x, y, options[1])
    assert str(found[1]) == f"layer 1: {alone.value}"
    for n in (0, 2):
        assert_same(train_regressor(apart[n], x, y, options[n]), found[n], apart[n], layers[n], 1e-9)
    with pytest.raises(TrainingDiverged, match="layer 1: the loss or a weight"):
        train_replicas(layers_of(), x, y, options, task="regression")


def test_an_interruption_leaves_the_weights_of_that_moment(data):
    x, y, _ = data
    layers, apart = layers_of(), layers_of()

    def ctrl_c(number, row):
        if (number, row["epoch"]) == (2, 3):
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted, match="the history of 3 epochs") as caught:
        train_replicas(layers, x, y, options_of(schedule="constant"), task="regression", on_epoch=ctrl_c)
    rows = [(row["layer"], row["epoch"]) for row in caught.value.history]
    assert rows == [(number, epoch) for number in range(len(layers)) for epoch in (1, 2, 3)]
    train_regressor(apart[0], x, y, options_of(schedule="constant", epochs=3)[0])
    torch.testing.assert_close(layers[0].weight, apart[0].weight, rtol=1e-9, atol=1e-9)


def test_global_randomness_is_left_alone(data):
    x, y, _ = data
    before = torch.get_rng_state()
    train_replicas(layers_of(), x, y, options_of(), task="regression")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"layers": []}, "at least one layer"),
        ({"layers": [MPSLayer(7, 1, bond_dim=2), MPSLayer(7, 1, bond_dim=3)]}, "equal in bonds; layer 1"),
        ({"layers": [MPSLayer(7, 1, features="legendre"), MPSLayer(7, 1)]}, "equal in features"),
        ({"layers": [MPSLayer(7, 1, bond_dropout=0.1)]}, "has dropout"),
        ({"layers": [MPSLayer(7, 1, dtype="complex64")]}, "must be real"),
        ({"layers": [torch.nn.Linear(7, 1)]}, "must be an MPSLayer, got Linear"),
        ({"layers": [MPSLayer(7, 1)] * 2}, "there twice"),
        ({"options": [TrainOptions()] * 2}, "a list of 3, one per layer, got 2"),
        ({"options": [TrainOptions(batch_size=n) for n in (1, 2, 3)]}, "need one batch_size; layer 1 has 2"),
        ({"options": TrainOptions(optimizer="lbfgs")}, "optimizer='lbfgs' has no form"),
        ({"options": TrainOptions(max_shift=1)}, "max_shift=1 has no form"),
        ({"options": TrainOptions(label_smoothing=0.1)}, "label_smoothing are for classifiers"),
        ({"options": TrainOptions(patience=1, validation=0.1, monitor="val_accuracy")}, "is not measured"),
        ({"task": "clustering"}, "unknown task 'clustering'"),
        ({"diverged": "ignore"}, "unknown diverged 'ignore'"),
        ({"x_test": np.ones((2, 7))}, "go together"),
        ({"test_every": 1}, "needs x_test and y_test"),
        (
            {"x": [np.ones((4, 7)), np.ones((5, 7)), np.ones((4, 7))], "y": [np.ones(n) for n in (4, 5, 4)]},
            "as many",
        ),
        ({"x": np.full((90, 7), np.nan)}, "NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_refused(data, changes, text):
    given = {
        "layers": layers_of(),
        "x": data[0],
        "y": data[1],
        "options": None,
        "task": "regression",
        **changes,
    }
    with pytest.raises(InputError, match=text):
        train_replicas(**given)


def test_worth_it():
    assert worth_it(MPSLayer(10, 1, bond_dim=4), 2, 32)
    assert not worth_it(MPSLayer(10, 1, bond_dim=4), 1, 32)
