"""`tnml train`: what it prints, what it leaves behind, and that a stopped run ends like an unstopped one."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from children import child, complaints, environment
from safetensors.torch import load_file

import tnml
from tnml.cli import main
from tnml.data import load

QUICK = ["--train.epochs", "2", "--data.pool", "2", "--model.bond_dim", "4", "--device", "cpu"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def facts_of(text: str) -> dict[str, str]:
    """The lines `name: value` of what was printed."""
    return {
        name: value.strip()
        for name, colon, value in (line.partition(":") for line in text.splitlines())
        if colon
    }


def toy_file(path: Path, labels: Any = ("cat", "dog"), samples: int = 80) -> Path:
    """Two classes of six numbers, easily told apart."""
    rng = np.random.default_rng(3)
    y = np.arange(samples) % 2
    x = np.clip(0.25 + 0.5 * y[:, None] + 0.1 * rng.standard_normal((samples, 6)), 0, 1)
    np.savez(path, x=x, y=np.array(labels)[y])
    return path


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "tnml", *map(str, words)]


def test_digits_by_default(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *QUICK]) == 0
    shown, errors = capsys.readouterr()
    assert errors == ""
    facts = facts_of(shown)
    assert "1346 to train, 451 to test, 16 sites (4 x 4), 10 classes" in facts["data"]
    assert facts["model"] == "runs/digits-001/model.safetensors"
    assert [line.split("  ")[0] for line in shown.splitlines() if line.startswith("epoch")] == [
        "epoch 1/2",
        "epoch 2/2",
    ]
    folder = here / "runs" / "digits-001"
    assert {p.name for p in folder.iterdir()} == {
        "options.yaml",
        "metrics.csv",
        "checkpoint.pt",
        "model.safetensors",
    }

    model = tnml.load(folder / "model.safetensors")
    test = load("digits", split="test", pool=2)
    assert f"test accuracy: {model.score(test.x, test.y):.4f}" in shown.splitlines()
    assert int(facts["parameters"]) == sum(p.numel() for p in model.layer_.parameters())
    assert float(facts["seconds"]) >= 0
    assert facts["next"].startswith("tnml evaluate runs/digits-001/model.safetensors digits")
    assert main(facts["next"].split()[1:]) == 0, "the command it proposes works"
    assert (here / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_each_run_has_its_folder_and_its_options(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = toy_file(here / "toy.npz")
    assert main(["train", str(toy), "--train.epochs", "1", "--seed", "5"]) == 0
    assert main(["train", "toy.npz", "--train.epochs", "1", "--seed", "6"]) == 0
    first, second = (yaml.safe_load((here / f"runs/toy-00{i}/options.yaml").read_text()) for i in (1, 2))
    assert first["dataset"] == second["dataset"] == str(toy)
    assert (first.pop("seed"), second.pop("seed")) == (5, 6)
    assert first == second
    assert main(["train", "--config", "runs/toy-001/options.yaml", "--out", "again"]) == 0
    weights = [load_file(here / f / "model.safetensors") for f in ("runs/toy-001", "again", "runs/toy-002")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_words_go_before_the_file_and_the_file_before_the_preset(here: Path) -> None:
    from tnml.cli.request import read_request

    Path("own.yaml").write_text(
        "dataset: mnist\npreset: accurate\ntrain: {epochs: 3}\nmodel: {bond_dim: 5}\n"
    )
    plain = read_request(["mnist", "--preset", "accurate"]).options
    own = read_request(["--config", "own.yaml", "--model.bond_dim", "6"]).options
    assert (own.dataset, own.preset) == ("mnist", "accurate")
    assert (own.model.bond_dim, own.train.epochs) == (6, 3)
    assert own.train.lr == plain.train.lr
    assert plain.train.epochs != 3
    for words in (["digits", "--config", "own.yaml"], ["--config", "own.yaml", "digits"]):
        assert read_request(words).options.dataset == "digits"


def test_options_that_are_lists_and_mappings(here: Path) -> None:
    from tnml.cli.request import read_request

    words = [
        "--data.resize",
        "[6, 5]",
        "--data.scale",
        "[0, 16]",
        "--model.order",
        "[2, 0, 1]",
        "--model.noise",
        "0.5",
    ]
    options = read_request([*words, "--model.features", "{name: legendre, dim: 3}"]).options
    assert options.data.resize == (6, 5)
    assert options.data.scale == (0.0, 16.0)
    assert options.model.order == [2, 0, 1]
    assert options.model.features == {"name": "legendre", "dim": 3}
    stored = yaml.safe_load(yaml.safe_dump(options.record()))
    Path("stored.yaml").write_text(yaml.safe_dump(stored))
    assert read_request(["--config", "stored.yaml"]).options == options


def test_text_labels_and_a_scale(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(toy_file(here / "toy.npz", samples=400)) as toy:
        np.savez(here / "wide.npz", x=toy["x"] * 16, y=toy["y"])
    assert main(["train", "wide.npz", "--data.scale", "[0,16]", "--train.epochs", "30", "--out", "run"]) == 0
    facts = facts_of(capsys.readouterr().out)
    assert float(facts["test accuracy"]) == 1.0
    assert main(["evaluate", "run", "wide.npz"]) == 0
    assert "accuracy: 1.0000" in capsys.readouterr().out
    np.savetxt(here / "new.csv", [[2.0] * 6, [14.0] * 6], delimiter=",")
    assert main(["predict", "run", "new.csv"]) == 0
    assert [line.split(",")[1] for line in capsys.readouterr().out.splitlines()] == ["label", "cat", "dog"]


def test_a_finished_run_can_be_resumed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_file(here / "toy.npz")
    assert main(["train", "toy.npz", "--train.epochs", "2", "--out", "run"]) == 0
    before, first = load_file(here / "run/model.safetensors"), facts_of(capsys.readouterr().out)
    (here / "run/model.safetensors").unlink()
    assert main(["train", "--resume", "run"]) == 0
    after, second = load_file(here / "run/model.safetensors"), facts_of(capsys.readouterr().out)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert first["test accuracy"] == second["test accuracy"]


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_weights(here: Path, project_root: Path) -> None:
    toy_file(here / "toy.npz", samples=100)
    words = [
        "--train.epochs",
        "12",
        "--train.batch_size",
        "10",
        "--model.bond_dropout",
        "0.1",
        "--device",
        "cpu",
    ]
    settings: dict[str, Any] = {"cwd": here, "env": environment(project_root), "text": True}
    held = [sys.executable, str(project_root / "tests" / "programs" / "held_cli.py"), "3"]
    with child([*held, "train", "toy.npz", *words, "--out", "cut"], **settings) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch  2/"):
                process.send_signal(signal.SIGINT)
                break
        rest, errors = process.communicate()
    assert process.returncode == 130, errors
    assert complaints(errors) == "tnml: stopped; continue with `tnml train --resume cut`\n"
    assert "epoch 12/12" not in rest
    assert not (here / "cut/model.safetensors").exists()
    assert main(["evaluate", str(here / "cut"), "digits"]) == 2

    resumed = subprocess.run(
        command("train", "--resume", "cut"), capture_output=True, check=False, **settings
    )
    whole = subprocess.run(
        command("train", "toy.npz", *words, "--out", "whole"), capture_output=True, check=False, **settings
    )
    for done in (resumed, whole):
        assert (done.returncode, complaints(done.stderr)) == (0, "")
    assert "epoch  1/" not in resumed.stdout
    assert "epoch  1/" in whole.stdout
    tensors = [load_file(here / run / "model.safetensors") for run in ("cut", "whole")]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert facts_of(resumed.stdout)["test accuracy"] == facts_of(whole.stdout)["test accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["devices", "torchrun"])
def test_two_processes_are_one(here: Path, project_root: Path, way: str) -> None:
    toy_file(here / "toy.npz", samples=120)
    words = ["train", "toy.npz", "--train.epochs", "3", "--train.batch_size", "16", "--device", "cpu"]
    assert main([*words, "--out", "one"]) == 0
    start = command(*words, "--out", "two", *(["--devices", "2"] if way == "devices" else []))
    if way == "torchrun":
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        start[1:1] = launcher
    done = subprocess.run(
        start,
        cwd=here,
        env=environment(project_root),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith("test accuracy:")]) == 1
    assert len([line for line in lines if line.startswith("epoch 2/3")]) == 1
    one, two = (load_file(here / run / "model.safetensors") for run in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-5)
    assert {p.name for p in (here / "two").iterdir()} == {p.name for p in (here / "one").iterdir()}
