"""`tnml train --solver dmrg`: what it prints and leaves behind, how it stops, resumes and refuses."""

import csv
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from children import finish, wait_until
from forks import fork
from safetensors.torch import load_file

import tnml
from tnml.cli import main
from tnml.cli.request import read_request
from tnml.training.dmrg.sweep import Sweeper

Capture = pytest.CaptureFixture[str]
SWEEPS = 3
TOY = ["train", "toy.npz", "--solver", "dmrg", "--sweep.sweeps", str(SWEEPS), "--device", "cpu"]
RANDOM = ["--sweep.batch_size", "40", "--sweep.noise", "0.001"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a file of two classes of six numbers."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    y = np.arange(120) % 2
    x = np.clip(0.25 + 0.5 * y[:, None] + 0.1 * rng.standard_normal((120, 6)), 0, 1)
    np.savez("toy.npz", x=x, y=np.array(["cat", "dog"])[y])
    return tmp_path


def facts_of(text: str) -> dict[str, str]:
    lines = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}


def weights(run: str) -> dict[str, torch.Tensor]:
    return load_file(Path(run) / "model.safetensors")


def assert_same(one: str, two: str) -> None:
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_digits(here: Path, capsys: Capture) -> None:
    words = ["--sweep.sweeps", "3", "--sweep.max_bond", "10", "--device", "cpu"]
    assert main(["train", "digits", "--solver", "dmrg", *words]) == 0
    shown, errors = capsys.readouterr()
    facts = facts_of(shown)
    assert errors == ""
    assert float(facts["test accuracy"]) >= 0.95
    assert facts["largest bond"] == "10"
    assert "bonds grow from 1 to at most 10, in 3 sweeps" in shown
    progress = [line for line in shown.splitlines() if line.startswith("sweep")]
    assert [line.split("  ")[0] for line in progress] == ["sweep 1/3", "sweep 2/3", "sweep 3/3"]
    folder = here / "runs" / "digits-001"
    assert {path.name for path in folder.iterdir()} == {
        "options.yaml",
        "metrics.csv",
        "bonds.csv",
        "checkpoint.pt",
        "model.safetensors",
    }
    rows = list(csv.DictReader((folder / "bonds.csv").read_text().splitlines()))
    assert len(rows) == 3 * 2 * 63
    model = tnml.load(folder / "model.safetensors")
    test = tnml.data.load("digits", split="test")
    assert f"{model.score(test.x, test.y):.4f}" == facts["test accuracy"]
    assert int(facts["parameters"]) == sum(p.numel() for p in model.layer_.parameters())
    assert main(["inspect", str(folder)]) == 0


def test_options_are_kept_and_read(here: Path) -> None:
    words = [
        "mnist",
        "--solver",
        "dmrg",
        "--sweep.max_bond",
        "[8, 12]",
        "--sweep.proximal",
        "2",
        "--seed",
        "4",
    ]
    options = read_request(words).options
    assert options.sweep.max_bond == (8, 12)
    assert options.sweep.proximal in (2, 2.0)
    assert (options.sweep.seed, options.train.seed) == (4, 4)
    stored = options.record()
    assert "train" not in stored
    assert not {"bond_dim", "noise", "bond_dropout", "site_dropout"} & stored["model"].keys()
    assert not {"seed", "device"} & stored["sweep"].keys()
    Path("stored.yaml").write_text(yaml.safe_dump(stored))
    assert read_request(["--config", "stored.yaml"]).options == options
    other = read_request(["--config", "stored.yaml", "--solver", "gradient"]).options
    assert other.solver == "gradient"
    assert other.train == read_request(["mnist", "--seed", "4"]).options.train
    assert "sweep" not in other.record()


def test_presets_have_sweeps(here: Path) -> None:
    small, large = (read_request([name, "--solver", "dmrg"]).options.sweep for name in ("digits", "mnist"))
    assert small.batch_size is None
    assert (small.label, large.label) == ("travels", "stays")
    assert (small.starting_bond, large.starting_bond) == (1, 10)
    assert small.label_smoothing > 0


def test_the_same_seed_gives_the_same_model(here: Path) -> None:
    for name, seed in (("one", "1"), ("again", "1"), ("two", "2")):
        assert main([*TOY, *RANDOM, "--seed", seed, "--out", name]) == 0
    assert_same("one", "again")
    first, second = weights("one"), weights("two")
    assert any(first[n].shape != second[n].shape or not torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("after", [0, 1, 4, 13, 29], ids=lambda n: f"{n} bonds")
def test_ctrl_c_leaves_a_run_that_resumes_exactly(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, after: int
) -> None:
    step: Callable[..., Any] = Sweeper.step
    count = 0

    def step_until(self: Sweeper, *args: Any, **options: Any) -> Any:
        nonlocal count
        if count == after:
            raise KeyboardInterrupt
        count += 1
        return step(self, *args, **options)

    assert main([*TOY, *RANDOM, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Sweeper, "step", step_until)
        capsys.readouterr()
        assert main([*TOY, *RANDOM, "--out", "cut"]) == 130
    assert capsys.readouterr().err == "tnml: stopped; continue with `tnml train --resume cut`\n"
    assert not Path("cut/model.safetensors").exists()
    assert main(["train", "--resume", "cut"]) == 0
    assert_same("cut", "whole")
    assert {path.name for path in Path("cut").iterdir()} == {path.name for path in Path("whole").iterdir()}


@pytest.mark.slow
def test_a_killed_run_resumes_exactly(here: Path, project_root: Path) -> None:
    often = ["--sweep.checkpoint_seconds", "0.000001", "--sweep.sweeps", "8"]
    held = [project_root / "tests" / "programs" / "held_cli.py", "2"]
    with fork([*held, *TOY, *RANDOM, *often, "--out", "cut"], here) as process:
        wait_until(lambda: any(line.startswith("sweep 1/") for line in process.lines()), process)
        process.kill()
        assert "test accuracy" not in finish(process, -signal.SIGKILL)
    assert main(["train", "--resume", "cut"]) == 0
    assert main([*TOY, *RANDOM, *often, "--out", "whole"]) == 0
    assert_same("cut", "whole")
    assert {path.name for path in Path("cut").iterdir()} == {path.name for path in Path("whole").iterdir()}


def test_a_finished_run_can_be_resumed_and_lengthened(here: Path, capsys: Capture) -> None:
    assert main([*TOY, "--out", "run"]) == 0
    first, before = facts_of(capsys.readouterr().out), Path("run/metrics.csv").read_text()
    Path("run/model.safetensors").unlink()
    assert main(["train", "--resume", "run"]) == 0
    assert facts_of(capsys.readouterr().out)["test accuracy"] == first["test accuracy"]
    assert main(["train", "--resume", "run", "--sweep.sweeps", str(SWEEPS + 1)]) == 0
    after = Path("run/metrics.csv").read_text()
    assert after.startswith(before)
    assert len(after.splitlines()) == SWEEPS + 2


def test_a_run_of_an_earlier_version_still_resumes(here: Path) -> None:
    """Its options name no solver and have no options of sweeps."""
    quick = ["train", "toy.npz", "--train.epochs", "2", "--device", "cpu", "--out", "run"]
    assert main(quick) == 0
    options = yaml.safe_load(Path("run/options.yaml").read_text())
    assert options.pop("solver") == "gradient"
    assert "sweep" not in options
    Path("run/options.yaml").write_text(yaml.safe_dump(options, sort_keys=False))
    Path("run/model.safetensors").unlink()
    assert main(["train", "--resume", "run"]) == 0
    assert Path("run/model.safetensors").exists()


def no_preparation() -> None:
    pass


def sweep_run() -> None:
    assert main([*TOY, "--out", "run"]) == 0


def config(text: str) -> Callable[[], None]:
    def write() -> None:
        Path("own.yaml").write_text(text)

    return write


DMRG = ["train", "toy.npz", "--solver", "dmrg"]
BAD: dict[str, tuple[Callable[[], None], list[str], str]] = {
    "solver": (
        no_preparation,
        ["train", "--solver", "dmgr"],
        r"unknown solver 'dmgr'; did you mean 'dmrg'\?",
    ),
    "train with dmrg": (
        no_preparation,
        [*DMRG, "--train.epochs", "3"],
        r"--train\.epochs does not go with --solver dmrg; its options begin with --sweep",
    ),
    "train with dmrg, joined": (no_preparation, [*DMRG, "--train.lr=1"], r"--train\.lr does not go with"),
    "sweep with gradients": (
        no_preparation,
        ["train", "toy.npz", "--sweep.max_bond", "3"],
        r"--sweep\.max_bond does not go with --solver gradient; .* or choose --solver dmrg",
    ),
    "bond_dim": (
        no_preparation,
        [*DMRG, "--model.bond_dim", "3"],
        r"--model\.bond_dim does not go .* grow from 1 as far as --sweep\.max_bond",
    ),
    "dropout": (
        no_preparation,
        [*DMRG, "--model.bond_dropout", "0.1"],
        r"bond_dropout does not go .*leave it",
    ),
    "unknown": (no_preparation, [*DMRG, "--sweep.max_bnd", "3"], r"did you mean --sweep\.max_bond\?"),
    "type": (no_preparation, [*DMRG, "--sweep.max_bond", "many"], r"--sweep\.max_bond: .*many"),
    "value": (no_preparation, [*DMRG, "--sweep.max_error", "1"], r"max_error must be .* got 1"),
    "processes": (no_preparation, [*DMRG, "--devices", "2"], r"sweeps run in one process, got --devices 2"),
    "together": (no_preparation, [*DMRG, "--sweep.solver", "als"], r"needs loss='mse'"),
    "resumed otherwise": (
        sweep_run,
        ["train", "--resume", "run", "--solver", "gradient"],
        r"started with --solver dmrg, got gradient",
    ),
    "resumed with another bond": (
        sweep_run,
        ["train", "--resume", "run", "--sweep.max_bond", "3"],
        r"belongs to another run: .*max_bond",
    ),
    "file": (
        config("dataset: toy.npz\nsolver: dmrg\ntrain: {epochs: 3}\n"),
        ["train", "--config", "own.yaml"],
        r"own\.yaml: train\.epochs does not go with solver: dmrg",
    ),
    "file: no group": (
        config("solver: dmrg\nsweep: 3\n"),
        ["train", "--config", "own.yaml"],
        r"sweep must hold options .* got 3",
    ),
    "file: solver": (
        config("solver: dmgr\n"),
        ["train", "--config", "own.yaml"],
        r"unknown solver 'dmgr'; did you mean 'dmrg'\?",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(here: Path, capsys: Capture, name: str) -> None:
    prepare, words, pattern = BAD[name]
    prepare()
    before = sorted(here.rglob("*"))
    capsys.readouterr()
    assert main(words) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert re.search(pattern, errors), errors
    assert sorted(here.rglob("*")) == before, "nothing is left behind"


def test_one_site_is_refused(here: Path, capsys: Capture) -> None:
    np.savez("one.npz", x=np.linspace(0, 1, 12).reshape(12, 1), y=np.arange(12) % 2)
    assert main(["train", "one.npz", "--solver", "dmrg", "--out", "run"]) == 2
    assert "sweeps need at least two sites, got 1; train it with gradients" in capsys.readouterr().err
    assert not Path("run").exists()


def test_torchrun_is_refused(here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert main([*TOY, "--out", "run"]) == 2
    assert "sweeps run in one process; start them without torchrun" in capsys.readouterr().err
