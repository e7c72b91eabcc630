"""One optimisation step, and the sums of what the steps of an epoch measured."""

import functools
import inspect
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from tnml.errors import InputError
from tnml.loop.optim import WeightAverage, clip_gradients, copy_into, make_optimizer, pull_of, take_step
from tnml.loop.options import LoopOptions
from tnml.loop.processes import Group
from tnml.loop.protocols import Batch, Batches, JoinedBatches, LossFn, ShortLoss, ShortWay
from tnml.loop.results import Row
from tnml.loop.schedules import learning_rate
from tnml.randomness import Stream, reseed, step_seed

Part = tuple[Tensor, ...] | Batch


class Stepper:
    """The module with its optimiser: takes steps, keeps sums on the device and reads them only when asked.

    Args:
        module: on the device already.
        loss_fn: see `LossFn`.
        options: of the run.
        fabric: does the backward pass and the casting of mixed precision.
        group: the processes of the run.
        steps_per_epoch: for the schedule.

    Raises:
        InputError: the module has nothing to train.
    """

    def __init__(
        self,
        module: nn.Module,
        loss_fn: LossFn,
        options: LoopOptions,
        fabric: Fabric,
        group: Group,
        steps_per_epoch: int,
    ) -> None:
        self.module = module
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise InputError(
                "the module has no parameter that requires a gradient; there is nothing to train"
            )
        self.optimizer = make_optimizer(self.parameters, options)
        self.average = WeightAverage(self.parameters, options.ema_decay) if options.average == "ema" else None
        self.pull = pull_of(module, options)
        self.rate = options.lr
        self.samples = self._seen = 0  # of all processes; of those behind this process's sums
        self._sums: dict[str, Tensor] = {}
        self._loss_fn = loss_fn
        self._wanted = _wanted(loss_fn)
        self._options = options
        self._fabric = fabric
        self._group = group
        self._steps_per_epoch = steps_per_epoch
        self._device = fabric.device
        self._mixed = options.precision == "bf16-mixed"
        alone = group.size == 1 and self._device.type == "cpu" and not self._mixed
        self._short: ShortWay | None = None
        if alone and self.pull is None and isinstance(loss_fn, ShortLoss):  # it knows no path
            self._short = loss_fn.short_way(module, self.optimizer, options)

    def take(self, batch: Part, epoch: int, step: int) -> None:
        """One step on the whole batch (this process on its part of it)."""
        if self._short is not None and isinstance(batch, Batch):
            samples = len(batch.x)
            if self._short.is_open(samples) and self._take_short(batch, [samples], epoch, step):
                return
        options = self._options
        part, count, total = self._group.part(batch)
        seed = step_seed(options.seed, epoch, step, Stream.DROPOUT)
        self._set_rate(self._rate_of(epoch, step))
        if isinstance(self.optimizer, torch.optim.LBFGS):
            measured = self._line_search(self.optimizer, part, count, total, seed)
        else:
            measured = self._gradient(part, count, total, seed)
            if options.clip_norm is not None:
                clip_gradients(self.parameters, options.clip_norm)
            if self.pull is not None:
                self.pull(self.rate)
            take_step(self.optimizer)
        if self.average is not None:
            self.average.update()
        self._add(measured, count)
        self._seen += count
        self.samples += total

    def take_several(self, batches: Batches, epoch: int, step: int, most: int) -> int:
        """Takes up to `most` steps of an epoch at once where there is a short way; how many it took."""
        if self._short is None or self.average is not None or not isinstance(batches, JoinedBatches):
            return 0
        sizes = batches.sizes(step, most)
        if not sizes or not self._short.is_open(max(sizes)):
            return 0
        return self._take_short(batches.joined(epoch, step, len(sizes)), sizes, epoch, step)

    def _take_short(self, batch: Batch, sizes: Sequence[int], epoch: int, step: int) -> int:
        rates = [self._rate_of(epoch, step + n) for n in range(len(sizes))]
        found = None if self._short is None else self._short.take(batch, sizes, rates)
        if found is None:
            return 0
        self._set_rate(rates[-1])
        if self.average is not None:
            self.average.update()
        for name, values in found.items():
            sums = self._sum_of(name)
            # one after the other, so that it does not matter how steps are grouped
            sums.fill_(functools.reduce(operator.add, values, sums.item()))
        self._seen += sum(sizes)
        self.samples += sum(sizes)
        return len(sizes)

    def _rate_of(self, epoch: int, step: int) -> float:
        return learning_rate(self._options, epoch * self._steps_per_epoch + step, self._steps_per_epoch)

    def _set_rate(self, rate: float) -> None:
        self.rate = rate
        for settings in self.optimizer.param_groups:
            settings["lr"] = rate

    def _gradient(self, part: Part, count: int, total: int, seed: int) -> dict[str, Tensor]:
        """Sets every gradient to that of the whole batch's mean loss; gives this part's loss and metrics."""
        reseed(self._device, seed)
        for p in self.parameters:
            p.grad = None
        measured: dict[str, Tensor] = {}
        if count:
            with self._group.within(count if part else 0, total):
                loss, metrics = self._loss(part)
            mean = loss.mean() if loss.dim() else loss
            share = mean if count == total else mean * (count / total)
            share.backward()  # no precision of `open_fabric` scales gradients
            measured = {"loss": mean.detach(), **metrics}
        self._group.sum_gradients(self.parameters)
        return measured

    def _loss(self, part: Part) -> tuple[Tensor, Mapping[str, Tensor]]:
        extra: dict[str, Any] = {}
        if isinstance(part, Batch):
            extra = {name: getattr(part, name) for name in self._wanted}
            part = part.x, part.y
        if self._mixed:
            with self._fabric.autocast():
                outcome = self._loss_fn(self.module, *part, **extra)
        else:
            outcome = self._loss_fn(self.module, *part, **extra)
        return outcome if isinstance(outcome, tuple) else (outcome, {})

    def _line_search(
        self,
        optimizer: torch.optim.LBFGS,
        part: Part,
        count: int,
        total: int,
        seed: int,
    ) -> dict[str, Tensor]:
        """A step of L-BFGS; every process sees the same loss, so all take the same line search."""
        first: dict[str, Tensor] = {}

        def closure() -> float:
            measured = self._gradient(part, count, total, seed)
            if not first:
                first.update(measured)
            share = (
                measured["loss"].double() * (count / total)
                if count
                else torch.zeros((), device=self._device).double()
            )
            return float(self._group.sum(share))

        optimizer.step(closure)
        return first

    def _add(self, measured: Mapping[str, Tensor], count: int) -> None:
        for name, value in measured.items():
            sums = self._sum_of(name)
            if value.dim():
                sums += value.detach().sum(dtype=torch.float64)
            else:
                sums.add_(value.detach(), alpha=count)

    def _sum_of(self, name: str) -> Tensor:
        sums = self._sums.get(name)
        if sums is None:
            sums = self._sums[name] = torch.zeros((), dtype=torch.float64, device=self._device)
        return sums

    def loss_is_finite(self) -> bool:
        """Whether every loss of this epoch so far was finite; waits for the device."""
        loss = self._sums.get("loss")
        return loss is None or bool(torch.isfinite(loss))

    def weights_are_finite(self) -> bool:
        """Whether every trained number is finite; waits for the device."""
        return all(bool(torch.isfinite(p).all()) for p in self.parameters)

    def means(self) -> Row:
        """The means over the samples of the epoch that this process holds the sums of."""
        return {name: sums.item() / max(1, self._seen) for name, sums in self._sums.items()}

    def gather(self) -> Row:
        """The means over all processes' samples of the epoch; rank 0 now holds all sums, the others none."""
        names = self._group.from_main(list(self._sums))
        if names:
            zero = torch.zeros((), dtype=torch.float64, device=self._device)
            total = self._group.sum(torch.stack([self._sums.get(name, zero) for name in names]))
            mine = total if self._group.rank == 0 else torch.zeros_like(total)
            self._sums = {name: value.clone() for name, value in zip(names, mine, strict=True)}
            self._seen = self.samples if self._group.rank == 0 else 0
            return dict(zip(names, (total / max(1, self.samples)).tolist(), strict=True))
        return {}

    def reset(self) -> None:
        """Forgets the sums: a new epoch."""
        self._sums = {}
        self.samples = self._seen = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; call `gather` before."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
            "average": None if self.average is None else self.average.state(),
            "sums": self._sums,
            "samples": self.samples,
            "rate": self.rate,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned, in this or another process."""
        self.module.load_state_dict(state["module"])
        settings = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": settings})
        if self.average is not None:
            self.average.restore(state["average"])
        self.pull = pull_of(self.module, self._options)  # the path may have been fitted to samples
        self.samples, self.rate = int(state["samples"]), float(state["rate"])
        keep = float(self._group.rank == 0)
        self._seen = self.samples if keep else 0
        self._sums = {name: (sums * keep).to(self._device) for name, sums in state["sums"].items()}

    def use_average(self) -> None:
        """Puts the average into the module for good, where one is kept."""
        if self.average is not None:
            copy_into(self.parameters, self.average.values)


def _wanted(loss_fn: LossFn) -> tuple[str, ...]:
    """What a loss function takes of a `Batch` besides x and y.

    Example:
        >>> _wanted(lambda module, x, y, epoch, weight=None: x)
        ('weight', 'epoch')
    """
    try:
        parameters = inspect.signature(loss_fn).parameters
    except ValueError:  # a builtin without a signature
        return ()
    return tuple(name for name in ("index", "weight", "epoch", "step") if name in parameters)
