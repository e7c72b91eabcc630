"""Solving in a given time: what is tried, chosen, said and resumed; and starting from another solution."""

import dataclasses
import json
import shutil

import pytest
import torch

from tnml.errors import InputError
from tnml.pde import (
    Flag,
    HeatEquation,
    LinearQuadraticControl,
    LogNormal,
    Problem,
    Solution,
    SolveOptions,
    solve,
)
from tnml.pde.search import JOURNAL, search
from tnml.pde.strategies import more_steps, score, strategies_of

SMALL = {"paths": 4, "time_steps": 4, "width": 8, "reports": 2, "device": "cpu"}


@pytest.fixture(autouse=True)
def _few_paths(monkeypatch):
    """A check takes no time by the clock of these tests, and would have all paths."""
    monkeypatch.setattr("tnml.pde.search._FEW", 32)
    monkeypatch.setattr("tnml.pde.search._MOST", 64)


class Clock:
    """Goes on by a millisecond whenever somebody looks at it, so that times are the same on any machine."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1e-3
        return self.now


def call():
    return Problem(
        name="call", dim=1, horizon=1.0, x0=100.0, log_normal=LogNormal(0.0, 0.2),
        terminal=lambda x: (x - 100).clamp(min=0),
    )  # fmt: skip


def found(problem, seconds=0.05, folder=None, resume=False, **changes):
    options = SolveOptions(**{**SMALL, **changes}, seconds=seconds)
    return search(problem, options=options, run_dir=folder, resume=resume, clock=Clock())


def test_a_failed_check_leads_to_the_next_strategy(tmp_path):
    solution = found(HeatEquation(2), terminal="additive", folder=tmp_path / "run")
    tried = [trial["words"] for trial in solution.trials]
    assert tried[:3] == ["defaults", "multistep loss", "stretched network"]
    assert len(tried) > 4
    assert not solution.checked.passed, "after so few iterations"
    assert "none passed the check" in solution.strategy
    assert ("strategy", solution.strategy) in solution.summary()
    solution.save(tmp_path / "solution.safetensors")
    loaded = Solution.load(tmp_path / "solution.safetensors")
    assert (loaded.strategy, loaded.value) == (solution.strategy, solution.value)
    assert [trial["words"] for trial in loaded.trials] == tried
    assert json.loads((tmp_path / "run" / JOURNAL).read_text(encoding="utf-8"))[0]["check"]["flags"]
    best = min(score_of(trial) for trial in solution.trials if "check" in trial)
    assert score(solution.checked) <= best * 1.5


def score_of(trial):
    ends = trial["check"]["interval"]
    return 100.0 if ends is None else (ends[1] - ends[0]) / 2 / trial["check"]["scale"]


@pytest.mark.slow
def test_a_base_that_solves_the_equation_needs_no_training():
    problem = dataclasses.replace(LinearQuadraticControl(2), options=None)
    solution = found(problem, time_steps=16)
    assert solution.trials[0]["words"] == "quadratic terminal"
    assert solution.value == pytest.approx(problem.true_value().value, rel=2e-3)
    low, high = solution.checked.interval
    assert low < problem.true_value().value < high


def test_kinks_are_found_by_themselves():
    kinks = found(call())
    assert kinks.options.terminal == "kinks"
    assert kinks.value == pytest.approx(7.9656, rel=1e-3)  # Black's formula


def test_a_search_is_resumed_to_the_same_bits(tmp_path):
    whole = found(HeatEquation(2), terminal="additive", folder=tmp_path / "run")
    again = found(HeatEquation(2), terminal="additive", folder=tmp_path / "run", resume=True)
    shutil.copytree(tmp_path / "run", tmp_path / "cut")
    for folder in (tmp_path / "cut").iterdir():
        if folder.is_dir() and folder.name not in ("0", "1"):
            shutil.rmtree(folder)
    cut = found(HeatEquation(2), terminal="additive", folder=tmp_path / "cut", resume=True)
    assert whole.value == again.value == cut.value
    assert whole.strategy == again.strategy == cut.strategy


def test_seconds_of_solve_and_a_module_of_ones_own():
    network = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1))
    solution = solve(HeatEquation(2), network, options=SolveOptions(**SMALL), seconds=0.3)
    assert solution.strategy is not None
    own = [trial["words"] for trial in solution.trials]
    assert "multistep loss" in own
    state = solution.ansatz.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    with pytest.raises(InputError, match="seconds must be"):
        solve(HeatEquation(2), seconds=-1.0)


def test_what_is_open_is_varied():
    heat = HeatEquation(2)
    names = [s.words for s in strategies_of(heat, SolveOptions())]
    assert names == ["defaults", "multistep loss", "additive terminal", "stretched network"]
    names = [
        s.words for s in strategies_of(heat, SolveOptions(loss="euler", terminal="soft", activation="sin"))
    ]
    assert names == ["defaults"]
    assert [s.words for s in strategies_of(heat, SolveOptions(loss="deep-bsde"))] == ["defaults"]
    check = solve(heat, options=SolveOptions(**SMALL, iterations=2)).check(paths=32)
    stiff = dataclasses.replace(check, flags=(Flag("stiff", "the driver is stiff"),))
    assert more_steps(stiff, SolveOptions()).changes == {"time_steps": 150}
    assert more_steps(stiff, SolveOptions(time_steps=400)) is None
    wide = dataclasses.replace(check, flags=(Flag("wide", "the interval is wide"),), gradient_error=0.01)
    assert more_steps(wide, SolveOptions()) is not None
    assert more_steps(dataclasses.replace(wide, gradient_error=0.5), SolveOptions()) is None
    assert score(dataclasses.replace(check, interval=None)) >= 100


def test_training_starts_from_another_solution():
    options = SolveOptions(**SMALL, iterations=20)
    first = solve(HeatEquation(2), options=options)
    before = {name: value.clone() for name, value in first.model.state_dict().items()}
    still = dataclasses.replace(options, iterations=2, lr=1e-12)
    second = solve(HeatEquation(2), options=still, start=first)
    other = solve(HeatEquation(2), options=still)
    assert second.value == pytest.approx(first.value, rel=1e-6)
    assert abs(other.value - first.value) > 1e-4
    solve(HeatEquation(2, horizon=0.9), start=first)
    assert all(torch.equal(value, first.model.state_dict()[name]) for name, value in before.items())
    with pytest.raises(InputError, match="start has a network of other layers"):
        solve(HeatEquation(2), options=dataclasses.replace(options, width=4), start=first)
