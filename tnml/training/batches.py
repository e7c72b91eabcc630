"""Shuffled batches, those of arrays that stay on the device, and the held-out part."""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn

from tnml.data import random_shift
from tnml.loop.protocols import Batch
from tnml.loop.results import Row
from tnml.randomness import Stream, generator
from tnml.training.losses import Loss, measure
from tnml.training.options import TrainOptions
from tnml.training.samples import Part


def batch_count(samples: int, size: int) -> int:
    """Batches in an epoch; the last may be smaller, but a single sample left over joins the batch before it.

    The variance of one sample is nothing to learn from, and batch normalisation refuses it.

    Example:
        >>> [batch_count(samples, 4) for samples in (1, 4, 5, 6, 8, 9)]
        [1, 1, 1, 2, 2, 2]
    """
    full, left = divmod(samples, size)
    return full + (left > 1 or left > full)


def batch_slice(samples: int, size: int, step: int) -> slice:
    """The places of a step's batch among the samples of its epoch.

    Example:
        >>> batch_slice(9, 4, 0), batch_slice(9, 4, 1)
        (slice(0, 4, None), slice(4, 9, None))
    """
    last = step + 1 == batch_count(samples, size)
    return slice(step * size, samples if last else (step + 1) * size)


class Shuffled(ABC):
    """Batches in an order drawn for every epoch, with images shifted where the options say so.

    Every kind of data goes through here, so a run on a file takes the steps of one on the same array.

    Args:
        count: samples.
        options: batch_size, seed and max_shift are read.
        image_shape: (height, width) for shifts.
    """

    def __init__(self, count: int, options: TrainOptions, image_shape: tuple[int, int] | None) -> None:
        self.samples = count
        self._size, self._seed, self._max_shift = options.batch_size, options.seed, options.max_shift
        self._shape = image_shape
        self._epoch = -1
        self._order = torch.zeros(0, dtype=torch.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch; see `batch_count`."""
        return batch_count(self.samples, self._size)

    def __call__(self, epoch: int, step: int) -> Batch:
        """The batch of one step."""
        self._draw(epoch)
        batch = self._batch(self._chosen(step), epoch, step)
        if self._max_shift and self._shape is not None:
            moved = random_shift(
                batch.x, self._shape, self._max_shift, generator(self._seed, epoch, step, Stream.SHIFT)
            )
            batch = replace(batch, x=moved)
        return batch

    def _draw(self, epoch: int) -> None:
        """Draws the order of an epoch, once."""
        if epoch != self._epoch:
            order = torch.randperm(self.samples, generator=generator(self._seed, epoch, stream=Stream.ORDER))
            self._order, self._epoch = order.to(self._order.device), epoch

    def _chosen(self, step: int) -> Tensor:
        return self._order[batch_slice(self.samples, self._size, step)]

    @abstractmethod
    def _batch(self, chosen: Tensor, epoch: int, step: int) -> Batch:
        """The samples `chosen`, not shifted."""


class ArrayBatches(Shuffled):
    """Shuffled batches of tensors that stay on the device; a batch is one `index_select` of each.

    Args:
        x: `[n, ...]` inputs.
        y: `[n]` or `[n, c]` targets.
        options: batch_size, seed and max_shift are read.
        image_shape: (height, width) for shifts.
        index: `[n]` what the batches call the samples; None counts them.
        weight: `[n]` of the samples, of mean 1; None where all count alike.

    Example:
        >>> batches = ArrayBatches(torch.rand(5, 4), torch.arange(5), TrainOptions(batch_size=2))
        >>> batches.steps_per_epoch, sorted(torch.cat([batches(0, s).y for s in range(2)]).tolist())
        (2, [0, 1, 2, 3, 4])
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        options: TrainOptions,
        image_shape: tuple[int, int] | None = None,
        *,
        index: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> None:
        super().__init__(len(x), options, image_shape)
        self._x, self._y, self._index, self._weight = x, y, index, weight
        self._order = self._order.to(x.device)

    def to(self, device: torch.device) -> None:
        """Moves the data to the device, once."""
        self._x, self._y, self._epoch = self._x.to(device), self._y.to(device), -1
        self._order = self._order.to(device)
        self._index = None if self._index is None else self._index.to(device)
        self._weight = None if self._weight is None else self._weight.to(device)

    def sizes(self, step: int, count: int) -> list[int]:
        """Samples of each of some steps; none where images are shifted, batch by batch."""
        if self._max_shift:
            return []
        places = (batch_slice(self.samples, self._size, step + n) for n in range(count))
        return [place.stop - place.start for place in places]

    def joined(self, epoch: int, step: int, count: int) -> Batch:
        """The samples of some steps, one batch after the other."""
        self._draw(epoch)
        first, last = (batch_slice(self.samples, self._size, at) for at in (step, step + count - 1))
        return self._batch(self._order[first.start : last.stop], epoch, step)

    def _batch(self, chosen: Tensor, epoch: int, step: int) -> Batch:
        return Batch(
            self._x.index_select(0, chosen),
            self._y.index_select(0, chosen),
            chosen if self._index is None else self._index.index_select(0, chosen),
            None if self._weight is None else self._weight.index_select(0, chosen),
            epoch,
            step,
        )


class HeldOut:
    """Measures a module on samples kept apart: "val_loss", and "val_accuracy" for labels.

    Args:
        part: the samples; the loss counts them by their weights.
        loss: what to measure.

    Example:
        >>> from tnml.training.losses import SquaredError
        >>> part = Part(torch.ones(2, 1), torch.zeros(2, 1), torch.arange(2), None)
        >>> HeldOut(part, SquaredError())(nn.Identity())
        {'val_loss': 1.0}
    """

    def __init__(self, part: Part, loss: Loss) -> None:
        self.samples = len(part.x)
        self._part, self._loss = part, loss

    def __call__(self, module: nn.Module) -> Row:
        """The measured numbers."""
        part = self._part
        device = next(module.parameters(), part.x).device
        if part.x.device != device:
            weight = None if part.weight is None else part.weight.to(device)
            part = self._part = Part(part.x.to(device), part.y.to(device), part.index, weight)
        found = measure(module, self._loss, part.x, part.y, weight=part.weight)
        return {f"val_{name}": value for name, value in found.items()}
