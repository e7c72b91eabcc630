"""The second and the third stage of solving: training what is settled, and handing out the solution."""

from collections.abc import Sequence

from tnml.loop.entry import run
from tnml.loop.protocols import Callback, Reporter
from tnml.loop.results import LoopResult, TrainingDiverged
from tnml.pde.path_checks import why_diverged
from tnml.pde.settle import Settled
from tnml.pde.solution import Solution
from tnml.pde.watch import Watch


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
