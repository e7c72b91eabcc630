"""MPSClassifier and MPSRegressor against scikit-learn's contract, dense contractions and known answers."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs

from tnml import InputError, MPSClassifier, MPSRegressor
from tnml.data import stratified_split

QUICK: dict[str, Any] = {"bond_dim": 4, "epochs": 3, "random_state": 0}


def blobs(samples: int = 60, features: int = 3, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_blobs(samples, features, centers=classes, cluster_std=0.5, random_state=1)
    return X, y


def swapped(x: torch.Tensor) -> torch.Tensor:
    """A user's own feature map."""
    return torch.stack((x, 1 - x), -1)


@pytest.mark.slow
def test_digits() -> None:
    X, y = load_digits(return_X_y=True)
    train, test = stratified_split(y, 0.25, 3)
    model = MPSClassifier(random_state=0).fit(X[train] / 16, y[train])
    assert model.score(X[test] / 16, y[test]) >= 0.97
    assert model.layer_.order[8:16].tolist() == list(range(15, 7, -1)), "64 features are an image: snake"


LABELS = {
    "text": ["fox", "ant", "bee"],
    "objects": np.array(["fox", "ant", "bee"], dtype=object),
    "negative": [-5, 0, 7],
    "halves": np.array([1.0, 3.0, 2.0], dtype=np.float32),
    "bytes": np.array([2, 1, 0], dtype=np.uint8),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_any_type(name: str) -> None:
    X, codes = blobs()
    y = np.asarray(LABELS[name])[codes]
    model = MPSClassifier(random_state=0).fit(X, y)
    predicted = model.predict(X)
    assert predicted.dtype == y.dtype
    assert np.array_equal(predicted, y)
    assert np.array_equal(model.classes_, np.unique(y))


@pytest.mark.slow
def test_truth_values_are_labels() -> None:
    X, codes = blobs(classes=2)
    model = MPSClassifier(random_state=0).fit(X, codes == 1)
    assert model.predict(X).dtype == bool
    assert np.array_equal(model.decision_function(X) > 0, codes == 1)


def dense_outputs(layer: Any, x: np.ndarray) -> np.ndarray:
    """The network contracted site by site in float64 numpy, without tnml."""
    cores = [core.detach().double().numpy() for core in layer.cores]
    label = layer.label_core.detach().double().numpy()
    outputs = []
    for row in x[:, layer.order.numpy()]:
        left, right = np.ones(1), np.ones(1)
        matrices = [np.einsum("ldr,d->lr", c, [1 - v, v]) for c, v in zip(cores, row, strict=True)]
        for matrix in matrices[: layer.label_site]:
            left = left @ matrix
        for matrix in reversed(matrices[layer.label_site :]):
            right = matrix @ right
        outputs.append(np.einsum("l,lcr,r->c", left, label, right))
    return np.stack(outputs)


def test_predictions_are_those_of_the_network() -> None:
    X, y = blobs(features=5)
    model = MPSClassifier(**QUICK).fit(X, y)
    low, high = X.min(axis=0), X.max(axis=0)
    logits = dense_outputs(model.layer_, (X - low) / (high - low))
    odds = np.exp(logits)
    np.testing.assert_allclose(model.decision_function(X), logits, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X), odds / odds.sum(axis=1, keepdims=True), atol=1e-5)
    assert np.array_equal(model.predict(X), logits.argmax(axis=1))


def test_regression_predictions_are_those_of_the_network() -> None:
    X = np.random.RandomState(0).rand(40, 4)
    y = np.stack([X.sum(axis=1), 100 * X[:, 0]], axis=1)
    model = MPSRegressor(**QUICK).fit(X, y)
    expected = dense_outputs(model.layer_, X) * y.std(axis=0) + y.mean(axis=0)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-5)


def test_two_classes_have_one_decision() -> None:
    X, y = blobs(classes=2)
    model = MPSClassifier(**QUICK).fit(X, y)
    decision = model.decision_function(X)
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], 1 / (1 + np.exp(-decision)))


def test_a_sample_has_the_same_bits_in_any_company() -> None:
    X, y = blobs(samples=300, features=9)
    model = MPSClassifier(**QUICK).fit(X, y)
    together = model.decision_function(X)
    order = np.random.RandomState(0).permutation(len(X))
    assert np.array_equal(model.decision_function(X[order]), together[order])
    assert np.array_equal(
        np.concatenate([model.decision_function(X[i : i + 7]) for i in range(0, 300, 7)]), together
    )


@pytest.mark.parametrize("kind", [MPSClassifier, MPSRegressor])
def test_scaling(kind: Any) -> None:
    """Pixels of 0..255 train like pixels of 0..1 where the range is said; values beyond are cut off."""
    X, y = np.random.RandomState(0).randint(0, 256, (40, 6)).astype(float), np.arange(40) % 2
    unit = kind(**QUICK).fit(X / 255, y)
    pixels = kind(feature_range=(0, 255), clip="silent", **QUICK).fit(X, y)
    assert np.array_equal(unit.feature_range_, [[0.0] * 6, [1.0] * 6])
    np.testing.assert_allclose(pixels.predict(X), unit.predict(X / 255), rtol=1e-5)
    assert np.array_equal(pixels.predict(X[:1] * 0 - 1e9), pixels.predict(X[:1] * 0))
    each = kind(**QUICK).fit(X, y)
    assert np.array_equal(each.feature_range_, [X.min(axis=0), X.max(axis=0)])
    raw = kind(feature_range=None, **QUICK).fit(X / 255, y)
    assert raw.feature_range_ is None
    assert np.array_equal(raw.predict(X / 255), unit.predict(X / 255))


def test_small_and_degenerate_data() -> None:
    one = MPSClassifier(random_state=0).fit([[0.0], [1.0]], [0, 1])
    assert one.predict([[0.1], [0.9]]).tolist() == [0, 1]
    constant = MPSClassifier(random_state=0, clip="silent").fit(
        [[5.0, 0.0], [5.0, 1.0], [5.0, 0.1]], [0, 1, 0]
    )
    assert constant.predict([[5.0, 0.0], [9.0, 1.0]]).tolist() == [0, 1]
    wide = MPSClassifier(batch_size=1000, random_state=0).fit([[0.0, 3.0], [1.0, 2.0]], ["a", "b"])
    assert wide.predict([[0.0, 3.0]]).tolist() == ["a"]
    flat = MPSRegressor(random_state=0).fit([[0.0], [1.0], [2.0]], [4.0, 4.0, 4.0])
    np.testing.assert_allclose(flat.predict([[0.0], [1.5]]), 4.0, atol=1e-3)
    single = MPSRegressor(random_state=0).fit([[3.0, 1.0]], [2.0])
    np.testing.assert_allclose(single.predict([[3.0, 1.0]]), 2.0, atol=1e-3)
    huge = MPSClassifier(**QUICK).fit([[-1e300], [1e300]], [0, 1])
    assert np.isfinite(huge.predict_proba([[0.0]])).all()


def test_regression_learns_a_product() -> None:
    X = np.random.RandomState(0).uniform(-3, 3, (400, 3))
    y = X[:, 0] * X[:, 1] - 2 * X[:, 2]
    model = MPSRegressor(random_state=0).fit(X[:300], y[:300])
    assert model.score(X[300:], y[300:]) > 0.99


def test_regression_does_not_see_the_unit_of_the_target() -> None:
    X = np.random.RandomState(0).rand(50, 4)
    y = X @ [1.0, -2.0, 0.5, 3.0]
    plain, scaled = (MPSRegressor(**QUICK).fit(X, target) for target in (y, 1e6 * y + 1e7))
    np.testing.assert_allclose(scaled.predict(X), 1e6 * plain.predict(X) + 1e7, rtol=1e-4)


@pytest.mark.slow
def test_regression_of_several_targets() -> None:
    X = np.random.RandomState(0).rand(200, 3)
    y = np.stack([X.sum(axis=1), X[:, 0] * X[:, 1]], axis=1)
    model = MPSRegressor(random_state=0).fit(X, y)
    assert model.predict(X).shape == (200, 2)
    assert model.score(X, y) > 0.98
    assert MPSRegressor(**QUICK).fit(X, y[:, :1]).predict(X).shape == (200, 1)
    assert MPSRegressor(**QUICK).fit(X, y[:, 0]).predict(X).shape == (200,)


def test_partial_fit_classifier() -> None:
    X, y = load_digits(return_X_y=True)
    names = np.array([f"digit {i}" for i in range(10)])
    model = MPSClassifier(lr=2e-3, random_state=0)
    for _ in range(4):
        for part in np.array_split(np.arange(1400), 2):
            model.partial_fit(X[part] / 16, names[y[part]], classes=names)
    assert model.n_iter_ == 8
    assert model.score(X[1400:] / 16, names[y[1400:]]) > 0.88
    with pytest.raises(InputError, match="those of the first call"):
        model.partial_fit(X / 16, names[y], classes=names[:5])
    with pytest.raises(InputError, match="expected labels among"):
        model.partial_fit(X[:2] / 16, ["digit 1", "digit x"])
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(X[:, :9], y)


def test_partial_fit_regressor_keeps_the_first_scales() -> None:
    X = np.random.RandomState(0).rand(100, 2)
    y = 3 * X[:, 0] - X[:, 1]
    model = MPSRegressor(lr=0.01, random_state=0).partial_fit(X, y)
    mean, before = model.y_mean_.copy(), model.score(X, y)
    for _ in range(100):
        model.partial_fit(X[:80], y[:80])
    assert np.array_equal(model.y_mean_, mean)
    assert model.score(X, y) > max(before, 0.95)
    with pytest.raises(InputError, match="expected 1 targets"):
        model.partial_fit(X, np.stack([y, y], axis=1))


def test_partial_fit_needs_classes_once() -> None:
    with pytest.raises(InputError, match="needs classes"):
        MPSClassifier().partial_fit([[0.0], [1.0]], [0, 1])
    model = MPSClassifier(**QUICK).partial_fit([[0.0]], ["a"], classes=["a", "b"])
    assert model.predict_proba([[0.0]]).shape == (1, 2)


def test_warm_start_continues() -> None:
    X, y = blobs()
    model = MPSClassifier(warm_start=True, epochs=5, random_state=0).fit(X, y)
    first, layer = model.history_[0]["loss"], model.layer_
    model.fit(X, y)
    assert model.layer_ is layer
    assert model.n_iter_ == len(model.history_) == 10
    assert model.history_[5]["loss"] < first
    with pytest.raises(InputError, match="without warm_start"):
        model.fit(X, y + 1)
    assert clone(model).fit(X, y + 1).n_iter_ == 5


def test_randomness_is_an_argument() -> None:
    X, y = blobs()
    numbers, states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 (must not move)
    first, again = (MPSClassifier(**QUICK).fit(X, y).decision_function(X) for _ in range(2))
    other = MPSClassifier(**QUICK | {"random_state": 1}).fit(X, y).decision_function(X)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert np.array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states)
    state = np.random.RandomState(5)
    model = MPSClassifier(**QUICK | {"random_state": state})
    assert not np.array_equal(model.fit(X, y).decision_function(X), model.fit(X, y).decision_function(X))


def test_numbers_of_numpy_are_numbers() -> None:
    X, y = blobs()
    model = MPSClassifier(
        bond_dim=np.int64(3), epochs=np.int32(2), lr=np.float32(0.01), batch_size=np.int64(16)
    )
    assert max(model.fit(X, y).layer_.bond_dims) == 3
