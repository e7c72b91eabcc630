"""Bad input to training by sweeps: one clear error that says what was expected and came, and no files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training import SweepOptions, sweep_classifier, sweep_regressor
from tnml.training.dmrg import solvers

pytestmark = pytest.mark.usefixtures("unchecked")  # wrong shapes have to reach the errors of tnml

X = np.linspace(0, 1, 72).reshape(18, 4)
Y = np.arange(18) % 3


def changed(value: float) -> np.ndarray:
    return np.where(np.arange(X.size).reshape(X.shape) == 5, value, X)


def classify(x: Any = X, y: Any = Y, layer: Any = None, more: Any = None, **options: Any) -> object:
    layer = MPSLayer(4, 3, 2) if layer is None else layer
    settings = SweepOptions(sweeps=1, max_bond=3, device="cpu", **options)
    return sweep_classifier(layer, x, y, settings, run_dir="run", **(more or {}))


def regress(x: Any = X, y: Any = X[:, 0], layer: Any = None, **options: Any) -> object:
    layer = MPSLayer(4, 1, 2) if layer is None else layer
    settings = {"loss": "mse", "sweeps": 1, "device": "cpu", **options}
    return sweep_regressor(layer, x, y, SweepOptions(**settings), run_dir="run")


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "sweeps 0": ({"sweeps": 0}, r"sweeps must be a whole number, at least 1, got 0"),
    "sites 3": ({"sites": 3}, r"sites must be 1 or 2, got 3"),
    "sites True": ({"sites": True}, r"sites must be 1 or 2, got True"),
    "label": ({"label": "travel"}, r"unknown label 'travel'; did you mean 'travels'\?"),
    "max_bond 0": ({"max_bond": 0}, r"max_bond must be a whole number, at least 1, got 0"),
    "max_bond 2.5": ({"max_bond": 2.5}, r"max_bond must be a whole number, .* got 2\.5"),
    "no max_bond": ({"max_bond": ()}, r"max_bond must be a number or at least one number, got \(\)"),
    "max_bond text": ({"max_bond": "20"}, r"max_bond must be a whole number, .* got '20'"),
    "a max_bond 0": ({"max_bond": (4, 0)}, r"every entry of max_bond must be .* at least 1, got 0"),
    "max_error 1": ({"max_error": 1.0}, r"max_error must be a number, at least 0 and below 1, got 1"),
    "metric": ({"metric": "frobenious"}, r"unknown metric 'frobenious'; did you mean 'frobenius'\?"),
    "damping": ({"damping": -0.1}, r"damping must be a number, at least 0, got -0\.1"),
    "solver": ({"solver": "asl"}, r"unknown solver 'asl'; did you mean 'als'\?"),
    "newton": ({"solver": "newton"}, r"unknown solver 'newton'; did you mean 'newton-cg'\?"),
    "iterations 0": ({"iterations": 0}, r"iterations must be a whole number, at least 1, got 0"),
    "loss": ({"loss": "mes"}, r"unknown loss 'mes'; did you mean 'mse'\?"),
    "als and logits": ({"solver": "als"}, r"'als' .* needs loss='mse', got loss='cross-entropy'; choose"),
    "smoothing 1": ({"label_smoothing": 1.0}, r"label_smoothing must be a number, .* below 1, got 1"),
    "smooth mse": ({"loss": "mse", "label_smoothing": 0.1}, r"label_smoothing goes with loss='cross-entr"),
    "ridge": ({"ridge": -1.0}, r"ridge must be a number, at least 0, got -1"),
    "ridge NaN": ({"ridge": float("nan")}, r"ridge must be a number, at least 0, got nan"),
    "proximal": ({"proximal": -1.0}, r"proximal must be a number, at least 0, got -1"),
    "a proximal": ({"proximal": (1.0, "x")}, r"every entry of proximal must be a number, .* got 'x'"),
    "no proximal": ({"proximal": []}, r"proximal must be a number or at least one number, got \[\]"),
    "noise": ({"noise": -1}, r"noise must be a number, at least 0, got -1"),
    "batch_size 0": ({"batch_size": 0}, r"batch_size must be a whole number, at least 1, got 0"),
    "max_shift": ({"max_shift": -1}, r"max_shift must be a whole number, at least 0, got -1"),
    "validation 1": ({"validation": 1.0}, r"validation must be a number, at least 0 and below 1, got 1"),
    "memory 0": ({"memory_gb": 0}, r"memory_gb must be a number, above 0, got 0"),
    "device": ({"device": "gpu"}, r"device must be 'auto', 'cpu', .* got 'gpu'"),
    "seed": ({"seed": -1}, r"seed must be a whole number, at least 0, got -1"),
    "checkpoints": ({"checkpoint_seconds": 0}, r"checkpoint_seconds must be a number, above 0, got 0"),
}

CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "complex layer": (
        lambda: classify(layer=MPSLayer(4, 3, dtype="complex64")),
        r"real layers, got torch\.complex64; choose dtype='float32' or 'float64'",
    ),
    "one site": (
        lambda: classify(X[:, :1], layer=MPSLayer(1, 3)),
        r"at least two sites, got 1; train it with gradients",
    ),
    "another layer": (
        lambda: classify(layer=nn.Linear(4, 3)),
        r"an MPSLayer, got Linear; train it with grad",
    ),
    "x with NaN": (lambda: classify(changed(np.nan)), r"x holds NaN or infinite values; remove"),
    "x with infinity": (lambda: classify(changed(np.inf)), r"x holds NaN or infinite values; remove"),
    "x of objects": (lambda: classify(X.astype(object)), r"x must hold numbers, got an array of object"),
    "x empty": (lambda: classify(X[:0], Y[:0]), r"at least one, got shape \[0, 4\]"),
    "x too wide": (lambda: classify(np.ones((18, 5))), r"expected inputs \[b, 4\] .* got \[1, 5\]"),
    "y too short": (lambda: classify(X, Y[:5]), r"y must have shape \[18\] .* got \[5\]"),
    "y negative": (lambda: classify(X, Y - 1), r"y must lie in 0\.\.2, .* got -1\.\.1"),
    "y too large": (lambda: classify(X, Y + 1), r"y must lie in 0\.\.2, .* got 1\.\.3"),
    "y real": (lambda: classify(X, Y / 2), r"y must be whole numbers, got"),
    "x_test alone": (lambda: classify(more={"x_test": X}), r"x_test and y_test go together"),
    "shift too far": (lambda: classify(max_shift=2), r"max_shift must be below .* 2 x 2, got 2"),
    "image shape": (
        lambda: classify(max_shift=1, more={"image_shape": (3, 2)}),
        r"images of 4 values are not 3 x 2; give image_shape",
    ),
    "shift of features": (
        lambda: classify(np.ones((18, 4, 2)), max_shift=1),
        r"max_shift moves images .* got x of shape \[18, 4, 2\]",
    ),
    "little memory": (lambda: classify(memory_gb=1e-9), r"need at least .* memory_gb is 1e-09; raise"),
    "regression: logits": (
        lambda: regress(loss="cross-entropy"),
        r"is for classification, not for regression; choose from mse",
    ),
    "regression: shift": (lambda: regress(max_shift=1), r"max_shift and label_smoothing are for classifiers"),
    "regression: y with NaN": (lambda: regress(y=changed(np.nan)[:, 1]), r"y holds NaN or infinite values"),
    "regression: y too wide": (
        lambda: regress(y=X),
        r"y must be \[18, 1\] as x and the layer say, got \[18, 4\]",
    ),
    "regression: all held out": (
        lambda: regress(X[:1], X[:1, 0], validation=0.5),
        r"leaves none to train on; lower it",
    ),
    "features without bound": (
        lambda: regress(np.full((18, 4), 1e30)),
        r"contractions of the samples hold NaN or infinite values; scale the features",
    ),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_clear(caught: pytest.ExceptionInfo[InputError]) -> None:
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str) -> None:
    options, pattern = OPTIONS[name]
    with pytest.raises(InputError, match=pattern) as caught:
        SweepOptions(**options)
    assert_clear(caught)


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str, here: Path) -> None:
    call, pattern = CALLS[name]
    with pytest.raises(InputError, match=pattern) as caught:
        call()
    assert_clear(caught)
    assert not list(here.iterdir())


def test_a_layer_is_as_before_after_an_error() -> None:
    layer = MPSLayer(4, 3, 2)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    for call in (
        lambda: classify(memory_gb=1e-9, layer=layer),
        lambda: classify(changed(np.nan), layer=layer),
    ):
        with pytest.raises(InputError):
            call()
    assert all(torch.equal(before[name], tensor) for name, tensor in layer.state_dict().items())


def test_a_folder_with_a_run(here: Path) -> None:
    classify()
    with pytest.raises(InputError, match="run already holds a run; resume it with resume=True or") as caught:
        classify()
    assert_clear(caught)
    (here / "file").write_text("x")
    with pytest.raises(InputError, match="run_dir file is a file; give a folder"):
        sweep_classifier(MPSLayer(4, 3), X, Y, SweepOptions(device="cpu"), run_dir="file")
    with pytest.raises(InputError, match="there is no run to resume at nowhere; check the path"):
        sweep_classifier(MPSLayer(4, 3), X, Y, SweepOptions(device="cpu"), run_dir="nowhere", resume=True)


def test_least_squares_that_would_be_too_large(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "_LARGEST", 50)
    with pytest.raises(
        InputError, match=r"a matrix of .* entries, more than .*; lower max_bond or batch"
    ) as caught:
        regress(solver="als")
    assert_clear(caught)
