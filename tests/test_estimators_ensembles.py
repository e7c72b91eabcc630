"""Ensembles of networks in one estimator: averages, files, and refusals."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.base import clone

import tnml
from tnml import InputError, MPSClassifier, MPSRegressor
from tnml.estimators import ensemble
from tnml.training import TrainingInterrupted, train_classifier, train_regressor

THREE: dict[str, Any] = {"n_estimators": 3, "bond_dim": 3, "epochs": 3, "dtype": "float64", "random_state": 0}


def data(kind: Any, rows: int = 40) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.RandomState(0).uniform(0, 1, (rows, 4))
    y = 10 * X[:, 0] * X[:, 1] + X[:, 2]
    return X, (np.array(["a", "b", "c"])[np.digitize(y, [1.5, 4.0])] if kind is MPSClassifier else y)


def each_output(model: Any, X: np.ndarray) -> np.ndarray:
    x = torch.tensor(X.astype(np.float32)).double()
    return np.stack([layer(x).detach().numpy() for layer in model.layers_])


@pytest.mark.parametrize("kind", [MPSClassifier, MPSRegressor])
def test_predictions_are_averages(kind: Any) -> None:
    X, y = data(kind)
    model = kind(**THREE).fit(X, y)
    assert len(model.layers_) == 3
    assert model.layer_ is model.layers_[0]
    outputs = each_output(model, X)
    assert np.abs(outputs - outputs.mean(0)).max() > 1e-3, "the networks differ"
    if kind is MPSRegressor:
        expected = outputs.mean(0)[:, 0] * y.std() + y.mean()
        np.testing.assert_allclose(model.predict(X), expected, rtol=1e-9)
        return
    expected = softmax(outputs, axis=2).mean(0)
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-9)
    np.testing.assert_allclose(softmax(model.decision_function(X), axis=1), expected, rtol=1e-9)
    assert np.array_equal(model.predict(X), model.classes_[expected.argmax(1)])


def test_outputs_that_are_no_logits_are_averaged_themselves() -> None:
    X, y = data(MPSClassifier)
    model = MPSClassifier(**THREE, loss="mse").fit(X, y)
    np.testing.assert_allclose(model.decision_function(X), each_output(model, X).mean(0), rtol=1e-9)
    assert np.array_equal(model.predict_proba(X).argmax(1), model.decision_function(X).argmax(1))


@pytest.mark.parametrize("kind", [MPSClassifier, MPSRegressor])
def test_together_gives_the_numbers_of_one_by_one(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data(kind)
    given = {**THREE, "validation_fraction": 0.25}
    weight = np.linspace(0.5, 1.5, len(X))
    together = kind(**given).fit(X, y, sample_weight=weight)
    calls = []

    def counted(*args: Any, **more: Any) -> Any:
        calls.append(args[0])
        return (train_classifier if kind is MPSClassifier else train_regressor)(*args, **more)

    monkeypatch.setattr(ensemble, "worth_it", lambda *_: False)
    monkeypatch.setattr(kind, "_trained", staticmethod(counted))
    alone = kind(**given).fit(X, y, sample_weight=weight)
    assert calls == alone.layers_
    np.testing.assert_allclose(each_output(together, X), each_output(alone, X), rtol=1e-6, atol=1e-9)
    for one, other in zip(together.history_, alone.history_, strict=True):
        assert set(one) == set(other)
        for name in set(one) - {"seconds", "samples_per_second"}:
            assert one[name] == pytest.approx(other[name], rel=1e-6)


def test_the_first_network_is_that_of_a_fit_alone() -> None:
    X, y = data(MPSRegressor)
    several, one = MPSRegressor(**THREE).fit(X, y), MPSRegressor(**THREE | {"n_estimators": 1}).fit(X, y)
    np.testing.assert_allclose(each_output(several, X)[0], each_output(one, X)[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", [MPSClassifier, MPSRegressor])
@pytest.mark.parametrize("way", ["pickle", "copy", "file"])
def test_copies_have_all_networks_and_go_on(kind: Any, way: str, tmp_path: Any) -> None:
    X, y = data(kind)
    model = kind(**THREE).fit(X, y)
    if way == "file":
        model.save(tmp_path / "model.safetensors")
        other = tnml.load(tmp_path / "model.safetensors")
    else:
        other = pickle.loads(pickle.dumps(model)) if way == "pickle" else copy.deepcopy(model)
    ask = "predict_proba" if kind is MPSClassifier else "predict"
    assert np.array_equal(getattr(other, ask)(X), getattr(model, ask)(X))
    assert clone(other).get_params() == model.get_params()
    assert not hasattr(clone(other), "layer_")
    model.partial_fit(X, y), other.partial_fit(X, y)
    assert np.array_equal(getattr(other, ask)(X), getattr(model, ask)(X))
    assert (len(model.layers_), model.n_iter_, len(model.history_)) == (3, 4, 4)


def test_what_replicas_cannot_do_is_done_one_by_one() -> None:
    X, y = data(MPSRegressor)
    for changes in ({"bond_dropout": 0.2}, {"optimizer": "lbfgs"}):
        model = MPSRegressor(**THREE | {"n_estimators": 2, "epochs": 1} | changes).fit(X, y)
        outputs = each_output(model, X)
        assert np.abs(outputs[0] - outputs[1]).max() > 1e-6


def test_callbacks_progress_and_stopping(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = data(MPSRegressor)
    seen = []

    def size(layer: Any, optimizer: Any, row: Any) -> dict[str, float]:
        seen.append(layer)
        return {"size": float(layer.label.norm())}

    model = MPSRegressor(**THREE, verbose=True).fit(X, y, callbacks=[size])
    assert {id(layer) for layer in seen} == {id(layer) for layer in model.layers_}
    final = np.mean([float(layer.label.detach().norm()) for layer in model.layers_])
    assert model.history_[-1]["size"] == pytest.approx(final)
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "epoch 1/3", "epoch 2/3", "epoch 3/3"
    ]  # fmt: skip
    patient = {"validation_fraction": 0.25, "patience": 1, "lr": 0.5, "epochs": 40}
    stopped = MPSRegressor(**THREE | patient).fit(X, y)
    assert len(stopped.history_) < 40


def test_intervals_and_compression() -> None:
    X, y = data(MPSRegressor)
    model = MPSRegressor(**THREE, validation_fraction=0.5).fit(X, y)
    assert model.interval_scores_.shape == (20, 1)
    small = model.compressed(max_bond=1)
    assert [max(layer.bond_dims) for layer in small.layers_] == [1, 1, 1]
    assert len(model.layers_) == 3
    assert max(model.layers_[1].bond_dims) == 3
    assert small.data_["compression"]["parameters_before"] == 3 * sum(
        p.numel() for p in model.layer_.parameters()
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"n_estimators": 0}, "n_estimators must be a whole number, at least 1, got 0"),
        ({"n_estimators": 1.5}, "n_estimators must be a whole number"),
        ({"solver": "dmrg", "epochs": None}, "'dmrg' does not use n_estimators=3"),
    ],
    ids=str,
)
def test_bad_parameters(changes: dict[str, Any], text: str) -> None:
    X, y = data(MPSRegressor)
    with pytest.raises(InputError, match=text):
        MPSRegressor(**THREE | changes).fit(X, y)


def test_the_number_of_networks_stays() -> None:
    X, y = data(MPSRegressor)
    model = MPSRegressor(**THREE, warm_start=True).fit(X, y).set_params(n_estimators=2)
    for go_on in (model.fit, model.partial_fit):
        with pytest.raises(InputError, match="fitted model has 3 networks, got n_estimators=2"):
            go_on(X, y)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("kind", [MPSClassifier, MPSRegressor])
def test_an_interrupted_fit_keeps_the_history(
    kind: Any, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together all networks stop in epoch 3; one by one the second one does, after all of the first."""
    X, y = data(kind)
    monkeypatch.setattr(ensemble, "worth_it", lambda *_: together)
    calls = []

    def stop(layer: Any, optimizer: Any, row: Any) -> dict[str, float]:
        calls.append(layer)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return {"call": float(len(calls))}

    changes = {"epochs": 4, "warm_start": True, "validation_fraction": 0.25}
    model = kind(**THREE | changes)
    with pytest.raises(TrainingInterrupted, match=r"history of [24] epochs") as caught:
        model.fit(X, y, callbacks=[stop])
    expected = [2.0, 5.0] if together else [3.0, 4.0, 3.0, 4.0]  # (1 + 5) / 2 and (2 + 6) / 2
    assert [row["call"] for row in model.history_] == expected
    assert model.n_iter_ == len(caught.value.history) == len(expected)
    model.fit(X, y)
    assert model.n_iter_ == len(expected) + 4
    assert getattr(model, "interval_scores_", None) is None, "all of these samples may have been seen"
