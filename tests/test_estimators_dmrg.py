"""MPSClassifier and MPSRegressor trained by sweeps: scikit-learn's contract, known answers, bad input."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tnml
from tnml import InputError, MPSClassifier, MPSRegressor
from tnml.data import stratified_split
from tnml.features import FEATURE_NAMES

QUICK: dict[str, Any] = {"solver": "dmrg", "bond_dim": 4, "sweeps": 2, "random_state": 0}


def blobs(samples: int = 60, features: int = 4, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_blobs(samples, features, centers=classes, cluster_std=0.5, random_state=1)
    return X, y


def product() -> tuple[np.ndarray, np.ndarray]:
    """Sums of products of features: what a chain of bond dimension 3 says exactly."""
    X = np.random.RandomState(0).uniform(-3, 3, (500, 5))
    return X, X[:, 0] * X[:, 1] - 2 * X[:, 2] * X[:, 3] + X[:, 4]


@pytest.mark.slow
def test_digits() -> None:
    X, y = load_digits(return_X_y=True)
    train, test = stratified_split(y, 0.25, 3)
    model = MPSClassifier(solver="dmrg", bond_dim=12, random_state=0).fit(X[train] / 16, y[train])
    assert model.score(X[test] / 16, y[test]) >= 0.96
    assert model.n_iter_ == len(model.history_)
    assert max(model.layer_.bond_dims) == 12
    assert model.history_[-1]["loss"] < model.history_[0]["loss"]


def thresholds(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two features, of which one decides: a single bond, and a convex problem."""
    X = np.random.RandomState(seed).rand(1000, 2)
    return X, X[:, 0] > 0.5


def quantiles(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Twenty classes by the first of ten features, which no sweep separates at once."""
    X = np.random.RandomState(seed).randn(1200, 10)
    return X, np.searchsorted(np.quantile(X[:, 0], np.linspace(0, 1, 21)[1:-1]), X[:, 0])


def parity(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The parity of four bits: a chain of bond dimension 2 that no single feature shows anything of."""
    X = np.random.RandomState(seed).randint(0, 2, (500, 4)).astype(float)
    return X, X.sum(axis=1) % 2


@pytest.mark.parametrize(
    ("data", "least"),
    [(thresholds, 0.98), pytest.param(quantiles, 0.4, marks=pytest.mark.slow), (parity, 1.0)],
)
def test_easy_data_are_learnt_to_the_end(data: Any, least: float) -> None:
    X, y = data(0)
    half = len(X) // 2
    model = MPSClassifier(solver="dmrg", random_state=0).fit(X[:half], y[:half])
    assert model.score(X[half:], y[half:]) >= least
    held = MPSClassifier(solver="dmrg", random_state=0, sweeps=3, proximal=100.0).fit(X[:half], y[:half])
    assert held.history_[-1]["loss"] > 1.5 * model.history_[-1]["loss"], "the parameter does nothing"


def test_sweeps_go_on_while_the_loss_falls() -> None:
    X, y = thresholds(0)
    model = MPSClassifier(solver="dmrg", random_state=0).fit(X, y)
    losses = [row["loss"] for row in model.history_]
    assert model.n_iter_ == len(losses) >= 4
    assert losses[-2] / losses[-1] < 1.1  # it has settled
    more = MPSClassifier(solver="dmrg", random_state=0, sweeps=len(losses) + 2).fit(X, y)
    assert more.n_iter_ == len(losses) + 2, "a number is taken at its word"
    assert [row["loss"] for row in more.history_][: len(losses)] == losses
    assert model.partial_fit(X, y).n_iter_ == len(losses) + 1


def test_regression_learns_products() -> None:
    X, y = product()
    model = MPSRegressor(solver="dmrg", random_state=0).fit(X[:400], y[:400])
    assert model.score(X[400:], y[400:]) > 0.99
    scaled = MPSRegressor(solver="dmrg", random_state=0).fit(X[:400], 1e6 * y[:400] + 1e7)
    np.testing.assert_allclose(scaled.predict(X), 1e6 * model.predict(X) + 1e7, rtol=1e-3)


def test_noise_is_not_learnt_by_heart() -> None:
    """With as many directions as samples the products of many features are noise."""
    rng = np.random.RandomState(0)
    X = rng.rand(300, 10)
    y = 3 * X[:, 0] - 2 * X[:, 1] + X[:, 2] + 0.5 * rng.randn(300)
    model = MPSRegressor(solver="dmrg", random_state=0).fit(X[:200], y[:200])
    assert model.score(X[200:], y[200:]) > 0.6


def test_regression_of_several_targets() -> None:
    X, y = product()
    both = np.stack([y, X.sum(axis=1)], axis=1)
    model = MPSRegressor(solver="dmrg", random_state=0).fit(X, both)
    assert model.predict(X).shape == both.shape
    assert model.score(X, both) > 0.95


@pytest.mark.parametrize("features", sorted(FEATURE_NAMES))
def test_every_feature_map(features: str) -> None:
    X, y = blobs()
    assert MPSClassifier(**QUICK | {"features": features}).fit(X, y).score(X, y) > 0.9


@pytest.mark.slow
def test_the_error_chooses_the_bonds() -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:400] / 16, y[:400]
    strict, loose = (MPSClassifier(**QUICK | {"bond_dim": 12, "max_error": e}).fit(X, y) for e in (1e-4, 0.3))
    assert max(strict.layer_.bond_dims) == 12
    assert sum(loose.layer_.bond_dims) < sum(strict.layer_.bond_dims)


def test_one_feature_has_no_bond_to_sweep() -> None:
    X = np.linspace(0, 1, 40).reshape(-1, 1)
    model = MPSClassifier(solver="dmrg", random_state=0).fit(X, X[:, 0] > 0.5)
    assert model.score(X, X[:, 0] > 0.5) > 0.9
    assert "epoch" in model.history_[0]
    assert MPSRegressor(solver="dmrg", random_state=0).fit(X, X[:, 0]).score(X, X[:, 0]) > 0.9


@pytest.mark.slow
def test_grid_search_and_pipeline() -> None:
    X, y = load_digits(n_class=3, return_X_y=True)
    X = X[:, 16:48]
    pipeline = make_pipeline(StandardScaler(), MPSClassifier(solver="dmrg", sweeps=1, random_state=0))
    grid = {"mpsclassifier__bond_dim": np.array([2, 8]), "mpsclassifier__ridge": np.float32([0.001])}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X[:200], y[:200])
    assert search.best_score_ > 0.85
    assert max(search.best_estimator_[-1].layer_.bond_dims) <= search.best_params_["mpsclassifier__bond_dim"]


def test_clone_pickle_and_file(tmp_path: Path) -> None:
    X, y = blobs()
    model = MPSClassifier(**QUICK | {"max_error": 0.01, "proximal": (2, np.float32(0.5))}).fit(X, y)
    assert not hasattr(clone(model), "layer_")
    assert clone(model).get_params() == model.get_params()
    model.save(tmp_path / "model.safetensors")
    for again in (pickle.loads(pickle.dumps(model)), tnml.load(tmp_path / "model.safetensors")):
        assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
        assert (again.solver, again.sweeps, again.max_error) == ("dmrg", 2, 0.01)
        assert list(again.proximal) == [2.0, 0.5]
        assert again.n_iter_ == 2
    regressor = MPSRegressor(**QUICK).fit(X, y)
    regressor.save(tmp_path / "regressor.safetensors")
    assert np.array_equal(tnml.load(tmp_path / "regressor.safetensors").predict(X), regressor.predict(X))


def test_a_file_without_solver_is_one_of_gradients(tmp_path: Path) -> None:
    """Model files of earlier versions do not name these parameters."""
    from tnml.files import read_model, write_model

    X, y = blobs()
    MPSClassifier(bond_dim=2, epochs=1, random_state=0).fit(X, y).save(tmp_path / "new.safetensors")
    tensors, metadata = read_model(tmp_path / "new.safetensors")
    for name in ("solver", "sweeps", "max_error", "ridge", "proximal"):
        del metadata["parameters"][name]
    write_model(tmp_path / "old.safetensors", tensors, metadata)
    assert tnml.load(tmp_path / "old.safetensors").solver == "gradient"


def test_warm_start_continues() -> None:
    X, y = blobs()
    model = MPSClassifier(warm_start=True, **QUICK).fit(X, y)
    first, layer = model.history_[0]["loss"], model.layer_
    model.fit(X, y)
    assert model.layer_ is layer
    assert model.n_iter_ == len(model.history_) == 4
    assert model.history_[2]["loss"] < first
    model.set_params(solver="gradient", sweeps=None, epochs=2).fit(X, y)
    assert model.layer_ is layer
    assert model.n_iter_ == 6, "gradients may go on where sweeps ended, and the other way round"
    model.set_params(solver="dmrg", sweeps=1, epochs=None, bond_dim=3).fit(X, y)
    assert max(model.layer_.bond_dims) <= 3
    assert model.score(X, y) > 0.9


def test_what_only_gradients_use_is_no_dead_end() -> None:
    """Sweeps want the default; the layer stays as it was made, and gradients may go on with it."""
    X, y = blobs()
    own: dict[str, Any] = {"noise": 0.2, "label_site": 1, "bond_dropout": 0.1, "site_dropout": 0.1}
    usual = {"noise": None, "label_site": None, "bond_dropout": 0.0, "site_dropout": 0.0}
    model = MPSClassifier(warm_start=True, bond_dim=2, epochs=1, random_state=0, **own).fit(X, y)
    model.set_params(solver="dmrg", sweeps=1, epochs=None, **usual).fit(X, y)
    model.set_params(solver="gradient", sweeps=None, epochs=1, **own).fit(X, y)
    assert model.n_iter_ == 3
    assert model.layer_.bond_dropout.p == 0.1
    with pytest.raises(InputError, match=r"bond_dropout was 0.1 .* cannot change it to 0.2"):
        model.set_params(bond_dropout=0.2).fit(X, y)


@pytest.mark.slow
def test_partial_fit_is_one_sweep() -> None:
    X, y = load_digits(return_X_y=True)
    model = MPSClassifier(solver="dmrg", bond_dim=12, random_state=0)
    for part in np.array_split(np.arange(1400), 2):
        model.partial_fit(X[part] / 16, y[part], classes=np.arange(10))
    assert model.n_iter_ == 2
    assert model.score(X[1400:] / 16, y[1400:]) > 0.85
    X, y = product()
    regressor = MPSRegressor(solver="dmrg", sweeps=7, random_state=0).partial_fit(X, y)
    before = regressor.score(X, y)
    assert regressor.n_iter_ == 1
    assert regressor.partial_fit(X, y).score(X, y) > before


@pytest.mark.slow
def test_randomness_is_an_argument() -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:200], y[:200]
    numbers, states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 (must not move)
    own = QUICK | {"batch_size": 100, "sweeps": 1}
    first, again = (MPSClassifier(**own).fit(X, y).decision_function(X) for _ in range(2))
    other = MPSClassifier(**own | {"random_state": 1}).fit(X, y).decision_function(X)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert np.array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states)


def test_a_part_is_held_out_and_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = blobs()
    model = MPSClassifier(validation_fraction=0.25, verbose=True, **QUICK).fit(X, y)
    assert "val_accuracy" in model.history_[0] or "accuracy" in model.history_[0]
    shown = capsys.readouterr().out
    assert [line.split("  ")[0] for line in shown.splitlines()] == ["sweep 1/2", "sweep 2/2"]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "solver": ({"solver": "dmgr"}, r"unknown solver 'dmgr'; did you mean 'dmrg'\?"),
    "epochs": ({"solver": "dmrg", "epochs": 3}, r"'dmrg' does not use epochs=3; .*\(None\) or set sweeps"),
    "patience": ({"solver": "dmrg", "patience": 3}, r"does not use patience=3; .* choose solver='gradient'"),
    "dropout": ({"solver": "dmrg", "bond_dropout": 0.1}, r"does not use bond_dropout=0\.1"),
    "optimizer": ({"solver": "dmrg", "optimizer": "sgd"}, r"does not use optimizer='sgd'; .*\('adam'\)"),
    "label_site": ({"solver": "dmrg", "label_site": 2}, r"does not use label_site=2"),
    "sweeps, gradient": ({"sweeps": 3}, r"'gradient' does not use sweeps=3; .* set epochs"),
    "proximal, gradient": ({"proximal": 0.5}, r"does not use proximal=0\.5; .*\(None\) or set lr"),
    "a schedule, gradient": ({"proximal": np.array([2.0, 1.0])}, r"does not use proximal=\[2\.0, 1\.0\]"),
    "proximal": ({"solver": "dmrg", "proximal": -1.0}, r"proximal must be .* at least 0, got -1\.0"),
    "no proximal": ({"solver": "dmrg", "proximal": []}, r"proximal must be a number or at least one number"),
    "ridge, gradient": ({"ridge": 0.5}, r"does not use ridge=0\.5; .* set weight_decay"),
    "sweeps": ({"solver": "dmrg", "sweeps": 0}, r"sweeps must be .* at least 1, got 0"),
    "bond_dim": ({"solver": "dmrg", "bond_dim": 0}, r"bond_dim must be .* at least 1, got 0"),
    "max_error": ({"solver": "dmrg", "max_error": 1.0}, r"max_error must be .* got 1\.0"),
    "ridge": ({"solver": "dmrg", "ridge": -1.0}, r"ridge must be .* got -1\.0"),
    "batch_size": ({"solver": "dmrg", "batch_size": 0}, r"batch_size must be .* got 0"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("kind", [MPSClassifier, MPSRegressor])
def test_bad_parameters(kind: Any, name: str) -> None:
    parameters, pattern = BAD[name]
    X, y = blobs()
    with pytest.raises(InputError, match=pattern):
        kind(**parameters).fit(X, y)
    if kind is MPSRegressor:
        with pytest.raises(InputError, match=pattern):
            kind(**parameters).partial_fit(X, y)
