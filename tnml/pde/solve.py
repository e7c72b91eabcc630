"""Solving a parabolic equation in three stages: settle everything, train, hand out the solution."""

import os
from collections.abc import Sequence

from torch import nn

from tnml.loop.entry import run
from tnml.loop.protocols import Callback, Reporter
from tnml.loop.results import LoopResult, TrainingDiverged, TrainingInterrupted
from tnml.pde.losses.named import Loss
from tnml.pde.options import SolveOptions
from tnml.pde.path_checks import why_diverged
from tnml.pde.problem import Problem
from tnml.pde.settle import Settled, settle
from tnml.pde.solution import Solution
from tnml.pde.watch import Watch


def solve(
    problem: Problem,
    network: nn.Module | str | None = None,
    *,
    loss: Loss | str | None = None,
    options: SolveOptions | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    callbacks: Sequence[Callback] = (),
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
        options: see `SolveOptions`; None: `preset(problem)`.
        run_dir: folder of the run; None writes nothing.
        resume: continue what is in `run_dir`.
        reporter: what reports on the run, for example `tnml.training.ProgressReporter()`; None reports
            nothing.
        callbacks: functions of (model, optimizer, row), called after every row of the history; the numbers
            that they return are added to the row, see `tnml.training.run`. The model is the `Ansatz`, or the
            `DeepBSDE` of that loss.

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
    settled = settle(problem, network, loss=loss, options=options, run_dir=run_dir, resume=resume)
    try:
        result = train(settled, reporter=reporter, callbacks=callbacks)
    except TrainingInterrupted as stop:  # without the history: nobody has the model that it belongs to
        raise TrainingInterrupted(stop.run_dir) from stop
    return solution_of(settled, result)


def train(
    settled: Settled, *, reporter: Reporter | None = None, callbacks: Sequence[Callback] = ()
) -> LoopResult:
    """The second stage: the history of training the settled model in place.

    Args:
        settled: from `settle`.
        reporter: see `solve`.
        callbacks: see `solve`.

    Raises:
        InputError: `run_dir` holds another run, or a function of the problem is not finite when the training
            diverges.
        TrainingDiverged: the loss became NaN or infinite for another reason.
        TrainingInterrupted: after Ctrl-C.
    """
    problem, options, on_paths = settled.problem, settled.options, settled.loss_on_paths
    try:
        return run(
            settled.model,
            on_paths,
            settled.batches,
            settled.loop,
            evaluate=Watch(problem, options.time_steps, options.torch_dtype),
            reporter=reporter,
            run_dir=settled.run_dir,
            resume=settled.resume,
            identity=settled.identity,
            callbacks=callbacks,
        )
    except TrainingDiverged as error:
        reason = why_diverged(error, settled.model, settled.start, on_paths.paths_of_step, options.paths)
        if reason is None:
            raise
        raise reason from error


def solution_of(settled: Settled, result: LoopResult) -> Solution:
    """The third stage: the trained model as a solution.

    Args:
        settled: from `settle`, its model trained.
        result: of `train`.
    """
    return Solution(
        problem=settled.problem,
        model=settled.model.eval(),
        options=settled.options,
        history=result.history,
        seconds=result.seconds,
        iterations=settled.iterations,
        own_network=settled.own_network,
        loss=settled.loss,
    )
