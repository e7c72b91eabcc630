"""The one optimisation loop: any module, any loss, any batches, on one device or several."""

import os
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from tnml.errors import InputError
from tnml.files import user_path
from tnml.loop.interrupt import StopRequest
from tnml.loop.launch import launch
from tnml.loop.loop import Loop, check_folder
from tnml.loop.options import LoopOptions
from tnml.loop.processes import open_fabric, started_outside
from tnml.loop.protocols import Batches, Callback, Job, LossFn, Reporter, StepView
from tnml.loop.results import LoopResult, Row, TrainingInterrupted


def run(
    module: nn.Module,
    loss_fn: LossFn,
    batches: Batches,
    options: LoopOptions,
    *,
    evaluate: Callable[[nn.Module], Row] | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    on_step: Callable[[StepView], None] | None = None,
    reporter: Reporter | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    identity: Mapping[str, str | int | float] | None = None,
    callbacks: Sequence[Callback] = (),
) -> LoopResult:
    """The history of training `module` in place, and its final weights.

    Every process takes its part of each batch and the gradients add up to those of the whole batch, so W
    processes give what one gives, to rounding; they start from rank 0's weights. The dropouts of `MPSLayer`
    draw as in one process; other random layers draw the same in every process, for its own samples. torch's
    default generators are seeded from (seed, epoch, step) before every step, alike in all processes, and
    restored at the end. A loop step adds about 0.1 ms to forward, backward and optimiser.

    With `run_dir` the run can be continued after Ctrl-C or a crash at any moment and ends in the same
    weights to the last bit on the CPU. The folder gets `checkpoint.pt` and `metrics.csv`.

    Args:
        module: trained in place; on return it holds the final weights, on the device it came from.
        loss_fn: `loss_fn(module, *batch)`: the mean loss or one loss per sample; or (loss, metrics). Of a
            `Batch` it gets x, y and what else it has parameters for: index, weight, epoch, step.
        batches: a pure function of (epoch, step), see `Batches`.
        options: see `LoopOptions`.
        evaluate: called with the module (averaged weights, eval mode, no gradients) after each epoch, on
            rank 0; its numbers join the epoch's row.
        on_epoch: called with each row of the history, on rank 0.
        on_step: called after each step with where the run is, on rank 0.
        reporter: called after every step and epoch, on rank 0; see `Reporter`.
        run_dir: folder of the run, made if missing; None writes nothing.
        resume: continue what is in `run_dir`; starts from the beginning where it holds no checkpoint yet.
        identity: what else has to be the same when the run is resumed, such as a checksum of the data.
        callbacks: functions of (module, optimizer, row), called after `evaluate` on rank 0 in the same way;
            the numbers that they return join the row, `metrics.csv` and TensorBoard, and `monitor` may watch
            them. One with `state_dict` and `load_state_dict` keeps its memory when the run is resumed.

    Raises:
        InputError: `run_dir` holds another run, or one with other options; the device is not available.
        TrainingDiverged: the loss became NaN or infinite.
        TrainingInterrupted: after Ctrl-C, once the checkpoint is written.

    Example:
        >>> import torch
        >>> class Points:
        ...     steps_per_epoch = 20
        ...     def __call__(self, epoch, step):
        ...         return (torch.linspace(-1, 1, 8)[:, None],)
        >>> line = nn.Linear(1, 1)
        >>> options = LoopOptions(epochs=20, lr=0.1, device="cpu")
        >>> result = run(line, lambda net, x: (net(x) - 3 * x).square().mean(), Points(), options)
        >>> round(line.weight.item(), 2)
        3.0
    """
    folder = None if run_dir is None else user_path(run_dir)
    if options.tensorboard and folder is None:
        raise InputError("tensorboard=True needs run_dir, the folder the event files go to")
    joined = started_outside()
    if not joined:  # the processes of a group must all have checked before one of them writes
        check_folder(folder, resume)
    _convert(module, options)
    job = Job(
        module=module,
        loss_fn=loss_fn,
        batches=batches,
        options=options,
        evaluate=evaluate,
        on_epoch=on_epoch,
        on_step=on_step,
        reporter=reporter,
        run_dir=folder,
        resume=resume,
        identity=identity or {},
        callbacks=tuple(callbacks),
    )
    if options.devices > 1 and not joined:
        return _launched(job)
    return Loop(job, open_fabric(options, joined=joined)).execute()


def _launched(job: Job) -> LoopResult:
    """The run in processes of its own, whose weights come back into the module."""
    try:
        result: LoopResult = launch(_joined, job, job.options.devices)
    except TrainingInterrupted as stop:  # the weights stayed in the other processes
        raise TrainingInterrupted(stop.run_dir) from stop
    job.module.load_state_dict(result.state)
    return result


def _joined(job: Job, request: StopRequest) -> LoopResult:
    """The run in one of several started processes."""
    return Loop(job, open_fabric(job.options, joined=True), request).execute()


def _convert(module: nn.Module, options: LoopOptions) -> None:
    """Converts the module to the precision asked for."""
    if options.precision not in ("32", "64"):
        return
    if any(p.is_complex() for p in module.parameters()):
        raise InputError(
            f"precision={options.precision!r} is for real parameters, got complex ones; use 'auto'"
        )
    module.to(torch.float32 if options.precision == "32" else torch.float64)
