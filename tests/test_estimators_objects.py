"""The estimators as objects: copies, pickles, pipelines, bad data and bad parameters."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_estimators import QUICK, blobs, swapped

import tnml
from tnml import InputError, MPSClassifier, MPSRegressor


def through_pickle(model: Any, _: Path) -> Any:
    return pickle.loads(pickle.dumps(model))


def through_copy(model: Any, _: Path) -> Any:
    return copy.deepcopy(model)


def through_file(model: Any, folder: Path) -> Any:
    model.save(folder / "model.safetensors")
    return tnml.load(folder / "model.safetensors")


@pytest.mark.parametrize("way", [through_pickle, through_copy, through_file])
@pytest.mark.parametrize("kind", [MPSClassifier, MPSRegressor])
@pytest.mark.parametrize("features", ["trigonometric", {"name": "polynomial", "dim": 3}])
def test_copies_predict_the_same(
    way: Callable[[Any, Path], Any], kind: Any, features: Any, tmp_path: Path
) -> None:
    X, y = blobs(features=4)
    model = kind(features=features, order=[3, 1, 2, 0], label_site=1, **QUICK).fit(X, y)
    other = way(model, tmp_path)
    assert type(other) is kind
    assert other.get_params() == model.get_params()
    assert np.array_equal(other.predict(X), model.predict(X))
    assert other.n_iter_ == model.n_iter_
    with pytest.raises(ValueError, match="features"):
        other.predict(X[:, :2])
    again, expected = (clone(m).fit(X, y) for m in (other, model))
    assert np.array_equal(again.predict(X), expected.predict(X))


def test_a_copy_can_go_on_learning() -> None:
    X, y = blobs()
    model = MPSClassifier(**QUICK).fit(X, y)
    other = pickle.loads(pickle.dumps(model))
    assert np.array_equal(model.partial_fit(X, y).predict_proba(X), other.partial_fit(X, y).predict_proba(X))


class Recording(pickle.Unpickler):
    """Takes down what a pickle names."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.named: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.named.add(f"{module}.{name}")
        return super().find_class(module, name)


def test_pickles_hold_arrays_and_parameters_only() -> None:
    X, y = blobs()
    model = MPSClassifier(verbose=True, validation_fraction=0.2, patience=2, average="ema", **QUICK).fit(X, y)
    reader = Recording(io.BytesIO(pickle.dumps(model)))
    reader.load()
    allowed = {"tnml.estimators.classifier.MPSClassifier", "numpy.dtype", "numpy.ndarray"}
    assert {name for name in reader.named if not name.startswith("numpy._core.")} == allowed


def test_own_feature_maps_are_pickled_and_not_saved(tmp_path: Path) -> None:
    X, y = blobs()
    model = MPSClassifier(features=swapped, **QUICK).fit(X, y)
    other = pickle.loads(pickle.dumps(model))
    assert np.array_equal(other.decision_function(X), model.decision_function(X))
    with pytest.raises(InputError, match="your own function"):
        model.save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_pipeline_and_cross_validation() -> None:
    X, y = blobs()
    pipe = make_pipeline(StandardScaler(), MPSClassifier(bond_dim=4, random_state=0))
    assert cross_val_score(pipe, X, y, cv=2).min() > 0.9


@pytest.mark.slow
def test_grid_search_with_two_processes() -> None:
    X, y = blobs()
    search = GridSearchCV(MPSClassifier(**QUICK), {"bond_dim": np.arange(2, 4)}, cv=2, n_jobs=2).fit(X, y)
    assert search.best_params_["bond_dim"] in (2, 3)
    assert search.predict(X).shape == (60,)


def test_progress_only_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = blobs()
    MPSClassifier(**QUICK).fit(X, y).predict(X)
    assert capsys.readouterr() == ("", "")
    MPSClassifier(verbose=True, **QUICK).fit(X, y)
    assert capsys.readouterr().out.count("epoch") == 3


def test_early_stopping() -> None:
    rng = np.random.RandomState(0)
    X, y = rng.rand(80, 10), rng.randint(0, 2, 80)  # nothing to learn
    model = MPSClassifier(epochs=200, validation_fraction=0.25, patience=3, random_state=0).fit(X, y)
    assert model.n_iter_ < 100
    assert {"val_loss", "val_accuracy"} <= set(model.history_[0])
    values = MPSRegressor(epochs=200, lr=0.01, validation_fraction=0.25, patience=3, random_state=0)
    assert values.fit(X, rng.rand(80)).n_iter_ < 100


def test_shifted_images() -> None:
    X, y = load_digits(return_X_y=True)
    model = MPSClassifier(max_shift=1, image_shape=(8, 8), epochs=2, random_state=0).fit(
        X[:200] / 16, y[:200]
    )
    plain = MPSClassifier(epochs=2, random_state=0).fit(X[:200] / 16, y[:200])
    assert not np.array_equal(model.decision_function(X[:5] / 16), plain.decision_function(X[:5] / 16))


def test_feature_names() -> None:
    pandas = pytest.importorskip("pandas", reason="data frames need pandas")
    X, y = blobs()
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    model = MPSClassifier(**QUICK).fit(frame, y)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["b", "a", "c"]])


def test_a_layer_becomes_a_classifier(tmp_path: Path) -> None:
    layer = tnml.nn.MPSLayer(6, 3, 4, order="snake", shape=(2, 3), seed=3)
    data = {"name": "mnist", "pool": 2, "resize": None}
    model = MPSClassifier.from_layer(layer, np.array([0, 1, 2]), image_shape=(2, 3), data=data)
    x = torch.rand(5, 6, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(model.decision_function(x.numpy()), layer(x).detach().numpy(), rtol=1e-4)
    other = through_file(model, tmp_path)
    assert other.data_ == data
    assert other.image_shape == (2, 3)
    assert np.array_equal(other.predict(x.numpy()), model.predict(x.numpy()))
    assert clone(other).fit(x.numpy(), [0, 1, 2, 0, 1]).layer_.order.tolist() == layer.order.tolist()
    grey = MPSClassifier.from_layer(layer, [0, 1, 2], feature_range=(0, 255))
    np.testing.assert_allclose(grey.predict_proba(x.numpy() * 255), model.predict_proba(x.numpy()), rtol=1e-4)
    for classes in ([0, 1], [2, 1, 0], [0, 1, 1]):
        with pytest.raises(InputError, match="3 classes in ascending order"):
            MPSClassifier.from_layer(layer, classes)


def test_not_fitted(tmp_path: Path) -> None:
    for model in (MPSClassifier(), MPSRegressor()):
        with pytest.raises(NotFittedError):
            model.predict([[0.0]])
        with pytest.raises(NotFittedError):
            model.save(tmp_path / "model.safetensors")


GOOD_X, GOOD_Y = [[0.0, 1.0], [1.0, 0.0]], [0, 1]
BAD_DATA: dict[str, tuple[Any, Any, str]] = {
    "nan": ([[np.nan, 1.0], [1.0, 0.0]], GOOD_Y, "NaN"),
    "infinite": ([[np.inf, 1.0], [1.0, 0.0]], GOOD_Y, "infinity"),
    "empty": (np.empty((0, 2)), [], "0 sample"),
    "no features": (np.empty((2, 0)), GOOD_Y, r"0 feature\(s\)"),
    "one-dimensional": ([0.0, 1.0], GOOD_Y, "Reshape your data"),
    "three-dimensional": (np.zeros((2, 2, 2)), GOOD_Y, "dim 3"),
    "text": ([["a", "b"], ["c", "d"]], GOOD_Y, "could not convert"),
    "objects": (np.array([[{}, 1], [2, 3]], dtype=object), GOOD_Y, "real number"),
    "complex": (np.array([[1j, 1], [2, 3]]), GOOD_Y, "Complex data"),
    "fewer labels": (GOOD_X, [0], "inconsistent numbers of samples"),
    "one class": (GOOD_X, [1, 1], "at least 2 classes, got 1 class: 1"),
    "measurements": (GOOD_X, [0.1, 0.7], "continuous"),
    "labels missing": (GOOD_X, [0, np.nan], "NaN"),
    "no labels": (GOOD_X, None, "requires y"),
    "far apart": ([[-1.7e308, 0], [1.7e308, 0]], GOOD_Y, "further apart"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(name: str) -> None:
    X, y, text = BAD_DATA[name]
    with pytest.raises((ValueError, TypeError), match=text):
        MPSClassifier(epochs=1).fit(X, y)


BAD_PARAMETERS: list[tuple[dict[str, Any], str]] = [
    ({"bond_dim": 0}, "bond_dim"),
    ({"bond_dim": 2.5}, "bond_dim"),
    ({"features": "trigonometri"}, "did you mean 'trig"),
    ({"order": "snaek"}, "did you mean 'snake'"),
    ({"order": [0, 0]}, "once"),
    ({"image_shape": (2, 3)}, "pixels"),
    ({"label_site": 3}, "label_site"),
    ({"bond_dropout": 1.0}, "bond_dropout"),
    ({"feature_range": (1, 0)}, "low < high"),
    ({"feature_range": "minmax"}, "feature_range"),
    ({"epochs": 0}, "epochs"),
    ({"batch_size": -1}, "batch_size"),
    ({"lr": -1.0}, "lr"),
    ({"optimizer": "adma"}, "did you mean 'adam'"),
    ({"schedule": "cosin"}, "did you mean 'cosine'"),
    ({"label_smoothing": 1.0}, "label_smoothing"),
    ({"max_shift": 1}, "image_shape"),
    ({"validation_fraction": 1.0}, "validation"),
    ({"patience": 3}, "held-out part"),
    ({"dtype": "float16"}, "dtype"),
    ({"dtype": "complex64"}, "float32, float64"),
    ({"engine": "cuda"}, "engine"),
    ({"device": "tpu"}, "device"),
]


@pytest.mark.parametrize(("parameters", "text"), BAD_PARAMETERS, ids=lambda p: str(p)[:40])
def test_bad_parameters(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        MPSClassifier(**{"epochs": 1, **parameters}).fit(GOOD_X, GOOD_Y)


def test_regressor_takes_no_missing_targets() -> None:
    with pytest.raises(ValueError, match="NaN"):
        MPSRegressor(epochs=1).fit(GOOD_X, [0.0, np.nan])


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    X, y = blobs(samples=300, features=9)
    model = MPSClassifier(device="cuda", random_state=0).fit(X, y)
    assert model.score(X, y) > 0.95
    other = pickle.load(io.BytesIO(pickle.dumps(model))).set_params(device="cpu")
    np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(X), atol=1e-4)
