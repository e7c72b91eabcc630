"""`tnml train --callbacks`: diagnostics by name, where their numbers go, and what resuming does to them."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tnml.cli import main
from tnml.cli.request import read_request
from tnml.diagnostics import CALLBACKS, RunFacts
from tnml.diagnostics.callbacks import NamedCallbacks, callbacks_of
from tnml.errors import InputError

Capture = pytest.CaptureFixture[str]
TRAIN = ["train", "toy.npz", "--device", "cpu", "--model.bond_dim", "3", "--train.schedule", "constant"]
BOTH = ["--callbacks", "[tracker, susceptibility]"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    y = np.arange(80) % 2
    x = np.clip(0.25 + 0.5 * y[:, None] + 0.1 * rng.standard_normal((80, 6)), 0, 1)
    np.savez("toy.npz", x=x, y=y)
    return tmp_path


def rows_of(run: str) -> list[dict[str, str]]:
    with open(Path(run) / "metrics.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def column(run: str, name: str) -> list[float]:
    return [float(row[name]) for row in rows_of(run)]


def test_numbers_are_shown_and_written_and_change_no_bit(here: Path, capsys: Capture) -> None:
    assert main([*TRAIN, "--train.epochs", "3", "--out", "plain"]) == 0
    capsys.readouterr()
    assert main([*TRAIN, "--train.epochs", "3", *BOTH, "--out", "watched"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(lines) == 3
    assert all(f"  {name} " in line for line in lines for name in ("log_norm", "entropy_max", "phi", "zeta"))
    phi, zeta = column("watched", "phi"), column("watched", "zeta")
    np.testing.assert_allclose(zeta, [np.mean(phi[: i + 1]) for i in range(3)], rtol=1e-12)
    growth = np.array(column("watched", "log_norm"))
    np.testing.assert_allclose(column("watched", "log_norm_growth"), growth - growth[0], atol=1e-12)
    plain, watched = (load_file(f"{run}/model.safetensors") for run in ("plain", "watched"))
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    assert "phi" not in rows_of("plain")[0]
    stored = [
        yaml.safe_load(Path(run, "options.yaml").read_text())["callbacks"] for run in ("plain", "watched")
    ]
    assert stored == [[], ["tracker", "susceptibility"]]


def test_inspect_shows_the_last_row_of_a_run(here: Path, capsys: Capture) -> None:
    assert main([*TRAIN, "--train.epochs", "2", *BOTH, "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["inspect", "run"]) == 0
    shown = capsys.readouterr().out.split("last row of run/metrics.csv\n")[1].split("\n\n")[0]
    found = dict(line.split(":") for line in shown.splitlines())
    last = {name: value for name, value in rows_of("run")[-1].items() if value}
    assert found.keys() == last.keys()
    for name, value in last.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-5), name
    assert main(["inspect", "run/model.safetensors"]) == 0
    assert "last row" not in capsys.readouterr().out, "a file by itself has none"


def test_others_may_watch_a_resumed_run_and_the_same_go_on(here: Path) -> None:
    assert main([*TRAIN, "--train.epochs", "4", "--callbacks", "tracker", "--out", "whole"]) == 0
    assert main([*TRAIN, "--train.epochs", "2", "--callbacks", "tracker", "--out", "run"]) == 0
    assert main(["train", "--resume", "run", "--train.epochs", "4", *BOTH]) == 0
    assert column("run", "log_norm_growth") == column("whole", "log_norm_growth")
    assert [bool(row["phi"]) for row in rows_of("run")] == [False, False, True, True]
    assert main(["train", "--resume", "run", "--train.epochs", "5", "--callbacks", "susceptibility"]) == 0
    last = rows_of("run")[-1]
    assert (bool(last["phi"]), bool(last["log_norm"])) == (True, False)
    phi = [float(row["phi"]) for row in rows_of("run")[2:]]
    assert float(last["zeta"]) == pytest.approx(np.mean(phi), rel=1e-12)
    assert main(["train", "--resume", "run", "--train.epochs", "6", "--callbacks", "[]"]) == 0
    assert len(rows_of("run")) == 6


def test_training_stops_by_a_column_of_a_callback(here: Path) -> None:
    """The norm grows or it does not: one way round it is best at once, and training stops."""
    words = [
        "--train.epochs",
        "30",
        "--train.validation",
        "0.2",
        "--train.patience",
        "1",
        "--callbacks",
        "tracker",
    ]
    lengths = []
    for mode in ("min", "max"):
        monitor = ["--train.monitor", "log_norm", "--train.monitor_mode", mode]
        assert main([*TRAIN, *words, *monitor, "--out", mode]) == 0
        norms, pick = column(mode, "log_norm"), {"min": np.argmin, "max": np.argmax}[mode]
        lengths.append(len(norms))
        if len(norms) < 30:
            assert int(pick(norms)) == len(norms) - 2, "one epoch without a better one"
    assert min(lengths) < 30


def test_sweeps_have_them_too(here: Path, capsys: Capture) -> None:
    words = ["train", "toy.npz", "--solver", "dmrg", "--sweep.sweeps", "2", "--device", "cpu"]
    assert main([*words, "--callbacks", "tracker", "--out", "run"]) == 0
    assert len(column("run", "entropy_max")) == 2
    assert main([*words, *BOTH, "--out", "none"]) == 2
    assert "susceptibility makes a step of the optimiser, which sweeps have not" in capsys.readouterr().err
    assert not Path("none").exists()


def test_refused(here: Path, capsys: Capture) -> None:
    for words, says in (
        (
            ["--callbacks", "[tracker, susceptability]"],
            "unknown callback 'susceptability'; did you mean 'susceptib",
        ),
        (["--callbacks", "3"], "unknown callback '3'"),
        (["--callbacks", "susceptibility", "--task", "regression"], "which regression has not; leave it out"),
    ):
        assert main([*TRAIN, *words, "--out", "run"]) == 2
        error = capsys.readouterr().err
        assert says in error, error
        assert error.count("\n") == 1
        assert not Path("run").exists()
    assert read_request(["--callbacks", "tracker"]).options.callbacks == ("tracker",)
    assert set(CALLBACKS) == {"tracker", "susceptibility"}


def test_two_that_give_the_same_name_are_refused() -> None:
    facts = RunFacts(x_train=torch.rand(4, 3), x_test=torch.rand(4, 3), outputs=2, task="classification")
    assert callbacks_of([], facts) == []
    twice = NamedCallbacks({"a": lambda *_: {"n": 1.0}, "b": lambda *_: {"n": 2.0}})
    with pytest.raises(InputError, match="'n', which is measured already"):
        twice(torch.nn.Identity(), None, {})


def test_memory_goes_by_name() -> None:
    class Memory:
        def __init__(self) -> None:
            self.kept = 0

        def __call__(self, *_: object) -> None:
            self.kept += 1

        def state_dict(self) -> dict[str, int]:
            return {"kept": self.kept}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.kept = state["kept"]

    first, second = Memory(), Memory()
    both = NamedCallbacks({"first": first, "second": second, "plain": lambda *_: None})
    both(torch.nn.Identity(), None, {})
    second.kept = 7
    again = {"second": Memory(), "third": Memory()}
    NamedCallbacks(again).load_state_dict(both.state_dict())
    assert (again["second"].kept, again["third"].kept) == (7, 0)
