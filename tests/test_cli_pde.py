"""`tnml pde`: list, solve, evaluate, figure; options files, resumption, and bad input."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tnml.cli import main
from tnml.cli.pde_request import read_request
from tnml.pde import PROBLEMS, Solution

Capture = pytest.CaptureFixture[str]
SHORT = ["--problem.dim", "3", "--solve.iterations", "30", "--solve.reports", "3", "--solve.paths", "4"]
SHORT += ["--solve.time_steps", "6", "--solve.width", "8", "--solve.lr", "0.01", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["pde", "solve", "bsb", *SHORT, "--out", str(folder)]) == 0
    return folder


def test_every_problem_is_listed(capsys: Capture) -> None:
    assert main(["pde", "list"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[1 : len(PROBLEMS) + 1]] == list(PROBLEMS)
    assert "shows --problem.* and all other options" in shown
    assert main(["pde"]) == 2
    assert "evaluate: measure" in capsys.readouterr().out


def test_the_last_screen_is_a_table(tmp_path: Path, capsys: Capture) -> None:
    assert main(["pde", "solve", "hjb", *SHORT, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    for name in ("u\\(0, x0\\)", "truth", "error at \\(0, x0\\)", "path error, mean", "path error, max"):
        assert re.search(rf"^{name} +\d", shown, flags=re.MULTILINE), name
    alone = "error of the terminal value alone"
    for name in ("error of the trivial answer", f"{alone}, mean", "parameters", "time", "95 % interval"):
        assert re.search(rf"^{name} +\d", shown, flags=re.MULTILINE), name
    assert re.search(r"^check +(passed|failed)$", shown, flags=re.MULTILINE)
    assert len(re.findall(r"^epoch .* u0 .* error .* path_error", shown, flags=re.MULTILINE)) == 3


def test_the_folder_of_a_run(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names == {"options.yaml", "checkpoint.pt", "metrics.csv", "model.safetensors", "check.json"}
    check = json.loads((run / "check.json").read_text())
    assert check["kind"] == "unbiased"
    assert check["interval"][0] < check["value"] < check["interval"][1]
    stored = yaml.safe_load((run / "options.yaml").read_text())
    assert stored["name"] == "bsb"
    assert stored["problem"]["dim"] == 3
    assert stored["solve"]["terminal"] == "multiplicative"
    solution = Solution.load(run / "model.safetensors")
    assert solution.problem.dim == 3
    assert solution.iterations == 30


def test_options_are_read_again(run: Path, tmp_path: Path, capsys: Capture) -> None:
    config = str(run / "options.yaml")
    request = read_request(["--config", config, "--seed", "5"])
    first = read_request(["bsb", *SHORT, "--seed", "5"])
    assert (request.name, request.problem, request.solve) == (first.name, first.problem, first.solve)
    assert main(["pde", "solve", "--config", config, "--out", str(tmp_path / "again")]) == 0
    values = [Solution.load(folder / "model.safetensors").value for folder in (run, tmp_path / "again")]
    assert values[0] == values[1]


def test_a_finished_run_can_be_resumed(run: Path, capsys: Capture) -> None:
    before = Solution.load(run / "model.safetensors").value
    assert main(["pde", "solve", "--resume", str(run)]) == 0
    assert Solution.load(run / "model.safetensors").value == before


def test_evaluate_and_figure(run: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["pde", "evaluate", str(run), "--paths", "16", "--seed", "3"]) == 0
    shown = capsys.readouterr().out
    assert "path error, mean" in shown
    assert "bsb, d = 3" in shown
    out = tmp_path / "x.png"
    assert main(["pde", "figure", str(run / "model.safetensors"), "--out", str(out), "--paths", "2"]) == 0
    assert out.stat().st_size > 5000


def test_another_command_names_the_right_one(run: Path, capsys: Capture) -> None:
    assert main(["evaluate", str(run)]) == 2
    complaint = capsys.readouterr().err
    assert "holds the solution of an equation, expected a classifier or a regressor; use" in complaint
    assert f"`tnml pde evaluate {run}`" in complaint


def test_the_name_may_stand_anywhere(run: Path, tmp_path: Path, capsys: Capture) -> None:
    config = tmp_path / "hjb.yaml"
    config.write_text("{name: hjb, seed: 4, problem: {dim: 4, horizon: .5}, solve: {paths: 3}}")
    for words in (["bsb", "--config", str(config)], ["--config", str(config), "bsb"]):
        request = read_request(words)
        assert (request.name, request.problem["dim"]) == ("bsb", 100), "the options of another equation"
        assert (request.solve.paths, request.solve.seed) == (3, 4)
    assert read_request(["--config", str(config)]).problem == {"dim": 4, "horizon": 0.5}
    config.write_text("{problem: {dim: 4}}")
    assert read_request([f"--config={config}", "hjb"]).problem["dim"] == 4
    for words in (["--out", "r8", "hjb"], ["hjb", "--out", "r8"], ["--out=r8", "hjb", "--seed", "3"]):
        request = read_request(words)
        assert (request.name, str(request.out)) == ("hjb", "r8")
    assert read_request(["--solve.antithetic", "true", "--problem.horizon", "2", "heat"]).name == "heat"
    for words in (["hjb", "--resume", str(run)], ["--resume", str(run), "hjb"]):
        assert main(["pde", "solve", *words]) == 2
        assert "the run to resume solves 'bsb', got 'hjb'" in capsys.readouterr().err
    assert read_request(["--resume", str(run), "bsb"]).name == "bsb"
    assert main(["pde", "solve", "--out", "r8", "hjb", "bsb"]) == 2
    assert "unexpected word 'bsb'" in capsys.readouterr().err


def test_the_opening_says_what_is_done(tmp_path: Path, capsys: Capture) -> None:
    small = [*SHORT, "--solve.iterations", "21", "--solve.reports", "20"]
    assert main(["pde", "solve", "hjb", *small, "--out", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().out
    assert "terminal condition, 40 iterations" in shown
    assert re.search(r"^time .*s, 40 iterations", shown, flags=re.MULTILINE)
    assert main(["pde", "solve", "--resume", str(tmp_path / "a"), "--solve.max_seconds", "60"]) == 0
    assert "as many iterations as the run began with" in capsys.readouterr().out


def test_deep_bsde_at_the_command_line(tmp_path: Path, capsys: Capture) -> None:
    """A recipe's terminal condition is left out; the networks told of are those that are made."""
    words = ["--problem.dim", "3", "--solve.iterations", "3", "--solve.time_steps", "6", "--device", "cpu"]
    words = ["pde", "solve", "bsb", "--solve.loss", "deep-bsde", *words]
    assert main([*words, "--solve.width", "8", "--out", str(tmp_path / "a")]) == 2
    assert "width=8 has no meaning for the loss 'deep-bsde'" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "b")]) == 0
    assert "one for each of 5 time steps, hidden layers of 13 and 13, tanh" in capsys.readouterr().out
    model = Solution.load(tmp_path / "b" / "model.safetensors").model
    assert [tuple(weight.shape) for weight in model.weights] == [(5, 3, 13), (5, 13, 13), (5, 13, 3)]
    assert main(["pde", "solve", "--resume", str(tmp_path / "b")]) == 0


BAD = {
    "unknown action": (["sovle"], "unknown action of tnml pde 'sovle'; did you mean 'solve'"),
    "unknown problem": (["solve", "bbs"], "unknown problem 'bbs'; did you mean 'bsb'"),
    "no problem": (["solve"], "name a problem"),
    "unknown option": (["solve", "bsb", "--solve.path", "3"], "unknown option --solve.path"),
    "wrong type": (["solve", "bsb", "--solve.paths", "many"], "option --solve.paths"),
    "option of another problem": (["solve", "hjb", "--problem.sigma", "1"], "unknown option --problem.sigma"),
    "soft and unbiased": (
        ["solve", "bsb", "--solve.terminal", "soft", "--solve.loss", "unbiased"],
        "does not look at the horizon",
    ),
    "negative horizon": (["solve", "bsb", "--problem.horizon=-1"], "horizon"),
    "no such config": (["solve", "--config", "nowhere.yaml"], "cannot read the options in nowhere.yaml"),
    "no such run": (["solve", "--resume", "nowhere"], "cannot read the options in nowhere"),
    "no such model": (["evaluate", "nowhere"], "no model file at nowhere"),
    "no figure format": (["figure", "nowhere", "--out", "x.jpeg"], "unknown figure format"),
    "one set": (["evaluate", "nowhere", "--sets", "1"], "--sets must be"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(
    name: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words, message = BAD[name]
    assert main(["pde", *words]) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.count("\n") == 1
    assert not list(tmp_path.iterdir()), "a failed run leaves nothing behind"


def test_strange_config_files(tmp_path: Path, capsys: Capture) -> None:
    config = tmp_path / "c.yaml"
    for text, message in (
        ("[1", "not valid YAML"),
        ("3", "must hold options"),
        ("{name: bsb, solve: 3}", "must hold options"),
        ("{name: bsb, solve: {pats: 3}}", "unknown option solve.pats"),
        ("{name: nope}", "unknown problem 'nope'"),
    ):
        config.write_text(text)
        assert main(["pde", "solve", "--config", str(config)]) == 2
        assert message in capsys.readouterr().err


def test_a_folder_is_not_used_twice(run: Path, capsys: Capture) -> None:
    assert main(["pde", "solve", "bsb", *SHORT, "--out", str(run)]) == 2
    assert "already holds a run" in capsys.readouterr().err
