"""The estimators of densities: scikit-learn's checks, known densities, gaps, anomalies, classes."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import tnml
from tnml import MPSDensity, MPSGenerativeClassifier
from tnml.errors import InputError
from tnml.estimators.density_columns import Numbers, fit_density_columns
from tnml.estimators.tables import Column, Table

QUICK: dict[str, Any] = {"bond_dim": 3, "epochs": 10}
COVARIANCE = np.array([[1.0, 0.8], [0.8, 1.0]])


@pytest.mark.slow
@parametrize_with_checks([MPSDensity(**QUICK), MPSGenerativeClassifier(bond_dim=4, epochs=40)])
def test_scikit_learns_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def normal(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).multivariate_normal(np.zeros(2), COVARIANCE, rows)


@pytest.fixture(scope="module")
def fitted() -> MPSDensity:
    return MPSDensity(random_state=0, epochs=40).fit(normal(600))


def test_a_normal_density_is_learned_in_the_units_of_the_data(fitted: MPSDensity) -> None:
    truth, X = multivariate_normal(np.zeros(2), COVARIANCE), normal(500, seed=1)
    assert fitted.score(X) == pytest.approx(truth.logpdf(X).mean(), abs=0.25)
    assert fitted.score(X) == pytest.approx(fitted.score_samples(X).mean())
    wide = 10 * X  # other units: the density falls by 100
    assert MPSDensity(random_state=0, epochs=5).fit(wide).score(wide) == pytest.approx(
        MPSDensity(random_state=0, epochs=5).fit(X).score(X) - np.log(100), abs=0.05
    )
    points = np.linspace(-12, 12, 4001)
    marginal = np.exp(fitted.score_samples(np.column_stack([points, np.full(4001, np.nan)])))
    assert marginal.sum() * (points[1] - points[0]) == pytest.approx(1, abs=5e-3), "steps of a histogram"


def test_gaps_conditionals_and_samples(fitted: MPSDensity) -> None:
    filled = fitted.impute([[1.0, np.nan], [np.nan, -1.0], [0.5, 0.5]])
    assert filled[0, 1] == pytest.approx(0.8, abs=0.3)
    assert filled[1, 0] == pytest.approx(-0.8, abs=0.3)
    assert filled[2].tolist() == [0.5, 0.5]
    found = fitted.conditional([[1.0, np.nan]], 1)
    assert (found.density[0] * found.weights).sum() == pytest.approx(1, abs=1e-6)
    assert (found.density[0] * found.weights) @ found.values == pytest.approx(filled[0, 1], abs=1e-6)
    draws = fitted.sample(2000)
    assert np.cov(draws.T) == pytest.approx(COVARIANCE, abs=0.25)
    given = fitted.sample(500, given=[[1.0, np.nan]])
    assert given.shape == (500, 1, 2)
    assert (given[:, 0, 0] == 1.0).all()
    assert given[:, 0, 1].mean() == pytest.approx(0.8, abs=0.3)
    again = fitted.impute([[1.0, np.nan]], "draw", random_state=3)
    assert again[0, 0] == 1.0
    assert np.array_equal(again, fitted.impute([[1.0, np.nan]], "draw", random_state=3))
    assert fitted.mutual_information()[0, 1] == pytest.approx(-0.5 * np.log(1 - 0.8**2), abs=0.25)
    marginal = fitted.score_samples([[0.3, np.nan]])[0]
    assert marginal == pytest.approx(-0.5 * 0.09 - 0.5 * np.log(2 * np.pi), abs=0.3)


def test_anomalies_and_their_reasons(fitted: MPSDensity) -> None:
    X = normal(300, seed=2)
    strange = np.column_stack([X[:50, 0], -X[:50, 0] + 2.5 * np.sign(-X[:50, 0])])  # against the correlation
    labels = np.repeat([0, 1], [300, 50])
    assert roc_auc_score(labels, fitted.anomaly_score(np.vstack([X, strange]))) > 0.97
    train = fitted.predict(normal(600))
    assert (train == -1).mean() == pytest.approx(0.1, abs=0.01)
    assert (fitted.decision_function(X) < 0).tolist() == (fitted.predict(X) == -1).tolist()
    assert np.isfinite(fitted.score_samples([[1e6, -1e6]])).all()
    assert (fitted.surprise([[2.0, -2.0]]) > fitted.surprise([[2.0, 2.0]])).all()
    with pytest.raises(InputError, match=r"contamination must be a number, above 0 and at most 0\.5, got 2"):
        MPSDensity(contamination=2).fit(X)


@pytest.mark.parametrize("solver", ["gradient", "dmrg"])
def test_tables_of_text_and_gaps(solver: str, tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    size = rng.normal(size=300)
    frame = pd.DataFrame(
        {
            "size": size,
            "kind": np.where(size > 0, "large", "small"),
            "twice": 2 * size + 0.1 * rng.normal(size=300),
            "flag": size > 1,
        }
    ).astype({"kind": object})
    holes = frame.copy()
    holes.loc[::9, "twice"] = np.nan
    holes.loc[4::9, "kind"] = None
    own = {"epochs": 15} if solver == "gradient" else {"sweeps": 3}
    model = MPSDensity(solver=solver, random_state=0, **own).fit(holes)
    filled = model.impute(pd.DataFrame({"size": [1.5], "kind": [None], "twice": [np.nan], "flag": [True]}))
    assert filled[0, 1] == "large"
    assert filled[0, 2] == pytest.approx(3, abs=1)
    rows = model.sample(200)
    assert rows.shape == (200, 4)
    agree = [row[1] == ("large" if row[0] > 0 else "small") for row in rows]
    assert np.mean(agree) > 0.8
    odd = frame.iloc[:5].copy()
    odd["kind"] = "huge"
    assert (model.score_samples(odd) < model.score_samples(frame.iloc[:5])).all(), "never seen"
    found = model.conditional(frame.iloc[:2], "kind")
    assert found.values[:2].tolist() == ["large", "small"]
    assert found.density.sum(1) == pytest.approx([1, 1])
    with pytest.raises(InputError, match="there is no column 'knd'; columns: size, kind, twice, flag"):
        model.conditional(frame, "knd")
    model.save(tmp_path / "density.safetensors")
    for other in (
        tnml.load(tmp_path / "density.safetensors"),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ):
        assert type(other) is MPSDensity
        assert np.array_equal(other.score_samples(holes), model.score_samples(holes))
        assert np.array_equal(other.predict(frame), model.predict(frame))
        assert other.get_params() == model.get_params()
    assert not hasattr(clone(model), "machine_")


def test_transforms_of_numbers_have_inverses_and_slopes() -> None:
    x = np.random.RandomState(0).lognormal(size=500)
    encoder = fit_density_columns(Table([Column("a", x, False)]), "auto").encoders[0]
    assert isinstance(encoder, Numbers)
    points = np.concatenate([x[:50], [-3.0, 0.0, 15.0]])
    u, log_slope = encoder.encode(points)
    assert ((u > 0) & (u < 1)).all()
    assert encoder.decode(u) == pytest.approx(points, rel=1e-6)
    step = 1e-6
    slope = (encoder.encode(points + step)[0] - encoder.encode(points - step)[0]) / (2 * step)
    inside = np.abs(points[:, None] - np.array(encoder.knots)).min(1) > 2 * step
    assert np.log(slope[inside]) == pytest.approx(log_slope[inside], abs=1e-3)
    assert np.isnan(encoder.encode(np.array([np.nan]))[0]).all()
    constant = fit_density_columns(Table([Column("b", np.full(9, 5.0), False)]), "legendre").encoders[0]
    assert np.isfinite(constant.encode(np.array([5.0, 6.0]))[1]).all()  # type: ignore[union-attr,call-arg,arg-type]


@pytest.mark.parametrize("solver", ["gradient", "dmrg"])
def test_a_generative_classifier(solver: str, tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    y = np.array(["ant", "bee", "fox"])[rng.randint(0, 3, 300)]
    centre = {"ant": (0, 0), "bee": (4, 0), "fox": (0, 4)}
    X = np.array([centre[label] for label in y]) + rng.normal(size=(300, 2))
    own = {"epochs": 50} if solver == "gradient" else {"sweeps": 3}
    model = MPSGenerativeClassifier(solver=solver, random_state=0, bond_dim=6, **own).fit(X, y)
    assert model.score(X, y) > 0.93
    proba = model.predict_proba(X)
    assert proba.sum(1) == pytest.approx(np.ones(300))
    assert np.array_equal(model.classes_[proba.argmax(1)], model.predict(X))
    assert model.predict([[4.0, np.nan]]).tolist() == ["bee"], "exact marginals"
    assert model.sample(200, y="fox").mean(0) == pytest.approx([0, 4], abs=0.6)
    assert model.sample(50).shape == (50, 2)
    assert (model.score_samples([[20.0, 20.0]]) < model.score_samples(X).min()).all()
    with pytest.raises(InputError, match=r"y must be one of \['ant', 'bee', 'fox'\], got 'cat'"):
        model.sample(y="cat")
    model.save(tmp_path / "model.safetensors")
    other = tnml.load(tmp_path / "model.safetensors")
    assert np.array_equal(other.predict_proba(X), proba)
    assert other.classes_.tolist() == model.classes_.tolist()


def test_labels_that_are_missing_help() -> None:
    rng = np.random.RandomState(1)
    truth = rng.randint(0, 2, 400)
    X = rng.normal(size=(400, 2)) + 2.5 * truth[:, None] * [1, -1]
    y = np.where(np.arange(400) < 12, truth, -1)
    model = make_pipeline(
        StandardScaler(), MPSGenerativeClassifier(random_state=0, bond_dim=4, epochs=100, patience=None)
    )
    assert model.fit(X, y)[-1].classes_.tolist() == [0, 1]
    assert (model.predict(X) == truth).mean() > 0.9
    signed = MPSGenerativeClassifier(random_state=0, **QUICK).fit(X, 2 * truth - 1)
    assert signed.classes_.tolist() == [-1, 1], "-1 is a label where the others are not whole numbers from 0"


def test_bad_parameters() -> None:
    X = normal(30)
    for changes, text in (
        ({"solver": "sgd"}, "unknown solver 'sgd'"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"bond_dim": 0}, "bond_dim"),
    ):
        with pytest.raises(InputError, match=text):
            MPSDensity(**changes).fit(X)
    with pytest.raises(InputError, match="column 1 has no value"):
        MPSDensity().fit(np.column_stack([X[:, 0], np.full(30, np.nan)]))
