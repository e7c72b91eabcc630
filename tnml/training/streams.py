"""Training on samples that do not fit in memory: what is checked when, batches, the held-out part."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tnml.errors import InputError
from tnml.loop.protocols import Batch
from tnml.loop.results import Row
from tnml.randomness import Stream, forked_rng, reseed, step_seed
from tnml.training.batches import Shuffled
from tnml.training.inputs import check_whole, checked_inputs, dtype_of, outputs_of, refusal
from tnml.training.losses import Loss, measure_blocks
from tnml.training.options import TrainOptions
from tnml.training.rows import DatasetRows, MappedArray, MemmapRows, Rows, is_mapped
from tnml.training.samples import checksum, of_mean_one, positive_weights, shape_of_images, split_rows
from tnml.training.tasks import Task

_BLOCK = 1000  # samples at a time outside of steps, as in `measure`
_CPU = torch.device("cpu")


def is_stream(values: object) -> bool:
    """Whether samples are to be read when they are needed: a mapped file or a Dataset.

    Example:
        >>> is_stream(np.zeros((3, 2)))
        False
    """
    return is_mapped(values) or isinstance(values, Dataset)


@dataclass(frozen=True)
class Form:
    """What samples of one training look like, and the check of a few of them.

    Args:
        task: what is to be learned.
        outputs: the layer's outputs c.
        dtype: of the inputs.
        names: what errors call inputs and targets.
        refused: what the layer says to whole numbers, see `refusal`.
    """

    task: Task
    outputs: int
    dtype: torch.dtype
    names: tuple[str, str] = ("x", "y")
    refused: str | None = None

    def checked(self, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        """Inputs and targets as the loss takes them.

        Raises:
            InputError: they are something else.
        """
        inputs = checked_inputs(self.names[0], x, self.dtype)
        check_whole(self.names[0], x, self.refused)
        return inputs, self.task.checked(self.names[1], y, len(inputs), self.outputs, self.dtype)

    def first_bad(self, x: Any, y: Any) -> int | None:
        """The place of the first sample that `checked` refuses; None where no single one is to blame."""
        for place in range(len(x)):
            try:
                self.checked(x[place : place + 1], None if y is None else y[place : place + 1])
            except InputError:
                return place
        return None


@dataclass(frozen=True, kw_only=True)
class StreamedSamples:
    """Samples of one training that are read and checked batch by batch.

    Args:
        rows: where they are.
        form: what they look like.
        seed: of what a Dataset draws from torch's default generator.
        index: `[n]` the rows that count, ascending; None: all of them.
        weight: `[n]` of these, of mean 1 or not yet; None: all count alike.
        image_shape: (height, width) where images are shifted.
    """

    rows: Rows
    form: Form
    seed: int = 0
    index: Tensor | None = None
    weight: Tensor | None = None
    image_shape: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.rows) if self.index is None else len(self.index)

    def numbers(self, chosen: Tensor) -> Tensor:
        """What the samples `chosen` are called in the data that were handed in."""
        return chosen if self.index is None else self.index[chosen]

    def take(self, chosen: Tensor, place: str, epoch: int = -1, step: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs and targets of some samples, checked.

        Args:
            chosen: `[b]` which of the samples.
            place: for errors, such as "epoch 1, step 3".
            epoch: for random numbers; -1 outside of epochs.
            step: for random numbers.

        Raises:
            InputError: with the row and the place.
        """
        numbers = self.numbers(chosen)
        order = numbers.argsort()
        index = numbers[order].numpy()
        x = y = None
        try:
            with forked_rng(_CPU):
                reseed(_CPU, step_seed(self.seed, epoch, step, Stream.READ))
                x, y = self.rows.rows(index)
            inputs, targets = self.form.checked(x, y)
        except InputError as error:
            bad = None if x is None else self.form.first_bad(x, y)
            where = place if bad is None else f"row {index[bad]}, {place}"
            raise InputError(f"{error} ({where})") from error
        # torch aligns memory alike for every batch, and on that the last bits of a product may depend
        back = order.argsort()
        return inputs.index_select(0, back), targets.index_select(0, back)

    def hint(self, chosen: Tensor) -> None:
        """Says which samples will be asked for next."""
        self.rows.hint(self.numbers(chosen).sort().values.numpy())

    def blocks(self, place: str, size: int = _BLOCK) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples in order, `size` at a time."""
        parts = torch.arange(len(self)).split(size)
        for number, chosen in enumerate(parts):
            if number + 1 < len(parts):
                self.hint(parts[number + 1])
            yield self.take(chosen, place, step=number)

    def targets(self) -> Tensor:
        """All targets: where they only come with the inputs, at the price of reading everything once."""
        known = self.rows.targets()
        if known is None:
            return torch.cat([y for _, y in self.blocks("while all labels were read")])
        return known if self.index is None else known[self.index]

    def identity(self) -> dict[str, str | int | float]:
        """What must be the same when a run is resumed: sizes, dtype and about a thousand samples."""
        some = self.part(torch.arange(len(self))[:: max(1, len(self) // 1000)])
        number = 0
        for x, y in some.blocks("while a checksum was taken"):
            number = checksum(x, y, start=number)
        found = {"samples": len(self), "data checksum": number, **self.rows.facts()}
        if self.weight is not None:
            found["weights checksum"] = checksum(self.weight)
        return found

    def part(self, chosen: Tensor) -> "StreamedSamples":
        """Some of the samples; their weights have mean 1."""
        weight = None if self.weight is None else of_mean_one(self.weight[chosen])
        return replace(self, index=self.numbers(chosen), weight=weight)

    def parts(self, validation: float) -> "tuple[StreamedSamples, StreamedSamples]":
        """The samples to train on, and those held out, the same as of arrays.

        Raises:
            InputError: nothing would be left to train on.
        """
        if not validation:
            return replace(self, weight=of_mean_one(self.weight)), self.part(torch.arange(0))
        labels = self.targets() if self.form.task.stratified else None
        keep, held = split_rows(len(self), labels, validation, self.seed)
        return self.part(keep), self.part(held)


class StreamBatches(Shuffled):
    """Shuffled batches of a `StreamedSamples`, in the order that the same samples in memory would have.

    While a step is taken the system reads ahead what the next one needs.
    """

    def __init__(self, stream: StreamedSamples, options: TrainOptions) -> None:
        super().__init__(len(stream), options, stream.image_shape)
        self._stream = stream

    def _batch(self, chosen: Tensor, epoch: int, step: int) -> Batch:
        stream = self._stream
        place = f"epoch {epoch + 1}, step {step + 1} of {self.steps_per_epoch}"
        x, y = stream.take(chosen, place, epoch, step)
        if step + 1 < self.steps_per_epoch:
            stream.hint(self._chosen(step + 1))
        weight = None if stream.weight is None else stream.weight[chosen]
        return Batch(x, y, stream.numbers(chosen), weight, epoch, step)


class StreamHeldOut:
    """Measures a module on samples of a `StreamedSamples`: "val_loss", and "val_accuracy" for labels."""

    def __init__(self, stream: StreamedSamples, loss: Loss) -> None:
        self.samples = len(stream)
        self._stream, self._loss = stream, loss

    def __call__(self, module: nn.Module) -> Row:
        """The measured numbers."""
        found = measure_stream(module, self._loss, self._stream, "in the held-out part")
        return {f"val_{name}": value for name, value in found.items()}


def measure_stream(
    module: nn.Module, loss: Loss, stream: StreamedSamples, place: str, batch_size: int = _BLOCK
) -> dict[str, float]:
    """The mean loss and its metrics of a module on all samples; see `tnml.training.losses.measure`."""
    device = next(module.parameters(), torch.zeros(0)).device
    weights = [] if stream.weight is None else stream.weight.split(batch_size)

    def blocks() -> Iterator[tuple[Tensor, ...]]:
        for number, block in enumerate(stream.blocks(place, batch_size)):
            yield tuple(column.to(device) for column in (*block, *weights[number : number + 1]))

    return measure_blocks(module, loss, blocks())


def stream_for(
    task: Task,
    layer: nn.Module,
    x: Any,
    y: Any,
    *,
    precision: str = "auto",
    seed: int = 0,
    sample_weight: Any = None,
    image_shape: tuple[int, int] | None = None,
    max_shift: int = 0,
    names: tuple[str, str] = ("x", "y"),
) -> StreamedSamples:
    """Samples of a task for a layer, of which the first is checked now and the others when they are read.

    Args:
        task: what is to be learned.
        layer: gives real outputs `[b, c]`.
        x: a mapped file or a Dataset.
        y: targets as the task wants them; None with a Dataset. One number per sample is kept in memory and
            checked now.
        precision: of the training.
        seed: of the run.
        sample_weight: `[n]`, not negative; samples of weight 0 are left out.
        image_shape: (height, width) of an input, for `max_shift`.
        max_shift: whether images are to be shifted.
        names: what errors call inputs and targets.

    Raises:
        InputError: data, weights and layer do not fit.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> from tnml.training.tasks import CLASSIFICATION
        >>> data = TensorDataset(torch.eye(2), torch.arange(2))
        >>> stream_for(CLASSIFICATION, nn.Identity(), data, None).take(torch.tensor([1]), "here")
        (tensor([[0., 1.]]), tensor([1]))
    """
    dtype = dtype_of(layer, precision)
    file = None if isinstance(x, Dataset) else MappedArray(names[0], x)
    if file is None and y is not None:
        raise InputError(f"a Dataset gives its targets itself; leave {names[1]} out")
    rows: Rows = DatasetRows(x) if file is None else MemmapRows(file, None)
    with forked_rng(_CPU):
        raw = rows.rows(np.zeros(1, np.int64))[0]
    first = checked_inputs(names[0], raw, dtype)
    form = Form(task, outputs_of(layer, first), dtype, names, refusal(layer, raw))
    if file is not None:
        rows = MemmapRows(file, _targets(y, len(file), form))
    weight, index = positive_weights(sample_weight, len(rows), dtype)
    shape = shape_of_images(image_shape, first, max_shift)
    stream = StreamedSamples(rows=rows, form=form, seed=seed, index=index, weight=weight, image_shape=shape)
    stream.take(torch.zeros(1, dtype=torch.int64), "the first sample")
    return stream


def _targets(y: Any, rows: int, form: Form) -> Tensor | MappedArray | None:
    """Targets beside inputs that are read: checked, unless they are many numbers per sample in a file."""
    name = form.names[1]
    if is_mapped(y) and y.ndim > 1:
        if len(y) != rows:
            raise InputError(f"{name} must have {rows} rows as {form.names[0]} has, got {len(y)}")
        return MappedArray(name, y)
    known = MappedArray(name, y).whole() if is_mapped(y) else y
    checked = form.task.checked(name, known, rows, form.outputs, form.dtype)
    return None if y is None else checked
