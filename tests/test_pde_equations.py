"""The table of equations: its rows, a row from outside, and the texts by which stored runs know them."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pde_toy_equation as toy
import pytest
import torch

import tnml
from tnml.cli import main
from tnml.errors import InputError
from tnml.pde import PROBLEMS, SolveOptions, monte_carlo, preset, problem, references, solve
from tnml.pde.equations.table import EQUATIONS

TEXTS = Path(__file__).parent / "pde_identity_texts.json"
TELL_TEXTS = """
import json
from torch import nn
from tnml.pde import PROBLEMS, EulerLoss, problem
from tnml.pde.identity import identity_of
print(json.dumps({name: identity_of(problem(name), EulerLoss(), nn.Linear(1, 1)) for name in PROBLEMS}))
"""


def comparable(text):
    """Without what depends on the machine: bits of a Cholesky factor, and byte code of another Python."""
    text = re.sub(r"(tensor [^#]*#)[0-9a-f]{8}", r"\1", text)
    return text if sys.version_info[:2] == (3, 11) else re.sub(r"(?<=[a-z] #)[0-9a-f]{8}", "", text)


@pytest.fixture
def wave(monkeypatch):
    monkeypatch.setitem(EQUATIONS, "wave", toy.EQUATION)


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_row_fits_its_page(name):
    row, made = EQUATIONS[name], problem(name)
    assert made.name == name
    assert made.options is not None
    assert PROBLEMS[name] is row.problem
    options = preset(name).record()
    assert {option: options[option] for option in row.recipe} == row.recipe
    truth = made.exact or made.reference
    assert truth.func is row.truth
    assert getattr(references, row.truth.__name__) is row.truth


def test_the_problems_are_the_rows(wave):
    assert list(PROBLEMS) == list(EQUATIONS)
    assert len(PROBLEMS) == len(EQUATIONS)
    assert PROBLEMS["wave"] is toy.FlatteningWave
    with pytest.raises(KeyError):
        PROBLEMS["waves"]


def test_without_the_row_there_is_no_toy():
    with pytest.raises(InputError, match="unknown problem 'wave'"):
        problem("wave")
    with pytest.raises(AttributeError, match="no attribute 'flattening_wave'"):
        references.flattening_wave  # noqa: B018  (looking it up is the test)


@pytest.mark.usefixtures("wave")
def test_a_row_from_outside_has_recipe_truth_and_sampled_value():
    made = problem("wave", dim=3)
    assert preset(made) == preset("wave") == SolveOptions(**toy.EQUATION.recipe)
    assert references.flattening_wave is toy.flattening_wave
    value = 2 + math.exp(-0.25)
    assert made.true_value().value == pytest.approx(value, abs=1e-12)
    sampled = monte_carlo(made, samples=2**14)
    assert abs(sampled.value - value) < 4 * sampled.error


@pytest.mark.usefixtures("wave")
def test_a_row_from_outside_is_solved_and_evaluated():
    solution = solve(problem("wave"), options=preset("wave", device="cpu"))
    errors = solution.relative_error(paths=64, sets=2)
    assert errors.at_start < 0.02
    assert errors.path_mean < 0.5 * errors.terminal_mean
    x = torch.tensor([[0.3, -0.1], [1.0, 0.5]], dtype=torch.float64)
    truth = toy.flattening_wave(torch.full((2, 1), 0.2), x)[:, 0]
    assert torch.from_numpy(solution.u(0.2, x)).double() == pytest.approx(truth, abs=0.1)


@pytest.mark.usefixtures("wave")
def test_a_row_from_outside_is_on_the_command_line(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["pde", "list"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^wave +2 +0\.5 +everywhere +The heat equation with", shown, re.MULTILINE)
    assert main(["pde", "solve", "wave", "--problem.dim", "3", "--device", "cpu", "--out", str(folder)]) == 0
    assert re.search(r"^problem: +wave, d = 3, horizon 0\.5", capsys.readouterr().out, re.MULTILINE)
    assert main(["pde", "evaluate", str(folder), "--paths", "8", "--sets", "2"]) == 0
    assert re.search(r"^error at \(0, x0\) +\d", capsys.readouterr().out, re.MULTILINE)
    assert tnml.load(folder / "model.safetensors").problem.dim == 3


@pytest.mark.slow
def test_stored_runs_know_the_equations_by_the_same_texts():
    """Checkpoints hold these texts, written before the functions moved; another text refuses to resume."""
    recorded = json.loads(TEXTS.read_text(encoding="utf-8"))
    done = subprocess.run([sys.executable, "-c", TELL_TEXTS], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    for name, texts in recorded.items():
        assert {field: comparable(found[name][field]) for field in texts} == {
            field: comparable(text) for field, text in texts.items()
        }
