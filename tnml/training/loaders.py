"""Training on the batches of a PyTorch `DataLoader`, in its own order."""

import inspect
from collections.abc import Iterator, Sized
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from tnml.data import random_shift
from tnml.errors import InputError
from tnml.loop.interrupt import StopRequest
from tnml.loop.processes import started_outside
from tnml.loop.protocols import Batch
from tnml.randomness import Stream, forked_rng, generator, reseed, step_seed
from tnml.training.batches import batch_count
from tnml.training.inputs import checked_inputs, dtype_of, outputs_of, refusal
from tnml.training.losses import Loss, measure_blocks
from tnml.training.options import TrainOptions
from tnml.training.rows import pair_of
from tnml.training.samples import shape_of_images
from tnml.training.streams import Form
from tnml.training.tasks import Task

_CPU = torch.device("cpu")


class LoaderBatches:
    """The batches of a `DataLoader` as they come; the same ones every time only if the loader gives the same.

    torch's default generator is seeded before each batch, and a sampler without a generator of its own draws
    from it: its order follows from the options' seed. But no loader can begin in the middle of an epoch, so
    such a run cannot be resumed. A last batch of one sample joins the one before it, where the loader makes
    its batches by `batch_size` or a `BatchSampler`.

    Args:
        loader: of (x, y) batches, or of x alone for a density; has a length.
        task: what is to be learned.
        layer: gives real outputs `[b, c]`.
        options: seed, precision and max_shift are read.
        image_shape: (height, width) of an input, for `max_shift`.
        names: what errors call inputs and targets.

    Raises:
        InputError: the loader has no length, or its first batch does not fit the layer.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        task: Task,
        layer: nn.Module,
        options: TrainOptions,
        image_shape: tuple[int, int] | None = None,
        names: tuple[str, str] = ("x", "y"),
    ) -> None:
        self._loader, self._names = loader, names
        self.steps_per_epoch, self._joins = _steps(loader)
        self.samples = self._seen = 0
        self._seed, self._max_shift = options.seed, options.max_shift
        self._batches = self._begin(0)
        self._first: Any = self._next(0, 0)
        dtype = dtype_of(layer, options.precision)
        x, _ = pair_of(self._first, "a DataLoader")
        inputs = checked_inputs(names[0], x, dtype)
        self._form = Form(task, outputs_of(layer, inputs), dtype, names, refusal(layer, x))
        self._shape = shape_of_images(image_shape, inputs, options.max_shift)

    def __call__(self, epoch: int, step: int) -> Batch:
        """The next batch."""
        if self._first is None and step == 0:
            self._batches, self._seen = self._begin(epoch), 0
        raw = self._next(epoch, step) if self._first is None else self._first
        self._first = None
        x, y = self._checked(raw, epoch, step)
        if self._joins and step + 1 == self.steps_per_epoch:
            rest = self._checked(self._next(epoch, step + 1), epoch, step)
            x, y = torch.cat([x, rest[0]]), torch.cat([y, rest[1]])
        self._seen += len(x)
        self.samples = max(self.samples, self._seen)
        if self._shape is not None:
            x = random_shift(
                x, self._shape, self._max_shift, generator(self._seed, epoch, step, Stream.SHIFT)
            )
        return Batch(x, y, torch.full((len(x),), -1), None, epoch, step)

    def _checked(self, raw: Any, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        try:
            return self._form.checked(*pair_of(raw, "a DataLoader"))
        except InputError as error:
            raise InputError(f"{error} ({self._place(epoch, step)})") from error

    def rewind(self) -> None:
        """Lets go of the first batch and of the workers; the next pass starts from the beginning."""
        self._batches, self._first = iter(()), None

    def measure(self, module: nn.Module, loss: Loss) -> dict[str, float]:
        """The mean loss and its metrics of a module on all batches of one pass."""
        device = next(module.parameters(), torch.zeros(0)).device

        def blocks() -> Iterator[tuple[Tensor, ...]]:
            for step in range(self.steps_per_epoch):
                batch = self(0, step)
                yield batch.x.to(device), batch.y.to(device)

        return measure_blocks(module, loss, blocks())

    def identity(self) -> dict[str, str | int | float]:
        """What keeps a run on other data from resuming this one."""
        return {"data": "DataLoader"}

    def _begin(self, epoch: int) -> Iterator[Any]:
        """A pass over the loader, whose worker processes leave a Ctrl-C to this one."""
        with forked_rng(_CPU), StopRequest() as request, request.withheld():
            reseed(_CPU, step_seed(self._seed, epoch, 0, Stream.READ))
            return iter(self._loader)

    def _next(self, epoch: int, step: int) -> Any:
        try:
            with forked_rng(_CPU):
                reseed(_CPU, step_seed(self._seed, epoch, step, Stream.READ))
                return next(self._batches)
        except StopIteration as error:
            raise InputError(
                f"the DataLoader in the place of {self._names[0]} says that it has {self.steps_per_epoch} "
                f"batches, but ended after {step} ({self._place(epoch, step)})"
            ) from error

    def _place(self, epoch: int, step: int) -> str:
        here = f"{step + 1} of {self.steps_per_epoch}"
        return f"epoch {epoch + 1}, step {here}" if self._names[0] == "x" else f"batch {here}"


def check_loader(
    options: TrainOptions,
    loader: DataLoader[Any],
    loss: Loss,
    y: object,
    *,
    sample_weight: object,
    resume: bool,
) -> None:
    """Raises where something is asked for that only data with numbered samples can give.

    Raises:
        InputError: with what to do instead.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> from tnml.training.losses import CrossEntropy
        >>> loader = DataLoader(TensorDataset(torch.eye(2), torch.arange(2)), batch_size=2)
        >>> check_loader(TrainOptions(), loader, CrossEntropy(), None, sample_weight=None, resume=False)
    """
    if y is not None:
        raise InputError("a DataLoader gives its targets itself; leave y out")
    dataset = "give the Dataset itself, whose order is the run's own"
    if resume:
        raise InputError(
            "resume=True needs batches that come again in the same order, which a DataLoader does not "
            f"promise; {dataset}"
        )
    if options.batch_size not in (TrainOptions().batch_size, loader.batch_size):
        raise InputError(
            f"batch_size={options.batch_size} is not used with a DataLoader, whose own is "
            f"{loader.batch_size}; leave it out, or {dataset}"
        )
    if options.validation:
        raise InputError(
            f"validation={options.validation} cannot be held out of a DataLoader; split the Dataset with "
            f"torch.utils.data.random_split, or {dataset}"
        )
    if sample_weight is not None:
        raise InputError(f"sample_weight needs numbered samples, which a DataLoader does not have; {dataset}")
    if loss.by_sample or "index" in inspect.signature(loss).parameters:
        raise InputError(
            f"the loss {type(loss).__name__} needs the number of every sample, which a DataLoader does not "
            f"give; {dataset}"
        )
    if options.devices > 1 or started_outside():
        raise InputError(
            "several processes need the same batches, and a DataLoader may give each of them different ones; "
            f"{dataset}, or train with devices=1"
        )


def _steps(loader: DataLoader[Any]) -> tuple[int, bool]:
    """Batches of an epoch, and whether the last of them gets the single sample that is left over."""
    length, sampler = _length(loader), loader.batch_sampler
    if type(sampler) is not BatchSampler or sampler.drop_last:
        return length, False
    iterated = isinstance(loader.dataset, IterableDataset)
    if iterated and loader.num_workers:  # each worker ends with a batch of its own
        return length, False
    samples = len(cast(Sized, loader.dataset if iterated else sampler.sampler))
    joined = batch_count(samples, sampler.batch_size)
    return joined, joined < length


def _length(loader: DataLoader[Any]) -> int:
    try:
        length = len(loader)
    except TypeError as error:
        raise InputError(
            "a DataLoader needs a length, the batches of an epoch; give its IterableDataset a __len__"
        ) from error
    if length < 1:
        raise InputError("the DataLoader has no batches; its Dataset is empty, or drop_last drops all")
    return length
