"""The preset for tables: what it chooses, and that the parameters it has chosen give the same model."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import tnml
from tnml import MPSClassifier, MPSRegressor
from tnml.errors import InputError
from tnml.estimators.automatic import Automatic
from tnml.estimators.presets import PRESETS, Candidate
from tnml.estimators.tables import Column

RNG = np.random.default_rng(0)
X = np.round(RNG.random((90, 4)) * 40)
Y = (X[:, 0] > 20) ^ (X[:, 1] > 20)
Z = np.abs(X[:, 0] - 20) + 3 * X[:, 1] + RNG.standard_normal(90)


@pytest.mark.parametrize(("kind", "y"), [(MPSClassifier, Y), (MPSRegressor, Z)])
def test_the_chosen_parameters_give_the_same_model(kind: Any, y: Any, tmp_path: Path) -> None:
    weight = np.where(np.arange(90) < 5, 0.0, 1.0)
    model = kind(preset="tables", random_state=0).fit(X, y, weight)
    assert model.score(X, y) > 0.9
    assert len(model.layers_) == model.choice_["n_estimators"] > 1
    assert len({tuple(layer.order.tolist()) for layer in model.layers_}) > 1
    again = kind(**model.choice_, random_state=0).fit(X, y, weight)  # without PyTorch's loop: other roundings
    values = [m.predict_proba(X) if kind is MPSClassifier else m.predict(X) for m in (model, again)]
    np.testing.assert_allclose(values[0], values[1], rtol=2e-3, atol=2e-3 * np.abs(values[1]).max())
    assert clone(model).fit(X, y, weight).choice_ == model.choice_
    model.save(tmp_path / "m.safetensors")
    for other in (tnml.load(tmp_path / "m.safetensors"), pickle.loads(pickle.dumps(model))):
        assert other.choice_ == model.choice_
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
    small = model.compressed(max_bond=2)
    assert "bond_dim" not in small.choice_
    assert small._chosen()["bond_dim"] == 2


def test_the_best_candidate_wins_whatever_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """XOR of two columns: hats find it, and a bond of 1 cannot."""
    poor = Candidate(steps=50, epochs=5, parameters={"bond_dim": 1, "features": "auto"})
    good = PRESETS["tables"]["classification"][0]
    for candidates, place in (((poor, good), 1), ((good, poor), 0)):
        monkeypatch.setattr("tnml.estimators.tuned.PRESETS", {"tables": {"classification": candidates}})
        model = MPSClassifier(preset="tables", random_state=0).fit(X, Y)
        assert model.choice_["bond_dim"] == candidates[place].parameters["bond_dim"]


def test_what_the_user_has_set_stays() -> None:
    model = MPSClassifier(preset="tables", bond_dim=3, n_estimators=2, features="legendre", random_state=0)
    model.fit(X, Y)
    assert not {"bond_dim", "n_estimators", "features"} & set(model.choice_)
    assert (len(model.layers_), max(model.layer_.bond_dims), model.columns_) == (2, 3, None)
    assert model.layer_.features.name == "legendre"


def test_tables_with_gaps_text_rare_classes_and_few_rows() -> None:
    frame = pd.DataFrame({"a": X[:, 0], "b": np.where(X[:, 1] > 20, "high", "low"), "c": X[:, 2]})
    frame.loc[3, "a"] = np.nan
    labels = np.where(Y, "yes", "no").astype(object)
    labels[7] = "alone"
    model = MPSClassifier(preset="tables", random_state=0).fit(frame, labels)
    assert set(model.predict(frame)) <= {"yes", "no", "alone"}
    few = MPSClassifier(preset="tables", random_state=0).fit(frame[:8], labels[:8])
    assert few.choice_["features"] == PRESETS["tables"]["classification"][-1].parameters["features"]


def test_intervals_are_of_samples_that_nothing_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    usual = MPSRegressor._tried

    def tried(self: Any, *given: Any) -> float:
        seen.extend([*given[5], *given[6]])
        return usual(self, *given)

    monkeypatch.setattr("tnml.estimators.tuned.Tuned._tried", tried)
    model = MPSRegressor(preset="tables", validation_fraction=0.3, random_state=0).fit(X, Z)
    assert model.interval_scores_.shape == (27, 1)
    assert len(set(seen)) == 63
    assert "val_loss" in model.history_[-1]
    low, high = model.predict_interval(X, 0.8)
    assert 0.6 < ((low < Z) & (high > Z)).mean() <= 1
    calibrated = MPSClassifier(preset="tables", validation_fraction=0.3, calibrate=True).fit(X, Y)
    assert calibrated.calibration_["samples"] == np.floor(0.3 * np.bincount(Y) + 0.5).sum()


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"preset": "table"}, "unknown preset 'table'; did you mean 'tables'"),
        ({"preset": "tables", "solver": "dmrg"}, "solver='dmrg' does not use preset='tables'"),
        ({"member_orders": "all"}, "unknown member_orders 'all'"),
        ({"features": {"name": "auto", "level": 3}}, "did you mean 'levels'"),
        ({"features": {"name": "auto", "map": "rbf"}}, "unknown map of features 'auto' 'rbf'"),
        ({"features": {"name": "auto", "scale": "range"}}, "scale='range' is for map='hat' only"),
        ({"features": {"name": "auto", "dim": 1}}, "dim must be"),
        ({"decay_to": "nowhere"}, "unknown decay_to 'nowhere'"),
    ],
    ids=str,
)
def test_bad_parameters(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        MPSClassifier(**parameters).fit(X, Y)


def test_partial_fit_is_refused() -> None:
    with pytest.raises(InputError, match="partial_fit sees only some"):
        MPSRegressor(preset="tables").partial_fit(X, Z)


def test_hats_stand_at_few_values_at_quantiles_or_over_the_range() -> None:
    values = np.array([1.0, 1.0, 2.0, 5.0, 9.0, 100.0] * 4)
    column = Column("a", values, categorical=False)
    encoder, fmap = Automatic(map="hat", levels=5).fitted(column, 1, None)
    assert encoder.knots == (1, 2, 5, 9, 100)
    assert (fmap.name, fmap.dim) == ("hat", 5)
    encoder, fmap = Automatic(map="hat", levels=4, dim=3).fitted(column, 1, None)
    np.testing.assert_allclose(encoder.places, [0, 0.5, 1])
    assert (encoder.knots[0], encoder.knots[-1], fmap.dim) == (1, 100, 3)
    assert 2 <= encoder.knots[1] <= 5
    encoder, fmap = Automatic(map="hat", levels=4, dim=3, scale="range").fitted(column, 1, None)
    assert (encoder.knots, fmap.dim) == ((1, 100), 3)
    constant = Column("c", np.full(4, 7.0), categorical=False)
    for spec in (Automatic(map="hat", levels=0), Automatic(map="hat", scale="range", levels=0)):
        encoder, fmap = spec.fitted(constant, 1, None)
        assert np.isfinite(encoder.encode(constant)).all()
