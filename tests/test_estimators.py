"""MPSClassifier and MPSRegressor against scikit-learn's contract, dense contractions and known answers."""

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
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import tnml
from tnml import InputError, MPSClassifier, MPSRegressor
from tnml.data import stratified_split

# Checks that pass judgement on something these estimators do not claim.
NOT_APPLICABLE = {
    "check_array_api_input": "for inputs that are not numpy arrays, of estimators tagged array_api_support; "
    "scikit-learn skips it unless SCIPY_ARRAY_API is set for the whole process",
}
QUICK: dict[str, Any] = {"bond_dim": 4, "epochs": 3, "random_state": 0}


def blobs(samples: int = 60, features: int = 3, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_blobs(samples, features, centers=classes, cluster_std=0.5, random_state=1)
    return X, y


def swapped(x: torch.Tensor) -> torch.Tensor:
    """A user's own feature map."""
    return torch.stack((x, 1 - x), -1)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [MPSClassifier(), MPSRegressor()], ids=repr)
def test_scikit_learns_checks(estimator: Any) -> None:
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(results) > 45
    broken = {r["check_name"]: (r["status"], r["exception"]) for r in results if r["status"] != "passed"}
    assert set(broken) <= set(NOT_APPLICABLE), broken
    assert {status for status, _ in broken.values()} <= {"skipped", "xfail"}


def test_digits() -> None:
    X, y = load_digits(return_X_y=True)
    train, test = stratified_split(y, 0.25, 3)
    model = MPSClassifier(random_state=0).fit(X[train] / 16, y[train])
    assert model.score(X[test] / 16, y[test]) >= 0.97
    assert model.layer_.order[8:16].tolist() == list(range(15, 7, -1)), "64 features are an image: snake"


LABELS = {
    "text": ["fox", "ant", "bee"],
    "objects": np.array(["fox", "ant", "bee"], dtype=object),
    "negative": [-5, 0, 7],
    "halves": np.array([1.0, 3.0, 2.0], dtype=np.float32),
    "bytes": np.array([2, 1, 0], dtype=np.uint8),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_any_type(name: str) -> None:
    X, codes = blobs()
    y = np.asarray(LABELS[name])[codes]
    model = MPSClassifier(random_state=0).fit(X, y)
    predicted = model.predict(X)
    assert predicted.dtype == y.dtype
    assert np.array_equal(predicted, y)
    assert np.array_equal(model.classes_, np.unique(y))


def test_truth_values_are_labels() -> None:
    X, codes = blobs(classes=2)
    model = MPSClassifier(random_state=0).fit(X, codes == 1)
    assert model.predict(X).dtype == bool
    assert np.array_equal(model.decision_function(X) > 0, codes == 1)


def dense_outputs(layer: Any, x: np.ndarray) -> np.ndarray:
    """The network contracted site by site in float64 numpy, without tnml."""
    cores = [core.detach().double().numpy() for core in layer.cores]
    label = layer.label_core.detach().double().numpy()
    outputs = []
    for row in x[:, layer.order.numpy()]:
        left, right = np.ones(1), np.ones(1)
        matrices = [np.einsum("ldr,d->lr", c, [1 - v, v]) for c, v in zip(cores, row, strict=True)]
        for matrix in matrices[: layer.label_site]:
            left = left @ matrix
        for matrix in reversed(matrices[layer.label_site :]):
            right = matrix @ right
        outputs.append(np.einsum("l,lcr,r->c", left, label, right))
    return np.stack(outputs)


def test_predictions_are_those_of_the_network() -> None:
    X, y = blobs(features=5)
    model = MPSClassifier(**QUICK).fit(X, y)
    low, high = X.min(axis=0), X.max(axis=0)
    logits = dense_outputs(model.layer_, (X - low) / (high - low))
    odds = np.exp(logits)
    np.testing.assert_allclose(model.decision_function(X), logits, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X), odds / odds.sum(axis=1, keepdims=True), atol=1e-5)
    assert np.array_equal(model.predict(X), logits.argmax(axis=1))


def test_regression_predictions_are_those_of_the_network() -> None:
    X = np.random.RandomState(0).rand(40, 4)
    y = np.stack([X.sum(axis=1), 100 * X[:, 0]], axis=1)
    model = MPSRegressor(**QUICK).fit(X, y)
    expected = dense_outputs(model.layer_, X) * y.std(axis=0) + y.mean(axis=0)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-5)


def test_two_classes_have_one_decision() -> None:
    X, y = blobs(classes=2)
    model = MPSClassifier(**QUICK).fit(X, y)
    decision = model.decision_function(X)
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], 1 / (1 + np.exp(-decision)))


def test_a_sample_has_the_same_bits_in_any_company() -> None:
    X, y = blobs(samples=300, features=9)
    model = MPSClassifier(**QUICK).fit(X, y)
    together = model.decision_function(X)
    order = np.random.RandomState(0).permutation(len(X))
    assert np.array_equal(model.decision_function(X[order]), together[order])
    assert np.array_equal(
        np.concatenate([model.decision_function(X[i : i + 7]) for i in range(0, 300, 7)]), together
    )


@pytest.mark.parametrize("kind", [MPSClassifier, MPSRegressor])
def test_scaling(kind: Any) -> None:
    """Pixels of 0..255 train like pixels of 0..1 where the range is said; values beyond are cut off."""
    X, y = np.random.RandomState(0).randint(0, 256, (40, 6)).astype(float), np.arange(40) % 2
    unit = kind(**QUICK).fit(X / 255, y)
    pixels = kind(feature_range=(0, 255), **QUICK).fit(X, y)
    assert np.array_equal(unit.feature_range_, [[0.0] * 6, [1.0] * 6])
    np.testing.assert_allclose(pixels.predict(X), unit.predict(X / 255), rtol=1e-5)
    assert np.array_equal(pixels.predict(X[:1] * 0 - 1e9), pixels.predict(X[:1] * 0))
    each = kind(**QUICK).fit(X, y)
    assert np.array_equal(each.feature_range_, [X.min(axis=0), X.max(axis=0)])
    raw = kind(feature_range=None, **QUICK).fit(X / 255, y)
    assert raw.feature_range_ is None
    assert np.array_equal(raw.predict(X / 255), unit.predict(X / 255))


def test_small_and_degenerate_data() -> None:
    one = MPSClassifier(random_state=0).fit([[0.0], [1.0]], [0, 1])
    assert one.predict([[0.1], [0.9]]).tolist() == [0, 1]
    constant = MPSClassifier(random_state=0).fit([[5.0, 0.0], [5.0, 1.0], [5.0, 0.1]], [0, 1, 0])
    assert constant.predict([[5.0, 0.0], [9.0, 1.0]]).tolist() == [0, 1]
    wide = MPSClassifier(batch_size=1000, random_state=0).fit([[0.0, 3.0], [1.0, 2.0]], ["a", "b"])
    assert wide.predict([[0.0, 3.0]]).tolist() == ["a"]
    flat = MPSRegressor(random_state=0).fit([[0.0], [1.0], [2.0]], [4.0, 4.0, 4.0])
    np.testing.assert_allclose(flat.predict([[0.0], [1.5]]), 4.0, atol=1e-3)
    single = MPSRegressor(random_state=0).fit([[3.0, 1.0]], [2.0])
    np.testing.assert_allclose(single.predict([[3.0, 1.0]]), 2.0, atol=1e-3)
    huge = MPSClassifier(**QUICK).fit([[-1e300], [1e300]], [0, 1])
    assert np.isfinite(huge.predict_proba([[0.0]])).all()


def test_regression_learns_a_product() -> None:
    X = np.random.RandomState(0).uniform(-3, 3, (400, 3))
    y = X[:, 0] * X[:, 1] - 2 * X[:, 2]
    model = MPSRegressor(random_state=0).fit(X[:300], y[:300])
    assert model.score(X[300:], y[300:]) > 0.99


def test_regression_does_not_see_the_unit_of_the_target() -> None:
    X = np.random.RandomState(0).rand(50, 4)
    y = X @ [1.0, -2.0, 0.5, 3.0]
    plain, scaled = (MPSRegressor(**QUICK).fit(X, target) for target in (y, 1e6 * y + 1e7))
    np.testing.assert_allclose(scaled.predict(X), 1e6 * plain.predict(X) + 1e7, rtol=1e-4)


def test_regression_of_several_targets() -> None:
    X = np.random.RandomState(0).rand(200, 3)
    y = np.stack([X.sum(axis=1), X[:, 0] * X[:, 1]], axis=1)
    model = MPSRegressor(random_state=0).fit(X, y)
    assert model.predict(X).shape == (200, 2)
    assert model.score(X, y) > 0.98
    assert MPSRegressor(**QUICK).fit(X, y[:, :1]).predict(X).shape == (200, 1)
    assert MPSRegressor(**QUICK).fit(X, y[:, 0]).predict(X).shape == (200,)


def test_partial_fit_classifier() -> None:
    X, y = load_digits(return_X_y=True)
    names = np.array([f"digit {i}" for i in range(10)])
    model = MPSClassifier(lr=2e-3, random_state=0)
    for _ in range(4):
        for part in np.array_split(np.arange(1400), 2):
            model.partial_fit(X[part] / 16, names[y[part]], classes=names)
    assert model.n_iter_ == 8
    assert model.score(X[1400:] / 16, names[y[1400:]]) > 0.88
    with pytest.raises(InputError, match="those of the first call"):
        model.partial_fit(X / 16, names[y], classes=names[:5])
    with pytest.raises(InputError, match="expected labels among"):
        model.partial_fit(X[:2] / 16, ["digit 1", "digit x"])
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(X[:, :9], y)


def test_partial_fit_regressor_keeps_the_first_scales() -> None:
    X = np.random.RandomState(0).rand(100, 2)
    y = 3 * X[:, 0] - X[:, 1]
    model = MPSRegressor(lr=0.01, random_state=0).partial_fit(X, y)
    mean, before = model.y_mean_.copy(), model.score(X, y)
    for _ in range(100):
        model.partial_fit(X[:80], y[:80])
    assert np.array_equal(model.y_mean_, mean)
    assert model.score(X, y) > max(before, 0.95)
    with pytest.raises(InputError, match="expected 1 targets"):
        model.partial_fit(X, np.stack([y, y], axis=1))


def test_partial_fit_needs_classes_once() -> None:
    with pytest.raises(InputError, match="needs classes"):
        MPSClassifier().partial_fit([[0.0], [1.0]], [0, 1])
    model = MPSClassifier(**QUICK).partial_fit([[0.0]], ["a"], classes=["a", "b"])
    assert model.predict_proba([[0.0]]).shape == (1, 2)


def test_warm_start_continues() -> None:
    X, y = blobs()
    model = MPSClassifier(warm_start=True, epochs=5, random_state=0).fit(X, y)
    first, layer = model.history_[0]["loss"], model.layer_
    model.fit(X, y)
    assert model.layer_ is layer
    assert model.n_iter_ == len(model.history_) == 10
    assert model.history_[5]["loss"] < first
    with pytest.raises(InputError, match="without warm_start"):
        model.fit(X, y + 1)
    assert clone(model).fit(X, y + 1).n_iter_ == 5


def test_randomness_is_an_argument() -> None:
    X, y = blobs()
    numbers, states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 (must not move)
    first, again = (MPSClassifier(**QUICK).fit(X, y).decision_function(X) for _ in range(2))
    other = MPSClassifier(**QUICK | {"random_state": 1}).fit(X, y).decision_function(X)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert np.array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states)
    state = np.random.RandomState(5)
    model = MPSClassifier(**QUICK | {"random_state": state})
    assert not np.array_equal(model.fit(X, y).decision_function(X), model.fit(X, y).decision_function(X))


def test_numbers_of_numpy_are_numbers() -> None:
    X, y = blobs()
    model = MPSClassifier(
        bond_dim=np.int64(3), epochs=np.int32(2), lr=np.float32(0.01), batch_size=np.int64(16)
    )
    assert max(model.fit(X, y).layer_.bond_dims) == 3


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
    assert not np.array_equal(model.decision_function(X[:5]), plain.decision_function(X[:5]))


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
