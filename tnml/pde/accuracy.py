"""How far an approximate solution is from the truth, along fresh paths and at the start."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError
from tnml.pde.derivatives import Function
from tnml.pde.paths.noise import increments
from tnml.pde.paths.simulation import Paths, euler_maruyama
from tnml.pde.problem import Problem
from tnml.randomness import Noise

_POINTS = 2**14  # points evaluated at once

AlongPaths = Callable[[Paths], Tensor]  # a solution on paths, [m, n + 1]


class Along(NamedTuple):
    """A solution along paths.

    Args:
        times: `[n + 1]`.
        x: `[m, n + 1, d]`.
        u: `[m, n + 1]`.
        exact: the truth at the same points; None if it is not known.

    Example:
        >>> zeros = torch.zeros(2, 5)
        >>> Along(torch.arange(5), torch.zeros(2, 5, 3), zeros, None).u.shape
        torch.Size([2, 5])
    """

    times: Tensor
    x: Tensor
    u: Tensor
    exact: Tensor | None


class PathErrors(NamedTuple):
    """Relative errors; each is None if the truth is not known there.

    Args:
        at_start: at (0, x0): |u - exact| / |exact|.
        path_mean: relative L2 error over all points of all paths, root mean squares of u - exact and exact.
        path_max: the largest relative L2 error at one time.
        spread: standard deviation of `path_mean` over the sets of paths.
        trivial: of the trivial answer at (0, x0), see `Problem.trivial`.
        terminal_at_start: of the terminal value alone, with which the network begins, at (0, x0); None under
            a soft terminal condition.
        terminal_mean: of the same along the paths.

    Example:
        >>> PathErrors(1e-4, 2e-4, 5e-4, 1e-5, 0.05, 0.19, 0.11).path_mean
        0.0002
    """

    at_start: float | None
    path_mean: float | None
    path_max: float | None
    spread: float | None
    trivial: float | None
    terminal_at_start: float | None
    terminal_mean: float | None


def fresh_paths(
    problem: Problem,
    count: int,
    time_steps: int,
    *,
    seed: int,
    number: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    solution: Function | None = None,
) -> Paths:
    """Paths that no training run has seen.

    Args:
        problem: gives the process.
        count: paths.
        time_steps: from 0 to the horizon.
        seed: of the noise.
        number: of the set of paths; sets of one seed are independent.
        dtype: of the paths.
        device: of the paths.
        solution: u(t, x), which coupled problems need.

    Example:
        >>> from tnml.pde import BlackScholesBarenblatt
        >>> fresh_paths(BlackScholesBarenblatt(3), 2, 4, seed=0).x.shape
        torch.Size([2, 5, 3])
    """
    noise = increments(
        count,
        time_steps,
        problem.dim,
        problem.horizon / time_steps,
        seed=seed,
        step=number,
        stream=Noise.ACCURACY,
        dtype=dtype,
        device=device,
    )
    return euler_maruyama(problem, noise, solution=solution)


@torch.no_grad()
def values_along(u: Function, paths: Paths) -> Tensor:
    """The function u at every point of the paths, `[m, n + 1]`, in float64.

    Example:
        >>> from tnml.pde import BlackScholesBarenblatt
        >>> paths = fresh_paths(BlackScholesBarenblatt(3), 2, 4, seed=0)
        >>> values_along(lambda t, x: t, paths)[0].tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    rows = max(1, _POINTS // (paths.steps + 1))
    found = []
    for first in range(0, len(paths), rows):
        part = paths.part(first, first + rows)
        t, x = part.points(0, paths.steps + 1)
        found.append(u(t, x).double().reshape(-1, paths.steps + 1))
    return torch.cat(found)


def exact_along(problem: Problem, paths: Paths) -> Tensor:
    """The truth at every point of the paths, `[m, n + 1]`, in float64.

    Raises:
        InputError: it is not known along paths.

    Example:
        >>> from tnml.pde import AllenCahn
        >>> problem = AllenCahn(3)  # its horizon in float32 is beyond that in float64
        >>> paths = fresh_paths(problem, 2, 4, seed=0)
        >>> bool((exact_along(problem, paths)[:, -1] - problem.g(paths.x[:, -1])[:, 0]).abs().max() < 1e-6)
        True
    """
    exact = problem.exact
    if exact is None:
        raise InputError(f"the solution of {problem.name!r} is not known along paths")
    return values_along(lambda t, x: exact(t.double().clamp(max=problem.horizon), x), paths)


def values_and_truth(values: AlongPaths, problem: Problem, paths: Paths) -> Along:
    """A solution and the truth, if it is known, along the paths.

    Args:
        values: the solution `[m, n + 1]` on paths.
        problem: with the truth.
        paths: where both are evaluated.

    Example:
        >>> from functools import partial
        >>> from tnml.pde import BlackScholesBarenblatt
        >>> problem = BlackScholesBarenblatt(3)
        >>> paths = fresh_paths(problem, 2, 4, seed=0)
        >>> found = values_and_truth(partial(values_along, problem.exact), problem, paths)
        >>> torch.equal(found.u, found.exact)
        True
    """
    exact = None if problem.exact is None else exact_along(problem, paths)
    with torch.no_grad():
        return Along(paths.times, paths.x, values(paths).double(), exact)


def relative_l2(u: Tensor, exact: Tensor) -> float:
    """Root mean square of u - exact over that of exact.

    Example:
        >>> relative_l2(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]))
        0.4472...
    """
    scale = float(exact.square().mean().sqrt())
    return float((u - exact).square().mean().sqrt()) / scale if scale > 0 else math.nan


@torch.no_grad()
def path_errors(
    values: AlongPaths,
    start: float,
    terminal: Function | None,
    problem: Problem,
    *,
    paths: int = 256,
    time_steps: int = 50,
    sets: int = 4,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    solution: Function | None = None,
) -> PathErrors:
    """The errors of a solution along `sets` sets of fresh paths, and those of simpler answers.

    Args:
        values: the solution `[m, n + 1]` on paths.
        start: the solution at (0, x0).
        terminal: the terminal value that the solution is built on, if any.
        problem: with the truth.
        paths: over all sets together.
        time_steps: of a path.
        sets: at least 2, for the spread.
        seed: of the paths.
        dtype: of the points.
        solution: u(t, x), which coupled problems need for their paths.

    Raises:
        InputError: fewer than two sets, or fewer paths than sets.

    Example:
        >>> from functools import partial
        >>> from tnml.pde import BlackScholesBarenblatt
        >>> problem = BlackScholesBarenblatt(3)
        >>> exact = partial(values_along, problem.exact)
        >>> path_errors(exact, problem.true_value().value, None, problem, dtype=torch.float64)[:3]
        (0.0, 0.0, 0.0)
    """
    whole("sets", sets, 2)
    if paths < sets:
        raise InputError(f"expected at least one path in each of {sets} sets, got {paths} paths")
    at_start, terminal_at_start, trivial = errors_at_start(start, terminal, problem, dtype)
    if problem.exact is None:
        return PathErrors(at_start, None, None, None, trivial, terminal_at_start, None)
    found, exact, simple = [], [], []
    for number in range(sets):
        count = paths // sets + (number < paths % sets)
        part = fresh_paths(
            problem, count, time_steps, seed=seed, number=number, dtype=dtype, solution=solution
        )
        found.append(values(part).double())
        exact.append(exact_along(problem, part))
        if terminal is not None:
            simple.append(values_along(terminal, part))
    means = torch.tensor([relative_l2(a, b) for a, b in zip(found, exact, strict=True)])
    u, truth = torch.cat(found), torch.cat(exact)
    by_time = torch.tensor([relative_l2(u[:, n], truth[:, n]) for n in range(time_steps + 1)])
    return PathErrors(
        at_start=at_start,
        path_mean=relative_l2(u, truth),
        path_max=float(by_time.max()),
        spread=float(means.std()),
        trivial=trivial,
        terminal_at_start=terminal_at_start,
        terminal_mean=relative_l2(torch.cat(simple), truth) if simple else None,
    )


@torch.no_grad()
def errors_at_start(
    start: float, terminal: Function | None, problem: Problem, dtype: torch.dtype = torch.float32
) -> tuple[float | None, float | None, float | None]:
    """Relative errors at (0, x0): of `start`, of the terminal value it is built on, of the trivial answer.

    Example:
        >>> from tnml.pde import BlackScholesBarenblatt
        >>> problem = BlackScholesBarenblatt(3)
        >>> errors_at_start(1.01 * problem.true_value().value, None, problem)[0]
        0.0100...
    """
    truth = problem.true_value()
    if truth is None or truth.value == 0:
        return None, None, None

    def error(value: float) -> float:
        return abs(value - truth.value) / abs(truth.value)

    built = None
    if terminal is not None:
        x = problem.start(dtype)[None]
        built = error(float(terminal(x.new_zeros(1, 1), x)))
    return error(start), built, None if problem.coupled else error(problem.trivial().value)
