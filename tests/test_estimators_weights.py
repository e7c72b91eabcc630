"""Weights of samples and classes in the estimators: repeats, scikit-learn's own comparison, meta-estimators.

Where every step sees all samples, weights and repeats differ by the order of sums alone.
"""

from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.ensemble import AdaBoostClassifier, BaggingRegressor
from sklearn.model_selection import cross_val_score
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.estimator_checks import check_sample_weight_equivalence_on_dense_data

from tnml import InputError, MPSClassifier, MPSRegressor
from tnml.estimators.weights import class_weights, typical_rows

EXACT: dict[str, Any] = {"dtype": "float64", "batch_size": 1000, "epochs": 40}
SWEPT: dict[str, Any] = {"dtype": "float64", "solver": "dmrg", "sweeps": 2, "bond_dim": 4}
COMPARED: dict[str, Any] = {
    "adam": MPSClassifier(**EXACT),
    "adamw": MPSRegressor(**EXACT, optimizer="adamw", weight_decay=0.1, average="ema"),
    "sgd": MPSRegressor(**EXACT, optimizer="sgd", clip_norm=1.0, schedule="constant"),
    # Twenty steps: a search that has arrived finds the minimum by its value, so to the root of rounding only.
    "lbfgs": MPSClassifier(**EXACT | {"epochs": 1}, optimizer="lbfgs"),
    "lbfgs, targets": MPSRegressor(**EXACT | {"epochs": 1}, optimizer="lbfgs"),
    "balanced": MPSClassifier(**EXACT, class_weight="balanced"),
    "focal": MPSClassifier(**EXACT, loss="focal"),
    "squares of labels": MPSClassifier(**EXACT, loss="mse"),
    "huber": MPSRegressor(**EXACT, loss={"name": "huber", "delta": 0.5}),
    "quantile": MPSRegressor(**EXACT, loss={"name": "quantile", "quantile": 0.7}),
    "fitted path": MPSClassifier(**EXACT, features="rbf", order=list(range(29, -1, -1))),
    "sweeps, labels": MPSClassifier(**SWEPT, loss="mse", class_weight="balanced"),
    "sweeps, targets": MPSRegressor(**SWEPT, loss="huber"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPARED)
def test_scikit_learns_comparison_of_weights_and_repeats(name: str) -> None:
    estimator = COMPARED[name]
    check_sample_weight_equivalence_on_dense_data(type(estimator).__name__, estimator)


@pytest.mark.parametrize("kind", [MPSClassifier, MPSRegressor])
def test_searches_that_arrive_have_the_same_loss(kind: Any) -> None:
    rng = np.random.RandomState(0)
    X, y, times = rng.rand(30, 4), rng.randint(0, 3, 30), rng.randint(0, 4, 30)
    parameters = {**EXACT, "epochs": 10, "optimizer": "lbfgs", "random_state": 0, "bond_dim": 2}
    one = kind(**parameters).fit(X, y, sample_weight=times)
    other = kind(**parameters).fit(X.repeat(times, axis=0), y.repeat(times))
    losses = ([row["loss"] for row in model.history_] for model in (one, other))
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.parametrize("features", ["linear", "rbf"])
def test_many_samples_start_from_the_same_network(features: str) -> None:
    """Of a thousand and more the start sees some only: those that repeated samples would show it."""
    rng = np.random.RandomState(0)
    X, y, times = rng.rand(900, 3), rng.randint(0, 2, 900), rng.randint(0, 5, 900)
    parameters = {**EXACT, "batch_size": 5000, "epochs": 2, "bond_dim": 2, "features": features}
    one = MPSClassifier(**parameters, random_state=0).fit(X, y, sample_weight=times)
    repeated = X.repeat(times, axis=0)
    assert len(repeated) > 1500
    other = MPSClassifier(**parameters, random_state=0).fit(repeated, y.repeat(times))
    np.testing.assert_allclose(one.decision_function(X), other.decision_function(X), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("rows", [3, 400, 999, 1000, 1499, 5003])
def test_the_rows_of_a_start_are_those_of_repeats(rows: int) -> None:
    times = np.random.RandomState(rows).randint(1, 4, rows).astype(float)
    found, weight = typical_rows(times, rows)
    repeated = np.arange(rows).repeat(times.astype(int))
    if weight is None:
        expected = repeated[:: len(repeated) // 500]
        np.testing.assert_array_equal(found, expected)
    else:
        assert len(repeated) < 1000
        np.testing.assert_array_equal(found, np.arange(rows))
        np.testing.assert_array_equal(weight, times)
    np.testing.assert_array_equal(typical_rows(None, rows)[0], np.arange(rows)[:: max(1, rows // 500)])
    small, _ = typical_rows(np.full(rows, 1e-9), rows)
    np.testing.assert_array_equal(small, typical_rows(None, rows)[0])


def test_balanced_is_as_in_scikit_learn() -> None:
    rng = np.random.RandomState(0)
    codes, own = rng.choice(4, 50, p=[0.5, 0.3, 0.1, 0.1]), rng.rand(50)
    classes = np.array(["d", "i", "n", "o"])
    for weight in (None, own):
        each = compute_class_weight("balanced", classes=classes, y=classes[codes], sample_weight=weight)
        found = class_weights("balanced", classes, codes, weight)
        np.testing.assert_allclose(found, each[codes] * (1 if weight is None else weight))
    absent = class_weights("balanced", np.array(["d", "i", "n", "o", "z"]), codes, own)
    np.testing.assert_allclose(absent, found)


def test_classes_of_any_type_have_weights() -> None:
    codes = np.array([0, 1, 1])
    for labels in (np.array([0, 1]), np.array([False, True]), np.array([-0.5, 2.5]), np.array(["a", "b"])):
        rule = {labels.tolist()[1]: 3, labels[0]: 0.5}
        np.testing.assert_array_equal(class_weights(rule, labels, codes, None), [0.5, 3, 3])
    # A fold without the rare class is no slip of the pen.
    np.testing.assert_array_equal(class_weights({"a": 2, "b": 1, "rare": 9}, labels, codes, None), [2, 1, 1])


def test_weights_lift_the_class_they_favour() -> None:
    X, y = np.random.RandomState(0).randn(200, 2), np.arange(200) % 2  # nothing to learn
    for parameters in ({"epochs": 20}, {"solver": "dmrg"}):
        model = MPSClassifier(bond_dim=2, random_state=0, class_weight={0: 9}, **parameters).fit(X, y)
        assert model.predict_proba(X)[:, 0].mean() == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_weights_of_any_size(size: float) -> None:
    X, y = np.random.RandomState(0).rand(30, 3), np.arange(30) % 2
    weight = size * np.linspace(1, 2, 30)
    model = MPSClassifier(bond_dim=2, epochs=3, random_state=0).fit(X, y, sample_weight=weight)
    other = MPSClassifier(bond_dim=2, epochs=3, random_state=0).fit(X, y, sample_weight=weight / size)
    np.testing.assert_allclose(model.decision_function(X), other.decision_function(X), rtol=1e-3, atol=1e-4)


def test_choices_go_by_the_samples_that_count() -> None:
    """Of 40 samples, in batches of 32, two steps make an epoch; 3,300 would be 100 steps in 10 epochs."""
    X, y = np.random.RandomState(0).rand(3300, 2), np.arange(3300) % 2
    weight = (np.arange(3300) < 40).astype(float)
    assert MPSClassifier(bond_dim=2, random_state=0).fit(X, y, sample_weight=weight).n_iter_ == 200
    model = MPSClassifier(bond_dim=2, random_state=0).partial_fit(X, y, [0, 1], sample_weight=weight)
    assert model.n_iter_ == 1


def test_sweeps_of_a_regressor_take_the_sum_of_the_weights_for_the_number_of_samples() -> None:
    """Fewer samples mean more damping; so weights of a tenth are a tenth of the samples."""
    X = np.random.RandomState(0).rand(60, 4)
    y = X[:, 0] * X[:, 1]
    parameters = {**SWEPT, "random_state": 0}
    whole, tenth = (MPSRegressor(**parameters).fit(X, y, np.full(60, size)) for size in (1.0, 0.1))
    np.testing.assert_allclose(whole.predict(X), MPSRegressor(**parameters).fit(X, y).predict(X), rtol=1e-9)
    assert not np.allclose(tenth.predict(X), whole.predict(X), rtol=1e-4)


def test_meta_estimators_hand_in_weights() -> None:
    rng = np.random.RandomState(0)
    X = rng.rand(60, 3)
    y = (X[:, 0] > 0.5).astype(int)
    quick: dict[str, Any] = {"bond_dim": 2, "epochs": 60, "lr": 0.05, "random_state": 0}
    assert AdaBoostClassifier(MPSClassifier(**quick), n_estimators=2).fit(X, y).predict(X).shape == (60,)
    assert BaggingRegressor(MPSRegressor(**quick), n_estimators=2).fit(X, y).predict(X).shape == (60,)
    with sklearn.config_context(enable_metadata_routing=True):
        model = MPSClassifier(**quick).set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=False)
        scores = cross_val_score(model, X, y, cv=2, params={"sample_weight": np.linspace(1, 2, 60)})
    assert scores.shape == (2,)


def test_weights_of_one_class_alone_predict_it() -> None:
    X, y = np.random.RandomState(0).rand(20, 3), np.arange(20) % 2
    for parameters in ({}, {"solver": "dmrg", "sweeps": 2}):
        model = MPSClassifier(bond_dim=2, random_state=0, **parameters).fit(X, y, sample_weight=y)
        assert set(model.predict(X)) == {1}
    with pytest.raises(InputError, match="weights of all samples are zero"):
        MPSClassifier(class_weight={0: 0}).fit(X, y, sample_weight=1 - y)
