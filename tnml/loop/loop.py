"""One run in one process: epochs, checkpoints, early stopping, interruption; `loop.run` starts it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from tnml.errors import InputError
from tnml.loop import checkpoint
from tnml.loop.callbacks import callback_states, called, restore_callbacks
from tnml.loop.interrupt import StopRequest
from tnml.loop.optim import copy_into
from tnml.loop.options import check_same_run
from tnml.loop.processes import Group
from tnml.loop.protocols import Batch, DeviceBatches, Job, StepView
from tnml.loop.records import TensorBoard, write_metrics
from tnml.loop.results import LoopResult, Row, TrainingDiverged, TrainingInterrupted
from tnml.loop.step import Stepper
from tnml.loop.stopping import Best
from tnml.randomness import forked_rng

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.csv"
_LOSS_EVERY = 50  # steps between checks of the loss: on a GPU a check waits for the device
_AGREE_EVERY = 10  # steps between messages about stopping and saving, with several processes


def check_folder(folder: Path | None, resume: bool) -> None:
    """Raises unless a run can start, or resume, in `folder`; None means a run without one.

    Raises:
        InputError: it is a file, it holds another run, or there is no run to resume.

    Example:
        >>> check_folder(None, resume=False)
    """
    if folder is None:
        if resume:
            raise InputError("resume=True needs run_dir, the folder of the run to continue")
        return
    if folder.exists() and not folder.is_dir():
        raise InputError(f"run_dir {folder} is a file; give a folder")
    if resume and not folder.is_dir():
        raise InputError(
            f"there is no run to resume at {folder}; check the path, or leave resume out to start one"
        )
    if not resume and (folder / CHECKPOINT).exists():
        raise InputError(f"{folder} already holds a run; resume it with resume=True or choose another folder")


def remove_leftovers(folder: Path, names: Sequence[str] = (CHECKPOINT, METRICS)) -> None:
    """Removes the temporary files of a run that was killed while it wrote.

    Example:
        >>> remove_leftovers(Path("no-such-folder"))
    """
    for name in names:
        for leftover in folder.glob(f".{name}.*.tmp"):
            leftover.unlink(missing_ok=True)


class Loop:
    """One run in one process, from the first step or the checkpoint to the final weights.

    Args:
        job: everything `run` was given.
        fabric: device, precision and process group.
        request: of a process started by `launch`.

    Raises:
        InputError: there is no batch or nothing to train, or the processes were given different options.
    """

    def __init__(self, job: Job, fabric: Fabric, request: StopRequest | None = None) -> None:
        self.job = job
        self.options = job.options
        self.group = Group(fabric)
        self.request = request or StopRequest()
        self.device = fabric.device
        self.home = next(iter(job.module.parameters()), torch.zeros(0)).device
        job.module.to(self.device)
        self.steps = job.batches.steps_per_epoch
        if self.steps < 1:
            raise InputError(
                f"steps_per_epoch must be at least 1, got {self.steps}; there is no batch to train on"
            )
        self._start_alike()
        self.stepper = Stepper(job.module, job.loss_fn, job.options, fabric, self.group, self.steps)
        self.best = Best(job.options)
        self.epoch = self.step = 0
        self.history: list[Row] = []
        self.seconds = self.epoch_seconds = 0.0
        self._clock = self._saved_at = time.monotonic()
        stepper = self.stepper
        self._view = StepView(1, job.options.epochs, 0, self.steps, 0, 0.0, stepper.means, stepper.optimizer)
        self._is_main = self.group.rank == 0
        self._board: TensorBoard | None = None

    def _start_alike(self) -> None:
        """Under a launcher every process made its own module and options: weights become those of rank 0."""
        if self.group.size == 1:
            return
        module = self.job.module
        tensors = [*module.parameters(), *module.buffers()]
        copied = {name for named in (module.named_parameters(), module.named_buffers()) for name, _ in named}
        others = {  # such as the order of sites, which no process may have for itself
            name: value.tolist()
            for name, value in module.state_dict().items()
            if name not in copied and isinstance(value, torch.Tensor)
        }
        facts = {name: value for name, value in self.options.record().items() if name != "device"}
        facts |= {"steps_per_epoch": self.steps, "weights": [(tuple(t.shape), str(t.dtype)) for t in tensors]}
        facts |= others
        self.group.check_same(facts)
        self.group.copy_from_main(tensors)

    def execute(self) -> LoopResult:
        """Runs to the end."""
        was_training = self.job.module.training
        try:
            with forked_rng(self.device), self.request, self._told():
                self._begin()
                while self.epoch < self.options.epochs and not self.best.exhausted:
                    self._run_epoch()
            self._end()
        except TrainingInterrupted:
            raise
        except KeyboardInterrupt as error:  # the second Ctrl-C: no time to save, the last checkpoint stands
            raise TrainingInterrupted(self.job.run_dir, self.history) from error
        finally:
            self.job.module.train(was_training)
            self.job.module.to(self.home)
        return LoopResult(
            history=self.history,
            state=checkpoint.plain_copy(self.job.module.state_dict()),
            stopped_early=self.best.exhausted,
            best_epoch=self.best.epoch,
            seconds=self.seconds,
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Starts and stops the reporter."""
        reporter = self.job.reporter if self._is_main else None
        if reporter is not None:
            reporter.start()
        try:
            yield
        finally:
            if reporter is not None:
                reporter.stop()
            if self._board is not None:
                self._board.close()

    def _begin(self) -> None:
        """Restores the checkpoint or writes the first one; moves the data to the device."""
        folder = self.job.run_dir
        check_folder(folder, self.job.resume)
        if isinstance(self.job.batches, DeviceBatches):
            self.job.batches.to(self.device)
        if folder is not None:
            if self.job.resume and (folder / CHECKPOINT).exists():
                self._restore(checkpoint.load(folder / CHECKPOINT))
            self.group.wait()  # no process writes before all have read
            if self._is_main:
                remove_leftovers(folder)
            self._save()
            if self.options.tensorboard and self._is_main:
                self._board = TensorBoard(folder, self.epoch + 1)
        self._clock = time.monotonic()

    def _run_epoch(self) -> None:
        module, batches, stepper = self.job.module, self.job.batches, self.stepper
        module.train()
        while self.step < self.steps:
            most = self._steps_unseen()
            taken = stepper.take_several(batches, self.epoch, self.step, most) if most > 1 else 0
            if not taken:
                stepper.take(_on(self.device, batches(self.epoch, self.step)), self.epoch, self.step)
            self.step += taken or 1
            self._tell_step()
            self._look_around()
        self._finish_epoch()

    def _steps_unseen(self) -> int:
        """How many steps may be taken before somebody is told or the loss is looked at."""
        if self._is_main and (self.job.on_step is not None or self.job.reporter is not None):
            return 1
        return min(self.steps - self.step, _LOSS_EVERY - self.step % _LOSS_EVERY)

    def _tell_step(self) -> None:
        job, view = self.job, self._view
        if not self._is_main or (job.on_step is None and job.reporter is None):
            return
        view.epoch, view.step, view.samples = self.epoch + 1, self.step, self.stepper.samples
        view.seconds = self.epoch_seconds + time.monotonic() - self._clock
        try:
            if job.on_step is not None:
                job.on_step(view)
            if job.reporter is not None:
                job.reporter.step(view)
        except KeyboardInterrupt:
            self.request.request()

    def _look_around(self) -> None:
        """Between two steps: stop, save or give up, where there is a reason; all processes alike."""
        options, last = self.options, self.step == self.steps
        stop, save, bad = self.request.made(), self._save_is_due(), False
        if self.group.size > 1:
            if self.step % _AGREE_EVERY and not last and options.optimizer != "lbfgs":
                return
            bad = not self.stepper.loss_is_finite()
            stop, save, bad = self.group.any(stop, save, bad)
        elif self.step % _LOSS_EVERY == 0 or save or last or options.optimizer == "lbfgs":
            bad = not self.stepper.loss_is_finite()
        if bad:
            self._diverged()
        if save or stop:
            self._save()
        if stop:
            raise TrainingInterrupted(self.job.run_dir, self.history)

    def _save_is_due(self) -> bool:
        limit = self.options.checkpoint_seconds
        return (
            limit is not None and self.job.run_dir is not None and time.monotonic() - self._saved_at > limit
        )

    def _diverged(self) -> None:
        raise TrainingDiverged(
            f"the loss or a weight became NaN or infinite in epoch {self.epoch + 1}, "
            f"at step {self.step} of {self.steps}; "
            f"try a lower lr (now {self.options.lr:g}), or clip_norm=1.0 to bound the gradient"
        )

    def _finish_epoch(self) -> None:
        """The epoch's row, the held-out part, the checkpoint."""
        if not self.stepper.weights_are_finite():
            self._diverged()
        means = self.stepper.gather()
        self._tick()
        spent = max(self.epoch_seconds, 1e-9)
        row: Row = {"epoch": self.epoch + 1, **means, "lr": self.stepper.rate, "seconds": self.epoch_seconds}
        row["samples_per_second"] = self.stepper.samples / spent
        with self._averaged():
            row |= self._evaluate(row)
            self.best.look(row, self.job.module)
        self.history.append(row)
        self.epoch, self.step, self.epoch_seconds = self.epoch + 1, 0, 0.0
        self.stepper.reset()
        self._tick()
        self.epoch_seconds = 0.0
        last = self.epoch == self.options.epochs or self.best.exhausted
        if last or self.epoch % self.options.checkpoint_every == 0:
            self._save()
        self._tell_epoch(row)

    def _tell_epoch(self, row: Row) -> None:
        if not self._is_main:
            return
        if self._board is not None:
            self._board.write(row)
        try:
            if self.job.on_epoch is not None:
                self.job.on_epoch(row)
            if self.job.reporter is not None:
                self.job.reporter.epoch(row, self.options.epochs)
        except KeyboardInterrupt:
            self.request.request()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Inside, the module holds the weights that count: the average where one is kept."""
        average, parameters = self.stepper.average, self.stepper.parameters
        if average is None:
            yield
            return
        live = [p.detach().clone() for p in parameters]
        copy_into(parameters, average.values)
        try:
            yield
        finally:
            copy_into(parameters, live)

    def _evaluate(self, row: Row) -> Row:
        """What is measured on the held-out part and by the callbacks, on rank 0."""
        job = self.job
        if job.evaluate is None and not job.callbacks:
            return {}
        more: Row = {}
        if self._is_main:
            job.module.eval()
            with torch.no_grad():
                if job.evaluate is not None:
                    more = {name: float(value) for name, value in job.evaluate(job.module).items()}
                more |= called(job.callbacks, job.module, self.stepper.optimizer, {**row, **more})
        return self.group.from_main(more)

    def _end(self) -> None:
        """Puts the final weights into the module."""
        if self.best.state is not None:
            self.job.module.load_state_dict(self.best.state)
        else:
            self.stepper.use_average()

    def _tick(self) -> None:
        """Adds the time since the last call to the run's total."""
        now = time.monotonic()
        self.seconds += now - self._clock
        self.epoch_seconds += now - self._clock
        self._clock = now

    def _save(self) -> None:
        """Writes the checkpoint and the metrics; every process takes part, rank 0 writes."""
        if self.job.run_dir is None:
            return
        self.stepper.gather()
        self._tick()
        if self._is_main:
            checkpoint.save(self.job.run_dir / CHECKPOINT, self._state())
            write_metrics(self.job.run_dir / METRICS, self.history)
        self._saved_at = time.monotonic()
        self.group.wait()

    def _identity(self) -> dict[str, Any]:
        shapes = [list(p.shape) for p in self.stepper.parameters]
        return {"steps_per_epoch": self.steps, "parameter shapes": shapes, **self.job.identity}

    def _state(self) -> dict[str, Any]:
        return {
            "options": self.options.record(),
            "identity": self._identity(),
            "stepper": self.stepper.state(),
            "best": self.best.record(),
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "seconds": self.seconds,
            "epoch_seconds": self.epoch_seconds,
            "callbacks": callback_states(self.job.callbacks),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        """Continues where `state` was taken.

        Raises:
            InputError: it belongs to a run with other options, data or shapes.
        """
        source = f"{self.job.run_dir}/{CHECKPOINT}"
        if "cores" in state:
            raise InputError(
                f"{source} is the checkpoint of a training by sweeps, not with gradients; "
                "resume that one, or choose another folder"
            )
        try:
            check_same_run(source, state, self.options, self._identity())
            self.stepper.restore(state["stepper"])
            self.best.restore(state["best"])
            self.epoch, self.step = int(state["epoch"]), int(state["step"])
            self.history = [dict(row) for row in state["history"]]
            self.seconds, self.epoch_seconds = float(state["seconds"]), float(state["epoch_seconds"])
            restore_callbacks(self.job.callbacks, state.get("callbacks", []))
        except InputError:
            raise
        except (KeyError, TypeError, RuntimeError, AttributeError, ValueError, IndexError) as error:
            raise InputError(
                f"{source} is not the checkpoint of this run ({error}); start a new run"
            ) from error


def _on(device: torch.device, batch: tuple[Tensor, ...] | Batch) -> tuple[Tensor, ...] | Batch:
    """The batch on the device."""
    if isinstance(batch, Batch):
        return batch.to(device)
    return tuple(t if t.device == device else t.to(device) for t in batch)
