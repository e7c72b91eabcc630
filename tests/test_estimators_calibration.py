"""Calibrated probabilities: the temperature against scipy, and what it must leave alone."""

import pickle
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

import tnml
from tnml import InputError, MPSClassifier
from tnml.estimators.calibration import best_temperature, expected_calibration_error, log_loss
from tnml.training import TrainingInterrupted

OWN: dict[str, Any] = {"bond_dim": 3, "epochs": 8, "validation_fraction": 0.3, "random_state": 0}


def data(rows: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(0)
    X = rng.uniform(0, 1, (rows, 4))
    return X, np.array(["a", "b", "c"])[np.digitize(X[:, 0] + X[:, 1] + 0.3 * rng.randn(rows), [0.8, 1.2])]


def logits(rows: int = 300, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.RandomState(1)
    outputs = 3 * rng.randn(rows, classes)
    codes = np.array([rng.choice(classes, p=p) for p in softmax(outputs / 2.5, axis=1)])
    return outputs, codes, rng.randint(1, 4, rows).astype(float)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_temperature_makes_the_labels_most_probable(weighted: bool) -> None:
    outputs, codes, weight = logits()
    each = weight if weighted else np.ones(len(codes))

    def loss(log_t: float) -> float:
        own = log_softmax(outputs / np.exp(log_t), axis=1)[np.arange(len(codes)), codes]
        return float(-(each * own).sum() / each.sum())

    expected = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
    found = best_temperature(outputs, codes, weight if weighted else None)
    assert np.log(found) == pytest.approx(expected.x, abs=1e-6)
    assert found == pytest.approx(2.5, rel=0.3), "which drew them"
    mean = log_loss(softmax(outputs / found, axis=1), codes, weight if weighted else None)
    assert mean == pytest.approx(expected.fun, rel=1e-12)
    if weighted:
        times = weight.astype(int)
        again = best_temperature(outputs.repeat(times, 0), codes.repeat(times))
        assert found == pytest.approx(again, rel=1e-9)


def test_labels_that_are_all_right_or_wrong_have_an_end() -> None:
    outputs = np.array([[2.0, 0.0], [0.0, 2.0]])
    assert best_temperature(outputs, np.array([0, 1])) == pytest.approx(0.01)
    assert best_temperature(outputs, np.array([1, 0])) == pytest.approx(100.0)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_calibration_error_bin_by_bin(weighted: bool) -> None:
    outputs, codes, weight = logits()
    probabilities, each = softmax(outputs, axis=1), weight if weighted else np.ones(len(codes))
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == codes
    total = 0.0
    for low in range(15):
        inside = (sure >= low / 15) & (sure < (low + 1) / 15)
        if inside.any():
            w = each[inside]
            gap = np.average(right[inside], weights=w) - np.average(sure[inside], weights=w)
            total += w.sum() / each.sum() * abs(gap)
    found = expected_calibration_error(probabilities, codes, weight if weighted else None)
    assert found == pytest.approx(total, rel=1e-12)
    certain = np.eye(3)[[0, 1, 2]]
    assert expected_calibration_error(certain, np.array([0, 1, 0])) == pytest.approx(1 / 3)


@pytest.mark.parametrize("loss", [None, "focal", "mse"])
@pytest.mark.parametrize("networks", [1, 2])
def test_decisions_stay_and_probabilities_cool(loss: Any, networks: int) -> None:
    X, y = data()
    plain = MPSClassifier(**OWN, loss=loss, n_estimators=networks).fit(X, y)
    model = MPSClassifier(**OWN, loss=loss, n_estimators=networks, calibrate=True).fit(X, y)
    assert np.array_equal(model.decision_function(X), plain.decision_function(X))
    assert np.array_equal(model.predict(X), plain.predict(X))
    expected = softmax(model.decision_function(X) / model.temperature_, axis=1)
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-12)
    assert np.array_equal(model.classes_[model.predict_proba(X).argmax(1)], model.predict(X))
    assert (plain.temperature_, plain.calibration_) == (None, None)
    found = model.calibration_
    if loss is None:
        assert found["log_loss"] <= found["log_loss_before"]
    assert 0 <= found["ece"] <= 1
    assert found["samples"] == pytest.approx(0.3 * len(X), abs=2)


def test_the_held_out_part_is_that_of_the_training() -> None:
    """The last row of the history has its mean log loss, by the training itself."""
    X, y = data()
    model = MPSClassifier(**OWN, calibrate=True, label_smoothing=0.0, dtype="float64").fit(X, y)
    assert model.calibration_["log_loss_before"] == pytest.approx(model.history_[-1]["val_loss"], rel=1e-9)


@pytest.mark.parametrize("way", ["pickle", "file"])
def test_copies_are_calibrated(way: str, tmp_path: Any) -> None:
    X, y = data()
    model = MPSClassifier(**OWN, calibrate=True).fit(X, y)
    model.save(tmp_path / "model.safetensors")
    other = (
        pickle.loads(pickle.dumps(model)) if way == "pickle" else tnml.load(tmp_path / "model.safetensors")
    )
    assert np.array_equal(other.predict_proba(X), model.predict_proba(X))
    assert (other.temperature_, other.calibration_) == (model.temperature_, model.calibration_)
    small = model.compressed(max_bond=2)
    assert (small.temperature_, small.calibration_) == (model.temperature_, None)


def test_it_works_for_sweeps() -> None:
    X, y = data()
    swept = {"solver": "dmrg", "bond_dim": 3, "sweeps": 2, "validation_fraction": 0.3}
    model = MPSClassifier(**swept, calibrate=True).fit(X, y)
    assert model.calibration_["log_loss"] <= model.calibration_["log_loss_before"]


def test_a_temperature_needs_new_samples() -> None:
    X, y = data()
    with pytest.raises(InputError, match="held-out part, but validation_fraction is 0"):
        MPSClassifier(calibrate=True).fit(X, y)
    with pytest.raises(InputError, match="needs a held-out part, but partial_fit has none"):
        MPSClassifier(**OWN, calibrate=True).partial_fit(X, y, classes=["a", "b", "c"])
    model = MPSClassifier(**OWN, calibrate=True, warm_start=True).fit(X, y)
    with pytest.raises(InputError, match="samples that no fit has seen"):
        model.fit(X, y)


def test_an_interrupted_refit_forgets_the_temperature() -> None:
    X, y = data()
    model = MPSClassifier(**OWN, calibrate=True).fit(X, y)
    assert model.temperature_ != 1.0

    def stop(layer: Any, optimizer: Any, row: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted):
        model.fit(X, y, callbacks=[stop])
    assert (model.temperature_, model.calibration_) == (None, None)
    np.testing.assert_allclose(
        model.predict_proba(X), softmax(model.decision_function(X), axis=1), rtol=1e-12
    )
