"""Solving equations: accuracy, errors that are measured, files, resumption, several processes, bad input."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from children import child, wait_until
from programs.pde_job import OPTIONS
from torch import nn

import tnml
from tnml.errors import InputError
from tnml.pde import (
    AllenCahn,
    BlackScholesBarenblatt,
    HamiltonJacobiBellman,
    HeatEquation,
    Problem,
    Solution,
    SolveOptions,
    preset,
    solve,
)
from tnml.pde.accuracy import errors_at_start, path_errors, relative_l2
from tnml.pde.losses.named import loss_of
from tnml.pde.training_paths import LossOnPaths, PathBatches
from tnml.training import TrainingInterrupted

PROGRAM = Path(__file__).parent / "programs" / "pde_job.py"
SMALL = {
    "iterations": 60,
    "reports": 3,
    "paths": 8,
    "time_steps": 8,
    "width": 16,
    "lr": 1e-2,
    "device": "cpu",
}


def square(x):
    return x.square().sum(1, keepdim=True)


def own(**changes):
    given = {"name": "mine", "dim": 3, "horizon": 1.0, "x0": 1.0, "terminal": square, "diffusion": 1.0}
    return Problem(**{**given, **changes})


@pytest.fixture(scope="module")
def solved():
    return solve(BlackScholesBarenblatt(5), options=preset("bsb", **SMALL))


def test_a_solution_is_near_the_truth(solved):
    errors = solved.relative_error()
    assert errors.at_start < 0.01
    assert errors.path_mean < 0.01 < errors.terminal_mean
    assert errors.path_mean < errors.path_max < 0.02
    assert 0 < errors.spread < errors.path_mean
    assert errors.terminal_at_start == pytest.approx(1 - np.exp(-0.21), rel=1e-5)
    assert errors.trivial == pytest.approx(1 - np.exp(-0.05), abs=5e-3)


def test_the_errors_are_those_of_plain_loops(solved):
    """Own paths, own closed form, in numpy."""
    rng = np.random.default_rng(0)
    x = np.tile(solved.problem.x0.numpy(), (4000, 1))
    missed, size = [], []
    for k in range(9):
        u = solved.u(k / 8, x).astype(float)
        exact = np.exp(0.21 * (1 - k / 8)) * (x**2).sum(1)
        missed.append((u - exact) ** 2)
        size.append(exact**2)
        x = x * np.exp(-0.08 / 8 + 0.4 * rng.normal(size=x.shape) / np.sqrt(8))
    expected = np.sqrt(np.mean(missed) / np.mean(size))
    assert solved.relative_error(paths=4000).path_mean == pytest.approx(expected, rel=0.3)
    assert solved.relative_error(seed=1).path_mean != solved.relative_error(seed=2).path_mean


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "changes"),
    [
        (HamiltonJacobiBellman(5), {}),
        (HamiltonJacobiBellman(5), {"network": "tnn", "rank": 2}),
        (HeatEquation(3), {"loss": "euler", "terminal": "soft", "iterations": 300}),
        (HamiltonJacobiBellman(3), {"loss": "deep-bsde", "iterations": 200, "width": 64}),
    ],
)
def test_every_way_beats_its_start(problem, changes):
    options = preset(problem, **{**SMALL, **changes})
    before = solve(problem, options=preset(problem, **{**SMALL, **changes, "iterations": 1}))
    after = solve(problem, options=options)
    assert after.relative_error().path_mean < 0.5 * before.relative_error().path_mean
    assert after.iterations == -(-options.iterations // 3) * 3
    assert after.history[-1]["path_error"] == pytest.approx(after.relative_error().path_mean, rel=0.5)


def test_u_and_its_gradient_at_points_of_any_shape(solved):
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    u = solved.u(0.25, x)
    assert u.shape == (2, 3)
    np.testing.assert_allclose(u[1, 2], solved.u(0.25, x[1, 2]), rtol=1e-6)
    np.testing.assert_array_equal(u, solved.u(torch.full((2, 3), 0.25), torch.from_numpy(x)))
    assert solved.u(np.array([0.0, 1.0]), x[0, :2]).shape == (2,)
    assert solved.u(0.0, np.empty((0, 5))).shape == (0,)
    assert solved.u(0.0, solved.problem.x0) == pytest.approx(solved.value)
    step = np.eye(5, dtype=np.float32)[2] * 1e-2
    slope = (solved.u(0.25, x + step) - solved.u(0.25, x - step)) / 2e-2
    np.testing.assert_allclose(solved.gradient(0.25, x)[..., 2], slope, rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(solved.u(1.0, x), (x**2).sum(-1), rtol=1e-5)  # the terminal value
    with pytest.raises(InputError, match=r"x must be \[..., 5\]"):
        solved.u(0.0, x[..., :4])
    with pytest.raises(InputError, match="does not broadcast"):
        solved.u(np.zeros(7), x)
    with pytest.raises(InputError, match="finite"):
        solved.u(np.nan, x)
    for wrong in (1.01, -1e-3, [0.5, 2.0]):
        for ask in (solved.u, solved.gradient):
            with pytest.raises(InputError, match=r"t must lie in \[0, 1\]"):
                ask(wrong, x[0, :2])
    assert solved.u(np.nextafter(np.float32(1), np.float32(2)), x).shape == (2, 3)


def test_a_file_keeps_everything(solved, tmp_path):
    path = tmp_path / "bsb.safetensors"
    before = torch.get_rng_state()
    solved.save(path)
    again = Solution.load(path)
    assert torch.equal(before, torch.get_rng_state())
    assert again.value == solved.value
    assert again.options == solved.options
    assert list(again.history) == list(solved.history)
    assert again.summary() == solved.summary()
    assert tnml.load(path).value == solved.value


def test_files_of_own_problems_and_networks(tmp_path):
    problem, path = own(), tmp_path / "mine.safetensors"

    def network():
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))

    solution = solve(problem, network(), options=SolveOptions(**{**SMALL, "iterations": 4}))
    solution.save(path)
    with pytest.raises(InputError, match="problem of your own, 'mine'"):
        Solution.load(path)
    with pytest.raises(InputError, match="network of your own"):
        Solution.load(path, problem=problem)
    with pytest.raises(InputError, match="has dim 3, the problem given has 2"):
        Solution.load(path, problem=own(dim=2), network=network())
    with pytest.raises(InputError, match="does not fit"):
        Solution.load(path, problem=problem, network=nn.Linear(4, 1))
    assert Solution.load(path, problem=problem, network=network()).value == solution.value
    rows = dict(solution.summary())
    checked = ["corrected value", "95 % interval", "error of the gradient, estimated", "check"]
    others = ["u(0, x0)", "truth", "trivial answer", *checked, "parameters", "time"]
    assert [name for name in rows if name != "doubt"] == others
    value, error = map(float, rows["trivial answer"].split(" +- "))
    assert abs(value - 6) < 4 * error < 1  # E|1 + W|^2, d = 3
    assert solution.relative_error().path_mean is None
    with pytest.raises(InputError, match="no model file"):
        Solution.load(tmp_path / "nowhere")


def test_deep_bsde_knows_the_start_only(tmp_path):
    options = preset("hjb", loss="deep-bsde", **{**SMALL, "iterations": 3, "width": 64})
    solution = solve(HamiltonJacobiBellman(3), options=options)
    with pytest.raises(InputError, match="not at any"):
        solution.u(0.0, np.zeros(3))
    assert solution.along_paths(2).u.shape == (2, 9)
    solution.save(tmp_path / "m")
    assert Solution.load(tmp_path / "m").value == solution.value
    with pytest.raises(InputError, match="makes its own networks"):
        solve(HamiltonJacobiBellman(3), nn.Linear(4, 1), options=options)


def test_the_measures_on_their_own():
    problem = BlackScholesBarenblatt(3)
    assert relative_l2(torch.tensor([3.0]), torch.tensor([2.0])) == 0.5
    assert errors_at_start(2 * problem.true_value().value, None, problem)[0] == pytest.approx(1.0)
    doubled = path_errors(lambda paths: 2 * exact_on(problem, paths), 1.0, None, problem, dtype=torch.float64)
    assert doubled.path_mean == pytest.approx(1.0)
    assert doubled.path_max == pytest.approx(1.0)
    assert doubled.terminal_mean is None
    with pytest.raises(InputError, match="sets must be"):
        path_errors(lambda paths: paths.x, 1.0, None, problem, sets=1)
    with pytest.raises(InputError, match="one path in each"):
        path_errors(lambda paths: paths.x, 1.0, None, problem, paths=3)


@pytest.mark.slow
def test_a_horizon_that_float32_rounds_up_is_the_horizon():
    """In float32 .3 is beyond .3, where formulas for the truth have no value."""
    options = preset("allen-cahn", **{**SMALL, "iterations": 200})
    solution = solve(AllenCahn(3), options=options)
    found = solution.along_paths(8)
    assert float(found.times[-1].double()) > 0.3
    torch.testing.assert_close(found.u[:, -1], found.exact[:, -1], rtol=1e-6, atol=1e-6)
    assert solution.relative_error().path_max < 0.03
    assert solution.history[-1]["path_error"] < 0.03


def exact_on(problem, paths):
    return torch.stack(
        [
            problem.exact(t.expand(len(paths), 1), x)[:, 0]
            for t, x in zip(paths.times, paths.x.unbind(1), strict=True)
        ],
        1,
    )


def test_batches_follow_from_the_step_and_split_into_parts():
    problem = HamiltonJacobiBellman(3)
    options = SolveOptions(paths=7, time_steps=3).settled(problem)
    on_paths = LossOnPaths(problem, options, loss_of(options, problem.dim))
    index, number = PathBatches(7, 10)(1, 4)
    assert number.tolist() == [14] * 7
    whole = on_paths.paths_of_step(14, 0, 7)
    part = on_paths.paths_of_step(14, 3, 4)
    assert torch.equal(whole.part(3, 7).x, part.x)
    assert torch.equal(whole.fresh[3:], part.fresh)
    assert not torch.equal(whole.x, on_paths.paths_of_step(15, 0, 7).x)
    model = options.make_model(problem)
    halves = [on_paths(model, index[s], number[s]) for s in (slice(0, 3), slice(3, 7))]
    together = (3 * halves[0] + 4 * halves[1]) / 7
    assert on_paths(model, index, number).item() == pytest.approx(together.item(), rel=1e-4)


@pytest.mark.slow
def test_same_seed_same_bits_and_other_seed_others():
    problem = HamiltonJacobiBellman(3)
    short = {**SMALL, "iterations": 5}
    values = [solve(problem, options=preset(problem, **short, seed=seed)).value for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_a_time_limit_reduces_the_iterations(tmp_path):
    problem = HamiltonJacobiBellman(3)
    options = preset(problem, **{**SMALL, "iterations": 10**6}, max_seconds=0.5)
    solution = solve(problem, options=options, run_dir=tmp_path / "run")
    assert 1 <= solution.iterations < 10_000
    again = solve(problem, options=options, run_dir=tmp_path / "run", resume=True)
    assert (again.iterations, again.value) == (solution.iterations, solution.value)


def test_interrupted_and_resumed(tmp_path):
    problem = HamiltonJacobiBellman(3)
    options = preset(problem, **SMALL)

    class Stop:
        left = 25

        def step(self, view):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

        def __getattr__(self, name):
            return lambda *given, **named: None

    with pytest.raises(TrainingInterrupted):
        solve(problem, options=options, run_dir=tmp_path, reporter=Stop())
    with pytest.raises(InputError, match="belongs to another run"):
        solve(HamiltonJacobiBellman(3, horizon=0.5), options=options, run_dir=tmp_path, resume=True)
    resumed = solve(problem, options=options, run_dir=tmp_path, resume=True)
    whole = solve(problem, options=options)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def program(folder: Path, devices: int, out: Path) -> list[str]:
    return [sys.executable, str(PROGRAM), str(folder), str(devices), str(out)]


def finished(*words, root: Path) -> dict:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    subprocess.run(program(*words), env=environment, check=True)
    return torch.load(words[2], weights_only=True)


@pytest.mark.slow
def test_killed_and_resumed_ends_in_the_same_bits(tmp_path, project_root):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other process: the bits depend on it
    whole = solve(BlackScholesBarenblatt(3), options=SolveOptions(**OPTIONS)).model.state_dict()
    torch.set_num_threads(threads)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(project_root)}
    steps = tmp_path / "killed.pt.steps"
    with child(
        [*program(tmp_path / "killed", 1, tmp_path / "killed.pt"), "held"], env=environment
    ) as process:
        wait_until(lambda: steps.exists() and int(steps.read_text() or 0) > 20, process)
        process.kill()
        process.wait()
    assert not (tmp_path / "killed.pt").exists(), "it was killed too late to show anything"
    resumed = finished(tmp_path / "killed", 1, tmp_path / "killed.pt", root=project_root)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path, project_root):
    two = finished(tmp_path / "two", 2, tmp_path / "two.pt", root=project_root)
    one = solve(BlackScholesBarenblatt(3), options=SolveOptions(**OPTIONS)).model.state_dict()
    for name, tensor in one.items():
        assert (tensor - two[name]).abs().max() <= 1e-5, name


BAD = {
    "NaN in the terminal value": (
        lambda: solve(own(terminal=lambda x: torch.sqrt(x.min(1, keepdim=True).values))),
        "terminal is not finite|terminal must|the gradient of terminal",
    ),
    "negative horizon": (lambda: own(horizon=-1.0), "horizon must be a number, above 0, got -1.0"),
    "mismatched dimensions": (lambda: own(x0=[1.0, 2.0]), r"x0 must .* numbers, got shape \(2,\)"),
    "batch norm": (
        lambda: solve(own(), nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))),
        "batch norm",
    ),
    "wrong network": (lambda: solve(own(), nn.Linear(3, 1)), "inputs"),
    "unknown loss": (lambda: solve(own(), loss="eulr"), "unknown loss 'eulr'; did you mean 'euler'"),
    "unknown network": (lambda: solve(own(), "dens"), "unknown network 'dens'; did you mean 'dense'"),
    "unknown option": (lambda: preset("bsb", path=3), "unknown option 'path'; did you mean 'paths'"),
    "odd pairs": (lambda: SolveOptions(paths=7, antithetic=True), "come in pairs"),
    "unknown problem": (lambda: preset("bsbb"), "unknown problem 'bsbb'; did you mean 'bsb'"),
    "too far ahead": (
        lambda: SolveOptions(ahead=5.0),
        "ahead is a fraction of a time step, above 0 and at most 1",
    ),
    "soft and unbiased": (
        lambda: solve(own(), loss="unbiased", options=SolveOptions(terminal="soft")),
        "does not look at the horizon",
    ),
    "a function as network": (lambda: solve(own(), lambda x: x), "network must be"),
    "no iterations": (lambda: SolveOptions(iterations=0), "iterations must be"),
    "no time": (lambda: SolveOptions(max_seconds=-1.0), "max_seconds must be"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    act, message = BAD[name]
    with pytest.raises(InputError, match=message):
        act()


@pytest.mark.slow
def test_a_coupled_problem_is_solved():
    """`u = exp(t - 1) |x|^2 / d`, whose driver is found by putting it into the equation."""
    d, sigma = 3, 0.3

    def drift(t, x, y, z):
        return 0.8 * torch.tanh(y) - 0.5 * z

    def driver(t, x, y, z):
        curved = sigma**2 * torch.exp(t - 1)  # sigma^2 / 2 times the Laplacian
        return y + curved + (drift(t, x, y, z) * z).sum(1, keepdim=True)

    def exact(t, x):
        return torch.exp(t - 1) * square(x) / d

    problem = own(
        dim=d,
        terminal=lambda x: square(x) / d,
        coupled_drift=drift,
        driver=driver,
        diffusion=sigma,
        exact=exact,
    )
    options = preset(problem, **{**SMALL, "iterations": 300})
    solution = solve(problem, options=options)
    assert (solution.options.loss, solution.options.terminal) == ("unbiased", "smoothed")
    errors = solution.relative_error()
    assert errors.at_start < 0.05  # .22 where the paths are made without the coupling
    assert errors.path_mean < 0.08  # .11
    found = solution.along_paths(3)
    assert not any(part.requires_grad for part in found)


def test_chunks_change_nothing_but_the_rounding():
    problem = HamiltonJacobiBellman(3)
    short = {**SMALL, "iterations": 3}
    values = [solve(problem, options=preset(problem, **short, chunk=chunk)).value for chunk in (None, 60)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)
