"""Error bars of MPSRegressor: the posterior of solver="als", and conformal intervals of any solver."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.base import clone
from sklearn.linear_model import BayesianRidge

import tnml
from tnml import InputError, MPSRegressor
from tnml.estimators.intervals import conformal_quantile
from tnml.training import TrainingInterrupted
from tnml.training.dmrg.posterior import label_design

ALS: dict[str, Any] = {"solver": "als", "bond_dim": 6, "dtype": "float64", "random_state": 0}
HELD: dict[str, Any] = {"validation_fraction": 0.25}


def product(rows: int = 120, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples, noisy targets and the true ones: sums of products of features."""
    rng = np.random.RandomState(seed)
    X = rng.uniform(-1, 1, (rows, 4))
    truth = 50 + 10 * (X[:, 0] * X[:, 1] - 2 * X[:, 2] * X[:, 3])
    return X, truth + 10 * noise * rng.randn(rows), truth


def test_standard_deviations_are_those_of_bayesian_ridge() -> None:
    X, y, _ = product()
    model = MPSRegressor(**ALS).fit(X, y)
    mean, deviation = model.predict(X, return_std=True)
    flat = {"alpha_1": 0.0, "alpha_2": 0.0, "lambda_1": 0.0, "lambda_2": 0.0}
    ridge = BayesianRidge(fit_intercept=False, tol=1e-13, max_iter=100_000, **flat)
    scaled = torch.tensor(np.clip((X - X.min(0)) / (X.max(0) - X.min(0)), 0, 1).astype(np.float32)).double()
    design = label_design(model.layer_, scaled).numpy()
    expected, spread = ridge.fit(design, (y - y.mean()) / y.std()).predict(design, return_std=True)
    np.testing.assert_allclose(mean, expected * y.std() + y.mean(), rtol=1e-6)
    np.testing.assert_allclose(deviation, spread * y.std(), rtol=1e-4)
    assert np.array_equal(mean, model.predict(X))
    assert mean.shape == deviation.shape == y.shape


def test_the_evidence_keeps_bonds_small_and_finds_the_noise() -> None:
    X, y, _ = product(400)
    model = MPSRegressor(**ALS | {"bond_dim": 20}).fit(X, y)
    other, _, expected = product(400, seed=1)
    assert np.sqrt(np.mean((model.predict(other) - expected) ** 2)) < 1.0, (
        "a tenth of the spread of the noise"
    )
    assert max(model.layer_.bond_dims) <= 3, "two products are known on either side of a cut at most, and 1"
    noise = np.sqrt(model.posterior_.noise[0]) * model.y_scale_[0]
    assert noise == pytest.approx(3.0, rel=4 / np.sqrt(2 * 400))  # four standard errors
    assert [row["sweep"] for row in model.history_] == list(range(1, model.n_iter_ + 1))


def test_noise_opens_no_bond() -> None:
    rng = np.random.RandomState(0)
    model = MPSRegressor(**ALS | {"bond_dim": 20}).fit(rng.rand(100, 5), rng.randn(100))
    assert max(model.layer_.bond_dims[2:-2]) == 1


def test_several_targets_and_one_feature() -> None:
    X, y, truth = product()
    both = np.stack([y, -3 * X[:, 0]], axis=1)
    model = MPSRegressor(**ALS).fit(X, both)
    mean, deviation = model.predict(X, return_std=True)
    assert mean.shape == deviation.shape == both.shape
    assert np.corrcoef(mean[:, 0], truth)[0, 1] > 0.98
    assert deviation[:, 1].max() < 0.1 * deviation[:, 0].min(), "a target without noise is known better"
    single = MPSRegressor(**ALS).fit(X[:, :1], 2 + 3 * X[:, 0])
    values, spread = single.predict(X[:, :1], return_std=True)
    np.testing.assert_allclose(values, 2 + 3 * X[:, 0], atol=1e-4)
    assert spread.max() < 1e-3
    assert (single.n_iter_, single.history_[0]["sweep"]) == (1, 1)
    assert single.history_[0]["loss"] < 1e-9


def test_a_weighted_fit_is_a_fit_of_repeats() -> None:
    X, y, _ = product(60)
    times = np.random.RandomState(1).randint(0, 4, len(X))
    for columns in (4, 1):
        weighted = MPSRegressor(**ALS).fit(X[:, :columns], y, sample_weight=times)
        repeated = MPSRegressor(**ALS).fit(X[:, :columns].repeat(times, axis=0), y.repeat(times))
        pair = [model.predict(X[:, :columns], return_std=True) for model in (weighted, repeated)]
        np.testing.assert_allclose(pair[0], pair[1], rtol=1e-4)


@pytest.mark.parametrize("way", ["pickle", "copy", "file"])
@pytest.mark.parametrize("solver", ["als", "gradient"])
def test_copies_have_the_same_error_bars(way: str, solver: str, tmp_path: Any) -> None:
    X, y, _ = product()
    more = {} if solver == "als" else {"epochs": 2}
    weight = np.linspace(0.5, 1.5, len(X))
    model = MPSRegressor(**{**ALS, **HELD, "solver": solver, **more}).fit(X, y, sample_weight=weight)
    if way == "file":
        model.save(tmp_path / "model.safetensors")
        other = tnml.load(tmp_path / "model.safetensors")
    else:
        other = pickle.loads(pickle.dumps(model)) if way == "pickle" else copy.deepcopy(model)
    np.testing.assert_array_equal(other.predict_interval(X), model.predict_interval(X))
    if solver == "als":
        np.testing.assert_array_equal(other.predict(X, return_std=True), model.predict(X, return_std=True))
    assert clone(other).get_params() == model.get_params()


@pytest.mark.parametrize("solver", ["als", "gradient", "dmrg"])
def test_intervals_come_from_the_samples_that_were_held_out(solver: str) -> None:
    X, y, _ = product()
    more = {"epochs": 3} if solver == "gradient" else {"sweeps": 2}
    model = MPSRegressor(**{**ALS, **HELD, "solver": solver, **more}).fit(X, y)
    assert model.interval_scores_.shape == (30, 1)
    if solver == "gradient":  # the last row was measured on the same samples by the training itself
        assert model.history_[-1]["val_loss"] == pytest.approx(np.mean(model.interval_scores_**2), rel=1e-9)
    center, deviation = model.predict(X), np.full(len(X), model.y_scale_[0])
    if solver == "als":
        deviation = model.predict(X, return_std=True)[1]
    low, high = model.predict_interval(X, 0.9)
    radius = np.sort(model.interval_scores_[:, 0])[27]  # ceil(0.9 x 31) = 28
    np.testing.assert_allclose(low, center - radius * deviation, rtol=1e-12)
    np.testing.assert_allclose(high, center + radius * deviation, rtol=1e-12)


@pytest.mark.parametrize(
    ("rows", "coverage", "place"), [(9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (99, 0.5, 50)]
)
def test_the_quantile_of_a_finite_sample(rows: int, coverage: float, place: int) -> None:
    scores = np.random.RandomState(0).permutation(np.arange(1.0, rows + 1))
    assert conformal_quantile(scores[:, None], None, coverage).tolist() == [place]
    assert conformal_quantile(scores[:, None], np.full(rows, 7.0), coverage).tolist() == [place]


def test_weights_move_the_quantile() -> None:
    """Heavy samples with large scores: by hand, 0.5 x 5 = 2.5 of weights 0.5, 0.5, 1, 2 of mean 1."""
    scores, weight = np.array([[4.0], [1.0], [3.0], [2.0]]), np.array([4.0, 1.0, 2.0, 1.0])
    assert conformal_quantile(scores, weight, 0.5).tolist() == [4.0]
    assert conformal_quantile(scores, weight, 0.35).tolist() == [3.0]


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["als", "dmrg"])
@pytest.mark.parametrize("spread", [0.0, 1.0], ids=["even noise", "uneven noise"])
def test_intervals_cover_what_they_promise(solver: str, spread: float) -> None:
    """The share of targets inside is a closed form of the ends: noise is normal and the truth is known.

    Over fits on 99 held-out samples that share is Beta(90, 10), of mean 0.9 and deviation 0.03; the mean of
    24 fits lies within 0.02, three and a third of its deviations.
    """
    shares = []
    for seed in range(24):
        rng = np.random.RandomState(seed)
        X = rng.uniform(-1, 1, (199, 3))
        other = rng.uniform(-1, 1, (500, 3))
        truth, there = (x[:, 0] * x[:, 1] + x[:, 2] for x in (X, other))
        sigma, sigma_there = (0.3 * np.exp(spread * x[:, 0]) for x in (X, other))
        parameters = {"solver": solver, "bond_dim": 3, "sweeps": 3, "validation_fraction": 99 / 199}
        model = MPSRegressor(random_state=seed, **parameters).fit(X, truth + sigma * rng.randn(199))
        low, high = model.predict_interval(other, 0.9)
        inside = norm.cdf(high, there, sigma_there) - norm.cdf(low, there, sigma_there)
        shares.append(inside.mean())
    assert 0.88 <= np.mean(shares) <= 0.92


def test_error_bars_that_there_are_none_of() -> None:
    X, y, _ = product(60)
    plain = MPSRegressor(bond_dim=2, epochs=1, random_state=0).fit(X, y)
    with pytest.raises(InputError, match="standard deviations come from the posterior of solver='als'"):
        plain.predict(X, return_std=True)
    with pytest.raises(InputError, match=r"held-out samples .* fit it with validation_fraction"):
        plain.predict_interval(X)
    model = MPSRegressor(**ALS, **HELD).fit(X, y)
    with pytest.raises(InputError, match=r"coverage=0\.99 needs at least 99 held-out samples, got 15"):
        model.predict_interval(X, 0.99)
    with pytest.raises(InputError, match="coverage must be a number, above 0 and below 1, got 1"):
        model.predict_interval(X, 1)
    smaller = model.compressed(max_bond=1)
    for ask in (lambda: smaller.predict(X, return_std=True), lambda: smaller.predict_interval(X)):
        with pytest.raises(InputError, match=r"choose solver='als'|held-out samples"):
            ask()
    model.predict_interval(X), model.predict(X, return_std=True)  # which the copy has not touched


def test_a_fit_that_goes_on_has_no_new_samples() -> None:
    X, y, _ = product(60)
    for model in (MPSRegressor(**ALS, **HELD), MPSRegressor(**ALS, **HELD, warm_start=True)):
        model.fit(X, y).predict_interval(X, 0.8)
        (model.fit if model.warm_start else model.partial_fit)(X, y)
        model.predict(X, return_std=True)
        with pytest.raises(InputError, match="that no fit has seen"):
            model.predict_interval(X, 0.8)
    model.set_params(solver="gradient", epochs=1).fit(X, y)
    with pytest.raises(InputError, match="trained in another way"):
        model.predict(X, return_std=True)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"epochs": 3}, r"'als' does not use epochs=3; .*\(None\) or set sweeps"),
        ({"ridge": 0.5}, r"'als' does not use ridge=0\.5; .*, or choose solver='dmrg'"),
        ({"lr": 0.5}, r"'als' does not use lr=0\.5; .*, or choose solver='gradient'"),
        ({"n_estimators": 2}, r"'als' does not use n_estimators=2; .* solver='gradient'"),
        ({"loss": "huber"}, "'als' solves least squares and has no use for loss='huber'"),
        ({"sweeps": 0}, "sweeps must be .* at least 1, got 0"),
        ({"max_error": 2.0}, "max_error must be"),
    ],
    ids=str,
)
def test_bad_parameters(changes: dict[str, Any], text: str) -> None:
    X, y, _ = product(40)
    with pytest.raises(InputError, match=text):
        MPSRegressor(**ALS | changes).fit(X, y)


def test_labels_are_no_least_squares() -> None:
    with pytest.raises(InputError, match="solver='als' is least squares for real targets"):
        tnml.MPSClassifier(solver="als").fit([[0.0], [1.0]], [0, 1])


def test_an_interrupted_refit_forgets_the_error_bars() -> None:
    X, y, _ = product()
    weight = np.linspace(0.5, 1.5, len(X))
    model = MPSRegressor(**ALS, **HELD, sweeps=1).fit(X, y, sample_weight=weight)
    assert model.posterior_ is not None
    assert model._interval_weights is not None

    def stop(layer: Any, optimizer: Any, row: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted):
        model.fit(X, y, callbacks=[stop])
    assert model.posterior_ is model.interval_scores_ is model._interval_weights is None
    for ask in (model.predict_interval, lambda x: model.predict(x, return_std=True)):
        with pytest.raises(InputError, match=r"none|does not have"):
            ask(X)
