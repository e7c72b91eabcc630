"""What the loop is given: a module, a loss, batches, callbacks and a reporter."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tnml.loop.options import LoopOptions
from tnml.loop.results import Row

# A function of the module, the optimiser (None in training by sweeps) and the epoch's row, called after each
# epoch with the weights that count, in eval mode and without gradients; its numbers join the row.
Callback = Callable[[nn.Module, torch.optim.Optimizer | None, Row], Mapping[str, float] | None]


@dataclass(frozen=True)
class Batch:
    """A batch, and what a loss may want to know about it; all tensors have the samples on their first axis.

    A loss function is called with module, `x` and `y`, and with those of the others that are among its
    parameters, by their names.

    Attributes:
        x: `[b, ...]` inputs.
        y: `[b]` labels or `[b, c]` targets.
        index: `[b]` which samples these are, as rows of the training data.
        weight: `[b]` how much each counts, of mean 1 over the training data; None: all count alike.
        epoch: from 0.
        step: within the epoch, from 0.

    Example:
        >>> Batch(torch.ones(2, 3), torch.zeros(2), torch.arange(2)).to(torch.device("cpu")).weight is None
        True
    """

    x: Tensor
    y: Tensor
    index: Tensor
    weight: Tensor | None = None
    epoch: int = 0
    step: int = 0

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with every tensor changed."""
        weight = None if self.weight is None else change(self.weight)
        return Batch(change(self.x), change(self.y), change(self.index), weight, self.epoch, self.step)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return self if self.x.device == device else self.each(lambda t: t.to(device))


# Called as loss_fn(module, *batch), with a `Batch` as loss_fn(module, x, y, ...): a scalar (the mean over the
# batch) or one loss per sample, alone or with metrics, each a scalar mean or one value per sample.
LossFn = Callable[..., Tensor | tuple[Tensor, Mapping[str, Tensor]]]


class Batches(Protocol):
    """The batches of a run, a pure function of (epoch, step): that is what makes a resumed run exact.

    All tensors of a batch have the samples on their first axis; with several processes each takes a slice.
    An empty tuple is allowed for a loss that needs no data.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch, at least 1."""

    def __call__(self, epoch: int, step: int) -> tuple[Tensor, ...] | Batch:
        """The whole batch, for all processes together; both counts start at 0."""


@runtime_checkable
class HasPath(Protocol):
    """A module with a place that weight decay can pull to instead of zero.

    Zero is a poor place for a product of many factors: near it all gradients vanish.
    """

    def path(self) -> Mapping[str, Tensor]:
        """A tensor for each parameter by name, without gradient."""


@runtime_checkable
class DeviceBatches(Protocol):
    """Batches that can put their data on the device once, so that no step copies from the host."""

    def to(self, device: torch.device) -> None:
        """Moves the data; called once, before the first batch."""


# Of the loss and its metrics, by their names: what each of some steps measured, summed over its samples.
Sums = Mapping[str, Sequence[float]]


@runtime_checkable
class JoinedBatches(Protocol):
    """Batches that can hand out those of several steps at once, for a `ShortWay`."""

    def sizes(self, step: int, count: int) -> Sequence[int]:
        """Samples of each of `count` steps of an epoch from `step` on; none where they cannot be joined."""

    def joined(self, epoch: int, step: int, count: int) -> Batch:
        """Their samples, one batch after the other."""


class ShortWay(Protocol):
    """Takes steps with fewer calls than forward pass, backward pass and optimiser are, with equal effect.

    The module's parameters, their gradients and the optimiser's state are afterwards those of the long way
    but for rounding. How many steps are taken together must not change a bit, nor may who watches the run.
    """

    def is_open(self, samples: int) -> bool:
        """Whether a step on a batch of this size can be taken now; must be quick to answer."""

    def take(self, batch: Batch, sizes: Sequence[int], rates: Sequence[float]) -> Sums | None:
        """Takes steps, or none.

        Args:
            batch: the samples of all steps, one step after the other.
            sizes: samples of each step.
            rates: learning rate of each step.

        Returns:
            For each step the sums over its samples; None where no step was taken after all.
        """


@runtime_checkable
class ShortLoss(Protocol):
    """A loss function that knows a short way for some modules."""

    def short_way(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, options: LoopOptions
    ) -> ShortWay | None:
        """The short way of a run on one processor; None where the module has none."""


@runtime_checkable
class StatefulCallback(Protocol):
    """A callback with memory, which is kept in checkpoints and restored on resuming."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, texts, lists and dictionaries."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""


@dataclass
class StepView:
    """Where a run is after a step; one object per run, read it and do not keep it.

    Args:
        epoch: from 1.
        epochs: how many the run has.
        step: steps done in this epoch.
        steps_per_epoch: how many there are.
        samples: samples seen in this epoch.
        seconds: time spent in this epoch.
        means: gives the running means of the loss and its metrics over the epoch; on a GPU it waits for the
            step.
        optimizer: with its state after the step, to be read; None in training by sweeps.
    """

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    samples: int
    seconds: float
    means: Callable[[], Row]
    optimizer: torch.optim.Optimizer | None = None


class Reporter(Protocol):
    """What reports on a run: `tnml.training.ProgressReporter`, or your own; called on rank 0."""

    def start(self) -> None:
        """Called before the first step, in the process that trains."""

    def step(self, view: StepView) -> None:
        """Called after every step; should return within microseconds."""

    def epoch(self, row: Row, epochs: int) -> None:
        """Called after every epoch with its row of the history and the number of epochs."""

    def stop(self) -> None:
        """Called once at the end, even after an error."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, in a form that can be passed to another process. The fields are the arguments of `run`."""

    module: nn.Module
    loss_fn: LossFn
    batches: Batches
    options: LoopOptions
    evaluate: Callable[[nn.Module], Row] | None = None
    on_epoch: Callable[[Row], None] | None = None
    on_step: Callable[[StepView], None] | None = None
    reporter: Reporter | None = None
    run_dir: Path | None = None
    resume: bool = False
    identity: Mapping[str, str | int | float] = field(default_factory=dict)
    callbacks: Sequence[Callback] = ()
