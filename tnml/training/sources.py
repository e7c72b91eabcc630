"""Data of supervised training of every kind: in memory, in a mapped file, a Dataset or a DataLoader."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tnml.errors import InputError
from tnml.training.batches import ArrayBatches, HeldOut
from tnml.training.inputs import Array, check_whole, checked_inputs, dtype_of, outputs_of, refusal
from tnml.training.loaders import LoaderBatches, check_loader
from tnml.training.losses import Loss, measure
from tnml.training.options import TrainOptions
from tnml.training.samples import Samples, samples_for
from tnml.training.streams import (
    StreamBatches,
    StreamedSamples,
    StreamHeldOut,
    is_stream,
    measure_stream,
    stream_for,
)
from tnml.training.tasks import Task

Inputs = Array | Dataset[Any] | DataLoader[Any]
Data = Samples | StreamedSamples | LoaderBatches
Test = Callable[[nn.Module, Loss], dict[str, float]]


def data_for(
    task: Task,
    layer: nn.Module,
    x: Inputs,
    y: Array | None,
    x_test: Inputs | None,
    y_test: Array | None,
    options: TrainOptions,
    *,
    sample_weight: Array | None = None,
    image_shape: tuple[int, int] | None = None,
    resume: bool = False,
) -> tuple[Data, Test | None]:
    """The checked data of one training, and what measures on its test set; see `train_classifier`.

    What is in memory is checked altogether; of other data the first samples, the rest when they are read.

    Raises:
        InputError: data, weights and layer do not fit, or such data cannot do what is asked for.

    Example:
        >>> import torch
        >>> from tnml.training.tasks import CLASSIFICATION
        >>> data, _ = data_for(
        ...     CLASSIFICATION, nn.Identity(), torch.eye(2), torch.arange(2), None, None, TrainOptions()
        ... )
        >>> type(data).__name__
        'Samples'
    """
    images: dict[str, Any] = {"image_shape": image_shape, "max_shift": options.max_shift}
    weighted: dict[str, Any] = {"sample_weight": sample_weight, "precision": options.precision}
    together = not (_is_read(x) or _is_read(x_test))
    data: Data
    if isinstance(x, DataLoader):
        check_loader(options, x, options.loss_for(task), y, sample_weight=sample_weight, resume=resume)
        data = LoaderBatches(x, task, layer, options, image_shape)
    elif is_stream(x):
        data = stream_for(task, layer, x, y, seed=options.seed, **weighted, **images)
    else:
        tests: dict[str, Any] = {"x_test": x_test, "y_test": y_test} if together else {}
        data = samples_for(task, layer, cast("Array", x), y, **tests, **weighted, **images)
        if data.test is not None:
            return data, partial(_on_arrays, *data.test)
    if x_test is None and y_test is not None:
        raise InputError("x_test and y_test go together; give both or neither")
    return data, None if x_test is None else scorer_for(task, layer, x_test, y_test, options)


def scorer_for(
    task: Task,
    layer: nn.Module,
    x: Inputs,
    y: Array | None,
    options: TrainOptions,
    names: tuple[str, str] = ("x_test", "y_test"),
    batch_size: int = 1000,
    later: bool = True,
) -> Test:
    """What gives the mean loss and its metrics of a module on samples of any kind.

    Raises:
        InputError: data and layer do not fit.

    Example:
        >>> import torch
        >>> from tnml.training.losses import SquaredError
        >>> from tnml.training.tasks import REGRESSION
        >>> x = torch.ones(3, 1)
        >>> scorer_for(REGRESSION, nn.Identity(), x, 0 * x, TrainOptions())(nn.Identity(), SquaredError())
        {'loss': 1.0}
    """
    if isinstance(x, DataLoader):
        if y is not None:
            raise InputError(f"a DataLoader gives its targets itself; leave {names[1]} out")
        batches = LoaderBatches(x, task, layer, TrainOptions(precision=options.precision), names=names)
        if later:
            batches.rewind()
        return batches.measure
    if is_stream(x):
        stream = stream_for(task, layer, x, y, precision=options.precision, names=names)
        return partial(measure_stream, stream=stream, place=f"in {names[0]}", batch_size=batch_size)
    dtype = dtype_of(layer, options.precision)
    inputs = checked_inputs(names[0], cast("Array", x), dtype)
    check_whole(names[0], x, refusal(layer, x))
    targets = task.checked(names[1], y, len(inputs), outputs_of(layer, inputs), dtype)
    return partial(_on_arrays, inputs, targets, batch_size=batch_size)


def training_of(
    data: Data, options: TrainOptions, loss: Loss
) -> tuple[ArrayBatches | StreamBatches | LoaderBatches, HeldOut | StreamHeldOut | None]:
    """The batches to train on, and what measures `loss` on the part held out.

    Raises:
        InputError: nothing would be left to train on.
    """
    if isinstance(data, LoaderBatches):
        return data, None
    if isinstance(data, StreamedSamples):
        rest, apart = data.parts(options.validation)
        return StreamBatches(rest, options), StreamHeldOut(apart, loss) if len(apart) else None
    part, held = data.parts(options.validation, options.seed)
    batches = ArrayBatches(part.x, part.y, options, data.image_shape, index=part.index, weight=part.weight)
    return batches, HeldOut(held, loss) if len(held.x) else None


def _is_read(x: object) -> bool:
    return isinstance(x, DataLoader) or is_stream(x)


def _on_arrays(
    x: Tensor, y: Tensor, module: nn.Module, loss: Loss, batch_size: int = 1000
) -> dict[str, float]:
    device = next(module.parameters(), x).device
    return measure(module, loss, x.to(device), y.to(device), batch_size)
