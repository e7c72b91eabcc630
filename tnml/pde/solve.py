"""Solving a parabolic equation in three stages: settle everything, train, hand out the solution."""

import dataclasses
import os
from collections.abc import Sequence

from torch import nn

from tnml.checks import one_of
from tnml.errors import InputError
from tnml.loop.protocols import Callback, Reporter
from tnml.loop.results import TrainingInterrupted
from tnml.pde.backward_tt.options import METHOD, TTOptions
from tnml.pde.backward_tt.solve import solve_tt
from tnml.pde.losses.named import Loss
from tnml.pde.options import SolveOptions, preset
from tnml.pde.problem import Problem
from tnml.pde.search import search
from tnml.pde.settle import settle
from tnml.pde.solution import Solution
from tnml.pde.train import solution_of, train

__all__ = ["solution_of", "solve", "train"]

METHODS = ("network", METHOD)


def solve(
    problem: Problem,
    network: nn.Module | str | None = None,
    *,
    loss: Loss | str | None = None,
    options: SolveOptions | TTOptions | None = None,
    method: str | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    callbacks: Sequence[Callback] = (),
    seconds: float | None = None,
    start: Solution | None = None,
) -> Solution:
    """The solution u(t, x) of a parabolic equation, near the paths that start at (0, x0).

    A network becomes a function with the terminal value g, see `Ansatz`; it is trained on new random paths at
    every step, which depend on seed and step only. With `run_dir` a run can be continued after a crash at any
    moment and ends in the same bits on the CPU, see `tnml.training.run`.

    Args:
        problem: the equation.
        network: `[m, d + 1] -> [m, 1]`, trained in place in the dtype of the options; or "dense" or "tnn";
            None: what the options say.
        loss: instead of that of the options: a name; an object such as `EulerLoss(terminal_weight=3.0)`; or
            any `loss(ansatz, problem, paths) -> mean over paths`, whose `fresh_increments`, if it has any,
            says how many `paths.fresh` holds at every point. An object is used as it is: `group`, `ahead`,
            `relative` and `chunk` of the options apply to losses given by name. The design of `group_noise`
            goes to losses with `groups = 1`; other losses get signs in its place.
        options: see `SolveOptions`; None: `preset(problem)`. With `method="tt"` see `TTOptions`.
        method: "network" trains a network by gradients; "tt" fits a tensor train of polynomials by least
            squares, without network and loss, see `TTOptions`; None: what the options are for.
        run_dir: folder of the run; None writes nothing.
        resume: continue what is in `run_dir`.
        reporter: what reports on the run, for example `tnml.training.ProgressReporter()`; None reports
            nothing.
        callbacks: functions of (model, optimizer, row), called after every row of the history; the numbers
            that they return are added to the row, see `tnml.training.run`. The model is the `Ansatz`, or the
            `DeepBSDE` of that loss.
        seconds: how long it shall take, as the option `seconds`: a few strategies are tried and compared by
            `Solution.check`, see `tnml.pde.search`; with `method="tt"` the option `max_seconds`.
        start: a solution whose weights training starts from, of a similar problem perhaps; it stays as it
            is. Its options are used if none are given.

    Raises:
        InputError: the network, the loss or the options do not suit the problem; a function of the problem is
            not finite on paths, before training or when it diverges; `run_dir` holds another run.
        TrainingDiverged: the loss became NaN or infinite, and no function of the problem explains it.
        TrainingInterrupted: after Ctrl-C.

    Example:
        >>> from tnml.pde import BlackScholesBarenblatt, preset
        >>> problem = BlackScholesBarenblatt(2)
        >>> options = preset(problem, iterations=40, paths=20, time_steps=5, width=16, lr=1e-2, device="cpu")
        >>> solution = solve(problem, options=options)
        >>> abs(solution.value / solution.true_value.value - 1) < 0.05
        True
    """
    if one_of("method", method or _method_of(options), METHODS) == METHOD:
        return solve_tt(
            problem,
            _train_options(options, seconds, (network, loss, start)),
            run_dir=run_dir,
            resume=resume,
            reporter=reporter,
            callbacks=callbacks,
        )
    if isinstance(options, TTOptions):
        raise InputError("TTOptions go with method='tt'; give options=SolveOptions(...)")
    if seconds is not None:
        options = dataclasses.replace(options or preset(problem), seconds=seconds)
    if options is not None and options.seconds is not None:
        return search(
            problem, network, loss=loss, options=options, run_dir=run_dir, resume=resume, reporter=reporter,
            callbacks=callbacks, start=start,
        )  # fmt: skip
    settled = settle(
        problem, network, loss=loss, options=options, run_dir=run_dir, resume=resume, start=start
    )
    try:
        result = train(settled, reporter=reporter, callbacks=callbacks)
    except TrainingInterrupted as stop:  # without the history: nobody has the model that it belongs to
        raise TrainingInterrupted(stop.run_dir) from stop
    return solution_of(settled, result)


def _train_options(
    options: SolveOptions | TTOptions | None, seconds: float | None, others: Sequence[object]
) -> TTOptions | None:
    """The options of `method="tt"`, which goes with none of `others`.

    Raises:
        InputError: there is one of them, or the options are those of a network.
    """
    if any(other is not None for other in others):
        raise InputError(
            "method='tt' fits a tensor train by least squares; leave network, loss and start out"
        )
    if isinstance(options, SolveOptions):
        raise InputError("method='tt' has options of its own: give options=TTOptions(...)")
    return options if seconds is None else dataclasses.replace(options or TTOptions(), max_seconds=seconds)


def _method_of(options: SolveOptions | TTOptions | None) -> str:
    return METHOD if isinstance(options, TTOptions) else METHODS[0]
