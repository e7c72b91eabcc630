"""Supervised training of any module: classifiers, regressors and densities, on the one loop."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tnml.errors import InputError, choose
from tnml.loop.entry import run
from tnml.loop.options import LoopOptions
from tnml.loop.protocols import Callback, Reporter, StepView
from tnml.loop.results import LoopResult, Row
from tnml.training.identity import model_identity
from tnml.training.inputs import Array
from tnml.training.losses import LossSpec, loss_of
from tnml.training.options import TrainOptions, check_for_task
from tnml.training.sources import Data, Inputs, Test, data_for, scorer_for, training_of
from tnml.training.tasks import CLASSIFICATION, DENSITY, REGRESSION, TASKS, Task


@dataclass(frozen=True, kw_only=True)
class TrainResult(LoopResult):
    """A `LoopResult`, and what is known about the data.

    Args:
        n_train: samples trained on.
        n_validation: samples held out.
        test: "loss" and, for labels, "accuracy" on the test set, once, with the final weights; empty without
            one.
        memory: what a loss that keeps numbers of every sample has learned; of "sop" a `NoiseMemory`.
    """

    n_train: int
    n_validation: int
    test: Mapping[str, float]
    memory: Any = None


def train_classifier(
    layer: nn.Module,
    x: Inputs,
    y: Array | None = None,
    options: TrainOptions | None = None,
    *,
    x_test: Inputs | None = None,
    y_test: Array | None = None,
    image_shape: tuple[int, int] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Reporter | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    on_step: Callable[[StepView], None] | None = None,
    sample_weight: Array | None = None,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """The history of training `layer`, in place, to give logits `[b, c]` of the labels `y`.

    Args:
        layer: any module `[b, ...] -> [b, c]`; on return it holds the final weights.
        x: `[n, sites]` inputs in [0, 1] or `[n, sites, d]` features, an array or tensor. What does not fit in
            memory may be an `np.memmap`, a `torch.utils.data.Dataset` of (x, y) pairs or a `DataLoader`: they
            are read and checked batch by batch, and memory stays flat. A mapped file or a Dataset gives the
            bits that the same samples in memory give, and resumes exactly. A DataLoader keeps its own order
            and batch size, so its runs cannot be resumed, and it can hold nothing out.
        y: `[n]` whole numbers from 0 to c - 1; None with a Dataset or DataLoader. For other labels use
            `tnml.MPSClassifier`.
        options: see `TrainOptions`; None takes the defaults. To hold a part of a Dataset out by class it is
            read once to see its labels.
        x_test: like `x`, of any of its kinds; measured once, after training.
        y_test: like `y`.
        image_shape: (height, width) of an input, for `max_shift`; None takes a square.
        run_dir: see `tnml.training.run`.
        resume: see `tnml.training.run`.
        progress: the reporter, for example a `ProgressReporter`; None reports nothing.
        on_epoch: see `tnml.training.run`.
        on_step: see `tnml.training.run`.
        sample_weight: `[n]`, not negative: how much each sample counts in the loss, in which a weight of 2 is
            a sample that is there twice. They are scaled to mean 1; samples of weight 0 are left out.
        callbacks: see `tnml.training.run`.

    Raises:
        InputError: data, options and layer do not fit, or an input is not finite.
        TrainingDiverged: the loss became NaN or infinite.
        TrainingInterrupted: after Ctrl-C.

    Example:
        >>> import torch
        >>> x = torch.eye(2).repeat(20, 1)
        >>> options = TrainOptions(epochs=30, lr=0.1, batch_size=8, device="cpu")
        >>> train_classifier(nn.Linear(2, 2), x, x.argmax(1), options).history[-1]["accuracy"]
        1.0
    """
    options = options or TrainOptions()
    data, test = data_for(
        CLASSIFICATION,
        layer,
        x,
        y,
        x_test,
        y_test,
        options,
        sample_weight=sample_weight,
        image_shape=image_shape,
        resume=resume,
    )
    return _train(
        CLASSIFICATION, layer, data, test, options, run_dir, resume, progress, on_epoch, on_step, callbacks
    )


def train_regressor(
    layer: nn.Module,
    x: Inputs,
    y: Array | None = None,
    options: TrainOptions | None = None,
    *,
    x_test: Inputs | None = None,
    y_test: Array | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Reporter | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    on_step: Callable[[StepView], None] | None = None,
    sample_weight: Array | None = None,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """The history of training `layer`, in place, to give the real targets `y`, with least mean squared error.

    Other losses, such as "huber" and "quantile", by `TrainOptions(loss=...)`.

    Args:
        layer: any module `[b, ...] -> [b, c]`.
        x: `[n, sites]` inputs in [0, 1] or `[n, sites, d]` features, or what `train_classifier` takes.
        y: `[n]` where c is 1, or `[n, c]`; None with a Dataset or DataLoader.
        options: see `TrainOptions`; None takes the defaults.
        x_test: like `x`; measured once, after training.
        y_test: like `y`.
        run_dir: see `tnml.training.run`.
        resume: see `tnml.training.run`.
        progress: see `train_classifier`.
        on_epoch: see `tnml.training.run`.
        on_step: see `tnml.training.run`.
        sample_weight: see `train_classifier`.
        callbacks: see `tnml.training.run`.

    Raises:
        InputError: data, options and layer do not fit, a loss is not one of real targets, or a number is not
            finite.
        TrainingDiverged: the loss became NaN or infinite.
        TrainingInterrupted: after Ctrl-C.

    Example:
        >>> import torch
        >>> x = torch.rand(64, 1, generator=torch.Generator().manual_seed(0))
        >>> line, options = nn.Linear(1, 1), TrainOptions(epochs=150, lr=0.1, batch_size=16, device="cpu")
        >>> _ = train_regressor(line, x, 2 * x[:, 0], options)
        >>> round(line.weight.item(), 1)
        2.0
    """
    options = options or TrainOptions()
    check_for_task(REGRESSION, options)
    data, test = data_for(
        REGRESSION,
        layer,
        x,
        y,
        x_test,
        y_test,
        options,
        sample_weight=sample_weight,
        resume=resume,
    )
    return _train(
        REGRESSION, layer, data, test, options, run_dir, resume, progress, on_epoch, on_step, callbacks
    )


def train_density(
    layer: nn.Module,
    x: Inputs,
    options: TrainOptions | None = None,
    *,
    x_test: Inputs | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Reporter | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    on_step: Callable[[StepView], None] | None = None,
    sample_weight: Array | None = None,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """The history of training `layer`, in place, to give log-densities of the samples, by maximum likelihood.

    Args:
        layer: any module `[b, ...] -> [b, 1]` whose output is the logarithm of a normalised density.
        x: `[n, sites]` samples, an array or tensor, or what `train_classifier` takes; a Dataset or DataLoader
            gives x alone, or (x,).
        options: see `TrainOptions`; None takes the defaults.
        x_test: like `x`; measured once, after training.
        run_dir: see `tnml.training.run`.
        resume: see `tnml.training.run`.
        progress: see `train_classifier`.
        on_epoch: see `tnml.training.run`.
        on_step: see `tnml.training.run`.
        sample_weight: see `train_classifier`.
        callbacks: see `tnml.training.run`.

    Raises:
        InputError: data and layer do not fit, a loss is not one of densities, or a number is not finite.
        TrainingDiverged: the loss became NaN or infinite.
        TrainingInterrupted: after Ctrl-C.

    Example:
        >>> import torch
        >>> class Normal(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.mean = nn.Parameter(torch.zeros(1))
        ...     def forward(self, x):
        ...         return torch.distributions.Normal(self.mean, 1.0).log_prob(x)
        >>> x = 2 + torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
        >>> normal, options = Normal(), TrainOptions(epochs=200, lr=0.1, batch_size=64, device="cpu")
        >>> _ = train_density(normal, x, options)
        >>> bool((normal.mean - x.mean()).abs() < 1e-2)
        True
    """
    options = options or TrainOptions()
    check_for_task(DENSITY, options)
    data, test = data_for(
        DENSITY, layer, x, None, x_test, None, options, sample_weight=sample_weight, resume=resume
    )
    return _train(
        DENSITY, layer, data, test, options, run_dir, resume, progress, on_epoch, on_step, callbacks
    )


def evaluate(
    layer: nn.Module,
    x: Inputs,
    y: Array | None = None,
    *,
    loss: LossSpec | None = None,
    batch_size: int = 1000,
    task: str = "classification",
) -> dict[str, float]:
    """The mean "loss" and, of a classifier, the "accuracy" on samples, on the layer's device.

    Args:
        layer: any module `[b, ...] -> [b, c]`.
        x: `[n, ...]` inputs, or what `train_classifier` takes.
        y: `[n]` whole numbers from 0 to c - 1, or targets as the task wants them; None with a Dataset or
            DataLoader.
        loss: a loss of the task; None takes its own, "cross-entropy" for labels.
        batch_size: samples at a time; a DataLoader has its own.
        task: what the layer was trained for: "classification", "regression" or "density".

    Raises:
        InputError: data and layer do not fit, or the loss is not one of this task.

    Example:
        >>> import torch
        >>> evaluate(nn.Identity(), torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1]))["accuracy"]
        0.5
    """
    learned = choose("task", task, TASKS)
    of = loss_of(learned.default_loss if loss is None else loss, task)
    return scorer_for(learned, layer, x, y, TrainOptions(), ("x", "y"), batch_size, later=False)(layer, of)


def _train(
    task: Task,
    layer: nn.Module,
    data: Data,
    test: Test | None,
    options: TrainOptions,
    run_dir: str | os.PathLike[str] | None,
    resume: bool,
    progress: Reporter | None,
    on_epoch: Callable[[Row], None] | None,
    on_step: Callable[[StepView], None] | None,
    callbacks: Sequence[Callback],
) -> TrainResult:
    loss = options.loss_for(task)
    check_monitor(options, task, callbacks)
    batches, held = training_of(data, options, loss.plain())
    # what resuming is to compare takes a look into the file, which a run without a folder is spared
    identity = {**data.identity(), **model_identity(layer, options)} if run_dir is not None else {}
    of_run: Any = loss.begin()
    memory = of_run if loss.by_sample else None
    result = run(
        layer,
        of_run,
        batches,
        options,
        evaluate=held,
        on_epoch=on_epoch,
        on_step=on_step,
        reporter=progress,
        run_dir=run_dir,
        resume=resume,
        identity=identity,
        callbacks=(*callbacks, of_run.callback) if loss.by_sample else callbacks,
    )
    return TrainResult(
        **vars(result),
        n_train=batches.samples,
        n_validation=0 if held is None else held.samples,
        test={} if test is None else test(layer, loss.plain()),
        memory=memory,
    )


def check_monitor(options: LoopOptions, task: Task, callbacks: Sequence[Callback]) -> None:
    """Raises, before anything is written, where the number that `patience` watches will not be measured.

    Callbacks may measure anything; with them the first epoch tells.

    Raises:
        InputError: no number has the name that `monitor` gives.

    Example:
        >>> check_monitor(TrainOptions(), CLASSIFICATION, ())
    """
    if options.patience is not None and not callbacks and options.monitor not in task.monitors:
        raise InputError(
            f"patience watches monitor={options.monitor!r}, which is not measured; "
            f"choose from {', '.join(task.monitors)}"
        )
