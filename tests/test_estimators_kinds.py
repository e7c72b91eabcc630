"""What users of scikit-learn do with the estimators: warm starts, other ranges, sparse samples, Ctrl-C."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError

import tnml
from tnml import MPSClassifier, MPSRegressor
from tnml.errors import InputError
from tnml.estimators import validation
from tnml.estimators.solvers import usual_smoothing
from tnml.nn import MPSLayer
from tnml.training import TrainingDiverged, TrainingInterrupted

RANDOM = np.random.default_rng(0)
X = RANDOM.random((60, 5))
Y = (X[:, 0] + X[:, 1] > 1).astype(int)
QUICK = {"bond_dim": 2, "epochs": 2, "random_state": 0}
KINDS = pytest.mark.parametrize("kind", [MPSClassifier, MPSRegressor])


# values beyond the range ---------------------------------------------------------------------------------


def beyond(count):
    """The samples, with that many of their 300 values far beyond."""
    x = X.copy()
    x.flat[:count] = 9.0
    return x


@KINDS
@pytest.mark.parametrize("method", ["predict", "partial_fit", "fit", "compressed"])
def test_one_warning_tells_how_much_was_cut(kind, method):
    model = kind(**QUICK, warm_start=True).fit(X, Y)
    call = {
        "predict": model.predict,
        "partial_fit": lambda x: model.partial_fit(x, Y),
        "fit": lambda x: model.fit(x, Y),
        "compressed": lambda x: model.compressed(max_bond=1, X=x),
    }[method]
    call(beyond(3))  # 1 %
    with pytest.warns(UserWarning, match="of the values lie") as caught:
        call(beyond(12))
    assert ["4.0 % of the values lie outside" in str(each.message) for each in caught] == [True]
    model.set_params(clip="silent")
    call(beyond(12))
    model.set_params(clip="error")
    call(beyond(3))
    with pytest.raises(InputError, match=r"4\.0 % of the values"):
        call(beyond(12))
    with pytest.raises(InputError, match="unknown clip"):
        model.set_params(clip="cut").predict(X)


def test_the_first_chunk_fixes_the_range():
    """As in the report: a first part in [0, 0.5], later ones in 0..10."""
    model = MPSClassifier(**QUICK).partial_fit(X / 2, Y, classes=[0, 1])
    with pytest.warns(UserWarning, match="a feature_range that covers them"):
        model.partial_fit(10 * X, Y)


def test_a_little_beyond_is_no_reason():
    model = MPSClassifier(**QUICK).fit(10 * X, Y)
    model.predict(10 * X + 0.5)
    assert MPSClassifier(**QUICK, feature_range=None).fit(X, Y).predict(X + 0.5).shape == (60,)


# warm starts ---------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("features", ["linear", "fourier", "legendre", {"name": "polynomial", "dim": 3}])
@pytest.mark.parametrize("way", ["fit", "partial_fit"])
def test_bonds_grow(kind, features, way):
    model = kind(**QUICK, features=features, warm_start=True).fit(X, Y)
    before = model._evaluate(X)
    model.set_params(bond_dim=6)
    small = model.layer_
    model._follow()
    np.testing.assert_allclose(model._evaluate(X), before, rtol=1e-4, atol=1e-5)
    assert small.bond_dims != model.layer_.bond_dims == MPSLayer(5, 1, 6, features=features).bond_dims
    new = model.layer_
    weights = new.weight.detach().clone()
    getattr(model, way)(X, Y)
    assert model.layer_ is new
    assert model.n_iter_ == (4 if way == "fit" else 3)
    moved = new.weight.detach() != weights
    assert moved.float().mean() > 0.9, "the new weights are trained, too"


def test_a_grown_layer_is_the_same_function():
    """Whatever label site and dtype; with torch's dense contraction as oracle for one of them."""
    x = torch.rand(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for site in range(7):
        for dtype in ("float64", "complex128"):
            layer = MPSLayer(6, 3, 2, label_site=site, noise=0.3, dtype=dtype)
            grown = layer.grown(5, noise=0.2, seed=1)
            assert max(grown.bond_dims) == 5 or site in (0, 6)
            torch.testing.assert_close(grown(x), layer(x), rtol=1e-12, atol=1e-12)
            grown(x).abs().sum().backward()
            new = grown.label.grad.clone()
            new[: layer.label.shape[0], :, : layer.label.shape[2]] = 0
            assert new.abs().max() > 0, "the new part can be learned from the first step"
    assert layer.grown(1).bond_dims == layer.bond_dims


CHANGES = {
    "features": "legendre",
    "order": [1, 0, 2, 3, 4],
    "label_site": 1,
    "noise": 0.5,
    "bond_dropout": 0.1,
    "site_dropout": 0.1,
    "dtype": "float64",
    "engine": "torch",
    "image_shape": (1, 5),
    "feature_range": (0, 2),
    "network": {"name": "mps", "site_dropout": 0.1},
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("made", ["fitted", "stored", "around"])
def test_what_cannot_follow_is_refused(name, made, tmp_path):
    model = MPSClassifier(**QUICK, warm_start=True).fit(X, Y)
    if made == "stored":
        model.save(tmp_path / "m.safetensors")
        model = tnml.load(tmp_path / "m.safetensors")
    elif made == "around":
        model = MPSClassifier.from_layer(model.layer_, [0, 1], feature_range=(0, 1))
        model.set_params(warm_start=True, epochs=2)
    model.fit(X, Y)
    model.set_params(**{name: CHANGES[name]})
    for train in (model.fit, model.partial_fit):
        with pytest.raises(InputError, match="when this model was made") as caught:
            train(X, Y)
        assert ("site_dropout" if name == "network" else name) in str(caught.value)
    model.set_params(warm_start=False, epochs=1).fit(X, Y)


def test_a_smaller_bond_dimension_is_for_compressed():
    model = MPSClassifier(**QUICK | {"bond_dim": 4}, warm_start=True).fit(X, Y)
    with pytest.raises(InputError, match=r"use compressed\(max_bond=2\)"):
        model.set_params(bond_dim=2).fit(X, Y)
    smaller = model.set_params(bond_dim=4).compressed(max_bond=2)
    assert max(smaller.fit(X, Y).layer_.bond_dims) == 2
    swept = MPSClassifier(bond_dim=4, solver="dmrg", sweeps=1, warm_start=True).fit(X, Y)
    assert max(swept.set_params(bond_dim=2).fit(X, Y).layer_.bond_dims) <= 2, "sweeps cut by themselves"


# sparse samples ------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("form", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
def test_sparse_samples_are_those_of_the_array(kind, form):
    dense = np.where(X > 0.6, X, 0.0)
    expected = kind(**QUICK).fit(dense, Y)
    model = kind(**QUICK).fit(form(dense), Y)
    assert np.array_equal(model.predict(form(dense)), expected.predict(dense))
    assert torch.equal(model.layer_.weight, expected.layer_.weight)
    classes = {"classes": [0, 1]} if kind is MPSClassifier else {}
    assert kind(**QUICK).partial_fit(form(dense), Y, **classes).n_iter_ == 1
    assert model.compressed(max_bond=1, X=form(dense)).bond_dim == 1


def test_sparse_samples_that_would_not_fit(monkeypatch, tmp_path):
    """The page cache counts as available; where the system does not say what is, all memory does."""
    told = tmp_path / "meminfo"
    monkeypatch.setattr(validation, "_MEMORY", told)
    monkeypatch.setattr(validation.os, "sysconf", {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 100}.__getitem__)
    fit = MPSClassifier(**QUICK).fit
    given = sparse.csr_array(X), Y  # 2400 bytes
    told.write_text("MemTotal: 9 kB\nMemFree: 0 kB\nMemAvailable:    8 kB\n")
    fit(*given)
    for text in ("MemFree: 9 kB\nMemAvailable: 3 kB\n", "MemFree: 9 kB\n"):
        told.write_text(text)
        with pytest.raises(InputError, match="GB of memory are available"):
            fit(*given)
    told.unlink()
    with pytest.raises(InputError, match="GB of memory are available"):
        fit(*given)
    monkeypatch.delattr(validation.os, "sysconf")
    fit(*given)


# rare classes --------------------------------------------------------------------------------------------


def test_smoothing_looks_at_the_rarest_class():
    def of(*counts, weight=None):
        return usual_smoothing(np.repeat(np.arange(len(counts)), counts), weight, len(counts))

    assert of(50, 50) == of(25, 75) == of(10, 10, 5) == of(10, 0, 10) == 0.05
    assert of(125, 875) == pytest.approx(0.05 / 8)
    assert of(20, 980) < 1e-4
    assert of(1, 3, weight=np.array([3.0, 1.0, 1.0, 1.0])) == 0.05, "weights count"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_rare_class_is_found(seed):
    random = np.random.default_rng(seed)
    x = random.normal(size=(5000, 6))
    y = (x[:, 0] + x[:, 1] > 2.9).astype(int)  # 2 %
    train, test = slice(3000), slice(3000, None)

    def recall(**more):
        model = MPSClassifier(random_state=seed, clip="silent", epochs=20, **more).fit(x[train], y[train])
        return model.predict(x[test])[y[test] == 1].mean()

    assert recall() > 0.75
    assert recall(label_smoothing=0.05) < 0.5, "which is what the default was"


# Ctrl-C --------------------------------------------------------------------------------------------------


class StopIn:
    """Ctrl-C in the middle of that call."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self, layer, optimizer, row):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return {"called": 1.0}


@KINDS
@pytest.mark.parametrize("solver", ["gradient", "dmrg"])
def test_an_interrupted_fit_keeps_what_it_has(kind, solver):
    count = {"epochs": 9} if solver == "gradient" else {"sweeps": 9}
    model = kind(bond_dim=2, solver=solver, random_state=0, warm_start=True, **count)
    unit = "epoch" if solver == "gradient" else "sweep"
    with pytest.raises(TrainingInterrupted, match=f"the weights and the history of 3 {unit}s") as caught:
        model.fit(X, Y, callbacks=[StopIn(3)])
    assert model.n_iter_ == len(model.history_) == len(caught.value.history) == 3
    assert [row["called"] for row in model.history_] == [1.0] * 3
    assert not model.layer_.training
    assert np.isfinite(model.predict(X).astype(float)).all()
    model.set_params(**dict.fromkeys(count, 2)).fit(X, Y)
    assert model.n_iter_ == 5
    with pytest.raises(TrainingInterrupted, match=r"history of 0 epochs"):
        model.fit(X, Y, callbacks=[StopIn(0)])
    assert model.n_iter_ == 5


# failures ------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(
    ("bad", "error"),
    [({"lr": -1.0}, InputError), ({"clip": "error"}, InputError), ({"lr": 1e30}, TrainingDiverged)],
    ids=str,
)
@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("networks", [1, 2])
def test_a_failed_fit_changes_nothing(kind, bad, error, warm, networks):
    model = kind(**QUICK, n_estimators=networks, warm_start=warm, feature_range=(0, 1)).fit(X, Y)
    expected, rows, fitted = model.predict(X), len(model.history_), set(vars(model))
    outputs = model._evaluate(X)
    model.set_params(**bad)
    wide = 10 * X if "clip" in bad else X
    classes = {"classes": [0, 1]} if kind is MPSClassifier else {}
    for learn in (model.fit, model.partial_fit):
        with pytest.raises(error):
            learn(wide, Y)
        assert np.array_equal(model._evaluate(X), outputs)
        assert np.array_equal(model.predict(X), expected)
        assert (model.n_iter_, len(model.history_), set(vars(model))) == (rows, rows, fitted)
    new = kind(**QUICK, feature_range=(0, 1)).set_params(**bad)
    for learn, more in ((new.fit, {}), (new.partial_fit, classes)):
        with pytest.raises(error):
            learn(wide, Y, **more)
        with pytest.raises(NotFittedError):
            new.predict(X)


# forks ---------------------------------------------------------------------------------------------------

FORKS = """
import multiprocessing, numpy as np, torch, tnml
torch.set_num_threads(2)
X = np.random.default_rng(0).random((300, 20)); y = (X[:, 0] > .5).astype(int)
def fit(seed):
    if seed < 0:  # torch alone, in parts that it hands to its threads
        return float((1 - torch.ones(1000, 1000)).sum())
    model = tnml.MPSClassifier(bond_dim=4, epochs=2, random_state=seed).fit(X, y)
    return float(model.predict_proba(X).sum()), torch.get_num_threads()
if __name__ == "__main__":
    fit(-1); fit(0)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(fit, [-1, 0, 1, -1]))
"""


@pytest.mark.slow
def test_a_fit_after_a_fork_does_not_wait_for_threads_of_the_parent(tmp_path):
    (tmp_path / "forks.py").write_text(FORKS)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "forks.py")], capture_output=True, text=True, timeout=250, check=True
    )
    assert done.stdout.count("(300.0") + done.stdout.count("(299.99") == 2
    assert done.stdout.count(", 1)") == 2


def test_no_warning_without_a_reason():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MPSClassifier(**QUICK).fit(10 * X[:40], Y[:40]).predict(10 * X[40:])
    assert not caught
