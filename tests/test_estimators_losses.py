"""Losses of the estimators: what they are good for, which solver has which, and probabilities of each."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.special import softmax
from toy_loss import ROW

import tnml
from tnml import InputError, MPSClassifier, MPSRegressor
from tnml.estimators.probabilities import nearest_probabilities
from tnml.files import read_model, write_model
from tnml.nn import MPSLayer
from tnml.training.losses import LOSSES

SOLVERS: dict[str, dict[str, Any]] = {
    "gradient": {"bond_dim": 3, "epochs": 100, "batch_size": 200, "lr": 0.02, "random_state": 0},
    "dmrg": {"bond_dim": 3, "solver": "dmrg", "sweeps": 15, "random_state": 0},
}


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_nearest_probabilities_are_the_nearest(classes: int) -> None:
    """The shift found by halving an interval, which shares nothing with the closed form."""
    outputs = 2 * np.random.RandomState(classes).randn(200, classes)
    low, high = outputs.min(axis=1) - 2, outputs.max(axis=1)
    for _ in range(200):
        middle = (low + high) / 2
        above = np.maximum(outputs - middle[:, None], 0).sum(axis=1) > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    expected = np.maximum(outputs - low[:, None], 0)
    np.testing.assert_allclose(nearest_probabilities(outputs), expected, atol=1e-12)
    already = softmax(outputs, axis=1)
    np.testing.assert_allclose(nearest_probabilities(already), already, atol=1e-15)
    single = np.eye(classes)
    np.testing.assert_array_equal(nearest_probabilities(single), single)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("loss", [None, "mse"])
def test_probabilities_are_those_of_the_labels(solver: str, loss: str | None) -> None:
    """Labels drawn with a probability that depends on one feature."""
    rng = np.random.RandomState(0)
    X = rng.rand(1000, 2)
    truth = 0.2 + 0.6 * X[:, 0]
    model = MPSClassifier(**SOLVERS[solver], loss=loss, label_smoothing=0.0 if loss is None else 0.05)
    model.fit(X, np.where(rng.rand(1000) < truth, "yes", "no"))
    found = model.predict_proba(X)[:, 1]
    assert np.abs(found - truth).mean() < 0.06
    if solver == "gradient":
        order = np.argsort(model.decision_function(X))
        assert (np.diff(found[order]) >= 0).all(), "the more decided, the more probable"


def test_probabilities_of_squares_are_the_projected_outputs() -> None:
    rng = np.random.RandomState(0)
    X, y = rng.rand(60, 3), rng.randint(0, 3, 60)
    model = MPSClassifier(loss="mse", bond_dim=3, epochs=5, random_state=0).fit(X, y)
    outputs = model.decision_function(X)
    np.testing.assert_array_equal(model.predict_proba(X), nearest_probabilities(outputs))
    np.testing.assert_array_equal(model.predict(X), outputs.argmax(axis=1))
    model.set_params(loss=None)
    np.testing.assert_array_equal(model.predict_proba(X), nearest_probabilities(outputs), "what was trained")


@pytest.mark.parametrize("solver", SOLVERS)
def test_huber_is_not_drawn_by_outliers(solver: str) -> None:
    rng = np.random.RandomState(0)
    X = rng.rand(300, 3)
    truth = X[:, 0] + 2 * X[:, 1] * X[:, 2]
    y = truth + np.where(rng.rand(300) < 0.05, 100.0, 0.0)
    plain, robust = (
        MPSRegressor(**SOLVERS[solver], loss=loss).fit(X, y)
        for loss in (None, {"name": "huber", "delta": 0.2})
    )
    off = [np.sqrt(np.mean((model.predict(X) - truth) ** 2)) for model in (plain, robust)]
    assert off[1] < 0.3 * off[0]


@pytest.mark.parametrize(("kind", "loss"), [(MPSClassifier, "focal"), (MPSRegressor, "quantile")])
def test_sweeps_refuse_what_they_cannot_minimise(kind: Any, loss: str) -> None:
    X, y = np.random.RandomState(0).rand(20, 3), np.arange(20) % 2
    model = kind(solver="dmrg", loss=loss)
    with pytest.raises(
        InputError, match=rf"'dmrg' has no use for loss='{loss}', .* choose solver='gradient'"
    ):
        model.fit(X, y)
    assert not hasattr(model, "layer_")
    with pytest.raises(InputError, match=r"loss='nll' is for density, not for (classif|regres)"):
        kind(solver="dmrg", loss="nll").fit(X, y)


def test_a_wrong_loss_leaves_a_fitted_model_alone() -> None:
    X, y = np.random.RandomState(0).rand(20, 3), np.arange(20) % 2
    model = MPSClassifier(epochs=1, random_state=0).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(InputError, match="loss='huber' is for regression, not for classification; choose"):
        model.set_params(loss="huber").fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


class TestOwnLoss:
    """A loss that one row makes known is one of the estimators, too."""

    @pytest.fixture(autouse=True)
    def row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(LOSSES, "toy", ROW)

    spec: ClassVar[dict[str, Any]] = {"name": "toy", "power": np.float64(4.0)}

    def test_it_trains_and_is_kept(self, tmp_path: Any) -> None:
        X = np.random.RandomState(0).rand(40, 3)
        model = MPSRegressor(loss=self.spec, epochs=3, random_state=0).fit(X, X[:, 0])
        model.save(tmp_path / "model.safetensors")
        other = tnml.load(tmp_path / "model.safetensors")
        assert other.loss == {"name": "toy", "power": 4.0}
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
        swept = MPSRegressor(loss=self.spec, solver="dmrg", sweeps=3, random_state=0).fit(X, X[:, 0])
        assert swept.history_[-1]["loss"] < swept.history_[0]["loss"]
        with pytest.raises(InputError, match="loss='toy' is for regression, not for classification"):
            MPSClassifier(loss="toy").fit(X, X[:, 0] > 0.5)


def test_files_keep_how_the_outputs_are_meant(tmp_path: Any) -> None:
    layer = MPSLayer(3, 2, 2, seed=1)
    X = np.random.RandomState(0).rand(10, 3)
    outputs = layer(torch.from_numpy(X).float()).detach().double().numpy()
    squares = MPSClassifier.from_layer(layer, ["no", "yes"], loss="mse")
    np.testing.assert_allclose(squares.predict_proba(X), nearest_probabilities(outputs), atol=1e-6)
    squares.save(tmp_path / "new.safetensors")
    loaded = tnml.load(tmp_path / "new.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(X), squares.predict_proba(X))
    assert loaded.loss == "mse"
    tensors, metadata = read_model(tmp_path / "new.safetensors")
    del metadata["logits"], metadata["parameters"]["loss"]
    write_model(tmp_path / "old.safetensors", tensors, metadata)
    old = tnml.load(tmp_path / "old.safetensors")
    np.testing.assert_allclose(old.predict_proba(X), softmax(outputs, axis=1), atol=1e-6)
    with pytest.raises(InputError, match="loss='huber' is for regression"):
        MPSClassifier.from_layer(layer, ["no", "yes"], loss="huber")
