"""`tnml evaluate`, `predict`, `inspect`, `data`, and what the command line is like as a whole."""

import csv
import gzip
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tnml
from tnml.cli import COMMANDS, main
from tnml.data import load
from tnml.nn import MPSLayer

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the digits pooled to 4 x 4, hardly trained."""
    folder = tmp_path_factory.mktemp("run")
    words = ["--train.epochs", "3", "--data.pool", "2", "--model.bond_dim", "6", "--train.lr", "0.01"]
    assert main(["train", "digits", *words, "--out", str(folder / "run")]) == 0
    return folder / "run"


def words_of(capsys: Capture) -> str:
    return capsys.readouterr().out


def test_evaluate_counts_as_a_plain_loop_does(model: Path, tmp_path: Path, capsys: Capture) -> None:
    figure = tmp_path / "confusion.svg"
    capsys.readouterr()
    assert main(["evaluate", str(model), "digits", "--figure", str(figure)]) == 0
    shown = words_of(capsys)
    test = load("digits", split="test", pool=2)
    predicted = tnml.load(model / "model.safetensors").predict(test.x)
    pairs = list(zip(test.y.tolist(), predicted.tolist(), strict=True))
    assert f"accuracy: {sum(t == p for t, p in pairs) / len(pairs):.4f}" in shown.splitlines()
    rows = [line.split() for line in shown.splitlines() if line[:1].isdigit()]
    assert len(rows) == 10
    for label, row in enumerate(rows):
        right = sum(t == p == label for t, p in pairs)
        called, support = sum(p == label for _, p in pairs), sum(t == label for t, _ in pairs)
        expected = f"{right / called:.4f}" if called else "-"
        assert row[:3] == [str(label), expected, f"{right / support:.4f}"]
        assert row[4] == str(support)
    assert figure.read_text().startswith("<?xml")


def test_evaluate_takes_the_data_of_the_training_by_itself(model: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(model)]) == main(["evaluate", str(model), "digits"]) == 0
    first, second = words_of(capsys).split("data: ")[1:]
    assert first == second


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "headed csv", "idx", "idx.gz", "flat", "pooled"])
def test_predict_reads_every_kind_of_file(model: Path, kind: str, tmp_path: Path, capsys: Capture) -> None:
    """Original images, flat or not, are pooled as the training data were."""
    images = load("digits", split="test")
    pixels = np.round(images.x[:7] * 255).astype(np.uint8)
    square = pixels.reshape(-1, 8, 8)
    file = tmp_path / f"new.{kind.rsplit(maxsplit=1)[-1] if kind not in ('flat', 'pooled') else 'npy'}"
    if kind in ("npy", "flat"):
        np.save(file, square if kind == "npy" else pixels)
    elif kind == "npz":
        np.savez(file, x=square)
    elif "csv" in kind:
        head = ",".join(f"c{i}" for i in range(64)) if kind == "headed csv" else ""
        np.savetxt(file, pixels, delimiter=",", fmt="%d", header=head, comments="")
    elif "idx" in kind:
        data = bytes([0, 0, 8, 3, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 8]) + square.tobytes()
        file.write_bytes(gzip.compress(data) if kind == "idx.gz" else data)
    else:
        np.save(file, (square / 255).reshape(7, 4, 2, 4, 2).mean((2, 4)).reshape(7, 16))
    out = tmp_path / "labels.csv"
    scale = ["--scale", "[0,255]"] if "csv" in kind else []
    assert main(["predict", str(model), str(file), "--out", str(out), *scale]) == 0
    rows = list(csv.reader(io.StringIO(out.read_text())))
    assert rows[0] == ["index", "label", *(f"p_{i}" for i in range(10))]
    pooled = (square / 255).reshape(7, 4, 2, 4, 2).mean((2, 4)).reshape(7, 16).astype(np.float32)
    expected = tnml.load(model / "model.safetensors").predict_proba(pooled)
    for index, row in enumerate(rows[1:]):
        assert row[:2] == [str(index), str(expected[index].argmax())]
        np.testing.assert_allclose([float(p) for p in row[2:]], expected[index], rtol=1e-4, atol=1e-6)
    assert len(rows) == 8


def test_predict_writes_to_the_standard_output(model: Path, tmp_path: Path, capsys: Capture) -> None:
    np.save(tmp_path / "new.npy", np.zeros((2, 16)))
    capsys.readouterr()
    assert main(["predict", str(model), str(tmp_path / "new.npy")]) == 0
    assert len(words_of(capsys).splitlines()) == 3


def test_predict_lets_a_model_fitted_in_python_scale(tmp_path: Path, capsys: Capture) -> None:
    x = np.array([[0.0, -30.0], [1.0, -20.0], [90.0, 7.0], [100.0, 9.0]])
    fitted = tnml.MPSClassifier(bond_dim=2, random_state=0).fit(x, ["low", "low", "high", "high"])
    fitted.save(tmp_path / "own.safetensors")
    np.savetxt(tmp_path / "own.csv", x, delimiter=",")
    assert main(["predict", str(tmp_path / "own.safetensors"), str(tmp_path / "own.csv")]) == 0
    labels = [line.split(",")[1] for line in words_of(capsys).splitlines()[1:]]
    assert labels == fitted.predict(x).tolist()


def test_inspect_shows_what_the_file_holds(model: Path, tmp_path: Path, capsys: Capture) -> None:
    capsys.readouterr()
    figure = tmp_path / "bonds.png"
    assert main(["inspect", str(model), "--figure", str(figure), "--samples", "50"]) == 0
    shown = words_of(capsys)
    assert "sites:         16, label core after site 8" in shown
    assert "bonds:         1 2 4 6(x12) 4 2 1" in shown
    assert "features:      linear, dimension 2" in shown
    assert "order:         snake" in shown
    assert "mean over 2x2 blocks" in shown
    assert "outputs on 50 samples (uniform random inputs)" in shown
    assert figure.stat().st_size > 1000


def test_inspect_measures_the_outputs(model: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert main(["inspect", str(model), "digits"]) == 0
    numbers = dict(line.split(":") for line in words_of(capsys).split("outputs on")[1].splitlines()[1:])
    test = load("digits", split="test", pool=2)
    fitted = tnml.load(model / "model.safetensors")
    logits = fitted.decision_function(test.x)
    norms = np.linalg.norm(logits, axis=1)
    assert float(numbers["standard deviation"]) == pytest.approx(logits.std(), rel=2e-3)
    assert float(numbers["norm, largest / median"]) == pytest.approx(norms.max() / np.median(norms), rel=2e-3)


def test_only_classifiers_are_taken(tmp_path: Path, capsys: Capture) -> None:
    MPSLayer(4, 2).save(tmp_path / "layer.safetensors")
    assert main(["inspect", str(tmp_path / "layer.safetensors")]) == 2
    assert "holds an MPSLayer, expected a classifier" in capsys.readouterr().err


def test_data_list_and_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.delenv("TNML_DATA", raising=False)
    assert main(["data", "list", "--cache", str(tmp_path)]) == 0
    lines = [line.split()[:4] for line in words_of(capsys).splitlines()]
    assert lines == [
        ["name", "here", "train", "test"],
        ["digits", "yes", "1346", "451"],
        ["mnist", "no", "60000", "10000"],
        ["fashion-mnist", "no", "60000", "10000"],
    ]
    assert main(["data", "fetch", "digits"]) == 0
    assert words_of(capsys) == "digits is here: comes with scikit-learn\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    shown = words_of(capsys)
    assert shown.startswith(f"usage: tnml {name} ")
    assert "examples:" in shown


def test_help_of_train_shows_the_defaults_of_the_data_set(capsys: Capture) -> None:
    shown = []
    for data in ("digits", "mnist"):
        with pytest.raises(SystemExit):
            main(["train", data, "--help"])
        text = " ".join(words_of(capsys).split())
        shown.append(text[text.index("--train.lr LR") :][:200])
    assert shown[0] != shown[1]


def test_version_and_help_are_quick(project_root: Path) -> None:
    for word in ("--version", "--help"):
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "tnml", word],
            cwd=project_root,
            capture_output=True,
            text=True,
            check=True,
        )
        assert sum(os.times()[2:4]) - sum(before[2:4]) < 2.5, "seconds of CPU of the child"
        assert "tnml" in done.stdout
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert not {"torch", "jsonargparse", "sklearn", "matplotlib"} & loaded


def test_no_command_shows_the_help(capsys: Capture) -> None:
    assert main([]) == 2
    assert "tnml train digits" in words_of(capsys)
