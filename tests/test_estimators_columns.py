"""Estimators with features by column: what becomes of each column, gaps, categories, files and orders."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

import tnml
from tnml import MPSClassifier, MPSRegressor
from tnml.errors import InputError
from tnml.estimators.columns import Levels
from tnml.estimators.tables import Column
from tnml.features import feature_map

QUICK: dict[str, Any] = {"features": "auto", "epochs": 3, "bond_dim": 4, "random_state": 0}


def mixed(rows: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    """A frame with a column of every kind, gaps among them, and labels."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.exponential(30, rows),
            "city": rng.choice(["Bern", "Basel", "Chur"], rows),
            "smokes": rng.random(rows) < 0.5,
            "rooms": rng.integers(1, 4, rows),
            "grade": pd.Categorical(rng.choice([10, 20, 30, 40], rows)),
            "code": pd.array(rng.integers(0, 1000, rows), dtype="Int64"),
        }
    )
    frame.loc[3, "age"] = np.nan
    frame["city"] = frame["city"].astype(object)
    frame.loc[4, "city"] = None
    frame.loc[5, "code"] = pd.NA
    return frame, np.where((frame["rooms"] > 1) & frame["smokes"], "yes", "no")


def test_every_kind_of_column_gets_features_that_fit_it() -> None:
    X, y = mixed()
    model = MPSClassifier(**QUICK).fit(X, y)
    spec = [(c["name"], c["dim"]) for c in model.layer_.features.spec["columns"]]
    assert [name for name, _ in spec] == ["legendre", *["one-hot"] * 4, "legendre"]
    assert [dim for _, dim in spec[1:5]] == [3, 2, 3, 4]
    assert model.feature_range_ is None
    assert model.predict(X).shape == (60,)
    assert model.feature_names_in_.tolist() == list(X.columns)


def test_dimensions_follow_the_samples_and_the_columns() -> None:
    rng = np.random.default_rng(1)
    found = {}
    for rows, columns in ((40, 3), (3000, 3), (3000, 60)):
        X = rng.random((rows, columns))
        model = MPSClassifier(**QUICK | {"epochs": 1, "batch_size": 3000}).fit(X, X[:, 0] > 0.5)
        found[rows, columns] = model.layer_.features.dim
    assert 2 <= found[40, 3] < found[3000, 60] < found[3000, 3]


@pytest.mark.parametrize("column", ["age", "city", "smokes", "code"])
def test_a_gap_is_the_mean_over_the_training_values(column: str) -> None:
    """Exact marginalisation, against enumeration over the training rows."""
    X, y = mixed()
    model = MPSClassifier(**QUICK, dtype="float64").fit(X, y)
    known = X[column][X[column].notna()]
    sample = X.iloc[[10]].astype(object)
    filled = pd.concat([sample] * len(known), ignore_index=True)
    filled[column] = known.to_numpy()
    gap = sample.copy()
    gap[column] = None
    expected = model.decision_function(filled).mean()
    assert model.decision_function(gap)[0] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert abs(expected - model.decision_function(sample)[0]) > 1e-4, "the column makes no difference"


def test_gaps_in_training_move_nothing_but_their_own_site() -> None:
    """A column of gaps alone has the same features everywhere."""
    X, y = mixed()
    X["age"] = np.nan
    model = MPSClassifier(**QUICK).fit(X, y)
    other = X.assign(age=5.0)
    assert np.isfinite(model.predict_proba(other)).all()
    assert np.isfinite(model.predict_proba(X)).all()


def test_unknown_categories_count_as_missing_and_rare_ones_share_a_place() -> None:
    X, y = mixed()
    model = MPSClassifier(**QUICK).fit(X, y)
    gap, new = X.iloc[[0]].copy(), X.iloc[[0]].copy()
    gap["city"], new["city"] = None, "Genf"
    assert np.array_equal(model.predict_proba(gap), model.predict_proba(new))
    names = np.array([f"n{k:02d}" for k in np.repeat(np.arange(30), np.arange(1, 31))], dtype=object)
    wide = MPSClassifier(**QUICK).fit(names[:, None], np.arange(len(names)) % 2)
    assert wide.layer_.features.dim == 16
    proba = wide.predict_proba(np.array([["n00"], ["n14"], ["new"], ["n29"]], dtype=object))
    assert np.array_equal(proba[0], proba[1])
    assert np.array_equal(proba[0], proba[2])
    assert not np.array_equal(proba[0], proba[3])


def test_a_model_of_quantiles_does_not_see_the_scale() -> None:
    """Predictions are the same bits when a column is transformed by an increasing function."""
    X = np.random.default_rng(2).normal(size=(50, 3))
    y = X[:, 0] * X[:, 1] > 0
    stretched = np.stack([np.exp(X[:, 0]), 1e6 * X[:, 1] ** 3, X[:, 2]], 1)
    one, other = (MPSClassifier(**QUICK).fit(x, y).predict_proba(x) for x in (X, stretched))
    np.testing.assert_array_equal(one, other)


def test_features_of_single_columns_by_name_and_number() -> None:
    X, y = mixed()
    own = feature_map(lambda x: torch.stack((1 - x, x, x * x), -1))
    features = {"age": {"name": "rbf", "dim": 5}, 3: "polynomial", "code": own}
    model = MPSClassifier(**QUICK | {"features": features}).fit(X, y)
    names = [column.name for column in model.layer_.features.columns]
    assert names == ["rbf", "one-hot", "one-hot", "polynomial", "one-hot", "callable"]
    assert clone(model).features.keys() == features.keys()
    with pytest.raises(InputError, match="your own function cannot be kept"):
        model.save("/nowhere")


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"rums": "linear"}, "did you mean 'rooms'"),
        ({9: "linear"}, "a name or a number below 6"),
        ({"age": "linear", 0: "linear"}, "name column age twice"),
        ({"city": "legendre"}, "column city holds text, which 'legendre' cannot take; choose 'one-hot'"),
        ({"age": "lagendre"}, "did you mean 'legendre'"),
        ({"age": {"name": "columns", "columns": ["linear"]}}, "features for many columns"),
        ({"age": {"name": "one-hot", "dim": 1}}, "one-hot"),
    ],
)
def test_features_that_do_not_suit_a_column_are_refused(features: Any, words: str) -> None:
    X, y = mixed()
    with pytest.raises(InputError, match=words):
        MPSClassifier(**QUICK | {"features": features}).fit(X, y)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"age": np.inf}, "infinity in column age"),
        ({"age": "old"}, "column age held numbers in training and holds text now"),
        ({"city": 3.5}, "column city held text in training and holds numbers now"),
        ({"age": pd.Timestamp("2020-01-01")}, "column age holds datetime64"),
        ({"age": [{}] * 60}, "must be a string or a number in every cell"),
    ],
)
def test_columns_that_changed_their_kind_are_refused(change: dict[str, Any], words: str) -> None:
    X, y = mixed()
    model = MPSClassifier(**QUICK).fit(X, y)
    with pytest.raises(InputError, match=words):
        model.predict(X.assign(**change))


def test_a_range_next_to_features_by_column_is_refused() -> None:
    X, y = mixed()
    with pytest.raises(InputError, match=r"leave feature_range=\(0, 1\) out"):
        MPSClassifier(**QUICK, feature_range=(0, 1)).fit(X, y)


@pytest.mark.parametrize("way", ["pickle", "file"])
@pytest.mark.parametrize("features", ["auto", {"age": "rbf", 3: {"name": "one-hot", "dim": 2}}], ids=str)
def test_copies_predict_the_same_bits_and_go_on(way: str, features: Any, tmp_path: Any) -> None:
    X, y = mixed()
    model = MPSClassifier(**QUICK | {"features": features, "order": "mutual-information"}).fit(X, y)
    if way == "file":
        model.save(tmp_path / "model.safetensors")
        other = tnml.load(tmp_path / "model.safetensors")
    else:
        other = pickle.loads(pickle.dumps(model))
    assert other.get_params() == model.get_params()
    assert np.array_equal(other.predict_proba(X), model.predict_proba(X))
    ahead, behind = (m.partial_fit(X, y).predict_proba(X) for m in (model, other))
    assert np.array_equal(ahead, behind)


@pytest.mark.parametrize("extra", [{}, {"order": "mutual-information"}, {"features": {0: "rbf"}}], ids=str)
def test_a_weighted_fit_is_a_fit_of_repeats(extra: dict[str, Any]) -> None:
    X, _ = mixed(150)
    y = X["rooms"] + X["smokes"]
    times = np.random.default_rng(3).integers(0, 3, 150)
    exact = QUICK | {"dtype": "float64", "batch_size": 1000, "epochs": 12, "lr": 0.01} | extra
    weighted = MPSRegressor(**exact).fit(X, y, sample_weight=times)
    repeats = np.repeat(np.arange(150), times)
    repeated = MPSRegressor(**exact).fit(X.iloc[repeats], y.iloc[repeats])
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-7, atol=1e-9)


def test_sweeps_and_compression_take_columns() -> None:
    X, y = mixed()
    swept = MPSClassifier(features="auto", solver="dmrg", sweeps=2, bond_dim=4).fit(X, y)
    assert swept.score(X, y) > 0.9
    smaller = MPSClassifier(**QUICK).fit(X, y).compressed(max_bond=2, X=X)
    assert max(smaller.layer_.bond_dims) == 2
    assert smaller.predict(X).shape == (60,)


def test_columns_that_depend_on_each_other_are_neighbours_on_the_chain() -> None:
    rng = np.random.default_rng(4)
    half = rng.normal(size=(300, 8))
    X = np.concatenate([half, half + 0.1 * rng.normal(size=half.shape)], axis=1)  # a square number of columns
    y = X[:, 0] > 0
    for features in ("auto", "linear"):
        parameters = QUICK | {"epochs": 1, "features": features, "order": "mutual-information"}
        place = np.argsort(MPSClassifier(**parameters).fit(X, y).layer_.order.numpy())
        assert (np.abs(place[:8] - place[8:]) == 1).all()


def test_the_rate_is_smaller_where_features_are_larger() -> None:
    """90 columns of truth values and four Legendre functions once ended at a loss of 1e24."""
    rng = np.random.default_rng(5)
    X = (rng.random((120, 90)) < 0.5).astype(float)
    y = X[:, 0] == X[:, 1]
    features = {"name": "legendre", "dim": 4}
    model = MPSClassifier(features=features, bond_dim=6, epochs=15, random_state=0).fit(X, y)
    ends = 1 + np.sqrt(3) + np.sqrt(5) + np.sqrt(7)  # |phi_0| + .. + |phi_3| at 0 and 1
    assert model._feature_size(X, None) == pytest.approx(ends, rel=1e-6)
    losses = [row["loss"] for row in model.history_]
    assert max(losses) < 2
    assert losses[-1] < losses[0]
    assert MPSClassifier(epochs=1).fit(X, y)._feature_size(X, None) == 1.0


@pytest.mark.parametrize("fitted", [np.float32, np.float64])
def test_categories_are_known_in_any_precision(fitted: Any) -> None:
    X = np.random.default_rng(0).choice([0.1, 0.2, 0.3], (60, 2))
    model = MPSClassifier(**QUICK).fit(X.astype(fitted), (X[:, 0] > 0.15).astype(int))
    expected = model.columns_.encoders[0].encode(Column("a", X.astype(fitted)[:, 0].astype(float), False))
    assert set(expected) == {0.0, 0.5, 1.0}
    for dtype in (np.float32, np.float64):
        assert np.array_equal(model.predict_proba(X.astype(dtype)), model.predict_proba(X.astype(fitted)))


def test_categories_that_only_double_precision_tells_apart() -> None:
    values = (1e-60, 2e-60, 1.0, 16777217.0, 16777218.0, 1e50, 2e50)
    levels = Levels(values=values, rest=False)
    given = np.array([*values, 1.5, 3e50, 0.0, 1 + 1e-9, 16777219.0])
    codes = 6 * levels.encode(Column("a", given, False))
    np.testing.assert_allclose(codes[:7], range(7))
    np.testing.assert_array_equal(codes[7:], [np.nan, np.nan, np.nan, 2.0, np.nan])


def test_clip_is_checked_though_columns_have_no_range() -> None:
    X, y = mixed()
    with pytest.raises(InputError, match="unknown clip"):
        MPSClassifier(**QUICK, clip="eror").fit(X, y)
    model = MPSClassifier(**QUICK).fit(X, y).set_params(clip="eror")
    with pytest.raises(InputError, match="unknown clip"):
        model.predict(X)


def test_the_precision_of_the_network_is_that_of_the_features() -> None:
    X, y = mixed()
    given = MPSClassifier(**QUICK, network={"name": "mps", "dtype": "float64"}).fit(X, y)
    expected = MPSClassifier(**QUICK, dtype="float64").fit(X, y)
    assert given.layer_.dtype == torch.float64
    assert np.array_equal(given.predict_proba(X), expected.predict_proba(X))
