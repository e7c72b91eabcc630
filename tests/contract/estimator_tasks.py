"""What classifiers and what regressors have to do beyond the contract of all estimators."""

from typing import Any, ClassVar

import numpy as np
import pytest

import tnml
from contract.estimator import EXACT, EstimatorContract
from tnml.errors import InputError


class ClassifierContract(EstimatorContract):
    """For classifiers."""

    task = "classification"
    other_loss: ClassVar[Any] = "mse"

    def data(self, rows: int = 40) -> tuple[np.ndarray, Any]:
        rng = np.random.RandomState(0)
        X = rng.uniform(-3, 3, (rows, 4))
        return X, np.array(["ant", "bee", "fox"])[(X[:, 0] > 0).astype(int) + (X[:, 1] * X[:, 2] > 0)]

    def outputs(self, model: Any, X: np.ndarray) -> np.ndarray:
        return np.concatenate([model.decision_function(X), model.predict_proba(X)], axis=1)

    def score_of(self, model: Any, X: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean(model.predict(X) == y))

    def test_probabilities_are_some(self) -> None:
        X, y = self.data()
        for loss in (None, "focal", "mse"):
            model = self.make(loss=loss, epochs=20).fit(X, y)
            probabilities = model.predict_proba(X)
            np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-12)
            assert probabilities.min() >= 0
            picked = np.take_along_axis(
                probabilities, np.searchsorted(model.classes_, model.predict(X))[:, None], 1
            )
            np.testing.assert_array_equal(picked[:, 0], probabilities.max(axis=1))

    def test_weights_of_classes_are_weights_of_their_samples(self) -> None:
        X, y = self.data()
        each = {"ant": 2.0, "fox": 0.5}
        own = np.linspace(1, 2, len(X))
        named = self.make(**EXACT, class_weight=each).fit(X, y, sample_weight=own)
        product = own * np.array([each.get(label, 1.0) for label in y])
        single = self.make(**EXACT).fit(X, y, sample_weight=product)
        np.testing.assert_array_equal(self.outputs(named, X), self.outputs(single, X))

    def test_balanced_classes_have_the_same_total(self) -> None:
        X, y = self.data()
        own = np.linspace(1, 2, len(X))
        totals = {label: own[y == label].sum() for label in np.unique(y)}
        assert max(totals.values()) > 1.2 * min(totals.values())
        balanced = self.make(**EXACT, class_weight="balanced").fit(X, y, sample_weight=own)
        single = self.make(**EXACT).fit(X, y, sample_weight=own / np.array([totals[label] for label in y]))
        np.testing.assert_allclose(self.outputs(balanced, X), self.outputs(single, X), rtol=1e-7, atol=1e-9)
        with pytest.raises(InputError, match="class_weight='balanced' needs all samples"):
            self.make(class_weight="balanced").partial_fit(X, y, classes=np.unique(y))
        part = self.make(class_weight={"ant": 3.0}).partial_fit(X, y, classes=np.unique(y))
        assert part.n_iter_ == 1

    def test_weights_of_classes_are_kept_in_files(self, tmp_path: Any) -> None:
        X, y = self.data()
        codes = np.searchsorted(np.unique(y), y)
        model = self.make(class_weight={0: 2.0, np.int64(2): np.float64(0.5)}).fit(X, codes)
        model.save(tmp_path / "model.safetensors")
        assert tnml.load(tmp_path / "model.safetensors").class_weight == {0: 2.0, 2: 0.5}

    @pytest.mark.parametrize(
        ("rule", "text"),
        [
            ("balance", "unknown class_weight 'balance'; did you mean 'balanced'"),
            ({"ant": -1.0}, "class_weight of 'ant' must be a number, at least 0, got -1"),
            ({"ant": "2"}, "class_weight of 'ant' must be a number"),
            ({"ants": 2.0}, r"class_weight names \['ants'\], which are not labels, and leaves out"),
            ([1.0, 2.0, 1.0], "class_weight must be 'balanced', None or a mapping"),
            ({"ant": 0, "bee": 0, "fox": 0}, "weights of all samples are zero"),
        ],
        ids=str,
    )
    def test_bad_class_weights(self, rule: Any, text: str) -> None:
        X, y = self.data()
        with pytest.raises(InputError, match=text):
            self.make(class_weight=rule).fit(X, y)

    def test_a_class_without_weight_is_a_class(self) -> None:
        X, y = self.data()
        model = self.make(epochs=20).fit(X, y, sample_weight=(y != "bee").astype(float))
        assert model.classes_.tolist() == ["ant", "bee", "fox"]
        assert "bee" not in model.predict(X)

    def test_smoothing_belongs_to_the_cross_entropy(self) -> None:
        X, y = self.data()
        default, none = (self.make(loss="focal", label_smoothing=s).fit(X, y) for s in (0.05, 0.0))
        np.testing.assert_array_equal(self.outputs(default, X), self.outputs(none, X))
        with pytest.raises(
            InputError, match="label_smoothing goes with loss='cross-entropy', got loss='focal'"
        ):
            self.make(loss="focal", label_smoothing=0.1).fit(X, y)
        told = self.make(label_smoothing=0.1).fit(X, y)
        for spec, smoothing in (
            ("cross-entropy", 0.1),
            ({"name": "cross-entropy"}, 0.1),
            ({"name": "cross-entropy", "smoothing": 0.1}, 0.05),
        ):
            other = self.make(loss=spec, label_smoothing=smoothing).fit(X, y)
            np.testing.assert_array_equal(self.outputs(other, X), self.outputs(told, X))
        with pytest.raises(InputError, match="both give a smoothing; give one"):
            self.make(loss={"name": "cross-entropy", "smoothing": 0.2}, label_smoothing=0.1).fit(X, y)


class RegressorContract(EstimatorContract):
    """For regressors."""

    task = "regression"
    other_loss: ClassVar[Any] = {"name": "quantile", "quantile": 0.9}

    def data(self, rows: int = 40) -> tuple[np.ndarray, Any]:
        X = np.random.RandomState(0).uniform(-3, 3, (rows, 4))
        return X, 100 + 10 * (X[:, 0] * X[:, 1] - X[:, 2])

    def outputs(self, model: Any, X: np.ndarray) -> np.ndarray:
        found: np.ndarray = model.predict(X)
        return found

    def score_of(self, model: Any, X: np.ndarray, y: np.ndarray) -> float:
        return float(1 - np.mean((model.predict(X) - y) ** 2) / np.var(y))

    def test_several_targets(self) -> None:
        X, y = self.data()
        both = np.stack([y, X[:, 3]], axis=1)
        weight = np.linspace(0, 2, len(X))
        model = self.make().fit(X, both, sample_weight=weight)
        assert model.predict(X).shape == both.shape
        mean = (weight[:, None] * both).sum(axis=0) / weight.sum()
        np.testing.assert_allclose(model.y_mean_, mean)
        spread = (weight[:, None] * (both - mean) ** 2).sum(axis=0) / weight.sum()
        np.testing.assert_allclose(model.y_scale_, np.sqrt(spread))

    def test_a_quantile_is_above_that_share_of_the_targets(self) -> None:
        X, _ = self.data(200)
        y = np.random.RandomState(1).exponential(size=200)  # nothing to learn but the level
        for level in (0.1, 0.9):
            loss = {"name": "quantile", "quantile": level}
            model = self.make(loss=loss, epochs=60, batch_size=200, lr=0.02).fit(X, y)
            assert np.mean(y < model.predict(X)) == pytest.approx(level, abs=0.1)
