"""Model files, checkpoints and study folders of the version before the tables load, resume and report.

The numbers of that version are kept beside the files. They were computed in double precision on one
processor; another one may add up in another order, so the last digits are allowed to differ here.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tnml
from tnml import study
from tnml.loop import checkpoint
from tnml.nn import MPSLayer
from tnml.report import study_page
from tnml.training import SweepOptions, TrainOptions, sweep_classifier, train_classifier, train_regressor

FOLDER = Path(__file__).parent / "earlier"
CLOSE = {"rtol": 1e-8, "atol": 1e-10}  # of outputs of order one after tens of steps in double precision
GRADIENT = {
    "epochs": 4, "lr": 0.02, "batch_size": 16, "device": "cpu", "validation": 0.2, "average": "ema",
    "label_smoothing": 0.1, "patience": 3,
}  # fmt: skip
SWEEPS = {"sweeps": 2, "max_bond": 4, "device": "cpu", "validation": 0.2, "batch_size": 40}
SOLVE = {
    "iterations": 40, "reports": 8, "paths": 4, "time_steps": 4, "width": 8, "depth": 2, "device": "cpu",
    "dtype": "float64", "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def expected():
    return json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def run_dir(request, tmp_path):
    shutil.copytree(FOLDER / request.param, tmp_path / "run")
    return tmp_path / "run"


def the_run_in(name):
    return pytest.mark.parametrize("run_dir", [name], indirect=True)


def test_a_classifier_loads_and_predicts_the_same(expected):
    model = tnml.load(FOLDER / "classifier.safetensors")
    np.testing.assert_allclose(model.predict_proba(expected["X"]), expected["proba"], **CLOSE)
    assert model.layer_.order.tolist() == [5, 3, 1, 0, 2, 4]
    assert model.get_params()["bond_dim"] == 4
    assert (model.score(expected["X"], expected["label"])) > 0.6


def test_a_regressor_loads_and_predicts_the_same(expected):
    model = tnml.load(FOLDER / "regressor.safetensors")
    np.testing.assert_allclose(model.predict(expected["X"]), expected["predicted"], **CLOSE)
    assert model.solver == "dmrg"


def test_a_layer_loads_and_gives_the_same_outputs(expected):
    layer = tnml.load(FOLDER / "layer.safetensors")
    outputs = layer.eval()(torch.tensor(expected["X"], dtype=torch.float64))
    np.testing.assert_allclose(torch.view_as_real(outputs).detach(), expected["outputs"], **CLOSE)
    assert (layer.label_site, layer.site_dropout.p, layer.features.name) == (2, 0.1, "rbf")


def test_a_solution_loads_and_has_the_same_values(expected):
    solution = tnml.load(FOLDER / "solution.safetensors")
    t = torch.tensor([[0.0], [0.3], [0.9]], dtype=torch.float64)
    x = torch.tensor([[0.1, 0.2], [0.0, 1.0], [-1.0, 0.5]], dtype=torch.float64)
    np.testing.assert_allclose(solution.u(t, x), expected["pde"]["u"], **CLOSE)


def assert_ends_alike(layer, result, expected):
    np.testing.assert_allclose([row["loss"] for row in result.history], expected["loss"], rtol=1e-8)
    np.testing.assert_allclose(layer.weight.detach(), expected["weight"], **CLOSE)
    np.testing.assert_allclose(layer.label.detach(), expected["label"], **CLOSE)


@the_run_in("gradient")
def test_a_run_with_gradients_resumes(run_dir, expected):
    before = checkpoint.load(run_dir / "checkpoint.pt")
    assert (before["epoch"], before["step"]) == (1, 3), "the run was stopped inside its second epoch"
    layer = MPSLayer(6, 3, 4, order=[5, 3, 1, 0, 2, 4], site_dropout=0.1, dtype="float64", seed=9)
    result = train_classifier(
        layer, np.array(expected["X"]), expected["y"], TrainOptions(**GRADIENT), run_dir=run_dir, resume=True
    )
    assert_ends_alike(layer, result, expected["gradient"])


@the_run_in("regression")
def test_a_regression_whose_loss_was_not_named_resumes(run_dir, expected):
    layer = MPSLayer(6, 2, 4, dtype="float64", seed=9)
    options = TrainOptions(epochs=4, lr=0.02, batch_size=16, device="cpu")
    given = np.array(expected["X"]), np.array(expected["target"])
    result = train_regressor(layer, *given, options, run_dir=run_dir, resume=True)
    assert_ends_alike(layer, result, expected["regression"])


@the_run_in("gradient")
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"order": "snake", "shape": (2, 3)}, "order"),
        ({"features": "legendre"}, "features"),
        ({"label_site": 1}, "label_site"),
    ],
)
def test_another_layer_is_refused(run_dir, expected, changes, text):
    same = {"order": [5, 3, 1, 0, 2, 4], "site_dropout": 0.1, "dtype": "float64"}
    layer = MPSLayer(6, 3, 4, **{**same, **changes})
    with pytest.raises(tnml.InputError, match=text):
        train_classifier(
            layer, np.array(expected["X"]), expected["y"], TrainOptions(**GRADIENT),
            run_dir=run_dir, resume=True,
        )  # fmt: skip


@the_run_in("sweeps")
def test_a_run_by_sweeps_resumes(run_dir, expected):
    x, y = torch.tensor(expected["X"], dtype=torch.float64), torch.tensor(expected["y"])
    layer = MPSLayer(6, 3, 2, dtype="float64", seed=9)
    result = sweep_classifier(layer, x, y, SweepOptions(**SWEEPS), run_dir=run_dir, resume=True)
    # every SVD may turn signs, which outputs do not show; small singular values lose digits
    np.testing.assert_allclose([row["loss"] for row in result.history], expected["sweeps"]["loss"], rtol=1e-6)
    np.testing.assert_allclose(layer(x).detach(), expected["sweeps"]["outputs"], rtol=1e-5, atol=1e-6)


RESUME_SOLUTION = """
import json, sys
from tnml import pde
options = pde.SolveOptions(**json.loads(sys.argv[2]))
solution = pde.solve(pde.HeatEquation(2), options=options, run_dir=sys.argv[1], resume=True)
print(json.dumps([float(solution.value), [row["loss"] for row in solution.history]]))
"""


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the run knows functions by Python 3.11's bytecode"
)
@the_run_in("pde")
@pytest.mark.slow
def test_a_solution_under_way_resumes(run_dir, expected):
    """In a process of its own: a problem's functions are known by their code, which checked shapes change."""
    words = [sys.executable, "-c", RESUME_SOLUTION, str(run_dir), json.dumps(SOLVE)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    value, losses = json.loads(done.stdout)
    assert value == pytest.approx(expected["pde"]["value"], rel=1e-8)
    np.testing.assert_allclose(losses, expected["pde"]["loss"], rtol=1e-6)


@pytest.mark.parametrize("name", ["overfitting-1d", "label-noise", "overfitting-grid"])
def test_a_study_resumes_and_reports(name, expected, tmp_path):
    shutil.copytree(FOLDER / name, tmp_path / name)
    folder, lost = tmp_path / name, expected[name]["lost"]
    done = {path: path.read_bytes() for path in (folder / "runs").glob("*/result.json")}
    table = study.run(study.find_study(name).smoked(), folder=folder, workers=0)
    assert (table.failed, table.waiting) == ({}, 0)
    assert all(path.read_bytes() == before for path, before in done.items()), "what was done is left alone"
    again = json.loads((folder / "runs" / lost / "result.json").read_text(encoding="utf-8"))
    for key in ("train_error", "test_error", "train_loss", "test_loss"):
        if key in expected[name]["result"]:
            # a thousand steps or some sweeps from the same start: single precision, another order of sums
            assert again[key] == pytest.approx(expected[name]["result"][key], rel=0.05, abs=1e-4)
    assert lost in study_page(folder).read_text(encoding="utf-8")
