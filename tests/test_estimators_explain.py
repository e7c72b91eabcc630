"""Explanations of estimators against all coalitions of their own predictions; names, units, files, errors."""

import itertools
import math
import pickle

import numpy as np
import pandas as pd
import pytest

import tnml
from tnml.errors import InputError
from tnml.nn import MPSLayer

SETTINGS = {"bond_dim": 3, "epochs": 3, "random_state": 0, "dtype": "float64"}


def samples(rows=40):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4)) * [1, 2, 3, 4] + [0, 1, 0, -1]
    return x, x[:, 0] * x[:, 1] + x[:, 2] > 0


def by_coalitions(outputs, x, background):
    """Shapley values of `outputs(rows) [b, c]`: left out columns take all combinations of their values."""
    n = x.shape[1]
    grid = np.array(list(itertools.product(*background.T)))
    value = {}
    for size in range(n + 1):
        for members in itertools.combinations(range(n), size):
            rows = np.repeat(grid[None], len(x), 0)
            rows[:, :, members] = x[:, None, members]
            value[members] = outputs(rows.reshape(-1, n)).reshape(len(x), len(grid), -1).mean(1)
    found = np.zeros((len(x), n, value[()].shape[1]))
    for i in range(n):
        for members, alone in value.items():
            if i not in members:
                share = (
                    math.factorial(len(members)) * math.factorial(n - len(members) - 1) / math.factorial(n)
                )
                found[:, i] += share * (value[tuple(sorted((*members, i)))] - alone)
    return found, value[()].mean(0)


@pytest.mark.parametrize("kind", ["numbers", "ensemble", "mse of an ensemble", "two targets"])
def test_contributions_are_those_of_all_coalitions(kind):
    x, y = samples()
    background = x[:4]
    if kind in ("numbers", "ensemble", "two targets"):
        targets = np.stack([x[:, 0], x[:, 1] * x[:, 3]], 1)[:, : 1 + (kind == "two targets")]
        members = 2 if kind == "ensemble" else 1
        model = tnml.MPSRegressor(**SETTINGS, n_estimators=members).fit(x, 50 + 9 * targets.squeeze())
        outputs = lambda rows: model.predict(rows).reshape(len(rows), -1)  # noqa: E731
    else:
        model = tnml.MPSClassifier(**SETTINGS, n_estimators=2, loss="mse").fit(x, y)
        outputs = model._evaluate
    found = model.explain(x[:3], background)
    expected, base = by_coalitions(outputs, x[:3], background)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.values.numpy(), expected, atol=1e-9 * scale)
    np.testing.assert_allclose(found.base.numpy(), base, atol=1e-9 * scale)
    np.testing.assert_allclose(found.outputs.numpy(), outputs(x[:3]), rtol=1e-9)
    assert found.gap < 1e-9
    np.testing.assert_array_equal(found.data, x[:3])


def test_names_targets_and_differences():
    x, y = samples()
    frame = pd.DataFrame(x, columns=["a", "b", "c", "d"])
    model = tnml.MPSClassifier(**SETTINGS).fit(
        frame, np.where(y, "yes", np.where(x[:, 3] > 0, "no", "perhaps"))
    )
    whole = model.explain(frame[:5])
    assert whole.features == ("a", "b", "c", "d")
    assert whole.names == ("no", "perhaps", "yes")
    one, some = model.explain(frame[:5], target="yes"), model.explain(frame[:5], target=["yes", "no"])
    np.testing.assert_allclose(one.values, whole.values[..., 2:], atol=1e-12)
    assert some.names == ("yes", "no")
    np.testing.assert_allclose(some.values, whole.values[..., [2, 0]], atol=1e-12)
    margin = model.explain(frame[:5], target="yes", against="no")
    assert margin.names == ("yes - no",)
    np.testing.assert_allclose(margin.values[..., 0], whole.values[..., 2] - whole.values[..., 0], atol=1e-12)
    np.testing.assert_allclose(model.explain(frame[:5], kind="banzhaf").base, whole.base)
    for target in ("yep", True, 2):
        with pytest.raises(InputError, match=r"there is no output .*; choose from: 'no', 'perhaps', 'yes'"):
            model.explain(frame, target=target)
    with pytest.raises(InputError, match="unknown kind"):
        model.explain(frame, kind="lime")
    with pytest.raises(InputError, match="give some as background"):
        model.explain(frame, joint=True)
    assert model.explain(frame[:5], nodes=1).nodes == 1


def test_the_means_of_all_fits_are_the_usual_background(tmp_path):
    x, y = samples()
    weight = np.arange(len(x)) % 3
    model = tnml.MPSRegressor(**SETTINGS, feature_range=(-20, 20)).fit(x, x[:, 0], sample_weight=weight)
    found = model.explain(x[:3]).values.numpy()
    np.testing.assert_allclose(found, model.explain(x[:3], x, background_weight=weight).values, atol=1e-12)
    model.save(tmp_path / "m.safetensors")
    for other in (
        tnml.load(tmp_path / "m.safetensors"),
        pickle.loads(pickle.dumps(model)),
        model.compressed(max_bond=9),
    ):
        np.testing.assert_allclose(other.explain(x[:3]).values, found, atol=1e-9 * np.abs(found).max())
    parts = tnml.MPSClassifier(**SETTINGS, feature_range=(-20, 20))
    for rows in (slice(0, 25), slice(25, None)):
        parts.partial_fit(x[rows], y[rows], classes=[False, True])
    np.testing.assert_allclose(parts.explain(x[:3]).values, parts.explain(x[:3], x).values, atol=1e-9)
    again = parts.fit(x[:20], y[:20])
    np.testing.assert_allclose(again.explain(x[:3]).values, again.explain(x[:3], x[:20]).values, atol=1e-9)


def test_tables_with_text_and_gaps():
    x, y = samples(60)
    frame = pd.DataFrame({"a": x[:, 0], "kind": np.where(x[:, 1] > 0, "up", "down"), "c": x[:, 2]})
    frame.loc[::7, "a"] = np.nan
    frame.loc[3, "kind"] = None
    model = tnml.MPSClassifier(features="auto", **SETTINGS).fit(frame, y)
    found = model.explain(frame[:8], target=True, against=False)
    assert found.features == ("a", "kind", "c")
    assert found.data[0, 1] == frame.loc[0, "kind"]
    missing = found.values[[0, 7], 0, 0].abs().max(), found.values[3, 1, 0].abs()
    assert max(missing) == 0, "a missing value contributes nothing"
    assert found.values[1:3].abs().min() > 0
    np.testing.assert_allclose(found.outputs[:, 0], model.decision_function(frame[:8]), atol=1e-9)
    np.testing.assert_allclose(
        model.explain(frame[:8], frame[::7].assign(c=np.nan, kind=None)).base, model.explain(frame[:8]).base
    )
    curve = model.dependence(frame, "kind", target=True)
    assert curve.grid.tolist() == ["down", "up"]
    for place, value in enumerate(curve.grid):
        np.testing.assert_allclose(
            curve.curves[:, place, 0], model._evaluate(frame.assign(kind=value))[:, 1], atol=1e-9
        )


@pytest.mark.parametrize("features", ["linear", "auto"])
def test_curves_are_predictions_with_one_column_changed(features):
    x, _ = samples()
    model = tnml.MPSRegressor(features=features, n_estimators=2, **SETTINGS).fit(x, 100 + x[:, 1] ** 2)
    found = model.dependence(x, 1)
    assert found.grid[[0, -1]].tolist() == [x[:, 1].min(), x[:, 1].max()]
    found = model.dependence(x, 1, grid=np.array([-1.0, 0.5, 2.0]))
    for place, value in enumerate(found.grid):
        moved = x.copy()
        moved[:, 1] = value
        np.testing.assert_allclose(found.curves[:, place, 0], model.predict(moved), rtol=1e-5)
    np.testing.assert_allclose(found.mean, found.curves.mean(0))
    with pytest.raises(InputError, match="unknown feature 'b'"):
        model.dependence(x, "b")
    with pytest.raises(InputError, match="feature must be"):
        model.dependence(x, 4)


def test_what_cannot_be_explained():
    x, y = samples()
    with pytest.raises(InputError, match="logarithms of averaged probabilities"):
        tnml.MPSClassifier(**SETTINGS, n_estimators=2).fit(x, y).explain(x)
    around = tnml.MPSClassifier.from_layer(MPSLayer(4, 2), [0, 1])
    with pytest.raises(InputError, match="give some of them as background"):
        around.explain(np.zeros((1, 4)))
    assert around.explain(np.ones((1, 4)), np.zeros((1, 4))).names == (0, 1)
