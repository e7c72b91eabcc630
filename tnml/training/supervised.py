"""Supervised training of any module on arrays: classifiers and regressors, on top of the one loop."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tnml.data import random_shift
from tnml.errors import InputError
from tnml.loop.entry import run
from tnml.loop.protocols import LossFn, Reporter, StepView
from tnml.loop.results import LoopResult, Row
from tnml.randomness import generator
from tnml.training.identity import model_identity
from tnml.training.losses import CrossEntropy, loss_of, measure
from tnml.training.options import TrainOptions
from tnml.training.samples import Array, Samples, labelled_samples, regression_samples

_ORDER, _SHIFT = 0, 1  # streams of seeds; 2 is dropout's, 3 the held-out part's


@dataclass(frozen=True, kw_only=True)
class TrainResult(LoopResult):
    """A `LoopResult`, and what is known about the data.

    Args:
        n_train: samples trained on.
        n_validation: samples held out.
        test: "loss" and "accuracy" on the test set, once, with the final weights; empty without one.
    """

    n_train: int
    n_validation: int
    test: Mapping[str, float]


class ArrayBatches:
    """Shuffled batches of two tensors that stay on the device; a batch is one `index_select`.

    Args:
        x: `[n, ...]` inputs.
        y: `[n]` or `[n, c]` targets.
        options: batch_size, seed and max_shift are read.
        image_shape: (height, width) for shifts.

    Example:
        >>> batches = ArrayBatches(torch.rand(5, 4), torch.arange(5), TrainOptions(batch_size=2))
        >>> batches.steps_per_epoch, sorted(torch.cat([batches(0, s)[1] for s in range(3)]).tolist())
        (3, [0, 1, 2, 3, 4])
    """

    def __init__(
        self, x: Tensor, y: Tensor, options: TrainOptions, image_shape: tuple[int, int] | None = None
    ) -> None:
        self._x, self._y = x, y
        self._size, self._seed, self._max_shift = options.batch_size, options.seed, options.max_shift
        self._shape = image_shape
        self._epoch = -1
        self._order = torch.zeros(0, dtype=torch.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch; the last may be smaller."""
        return -(-len(self._x) // self._size)

    def to(self, device: torch.device) -> None:
        """Moves the data to the device, once."""
        self._x, self._y, self._epoch = self._x.to(device), self._y.to(device), -1

    def __call__(self, epoch: int, step: int) -> tuple[Tensor, ...]:
        """The batch of one step."""
        if epoch != self._epoch:
            order = torch.randperm(len(self._x), generator=generator(self._seed, epoch, stream=_ORDER))
            self._order, self._epoch = order.to(self._x.device), epoch
        chosen = self._order[step * self._size : (step + 1) * self._size]
        x = self._x.index_select(0, chosen)
        if self._max_shift and self._shape is not None:
            x = random_shift(x, self._shape, self._max_shift, generator(self._seed, epoch, step, _SHIFT))
        return x, self._y.index_select(0, chosen)


class HeldOut:
    """Measures a module on samples kept apart: "val_loss", and "val_accuracy" for labels.

    Args:
        x: `[n, ...]` inputs.
        y: their targets.
        loss: what to measure.

    Example:
        >>> from tnml.training.losses import SquaredError
        >>> HeldOut(torch.ones(2, 1), torch.zeros(2, 1), SquaredError())(nn.Identity())
        {'val_loss': 1.0}
    """

    def __init__(self, x: Tensor, y: Tensor, loss: LossFn) -> None:
        self._x, self._y, self._loss = x, y, loss

    def __call__(self, module: nn.Module) -> Row:
        """The measured numbers."""
        device = next(module.parameters(), self._x).device
        if self._x.device != device:
            self._x, self._y = self._x.to(device), self._y.to(device)
        return {f"val_{name}": value for name, value in measure(module, self._loss, self._x, self._y).items()}


def train_classifier(
    layer: nn.Module,
    x: Array,
    y: Array,
    options: TrainOptions | None = None,
    *,
    x_test: Array | None = None,
    y_test: Array | None = None,
    image_shape: tuple[int, int] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Reporter | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    on_step: Callable[[StepView], None] | None = None,
) -> TrainResult:
    """The history of training `layer`, in place, to give logits `[b, c]` of the labels `y`.

    Args:
        layer: any module `[b, ...] -> [b, c]`; on return it holds the final weights.
        x: `[n, sites]` inputs in [0, 1] or `[n, sites, d]` features, an array or tensor.
        y: `[n]` whole numbers from 0 to c - 1. For other labels use `tnml.MPSClassifier`.
        options: see `TrainOptions`; None takes the defaults.
        x_test: like `x`; measured once, after training.
        y_test: like `y`.
        image_shape: (height, width) of an input, for `max_shift`; None takes a square.
        run_dir: see `tnml.training.run`.
        resume: see `tnml.training.run`.
        progress: who is told, for example a `ProgressReporter`; None is silence.
        on_epoch: see `tnml.training.run`.
        on_step: see `tnml.training.run`.

    Raises:
        InputError: data and layer do not fit, or an input is not finite.
        TrainingDiverged: the loss became NaN or infinite.
        TrainingInterrupted: after Ctrl-C.

    Example:
        >>> x = torch.eye(2).repeat(20, 1)
        >>> options = TrainOptions(epochs=30, lr=0.1, batch_size=8, device="cpu")
        >>> train_classifier(nn.Linear(2, 2), x, x.argmax(1), options).history[-1]["accuracy"]
        1.0
    """
    options = options or TrainOptions()
    data = labelled_samples(
        layer,
        x,
        y,
        x_test,
        y_test,
        precision=options.precision,
        image_shape=image_shape,
        max_shift=options.max_shift,
    )
    return _train(layer, data, options, run_dir, resume, progress, on_epoch, on_step)


def train_regressor(
    layer: nn.Module,
    x: Array,
    y: Array,
    options: TrainOptions | None = None,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Reporter | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    on_step: Callable[[StepView], None] | None = None,
) -> TrainResult:
    """The history of training `layer`, in place, to give the real targets `y` with least mean squared error.

    Args:
        layer: any module `[b, ...] -> [b, c]`.
        x: `[n, sites]` inputs in [0, 1] or `[n, sites, d]` features, an array or tensor.
        y: `[n]` where c is 1, or `[n, c]`.
        options: see `TrainOptions`; None takes the defaults. `loss` is "mse" here whatever it says.
        run_dir: see `tnml.training.run`.
        resume: see `tnml.training.run`.
        progress: who is told, for example a `ProgressReporter`; None is silence.
        on_epoch: see `tnml.training.run`.
        on_step: see `tnml.training.run`.

    Raises:
        InputError: data and layer do not fit, or a number is not finite.
        TrainingDiverged: the loss became NaN or infinite.
        TrainingInterrupted: after Ctrl-C.

    Example:
        >>> x = torch.rand(64, 1, generator=torch.Generator().manual_seed(0))
        >>> line, options = nn.Linear(1, 1), TrainOptions(epochs=150, lr=0.1, batch_size=16, device="cpu")
        >>> _ = train_regressor(line, x, 2 * x[:, 0], options)
        >>> round(line.weight.item(), 1)
        2.0
    """
    options = options or TrainOptions(loss="mse")
    if options.max_shift or options.label_smoothing:
        raise InputError("max_shift and label_smoothing are for classifiers; set them to 0")
    data = regression_samples(layer, x, y, precision=options.precision)
    return _train(layer, data, options, run_dir, resume, progress, on_epoch, on_step)


def evaluate(
    layer: nn.Module, x: Array, y: Array, *, loss: str = "cross-entropy", batch_size: int = 1000
) -> dict[str, float]:
    """The mean "loss" and the "accuracy" of a classifier on labelled samples, on the layer's device.

    Args:
        layer: any module `[b, ...] -> [b, c]`.
        x: `[n, ...]` inputs.
        y: `[n]` whole numbers from 0 to c - 1.
        loss: "cross-entropy" or "mse".
        batch_size: samples at a time.

    Raises:
        InputError: data and layer do not fit.

    Example:
        >>> evaluate(nn.Identity(), torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1]))["accuracy"]
        0.5
    """
    data = labelled_samples(layer, x, y, None, None)
    device = next(layer.parameters(), data.x).device
    of = loss_of(TrainOptions(loss=loss), labels=True)
    return measure(layer, of, data.x.to(device), data.y.to(device), batch_size)


def _train(
    layer: nn.Module,
    data: Samples,
    options: TrainOptions,
    run_dir: str | os.PathLike[str] | None,
    resume: bool,
    progress: Reporter | None,
    on_epoch: Callable[[Row], None] | None,
    on_step: Callable[[StepView], None] | None,
) -> TrainResult:
    loss = loss_of(options, data.labels)
    plain: LossFn = (
        CrossEntropy() if isinstance(loss, CrossEntropy) else loss
    )  # smoothing is for training only
    _check_monitor(options, data.labels)
    keep, held = data.split(options.validation, options.seed)
    x, y = (data.x[keep], data.y[keep]) if len(held) else (data.x, data.y)
    result = run(
        layer,
        loss,
        ArrayBatches(x, y, options, data.image_shape),
        options,
        evaluate=HeldOut(data.x[held], data.y[held], plain) if len(held) else None,
        on_epoch=on_epoch,
        on_step=on_step,
        reporter=progress,
        run_dir=run_dir,
        resume=resume,
        identity={**data.identity(), **model_identity(layer, options)},
    )
    test: dict[str, float] = {}
    if data.test is not None:
        device = next(layer.parameters()).device
        test = measure(layer, plain, data.test[0].to(device), data.test[1].to(device))
    return TrainResult(**vars(result), n_train=len(keep), n_validation=len(held), test=test)


def _check_monitor(options: TrainOptions, labels: bool) -> None:
    """Before anything is written: whether the number that `patience` watches will be measured."""
    names = ("val_loss", "val_accuracy", "loss", "accuracy") if labels else ("val_loss", "loss")
    if options.patience is not None and options.monitor not in names:
        raise InputError(
            f"patience watches monitor={options.monitor!r}, which is not measured; "
            f"choose from {', '.join(names)}"
        )
