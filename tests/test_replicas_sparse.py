"""Whole epochs in one native call, against the training of one layer after the other."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from tnml.nn import MPSLayer
from tnml.training import TrainOptions, train_classifier, train_regressor
from tnml.training.losses.cross_entropy import CrossEntropy
from tnml.training.losses.squared_error import SquaredError
from tnml.training.replicas.sparse import can_train_sparsely, sparse_features, train_sparsely

RNG = np.random.default_rng(0)
X = RNG.random((101, 7)).astype(np.float32)
LABELS, REAL = RNG.integers(0, 3, 101), RNG.standard_normal((101, 2)).astype(np.float32)
WEIGHT = RNG.random(101) + 0.5
WEIGHT /= WEIGHT.mean()


def options(**changes: Any) -> TrainOptions:
    usual = {"epochs": 5, "batch_size": 20, "lr": 0.03, "optimizer": "adamw", "device": "cpu", "seed": 3}
    return TrainOptions(**usual | changes)


def layer_of(outputs: int, **changes: Any) -> MPSLayer:
    given: dict[str, Any] = {"features": {"name": "hat", "dim": 5}, "order": [3, 1, 0, 2, 6, 5, 4]}
    return MPSLayer(7, outputs, 6, **given | changes)


@pytest.mark.parametrize("label_site", [None, 0, 7])
@pytest.mark.parametrize(
    ("labelled", "changes"),
    [
        (True, {"label_smoothing": 0.1, "weight_decay": 0.7, "decay_to": "path"}),
        (True, {"schedule": "constant"}),
        (False, {"weight_decay": 0.7}),
        (False, {"batch_size": 200, "beta1": 0.5, "beta2": 0.9, "eps": 1e-3}),
    ],
)
def test_the_numbers_of_the_long_way(labelled: bool, changes: dict[str, Any], label_site: int | None) -> None:
    weight = WEIGHT if label_site is None else None
    layers = [layer_of(3 if labelled else 2, label_site=label_site, seed=seed) for seed in range(2)]
    layers[1].order = torch.arange(7)
    apart, chosen = copy.deepcopy(layers), options(**changes)
    loss = CrossEntropy(changes.get("label_smoothing", 0.0)) if labelled else SquaredError()
    targets, rows = LABELS if labelled else REAL, [[], []]
    phi = layers[0].features(torch.from_numpy(X)).numpy()
    assert can_train_sparsely(layers[0], chosen, loss)
    found = sparse_features(phi)
    assert found is not None
    assert train_sparsely(
        layers, found, targets, chosen, loss, weight=weight, on_epoch=lambda k, row: rows[k].append(row)
    )
    train = train_classifier if labelled else train_regressor
    for layer, other, history in zip(layers, apart, rows, strict=True):
        expected = train(other, phi, targets, chosen, sample_weight=weight).history
        for one, two in zip(history, expected, strict=True):
            assert one.keys() == two.keys()
            for name in one.keys() - {"seconds", "samples_per_second"}:
                assert one[name] == pytest.approx(two[name], rel=1e-5)
        torch.testing.assert_close(layer.weight, other.weight, rtol=0, atol=2e-6)
        torch.testing.assert_close(layer.label, other.label, rtol=0, atol=2e-6)


def test_sparse_features_hold_every_component() -> None:
    phi = layer_of(1).features(torch.from_numpy(X)).numpy()
    found = sparse_features(phi)
    assert found is not None
    dense = np.zeros_like(phi)
    for part in range(2):
        np.put_along_axis(dense, found.places[:, :, None] + part, found.shares[:, :, part : part + 1], 2)
    np.testing.assert_array_equal(dense, phi)
    gap = phi.copy()
    gap[3, 2] = 0.2  # a missing value: the mean feature vector
    assert sparse_features(gap) is None
    assert sparse_features(X) is None


@pytest.mark.parametrize(
    ("layer", "option"),
    [
        ({"dtype": "float64"}, {}),
        ({"engine": "torch"}, {}),
        ({"site_dropout": 0.1}, {}),
        ({}, {"optimizer": "adam"}),
        ({}, {"clip_norm": 1.0}),
        ({}, {"average": "ema"}),
        ({}, {"validation": 0.2, "patience": 1}),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_left_to_others(layer: dict[str, Any], option: dict[str, Any]) -> None:
    assert not can_train_sparsely(layer_of(3, **layer), options(**option), CrossEntropy())


def test_without_numba_it_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_train_sparsely(layer_of(3), options(), CrossEntropy())
    monkeypatch.setattr("tnml.training.replicas.sparse._kernel", lambda: None)
    assert not can_train_sparsely(layer_of(3), options(), CrossEntropy())


def test_numbers_without_bounds_leave_the_layers_as_they_were() -> None:
    layer = layer_of(2)
    before = copy.deepcopy(layer.state_dict())
    found = sparse_features(layer.features(torch.from_numpy(X)).numpy())
    assert found is not None
    assert not train_sparsely([layer], found, REAL * np.float32(1e30), options(lr=1e20), SquaredError())
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)
