"""Resuming a solution: what may change and what may not, the time limit, fingerprints of functions."""

import functools
import itertools

import pytest
import torch
from torch import nn

from tnml.errors import InputError
from tnml.pde import EulerLoss, HamiltonJacobiBellman, Problem, SolveOptions, preset, solve
from tnml.pde.budget import iterations_of, mean_time
from tnml.pde.identity import fingerprint

SMALL = {"iterations": 6, "reports": 3, "paths": 4, "time_steps": 4, "width": 8, "device": "cpu"}


def square(x):
    return x.square().sum(1, keepdim=True)


def pull(t, x, *, rate):
    return rate * x


def own(**changes):
    given = {
        "name": "mine",
        "dim": 3,
        "horizon": 1.0,
        "x0": 1.0,
        "terminal": square,
        "diffusion": 1.0,
        "drift": functools.partial(pull, rate=-0.5),
    }
    return Problem(**{**given, **changes})


def driver_of(factor):
    return lambda t, x, y: factor * y


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    problem = own(driver_value=driver_of(0.1))
    solution = solve(
        problem, loss=EulerLoss(terminal_weight=2.0), options=SolveOptions(**SMALL), run_dir=folder
    )
    return folder, solution.value


def resume(run, loss=None, **changes):
    problem = own(**{"driver_value": driver_of(0.1), **changes})
    loss = loss or EulerLoss(terminal_weight=2.0)
    return solve(problem, loss=loss, options=SolveOptions(**SMALL), run_dir=run[0], resume=True)


def test_the_same_functions_made_again_are_the_same(run):
    assert resume(run).value == run[1]
    assert (
        resume(run, loss=EulerLoss(terminal_weight=2.0, chunk=7), exact=lambda t, x: square(x)).value
        == run[1]
    )


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"x0": 2.0}, "problem x0"),
        ({"diffusion": 1.5}, "problem diffusion: .1.0. in the checkpoint, .1.5. now"),
        ({"diffusion": torch.tensor([1.0, 1.0, 2.0])}, "problem diffusion"),
        ({"drift": functools.partial(pull, rate=-0.6)}, "problem drift: .*rate=-0.5.*rate=-0.6"),
        ({"drift": lambda t, x: -x}, "problem drift"),
        ({"terminal": lambda x: square(x) + 1}, "problem terminal"),
        ({"driver_value": driver_of(0.2)}, "problem driver_value"),
        (
            {"loss": EulerLoss(terminal_weight=3.0)},
            "loss terminal_weight: '2.0' in the checkpoint, '3.0' now",
        ),
        ({"inside": lambda x: x}, "problem inside"),
    ],
)
def test_another_problem_or_loss_is_another_run(run, changes, name):
    with pytest.raises(InputError, match=f"belongs to another run: .*{name}"):
        resume(run, **changes)


def test_fingerprints():
    def outer(x):
        return [y + 1 for y in x]

    def other(x):
        return [y + 2 for y in x]

    class Object:
        def __init__(self, rate):
            self.rate = rate

        def __call__(self, x):
            return x * self.rate

        def method(self, x):
            return x

    assert fingerprint(outer).split("#")[1] != fingerprint(other).split("#")[1], "functions inside count"
    assert "0x" not in fingerprint(outer), "no addresses"
    assert fingerprint(Object(1.0)) == fingerprint(Object(1.0)) != fingerprint(Object(2.0))
    assert (
        fingerprint(Object(1.0).method) == fingerprint(Object(1.0).method) != fingerprint(Object(2.0).method)
    )
    assert fingerprint({"b": 1, "a": (2, None)}) == "{b: 1, a: (2, None)}"
    assert fingerprint(torch.zeros(2000)) != fingerprint(torch.cat([torch.zeros(1999), torch.ones(1)]))
    assert len(fingerprint(torch.zeros(2000))) < 40
    assert fingerprint(frozenset("abc")) == fingerprint(frozenset("cba"))
    layer = nn.Linear(2, 1)
    before = fingerprint(layer)
    nn.init.zeros_(layer.weight)
    assert fingerprint(layer) != before
    assert fingerprint(torch.sin) != fingerprint(torch.cos)


def test_two_networks_are_not_printed_where_the_options_say_it(run):
    options = SolveOptions(**{**SMALL, "width": 16}, loss="euler")
    with pytest.raises(InputError, match="width: 8 in the checkpoint, 16 now") as found:
        solve(own(driver_value=driver_of(0.1)), loss=EulerLoss(terminal_weight=2.0), options=options,
              run_dir=run[0], resume=True)  # fmt: skip
    assert "Linear" not in str(found.value)
    assert "shapes" not in str(found.value)


def test_another_network_of_ones_own_is_refused(tmp_path):
    def go(network, *, resume):
        return solve(own(), network, options=SolveOptions(**SMALL), run_dir=tmp_path, resume=resume)

    def made(layer):
        return nn.Sequential(nn.Linear(4, 5), layer, nn.Linear(5, 1))

    go(made(nn.Tanh()), resume=False)
    with pytest.raises(InputError, match=r"model: .*Tanh.*SiLU"):
        go(made(nn.SiLU()), resume=True)


@pytest.mark.parametrize(("first", "then"), [(None, 5.0), (1e-9, None), (1e-9, 3.0)])
def test_a_time_limit_may_come_go_and_change(tmp_path, first, then):
    problem = HamiltonJacobiBellman(2)
    options = preset(problem, **SMALL, max_seconds=first)
    before = solve(problem, options=options, run_dir=tmp_path)
    assert before.iterations == (6 if first is None else 1)
    options = preset(problem, **SMALL, max_seconds=then)
    again = solve(problem, options=options, run_dir=tmp_path, resume=True)
    assert (again.iterations, again.value) == (before.iterations, before.value)
    changed = preset(problem, **{**SMALL, "iterations": 7}, max_seconds=then)
    with pytest.raises(InputError, match="iterations: 6 in the checkpoint, 7 now"):
        solve(problem, options=changed, run_dir=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("fit", "done"),
    [(0.5, 1), (7.5, 7), (21.5, 20), (39.5, 20), (59.5, 40), (99.5, 80), (101.5, 100), (1e4, 110)],
)
def test_a_time_limit_is_kept(fit, done):
    """`fit` iterations fit; none more are done, and 110 is what 101 become without a limit, too."""
    options = SolveOptions(iterations=101, reports=20 if fit < 1e3 else 10, max_seconds=10.0)
    loop, steps = options.loop(iterations_of(options, lambda longest: 10.0 / fit))
    assert loop.epochs * steps == done
    assert done <= max(1, fit)


def test_the_time_is_measured_longer_where_it_is_noisy():
    def measured(times):
        now = itertools.accumulate(part for time in times for part in (0.0, time))
        asked = []
        found = mean_time(asked.append, 1.0, clock=lambda: next(now))
        return found, len(asked) - 2

    steady = [0.125] * 100
    assert measured(steady) == (pytest.approx(0.125), 8)
    assert measured([0.25, 0.25, 0.25, 0.125, 0.125, *steady]) == (pytest.approx(2 / 13), 13)
    assert measured([0.75, 0.75, 0.75, 0.75]) == (pytest.approx(0.75), 2)
    assert measured([1.25, 0.5, 0.5, 0.5]) == (pytest.approx(0.75), 3)
    assert measured([5.0, 5.0]) == (pytest.approx(5.0), 1)
