"""`tnml train --task regression` and what the other commands make of its models; losses by name."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import tnml
from tnml.cli import main
from tnml.cli.request import read_request
from tnml.diagnostics import CALLBACKS
from tnml.training.dmrg.sweep import Sweeper

Capture = pytest.CaptureFixture[str]
QUICK = ["--train.epochs", "6", "--model.bond_dim", "4", "--device", "cpu"]
TRAIN = ["train", "toy.npz", "--task", "regression", *QUICK]
SWEEP = [
    "train",
    "toy.npz",
    "--task",
    "regression",
    "--solver",
    "dmrg",
    "--sweep.sweeps",
    "2",
    "--device",
    "cpu",
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with 160 samples of five numbers and a smooth target far from 0."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    x = rng.uniform(size=(160, 5))
    y = 300 + 40 * x[:, 0] * x[:, 1] - 25 * x[:, 2] + rng.normal(size=160)
    np.savez("toy.npz", x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    return tmp_path


def facts_of(text: str) -> dict[str, str]:
    lines = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}


def arrays() -> tuple[Any, Any, Any, Any]:
    with np.load("toy.npz") as stored:
        return tuple(stored[name] for name in ("x_train", "y_train", "x_test", "y_test"))


def scores(truth: Any, predicted: Any) -> tuple[float, float, float]:
    """R2, RMSE and MAE by their formulas."""
    error = truth - predicted
    spread = ((truth - truth.mean()) ** 2).mean()
    return 1 - (error**2).mean() / spread, (error**2).mean() ** 0.5, np.abs(error).mean()


def regressor(path: str | Path) -> tnml.MPSRegressor:
    found = tnml.load(path)
    assert isinstance(found, tnml.MPSRegressor)
    return found


def assert_same(one: str, two: str) -> None:
    first, second = (load_file(Path(run) / "model.safetensors") for run in (one, two))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_summary_and_the_file_say_how_good_it_is(here: Path, capsys: Capture) -> None:
    assert main([*TRAIN, "--train.lr", "0.02", "--out", "run"]) == 0
    shown = facts_of(capsys.readouterr().out)
    _, y, x_test, y_test = arrays()
    model = regressor("run/model.safetensors")
    r2, rmse, _ = scores(y_test, model.predict(x_test))
    assert shown["test R2"] == f"{r2:.4f}"
    assert shown["test RMSE"] == f"{rmse:.6g}"
    assert f"5 sites, targets from {y.min():.4g} to {y.max():.4g}" in shown["data"]
    assert model.data_ is not None
    results = model.data_["results"]
    np.testing.assert_allclose([results["test R2"], results["test RMSE"]], [r2, rmse], rtol=1e-12)
    assert 0 < r2 <= 1, "it has learned something"
    np.testing.assert_allclose([model.y_mean_, model.y_scale_], [[y.mean()], [y.std()]], rtol=1e-12)
    stored = yaml.safe_load(Path("run/options.yaml").read_text())
    assert (stored["task"], stored["target"], stored["train"]["loss"]) == ("regression", None, "mse")
    assert shown["next"].endswith("toy.npz --figure predictions.png")
    assert main(shown["next"].split()[1:]) == 0, "the command it proposes works"
    assert Path("predictions.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_predict_and_inspect(here: Path, capsys: Capture) -> None:
    assert main([*TRAIN, "--out", "run"]) == 0
    x, y, x_test, y_test = arrays()
    model = regressor("run/model.safetensors")
    capsys.readouterr()
    for words, part in (([], (x_test, y_test)), (["toy.npz", "--split", "train"], (x, y))):
        assert main(["evaluate", "run", *words]) == 0
        shown = facts_of(capsys.readouterr().out)
        r2, rmse, mae = scores(part[1], model.predict(part[0]))
        expected = {"R2": f"{r2:.4f}", "RMSE": f"{rmse:.6g}", "MAE": f"{mae:.6g}"}
        assert {name: shown[name] for name in expected} == expected
    np.save("new.npy", x_test)
    assert main(["predict", "run", "new.npy"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["index", "prediction"]
    assert [row[0] for row in rows[1:]] == [str(index) for index in range(40)]
    np.testing.assert_allclose([float(row[1]) for row in rows[1:]], model.predict(x_test), rtol=1e-8)
    assert main(["inspect", "run"]) == 0
    shown = facts_of(capsys.readouterr().out)
    assert shown["kind"] == "regressor of 1 target"
    assert model.data_ is not None
    assert shown["test R2"] == f"{model.data_['results']['test R2']:.4f}"
    assert (shown["epoch"], shown["sites"][:2]) == ("6", "5,")


def test_a_stopped_run_resumes_to_the_same_bits(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_at_three(facts: Any) -> Any:
        def callback(module: Any, optimizer: Any, row: Any) -> None:
            if row["epoch"] == 3:
                raise KeyboardInterrupt

        return callback

    words = [*TRAIN, "--model.bond_dropout", "0.1"]
    assert main([*words, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setitem(CALLBACKS, "stop", stop_at_three)
        assert main([*words, "--callbacks", "stop", "--out", "cut"]) == 130
        assert not Path("cut/model.safetensors").exists()
        assert main(["train", "--resume", "cut", "--callbacks", "[]"]) == 0
    assert_same("whole", "cut")


@pytest.mark.parametrize("after", [0, 3])
def test_sweeps_and_their_resumption(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, after: int
) -> None:
    step, count = Sweeper.step, 0

    def step_until(self: Sweeper, *args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == after + 1:
            raise KeyboardInterrupt
        return step(self, *args, **options)

    assert main([*SWEEP, "--out", "whole"]) == 0
    r2, rmse, _ = scores(arrays()[3], regressor("whole/model.safetensors").predict(arrays()[2]))
    shown = facts_of(capsys.readouterr().out)
    assert (shown["test R2"], shown["test RMSE"]) == (f"{r2:.4f}", f"{rmse:.6g}")
    assert r2 > 0.9
    with monkeypatch.context() as patch:
        patch.setattr(Sweeper, "step", step_until)
        assert main([*SWEEP, "--out", "cut"]) == 130
    assert main(["train", "--resume", "cut"]) == 0
    assert_same("whole", "cut")


LOSSES = [
    ("regression", "gradient", "huber", True),
    ("regression", "gradient", "{name: huber, delta: 0.5}", True),
    ("regression", "gradient", "{name: quantile, quantile: 0.9}", True),
    ("regression", "dmrg", "huber", True),
    ("classification", "gradient", "focal", True),
    ("classification", "gradient", "mse", True),
    ("classification", "dmrg", "mse", True),
    ("regression", "gradient", "cross-entropy", "is for classification, not for regression; choose from"),
    ("regression", "gradient", "focal", "is for classification"),
    ("classification", "gradient", "huber", "is for regression, not for classification"),
    ("regression", "gradient", "hubre", "unknown loss 'hubre'; did you mean 'huber'?"),
    ("regression", "gradient", "{name: huber, dleta: 1}", "did you mean 'delta'?"),
    ("regression", "gradient", "{delta: 1}", "must be a name or a mapping with a 'name'"),
    ("regression", "dmrg", "quantile", "cannot minimise loss='quantile'; choose solver 'lbfgs'"),
    ("classification", "dmrg", "huber", "is for regression"),
]


@pytest.mark.parametrize(("task", "solver", "loss", "says"), LOSSES)
def test_losses(here: Path, capsys: Capture, task: str, solver: str, loss: str, says: bool | str) -> None:
    group = {"gradient": "train", "dmrg": "sweep"}[solver]
    count = {"gradient": "--train.epochs", "dmrg": "--sweep.sweeps"}[solver]
    words = ["--task", task, "--solver", solver, f"--{group}.loss", loss, count, "1", "--device", "cpu"]
    if task == "classification":
        x, y, x_test, y_test = arrays()
        names = ("x_train", "y_train", "x_test", "y_test")
        np.savez("toy.npz", **dict(zip(names, (x, y > 300, x_test, y_test > 300), strict=True)))
    code = main(["train", "toy.npz", *words, "--out", "run"])
    if isinstance(says, str):
        assert code == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
        assert not Path("run").exists()
        return
    assert code == 0
    assert yaml.safe_load(Path("run/options.yaml").read_text())[group]["loss"] == yaml.safe_load(loss)
    Path("run/model.safetensors").unlink()
    assert main(["train", "--resume", "run"]) == 0
    assert main(["evaluate", "run"]) == 0


def test_a_wrong_loss_is_refused_before_the_data_are_read(here: Path, capsys: Capture) -> None:
    for words in (["--train.loss", "focal"], ["--solver", "dmrg", "--sweep.loss", "quantile"]):
        assert main(["train", "nowhere.npz", "--task", "regression", *words]) == 2
        assert f"loss='{words[-1]}'" in capsys.readouterr().err


def test_presets_bring_nothing_that_only_labels_have(here: Path) -> None:
    for data in ("mnist", "digits", "toy.npz"):
        for name in ("default", "accurate"):
            options = read_request([data, "--task", "regression", "--preset", name]).options
            for training in (options.train, options.sweep):
                assert (training.label_smoothing, training.max_shift) == (0, 0)
    labelled = read_request(["mnist"]).options
    assert labelled.train.label_smoothing > 0
    assert labelled.train.max_shift == 1
    assert labelled.task == "classification"
    focal = read_request(["mnist", "--train.loss", "focal"]).options.train
    assert (focal.label_smoothing, focal.max_shift) == (0, 1)
    assert read_request(["mnist", "--train.loss", "cross-entropy"]).options.train == labelled.train


REFUSED: dict[str, tuple[list[str], str]] = {
    "a task": (["--task", "regresion"], "unknown task 'regresion'; did you mean 'regression'?"),
    "no task of the command line": (["--task", "density"], "unknown task 'density'"),
    "shifts": (["--task", "regression", "--train.max_shift", "1"], "are for classifiers; set them to 0"),
    "smoothing": (
        ["--task", "regression", "--train.label_smoothing", "0.1"],
        "label_smoothing goes with loss='cross-entropy'",
    ),
    "real targets as labels": ([], "expected class labels .* choose --task regression"),
    "a column": (["--target", "y"], r"--target y names columns of a table.*leave it out"),
    "to drop": (["--data.drop", "[y]"], r"--data\.drop names columns of a table"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_there_is_a_folder(here: Path, capsys: Capture, name: str) -> None:
    words, says = REFUSED[name]
    assert main(["train", "toy.npz", *QUICK, *words, "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(says, error), error
    assert not Path("run").exists()


def test_text_and_single_samples(here: Path, capsys: Capture) -> None:
    x = np.linspace(0, 1, 20).reshape(5, 4)
    np.savez("text.npz", x=x, y=np.array(list("ababa")))
    assert main(["train", "text.npz", "--task", "regression", *QUICK]) == 2
    assert "real targets must be numbers" in capsys.readouterr().err
    np.savez("few.npz", x=x, y=np.arange(5))
    assert main(["train", "few.npz", "--task", "regression", *QUICK, "--out", "run"]) == 0
    shown = facts_of(capsys.readouterr().out)
    assert "1 to test" in shown["data"]
    assert "test R2" not in shown, "one sample has none"
    assert float(shown["test RMSE"]) >= 0


def test_a_run_stays_with_its_task(here: Path, capsys: Capture) -> None:
    assert main([*TRAIN, "--out", "run"]) == 0
    assert main(["train", "--resume", "run", "--task", "classification"]) == 2
    assert (
        "was started with --task regression, got classification; leave --task out" in capsys.readouterr().err
    )
    Path("old.yaml").write_text("dataset: digits\ntrain: {epochs: 2}\n")
    assert read_request(["--config", "old.yaml"]).options.task == "classification"


def test_compress(here: Path, capsys: Capture) -> None:
    assert main([*TRAIN, "--train.lr", "0.02", "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["compress", "run", "toy.npz", "--max_bond", "2", "--out", "small.safetensors"]) == 0
    shown = capsys.readouterr().out
    small, large = regressor("small.safetensors"), regressor("run/model.safetensors")
    assert max(small.layer_.bond_dims) == 2
    _, _, x, y = arrays()
    (r2, rmse, _), (before, _, _) = scores(y, small.predict(x)), scores(y, large.predict(x))
    rows = {line.split("  ")[0]: line.split() for line in shown.splitlines()}
    assert rows["R2, truncated"][2:4] == [f"{before:.4f}", f"{r2:.4f}"]
    assert rows["RMSE, truncated"][3] == f"{rmse:.6g}"
    words = ["--max_bond", "2", "--fine_tune", "4", "--lr", "0.01", "--out", "tuned.safetensors"]
    assert main(["compress", "run", "toy.npz", *words]) == 0
    assert "R2, fine-tuned" in capsys.readouterr().out
    tuned = regressor("tuned.safetensors")
    train = arrays()[:2]
    assert scores(train[1], tuned.predict(train[0]))[1] < scores(train[1], small.predict(train[0]))[1]
    assert main(["compress", "run", "toy.npz", "--max_bond", "2", "--curve", "c.png"]) == 2
    assert "--curve draws accuracies, which a regressor does not have" in capsys.readouterr().err


def test_several_targets_at_once(here: Path, capsys: Capture) -> None:
    x, y, _, _ = arrays()
    model = tnml.MPSRegressor(bond_dim=2, epochs=1, random_state=0).fit(x, np.stack([y, -y], 1))
    model.save("two.safetensors")
    np.save("new.npy", x[:3])
    assert main(["predict", "two.safetensors", "new.npy"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["index", "prediction_0", "prediction_1"]
    found = [[float(cell) for cell in row[1:]] for row in rows[1:]]
    np.testing.assert_allclose(found, model.predict(x[:3]), rtol=1e-8)
    assert main(["inspect", "two.safetensors"]) == 0
    assert "regressor of 2 targets" in capsys.readouterr().out
    assert main(["evaluate", "two.safetensors", "toy.npz"]) == 2
    assert "predicts 2 targets at once" in capsys.readouterr().err
