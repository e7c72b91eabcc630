"""What the loop is given: a module, a loss, batches, and whom to tell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tnml.loop.options import LoopOptions
from tnml.loop.results import Row

# loss_fn(module, *batch): a scalar (the mean over the batch) or one loss per sample, alone or with metrics,
# each a scalar mean or one value per sample.
LossFn = Callable[..., Tensor | tuple[Tensor, Mapping[str, Tensor]]]


class Batches(Protocol):
    """The batches of a run, a pure function of (epoch, step): that is what makes a resumed run exact.

    All tensors of a batch have the samples on their first axis; with several processes each takes a slice.
    An empty tuple is allowed for a loss that needs no data.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch, at least 1."""

    def __call__(self, epoch: int, step: int) -> tuple[Tensor, ...]:
        """The whole batch, for all processes together; both counts start at 0."""


@runtime_checkable
class DeviceBatches(Protocol):
    """Batches that can put their data on the device once, so that no step copies from the host."""

    def to(self, device: torch.device) -> None:
        """Moves the data; called once, before the first batch."""


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
    """Somebody to tell about a run: `tnml.training.ProgressReporter`, or your own; rank 0 speaks to it."""

    def start(self) -> None:
        """Called before the first step, in the process that trains."""

    def step(self, view: StepView) -> None:
        """Called after every step; should return within microseconds."""

    def epoch(self, row: Row, epochs: int) -> None:
        """Called after every epoch with its row of the history and the number of epochs."""

    def stop(self) -> None:
        """Called once at the end, also after an error."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, in a form that another process can be given. The fields are the arguments of `run`."""

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
