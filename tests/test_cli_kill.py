"""`kill -9` at any moment of `tnml train`: only whole files, and `--resume` ends in the same weights."""

import csv
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from children import wait_until
from forks import complete, fork
from safetensors.torch import load_file

from tnml.cli import main
from tnml.files import read_model
from tnml.loop import checkpoint

HELD = Path(__file__).parent / "programs" / "held_cli.py"
EPOCHS = 12
WORDS = ["toy.npz", "--train.epochs", str(EPOCHS), "--train.batch_size", "20", "--device", "cpu"]
MODEL = ["--model.bond_dim", "3", "--model.bond_dropout", "0.1", "--model.engine", "native"]
LEFTOVERS = [f".{name}.abc123.tmp" for name in ("options.yaml", "checkpoint.pt", "model.safetensors")]


def write_toy(folder: Path) -> None:
    rng = np.random.default_rng(5)
    y = np.arange(60) % 2
    x = np.clip(0.3 + 0.4 * y[:, None] + 0.2 * rng.standard_normal((60, 6)), 0, 1)
    np.savez(folder / "toy.npz", x=x, y=y)


def program(words: list[str], *, held: bool = False) -> list[str | Path]:
    """`tnml train`; if held, it waits after five epochs for the kill."""
    return [*([HELD, "5"] if held else ["-m", "tnml"]), "train", *words]


def kill_after(lines: int, seconds: float, program: list[str | Path], folder: Path) -> bool:
    """Whether the run was killed: that long after that many lines behind the one that names the folder."""
    with fork(program, folder) as process:

        def shown() -> bool:
            printed = process.lines()
            begun = [number for number, line in enumerate(printed) if line.startswith("run:")]
            return process.poll() is not None or (bool(begun) and len(printed) > begun[0] + lines)

        wait_until(shown)
        time.sleep(seconds)
        process.kill()
        process.wait()
    return process.returncode < 0


def assert_whole_files(folder: Path) -> None:
    """What has a final name can be read to its end."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert "options.yaml" in names
    assert names <= {"options.yaml", "checkpoint.pt", "metrics.csv", "model.safetensors"}
    assert yaml.safe_load((folder / "options.yaml").read_text())["train"]["epochs"] == EPOCHS
    if "checkpoint.pt" in names:
        assert 0 <= checkpoint.load(folder / "checkpoint.pt")["epoch"] <= EPOCHS
    if "metrics.csv" in names:
        text = (folder / "metrics.csv").read_text()
        rows = list(csv.reader(text.splitlines()))
        assert text.endswith("\n")
        assert all(len(row) == len(rows[0]) for row in rows)
    if "model.safetensors" in names:
        read_model(folder / "model.safetensors")


def assert_same_model(one: Path, two: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}, "a temporary file was left"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, and in `whole` a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("kill")
    write_toy(folder)
    complete(program([*WORDS, *MODEL, "--out", "whole"]), folder)
    assert_whole_files(folder / "whole")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_twice_and_resumed(seed: int, whole: Path) -> None:
    """The second kill hits the resumed run. Moments are counted in lines: a busy machine does not matter."""
    rng = random.Random(seed)
    run = whole / f"killed-{seed}"
    words, most = [*WORDS, *MODEL, "--out", run.name], EPOCHS // 3 if seed == 0 else EPOCHS + 2
    kills = 0
    for _ in range(2):
        killed = program(words, held=seed == 0)
        kills += kill_after(rng.randint(0, most), rng.uniform(0, 0.2), killed, whole)
        assert_whole_files(run)
        words = ["--resume", run.name]
    assert kills == 2 or seed  # the others may come too late: then nothing was to be killed
    for name in LEFTOVERS:  # a kill inside a write leaves such a file
        (run / name).write_bytes(b"the beginning")
    complete(program(words), whole)
    assert_same_model(whole / "whole", run)


def test_killed_before_the_first_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are only options: the run starts from the beginning."""
    monkeypatch.chdir(tmp_path)
    write_toy(tmp_path)
    assert main(["train", *WORDS, *MODEL, "--train.epochs", "2", "--out", "whole"]) == 0
    run = tmp_path / "early"
    run.mkdir()
    (run / "options.yaml").write_bytes(Path("whole/options.yaml").read_bytes())
    for name in LEFTOVERS:
        (run / name).write_bytes(b"PK")
    assert main(["train", "--resume", "early"]) == 0
    assert_same_model(tmp_path / "whole", run)


def test_killed_before_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to resume: it says so, and what it proposes works and tidies up."""
    monkeypatch.chdir(tmp_path)
    write_toy(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / LEFTOVERS[0]).write_text("dataset: toy")
    assert main(["train", "--resume", "run"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: there is no run to resume in run: it holds no options.yaml")
    assert "`tnml train DATA --out run`" in errors
    assert len(errors.splitlines()) == 1
    assert main(["train", "toy.npz", "--train.epochs", "1", "--device", "cpu", "--out", "run"]) == 0
    names = {path.name for path in run.iterdir()}
    assert names == {"options.yaml", "checkpoint.pt", "metrics.csv", "model.safetensors"}
