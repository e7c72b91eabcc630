"""Sets that cover, entropies of several networks, and samples beyond the range of training."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.base import clone

import tnml
from tnml import InputError, MPSClassifier, MPSRegressor
from tnml.estimators import expected_calibration_error

OWN: dict[str, Any] = {"bond_dim": 3, "epochs": 6, "validation_fraction": 0.4, "random_state": 0}


def data(rows: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(seed)
    X = rng.uniform(0, 1, (rows, 4))
    return X, np.array(["a", "b", "c"])[np.digitize(X[:, 0] + X[:, 1] + 0.3 * rng.randn(rows), [0.8, 1.2])]


def plain(model: Any, X: np.ndarray) -> np.ndarray:
    """Probabilities without the temperature."""
    return softmax(model.decision_function(X), axis=1)


@pytest.mark.parametrize("weighted", [False, True])
def test_sets_hold_what_the_quantile_of_the_held_out_part_says(weighted: bool) -> None:
    X, y = data()
    weight = np.random.RandomState(1).randint(1, 4, len(X)).astype(float) if weighted else None
    model = MPSClassifier(**OWN, calibrate=True).fit(X, y, sample_weight=weight)
    scores = model.set_scores_[:, 0]
    held = len(scores)
    assert held == pytest.approx(80, abs=2)
    of_labels = 1 - plain(model, X)[np.arange(200), np.searchsorted(model.classes_, y)]
    places = [int(np.flatnonzero(of_labels == score)[0]) for score in scores]  # the held-out samples
    assert len(set(places)) == held
    each = np.ones(held) if weight is None else weight[places]
    each = each / each.mean()
    for alpha in (0.05, 0.1, 0.5):
        most = min(s for s in scores if each[scores <= s].sum() >= (1 - alpha) * (held + 1) - 1e-6)
        sets = model.predict_set(X, alpha)
        assert np.array_equal(sets, 1 - plain(model, X) <= most)
        assert sets.dtype == bool
    few = model.predict_set(X, 0.9)
    filled = model.predict_set(X, 0.9, allow_empty=False)
    assert (few.sum(1) == 0).any()
    assert (filled.sum(1) >= 1).all()
    added = filled & ~few
    assert np.array_equal(added.argmax(1)[added.any(1)], plain(model, X).argmax(1)[added.any(1)])


@pytest.mark.slow
def test_sets_cover_new_samples() -> None:
    """Over 60 draws of held-out parts of 80: the mean is within 4 standard errors of 0.9 to 0.9 + 1 / 81."""
    held, new = 80, 300
    found = []
    for seed in range(60):
        X, y = data(120 + held + new, seed)
        fitted = {
            "bond_dim": 2,
            "epochs": 2,
            "validation_fraction": held / (120 + held),
            "random_state": seed,
        }
        model = MPSClassifier(**fitted).fit(X[:-new], y[:-new])
        sets = model.predict_set(X[-new:], 0.1)
        found.append(sets[np.arange(new), np.searchsorted(model.classes_, y[-new:])].mean())
    error = np.std(found) / np.sqrt(len(found))
    assert 0.9 - 4 * error <= np.mean(found) <= 0.9 + 1 / (held + 1) + 4 * error
    assert error < 0.01


def test_other_losses_and_copies_keep_their_sets(tmp_path: Any) -> None:
    X, y = data()
    weight = np.linspace(0.5, 1.5, len(X))
    model = MPSClassifier(**OWN, loss="mse", n_estimators=2).fit(X, y, sample_weight=weight)
    sets, probabilities = model.predict_set(X, 0.2), model.predict_proba(X)
    assert probabilities[sets].min() > probabilities[~sets].max(), "one threshold for all"
    model.save(tmp_path / "model.safetensors")
    for other in (tnml.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.predict_set(X, 0.2), model.predict_set(X, 0.2))
    for gone in (model.compressed(max_bond=1), model.partial_fit(X, y)):
        with pytest.raises(InputError, match="probabilities of held-out samples that no fit has seen"):
            gone.predict_set(X)
    with pytest.raises(InputError, match="fit it with validation_fraction"):
        MPSClassifier(**OWN | {"validation_fraction": 0.0}).fit(X, y).predict_set(X)
    again = clone(model).set_params(validation_fraction=0.02).fit(X, y)
    with pytest.raises(InputError, match=r"coverage=0\.9 needs at least 9 .* got 4; .* raise alpha"):
        again.predict_set(X)
    with pytest.raises(InputError, match="alpha must be a number, above 0 and below 1"):
        again.predict_set(X, 1.0)


def test_entropies_of_several_networks() -> None:
    X, y = data()
    model = MPSClassifier(**OWN, n_estimators=3).fit(X, y)
    x = X.astype(np.float32)
    each = np.stack([softmax(model._in_blocks(layer, x), axis=1) for layer in model.layers_])
    found = model.predict_uncertainty(X)
    assert np.allclose(found.total, entropy(model.predict_proba(X), axis=1))
    assert np.allclose(found.aleatoric, entropy(each, axis=2).mean(0))
    divergence = np.mean([entropy(p, each.mean(0), axis=1) for p in each], axis=0)  # the other formula
    assert np.allclose(found.epistemic, divergence, atol=1e-7)
    assert found.epistemic.max() > 1e-4
    assert np.allclose(found.total, found.aleatoric + found.epistemic)
    alone = MPSClassifier(**OWN).fit(X, y).predict_uncertainty(X)
    assert np.array_equal(alone.epistemic, np.zeros(len(X)))
    assert expected_calibration_error(np.eye(2), np.array([0, 1])) == 0.0


@pytest.mark.parametrize("kind", [MPSClassifier, MPSRegressor])
def test_values_beyond_the_range(kind: Any) -> None:
    X = np.array([[0.0, 10.0, 3.0], [2.0, 20.0, 3.0], [1.0, 30.0, 3.0]])
    settings: dict[str, Any] = {"bond_dim": 2, "epochs": 1, "clip": "error"}
    model = kind(**settings).fit(X, [0, 1, 0])
    found = model.out_of_range([[1.0, 15.0, 3.0], [4.0, 5.0, 3.0], [1.0, 20.0, 5.0]])
    assert np.allclose(found.share, [0, 2 / 3, 1 / 3])
    assert np.allclose(found.excess, [0, 1.0, 2.0])
    whole = kind(**settings).fit(X / 100, [0, 1, 0])
    assert np.allclose(whole.out_of_range(X[:1] / 5).excess, [1.0]), "0 to 1, if all values lie between them"
    bare = kind(**settings, feature_range=None).fit(X / 100, [0, 1, 0])
    assert np.allclose(bare.out_of_range(np.array([[1.5, 0.5, -1.0]], np.float32)).share, [2 / 3])


def test_columns_beyond_what_they_held() -> None:
    rng = np.random.RandomState(0)
    X = pd.DataFrame({"age": rng.uniform(20, 60, 60), "city": rng.choice(["Bern", "Basel"], 60)})
    model = MPSClassifier(features="auto", bond_dim=2, epochs=1, random_state=0).fit(X, X["age"] > 40)
    low, high = X["age"].min(), X["age"].max()
    new = pd.DataFrame(
        {
            "age": [high, high + (high - low) / 2, None, None, low],
            "city": ["Bern", "Bern", "Chur", None, "Basel"],
        }
    )
    found = model.out_of_range(new)
    assert np.allclose(found.share, [0, 0.5, 1.0, 0.0, 0.0])
    assert np.allclose(found.excess, [0, 0.5, 1.0, 0.0, 0.0])
