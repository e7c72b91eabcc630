"""Bad input to the library and the estimators: one clear error that says what was expected and came."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tnml
from tnml import InputError
from tnml.contraction import chain
from tnml.data import from_arrays, from_idx, from_npz, load
from tnml.features import feature_map, site_order
from tnml.loop import checkpoint
from tnml.nn import MPSLayer
from tnml.training import TrainOptions, train_classifier

pytestmark = pytest.mark.usefixtures("unchecked")  # wrong shapes have to reach the errors of tnml

X = np.linspace(0, 1, 48).reshape(12, 4)
Y = np.arange(12) % 3
SMALL = TrainOptions(epochs=1, device="cpu")


def fitted() -> tnml.MPSClassifier:
    return tnml.MPSClassifier(bond_dim=2, epochs=1, random_state=0).fit(X, Y)


def changed(array: np.ndarray, value: float) -> np.ndarray:
    return np.where(np.arange(array.size).reshape(array.shape) == 5, value, array)


def train(x: Any = X, y: Any = Y, **options: Any) -> object:
    return train_classifier(MPSLayer(4, 3, 2), x, y, TrainOptions(epochs=1, device="cpu", **options))


# Calls into the library, and what the error has to say.
LIBRARY: dict[str, tuple[Callable[[], object], str]] = {
    "bond_dim 0": (lambda: MPSLayer(4, 3, 0), r"bond_dim must be a whole number, at least 1, got 0"),
    "bond_dim 2.5": (lambda: MPSLayer(4, 3, 2.5), r"bond_dim must be .* got 2\.5"),  # type: ignore[arg-type]
    "no sites": (lambda: MPSLayer(0, 3), r"n_sites must be .* at least 1, got 0"),
    "too few bonds": (lambda: MPSLayer(4, 3, [1, 2, 2, 1]), r"expected 6 bonds .* got 4"),
    "label site": (lambda: MPSLayer(4, 3, label_site=5), r"label_site .* from 0 to 4, got 5"),
    "engine": (lambda: MPSLayer(4, 3, engine="nativ"), r"unknown engine 'nativ'; did you mean 'native'\?"),
    "dtype": (lambda: MPSLayer(4, 3, dtype="float23"), r"unknown dtype 'float23'; did you mean 'float32'"),
    "features": (
        lambda: feature_map("trigonometrc"),
        r"unknown feature map .*; did you mean 'trigonometric'\?",
    ),
    "features option": (lambda: feature_map("legendre", dim=0), r"dim.*got 0"),
    "order": (lambda: site_order("snaek", (2, 2), 4), r"unknown .*'snaek'; did you mean 'snake'\?"),
    "not a permutation": (lambda: site_order([0, 1, 1, 3], None, 4), r"each of 0\.\.3 once; 2 is missing"),
    "order and shape": (lambda: site_order("snake", (3, 2), 4), r"3.*2.*4"),
    "wrong width": (lambda: MPSLayer(4, 3)(torch.zeros(2, 5)), r"expected inputs \[b, 4\] .* got \[2, 5\]"),
    "cores do not fit": (
        lambda: chain(torch.zeros(1, 2, 2), [torch.zeros(1, 2, 3), torch.zeros(2, 2, 1)], label_site=2),
        r"core 1 has left bond 2, expected 3",
    ),
    "x with NaN": (lambda: train(changed(X, np.nan)), r"x holds NaN or infinite values; remove"),
    "x with infinity": (lambda: train(changed(X, np.inf)), r"x holds NaN or infinite values; remove"),
    "x of objects": (lambda: train(X.astype(object)), r"x must hold numbers, got an array of object"),
    "x empty": (lambda: train(X[:0], Y[:0]), r"at least one, got shape \[0, 4\]"),
    "y too short": (lambda: train(X, Y[:5]), r"y must have shape \[12\] .* got \[5\]"),
    "y negative": (lambda: train(X, Y - 1), r"y must lie in 0\.\.2, .* got -1\.\.1"),
    "y too large": (lambda: train(X, Y + 1), r"y must lie in 0\.\.2, .* got 1\.\.3"),
    "y real": (lambda: train(X, Y / 2), r"y must be whole numbers, got"),
    "epochs 0": (lambda: TrainOptions(epochs=0), r"epochs must be a whole number, at least 1, got 0"),
    "lr NaN": (lambda: TrainOptions(lr=float("nan")), r"lr must be a number, above 0, got nan"),
    "optimizer": (lambda: TrainOptions(optimizer="adma"), r"unknown optimizer 'adma'; did you mean 'adam'"),
    "device": (lambda: TrainOptions(device="gpu"), r"device must be 'auto', 'cpu', .* got 'gpu'"),
    "patience alone": (
        lambda: TrainOptions(patience=3),
        r"patience needs a held-out part .* got validation=0",
    ),
    "shift too far": (lambda: train(max_shift=2), r"max_shift must be below .* 2 x 2, got 2"),
    "no run to resume": (
        lambda: train_classifier(MPSLayer(4, 3), X, Y, SMALL, run_dir="nowhere", resume=True),
        r"there is no run to resume at nowhere; check the path",
    ),
    "data: ragged rows": (lambda: from_arrays([[0.0], [0.0, 1.0]], [0, 1]), r"not a regular array"),
    "data: values": (lambda: from_arrays([[0.0, 3.0]], [0]), r"must lie in \[0, 1\], got values from 0 to 3"),
    "data: NaN": (
        lambda: from_arrays(changed(X, np.nan), Y),
        r"1 NaN or infinite values, the first in sample 1",
    ),
    "data: objects": (
        lambda: from_arrays(X.astype(object), Y),
        r"x must hold real numbers, got dtype object",
    ),
    "data: name": (lambda: load("mnits"), r"unknown data set 'mnits'; did you mean 'mnist'"),
    "data: split": (lambda: load("digits", split="tset"), r"unknown split 'tset'; did you mean 'test'\?"),
    "data: pooling": (lambda: load("digits", pool=3), r"3.*8|8.*3"),
    "data: no folder": (lambda: from_idx("nowhere"), r"no folder at nowhere; give a folder with IDX files"),
    "data: no file": (lambda: from_npz("nowhere.npz"), r"no \.npz file at nowhere\.npz; check the path"),
    "estimator: one class": (
        lambda: tnml.MPSClassifier().fit(X, Y * 0),
        r"expected samples of at least 2 classes, got 1",
    ),
    "estimator: bond_dim": (lambda: tnml.MPSClassifier(bond_dim=0).fit(X, Y), r"bond_dim must be .* got 0"),
    "estimator: features": (
        lambda: tnml.MPSClassifier(features="forier").fit(X, Y),
        r"unknown feature map 'forier'; did you mean 'fourier'",
    ),
    "estimator: range": (
        lambda: tnml.MPSClassifier(feature_range=(1, 0)).fit(X, Y),
        r"feature_range must be .* low < high; got \(1, 0\)",
    ),
    "estimator: new label": (
        lambda: tnml.MPSClassifier(epochs=1).partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X, Y + 1),
        r"expected labels among \[0 1 2\], got \[3\]",
    ),
    "model file: none": (lambda: tnml.load("nowhere.safetensors"), r"no model file at .*; check the path"),
    "checkpoint: none": (
        lambda: checkpoint.load("nowhere.pt"),
        r"no checkpoint at nowhere\.pt; check the path",
    ),
}

# What scikit-learn finds wrong by itself: a ValueError in its own words.
SCIKIT_LEARN: dict[str, tuple[Callable[[], object], str]] = {
    "fit on NaN": (lambda: tnml.MPSClassifier().fit(changed(X, np.nan), Y), r"Input X contains NaN"),
    "fit on nothing": (lambda: tnml.MPSClassifier().fit(X[:0], Y[:0]), r"Found array with 0 sample"),
    "fit on real targets": (lambda: tnml.MPSClassifier().fit(X, Y + 0.5), r"Unknown label type: continuous"),
    "predict another width": (lambda: fitted().predict(X[:, :3]), r"X has 3 features, but .* expecting 4"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", LIBRARY)
def test_library(name: str, here: Path) -> None:
    call, pattern = LIBRARY[name]
    with pytest.raises(InputError, match=pattern) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert not list(here.iterdir())


@pytest.mark.parametrize("name", SCIKIT_LEARN)
def test_scikit_learn(name: str) -> None:
    call, pattern = SCIKIT_LEARN[name]
    with pytest.raises(ValueError, match=pattern):
        call()
