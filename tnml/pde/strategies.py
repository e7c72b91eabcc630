"""The strategies that solving compares: changes of the options, in the order in which they are tried."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tnml.pde.ansatz.bases import quadratic_solution
from tnml.pde.aposteriori.linearised import has_driver
from tnml.pde.aposteriori.result import Check
from tnml.pde.options import SolveOptions
from tnml.pde.problem import Problem

_WAVES = 4.0  # factor of the first layer's weights
_MOST_STEPS = 400
_RIGHT = 0.05  # relative error of a gradient that leaves little noise but that of the steps


class Strategy(NamedTuple):
    """Changes of the options, and what they mean.

    Example:
        >>> Strategy("additive", {"terminal": "additive"}).words
        'additive'
    """

    words: str
    changes: Mapping[str, Any]


def strategies_of(problem: Problem, options: SolveOptions) -> list[Strategy]:
    """What is tried for this problem; only what the options leave open is varied.

    Args:
        problem: the equation, as it is solved.
        options: those asked for.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> [strategy.words for strategy in strategies_of(HeatEquation(2), SolveOptions(loss="unbiased"))]
        ['defaults', 'additive terminal', 'stretched network']
    """
    free_loss, free_terminal = options.loss == "auto", options.terminal == "auto"
    found = [Strategy("defaults", {})]
    if options.loss == "deep-bsde":
        return found
    if free_loss:
        found.append(Strategy("multistep loss", {"loss": "multistep"}))
    if free_terminal:
        if has_driver(problem) and problem.options is None and quadratic_solution(problem) is not None:
            found.insert(0, Strategy("quadratic terminal", {"terminal": "quadratic"}))
        loss = {"loss": "multistep"} if free_loss else {}
        found.append(Strategy("additive terminal", {"terminal": "additive", **loss}))
    if options.stretch == 1 and options.activation == "silu":
        found.append(Strategy("stretched network", {"stretch": _WAVES, "activation": "sin"}))
    return found


def more_steps(check: Check, options: SolveOptions) -> Strategy | None:
    """More time steps, if the check asks for them, or if they are all that makes the interval wide.

    Example:
        >>> from tnml.pde import HeatEquation, SolveOptions, solve
        >>> options = SolveOptions(iterations=3, paths=2, time_steps=4, width=4, device="cpu")
        >>> more_steps(solve(HeatEquation(2), options=options).check(paths=64), options) is None
        True
    """
    names = {flag.name for flag in check.flags}
    noisy = names == {"wide"} and check.gradient_error < _RIGHT
    if not (noisy or names & {"steps", "stiff"}) or options.time_steps >= _MOST_STEPS:
        return None
    steps = min(_MOST_STEPS, 3 * options.time_steps)
    return Strategy(f"{steps} time steps", {"time_steps": steps})


def score(check: Check) -> float:
    """How much a check leaves open, relative to the size of the value: half the interval; large without one.

    Example:
        >>> from tnml.pde import HeatEquation, solve
        >>> options = SolveOptions(iterations=3, paths=2, time_steps=4, width=4, device="cpu")
        >>> score(solve(HeatEquation(2), options=options).check(paths=64)) < 1
        True
    """
    if check.interval is not None:
        return (check.interval[1] - check.interval[0]) / 2 / check.scale
    missed = check.deviation / check.scale
    return 100 + missed if missed < 1e6 else 1e6
