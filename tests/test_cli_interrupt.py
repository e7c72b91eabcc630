"""Ctrl-C outside the training loop: once there is a run folder, `tnml train` says how to go on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tnml.cli import main

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

HINT = "tnml: stopped; continue with `tnml train --resume run`\n"
WORDS = ["train", "toy.npz", "--out", "run", "--train.epochs", "1", "--device", "cpu"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Patch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.savez("toy.npz", x=np.linspace(0, 1, 48).reshape(12, 4), y=np.arange(12) % 3)
    return tmp_path


def interrupted(*args: Any, **options: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "where",
    [
        "tnml.training.samples.outputs_of",
        "tnml.training.sources.measure",
        "tnml.estimators.MPSClassifier.save",
    ],
    ids=["first contraction", "test measurement", "model file"],
)
def test_the_hint_is_given_and_works(here: Path, monkeypatch: Patch, capsys: Capture, where: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(where, interrupted)
        assert main(WORDS) == 130
    assert capsys.readouterr().err == HINT
    assert not (here / "run/model.safetensors").exists()
    assert main(["train", "--resume", "run"]) == 0
    assert (here / "run/model.safetensors").exists()


def test_a_resumed_run_has_its_folder_from_the_start(here: Path, monkeypatch: Patch, capsys: Capture) -> None:
    assert main(WORDS) == 0
    monkeypatch.setattr("tnml.cli.train.read_parts", interrupted)
    capsys.readouterr()
    assert main(["train", "--resume", "run"]) == 130
    assert capsys.readouterr().err == HINT


def test_without_a_folder_there_is_nothing_to_continue(
    here: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setattr("tnml.cli.train.read_parts", interrupted)
    assert main(WORDS) == 130
    assert capsys.readouterr().err == "tnml: interrupted\n"
    assert not (here / "run").exists()


def test_the_data_are_read_before_the_training_only(here: Path, monkeypatch: Patch) -> None:
    """The file may be gone when the training ends, also where images are pooled."""
    import tnml.cli.goals

    np.savez("toy.npz", x=np.linspace(0, 1, 192).reshape(12, 4, 4), y=np.arange(12) % 3)
    train: Callable[..., Any] = tnml.cli.goals.train_classifier

    def train_and_lose_the_data(*args: Any, **options: Any) -> Any:
        Path("toy.npz").unlink()
        return train(*args, **options)

    monkeypatch.setattr("tnml.cli.goals.train_classifier", train_and_lose_the_data)
    assert main([*WORDS, "--data.pool", "2"]) == 0
    assert tnml.load("run/model.safetensors").data_["original_shape"] == [4, 4]
