"""`solve` in stages: what is settled before training, and what callbacks see and leave in the history."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from tnml.errors import InputError
from tnml.pde import Ansatz, DeepBSDE, EulerLoss, HeatEquation, Solution, SolveOptions, solve
from tnml.pde.settle import settle
from tnml.pde.solve import solution_of, train

SMALL = {"iterations": 6, "reports": 3, "paths": 4, "time_steps": 4, "width": 8, "device": "cpu"}


def numbers(rows):
    return [
        {name: row[name] for name in row if name not in ("seconds", "samples_per_second")} for row in rows
    ]


def test_the_stages_one_after_another_are_solve(tmp_path):
    problem, options = HeatEquation(3), SolveOptions(**SMALL)
    settled = settle(problem, options=options, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists(), "nothing is written before the training"
    assert settled.iterations == 6
    assert (settled.options.loss, settled.options.terminal) == ("unbiased", "smoothed")
    assert (settled.loss, settled.own_network, settled.resume) == ("unbiased", False, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settled.resume = True
    start = {name: value.clone() for name, value in settled.model.state_dict().items()}
    assert all(torch.equal(value, settled.start[name]) for name, value in start.items())
    result = train(settled)
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    found, whole = solution_of(settled, result), solve(problem, options=options)
    assert found.value == whole.value
    assert numbers(found.history) == numbers(whole.history) == numbers(result.history)
    assert not all(torch.equal(value, settled.model.state_dict()[name]) for name, value in start.items())
    assert all(torch.equal(value, settled.start[name]) for name, value in start.items())


def test_what_is_asked_for_is_settled():
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    settled = settle(HeatEquation(2), network, loss=EulerLoss(), options=SolveOptions(**SMALL))
    assert settled.model.network is network
    assert (settled.own_network, settled.loss) == (True, "euler")
    own = settle(
        HeatEquation(2), loss=lambda u, problem, paths: paths.x.mean(), options=SolveOptions(**SMALL)
    )
    assert (own.loss, own.options.loss) == ("own", "auto")
    named = settle(HeatEquation(2), "tnn", loss="euler")
    assert (named.options.network, named.options.loss, named.loss) == ("tnn", "euler", "euler")


class Recorder:
    """Keeps what a callback is called with, and gives a number."""

    def __init__(self):
        self.seen = []

    def __call__(self, module, optimizer, row):
        self.seen.append((type(module), module.training, optimizer is not None, dict(row)))
        return {"weight": float(next(iter(module.parameters())).detach().abs().mean())}


@pytest.mark.parametrize(("loss", "kind"), [("euler", Ansatz), ("deep-bsde", DeepBSDE)])
def test_numbers_of_callbacks_are_in_the_history(loss, kind, tmp_path):
    options = SolveOptions(**{**SMALL, "width": 64}, loss=loss)
    recorder, called = Recorder(), []
    solution = solve(
        HeatEquation(2),
        options=options,
        run_dir=tmp_path / "run",
        callbacks=[recorder, lambda module, optimizer, row: called.append(row["weight"])],
    )
    weights = [row["weight"] for row in solution.history]
    assert len(weights) == 3
    assert called == weights, "the next one sees them, and may give none"
    assert weights[-1] == float(next(iter(solution.model.parameters())).detach().abs().mean())
    for (module, training, has_optimizer, row), stored in zip(recorder.seen, solution.history, strict=True):
        assert (module, training, has_optimizer) == (kind, False, True)
        assert row == {name: stored[name] for name in row}
        assert {"epoch", "loss", "u0", "error", "path_error"} <= set(row)
    header = (tmp_path / "run" / "metrics.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "weight" in header.split(",")
    solution.save(tmp_path / "solution.safetensors")
    loaded = Solution.load(tmp_path / "solution.safetensors")
    assert [row["weight"] for row in loaded.history] == weights


def test_callbacks_change_nothing_and_a_clash_is_refused():
    problem, options = HeatEquation(2), SolveOptions(**SMALL)
    one, two = solve(problem, options=options), solve(problem, options=options, callbacks=[Recorder()])
    assert one.value == two.value
    with pytest.raises(InputError, match="'u0', which is measured already"):
        solve(problem, options=options, callbacks=[lambda module, optimizer, row: {"u0": 1.0}])


def test_numbers_of_numpy_are_kept_as_pythons(tmp_path):
    problem = HeatEquation(np.int64(2), sigma=np.float32(0.5), horizon=np.int64(1))
    options = SolveOptions(**{**SMALL, "iterations": np.int64(6), "width": np.int32(8)}, lr=np.float32(0.01))
    solution = solve(problem, options=options)
    solution.save(tmp_path / "solution.safetensors")
    loaded = Solution.load(tmp_path / "solution.safetensors")
    assert loaded.value == solution.value
    assert loaded.problem.options == {"dim": 2, "sigma": 0.5, "horizon": 1}
    assert all(
        type(value) in (int, float) for value in (*problem.options.values(), options.width, options.lr)
    )
