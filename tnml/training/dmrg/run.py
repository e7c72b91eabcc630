"""Training by sweeps: data in, a trained layer and its records out, resumable at every bond."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tnml.data import random_shift
from tnml.errors import InputError
from tnml.loop import checkpoint
from tnml.loop.callbacks import callback_states, called, restore_callbacks
from tnml.loop.interrupt import StopRequest
from tnml.loop.loop import CHECKPOINT, METRICS, check_folder, remove_leftovers
from tnml.loop.options import check_same_run
from tnml.loop.processes import device_of
from tnml.loop.protocols import Callback, Reporter, StepView
from tnml.loop.records import write_metrics
from tnml.loop.results import Row, TrainingDiverged, TrainingInterrupted
from tnml.nn import MPSLayer
from tnml.randomness import SweepStream, forked_rng, generator
from tnml.training.dmrg.chain import CenteredChain, chain_of, largest, put_into
from tnml.training.dmrg.options import FREE, SweepOptions
from tnml.training.dmrg.sweep import BondRow, SweepBatch, Sweeper
from tnml.training.losses import Loss

BONDS = "bonds.csv"


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """What one run of sweeps is given, checked.

    Args:
        layer: trained in place.
        x: `[b, n]` inputs or `[b, n, d]` features.
        targets: `[b, c]` real targets, for labels what `Loss.targets` makes of them.
        weight: `[b]` of mean 1, or None.
        loss: of the outputs.
        options: see `SweepOptions`.
        image_shape: (height, width) of an input for shifts.
        evaluate: numbers measured after every sweep; the layer holds the sweep's weights then.
        reporter: see `Reporter`; an epoch is a sweep, a step is a bond.
        on_bond: called with the record of every bond.
        run_dir: see `tnml.training.run`.
        resume: see `tnml.training.run`.
        identity: what has to be the same when a run is resumed.
        callbacks: called after every sweep, their optimizer is None; see `tnml.training.run`.
        is_over: whether the run ends early after sweeps with these rows; None: the options alone decide.
    """

    layer: MPSLayer
    x: Tensor
    targets: Tensor
    weight: Tensor | None
    loss: Loss
    options: SweepOptions
    image_shape: tuple[int, int] | None
    evaluate: Callable[[MPSLayer], Row] | None
    reporter: Reporter | None
    on_bond: Callable[[BondRow], None] | None
    run_dir: Path | None
    resume: bool
    identity: Mapping[str, str | int | float]
    callbacks: Sequence[Callback] = ()
    is_over: Callable[[list[Row]], bool] | None = None

    def execute(self) -> tuple[list[Row], list[BondRow], float]:
        """History, records of the bonds and seconds; the layer holds the final weights."""
        return _Run(self).execute()


class _Run:
    """One run, from the start or the checkpoint to the final weights."""

    def __init__(self, given: SweepRun) -> None:
        self.given, self.options = given, given.options
        self.device = device_of(given.options.device)
        self.home = given.layer.weight.device
        self.sweep = self.index = 0
        self.history: list[Row] = []
        self.bonds: list[BondRow] = []
        self.seconds = self.sweep_seconds = 0.0
        self._clock = self._saved_at = time.monotonic()
        self._request = StopRequest()

    def execute(self) -> tuple[list[Row], list[BondRow], float]:
        """Runs to the end."""
        given = self.given
        try:
            with torch.no_grad(), self._request, self._told():
                given.layer.to(self.device)
                self._begin()
                while self.index or not self._is_over():  # what was begun is finished
                    self._run_sweep()
                put_into(given.layer, self.sweeper.chain)
        except TrainingInterrupted:
            raise
        except KeyboardInterrupt as error:
            raise TrainingInterrupted(given.run_dir, self.history) from error
        finally:
            given.layer.to(self.home)
        return self.history, self.bonds, self.seconds

    @contextmanager
    def _told(self) -> Iterator[None]:
        reporter = self.given.reporter
        if reporter is not None:
            reporter.start()
        try:
            yield
        finally:
            if reporter is not None:
                reporter.stop()

    def _begin(self) -> None:
        """Makes the sweeper: from the checkpoint, or from the layer brought to the gauge."""
        folder = self.given.run_dir
        check_folder(folder, self.given.resume)
        stored = None
        if folder is not None and self.given.resume and (folder / CHECKPOINT).exists():
            stored = checkpoint.load(folder / CHECKPOINT)
        # A label core of one output is a matrix: neither of its bonds could ever outgrow the other.
        travels = self.options.label == "travels" or self.given.layer.out_features == 1
        chain = chain_of(self.given.layer, travels=travels) if stored is None else self._restored(stored)
        self._label_site = chain.label  # that of the checkpoint, where there is one
        half = 2 * self.sweep + (self.index >= len(chain.cores) - 1)
        self.sweeper = Sweeper(chain, self._batch_of, self.given.loss, self.options, half)
        if folder is not None:
            remove_leftovers(folder, (CHECKPOINT, METRICS, BONDS))
        if stored is None:
            self.sweeper.prepare()
            self._save()
        self._clock = time.monotonic()

    def _batch_of(self, half: int) -> SweepBatch:
        """Features and targets of the samples of a half sweep, drawn and shifted as the options say."""
        x, targets, weight, options = self.given.x, self.given.targets, self.given.weight, self.options
        if options.batch_size is not None and options.batch_size < len(x):
            order = torch.randperm(len(x), generator=generator(options.seed, half, stream=SweepStream.DRAW))
            rows = order[: options.batch_size].sort().values
            x, targets = x[rows], targets[rows]
            weight = None if weight is None else weight[rows]
        shape = self.given.image_shape
        if options.max_shift and shape is not None:
            x = random_shift(
                x, shape, options.max_shift, generator(options.seed, half, stream=SweepStream.SHIFT)
            )
        stacked = self.given.layer.local_features(x.to(self.device)).transpose(0, 1).contiguous()
        features: list[Tensor | None] = list(stacked)
        if self._label_site is not None:
            features.insert(self._label_site, None)
        weight = None if weight is None else weight.to(self.device, stacked.dtype)
        return SweepBatch(features, targets.to(self.device), weight)

    def _is_over(self) -> bool:
        """Whether no further sweep begins."""
        losses = [row["loss"] for row in self.history]
        enough = self.given.is_over is not None and self.given.is_over(self.history)
        return enough or self.sweep >= self.options.sweeps or self.options.is_settled(losses)

    def _run_sweep(self) -> None:
        count = 2 * self.sweeper.steps_per_half
        while self.index < count:
            row = self.sweeper.step(self.sweep, self.index)
            if not torch.isfinite(self.sweeper.chain.center).all():
                raise TrainingDiverged(
                    f"the tensor at bond {row['bond']:.0f} became NaN or infinite in sweep {self.sweep + 1}; "
                    "raise proximal or ridge"
                )
            self.bonds.append(row)
            self.index += 1
            self._tell(row)
            self._look_around(last=self.index == count)
        self._finish_sweep()

    def _tell(self, row: BondRow) -> None:
        given = self.given
        shown: Row = {
            "bond": int(row["bond"]),
            "loss": row["loss"],
            "bond_dim": int(row["bond_dim"]),
            "largest_bond": largest(self.sweeper.chain.bond_dims),
        }
        view = StepView(
            self.sweep + 1,
            self.options.sweeps,
            self.index,
            2 * self.sweeper.steps_per_half,
            self.index * self._batch(),
            self.sweep_seconds + time.monotonic() - self._clock,
            lambda: shown,
        )
        try:
            if given.on_bond is not None:
                given.on_bond(row)
            if given.reporter is not None:
                given.reporter.step(view)
        except KeyboardInterrupt:  # raised by a reporter: treated as a Ctrl-C
            self._request.request()

    def _batch(self) -> int:
        return min(len(self.given.targets), self.options.batch_size or len(self.given.targets))

    def _look_around(self, *, last: bool) -> None:
        """Between two bonds: save or stop, where there is a reason."""
        limit, stop = self.options.checkpoint_seconds, self._request.made()
        due = limit is not None and time.monotonic() - self._saved_at > limit
        if (stop or due) and not (last and not stop):
            self._save()
        if stop:
            raise TrainingInterrupted(self.given.run_dir, self.history)

    def _finish_sweep(self) -> None:
        """The sweep's row, the held-out part, the checkpoint."""
        put_into(self.given.layer, self.sweeper.chain)
        rows = self.bonds[-2 * self.sweeper.steps_per_half :]
        dims = self.sweeper.chain.bond_dims
        self._tick()
        row: Row = {
            "sweep": self.sweep + 1,
            "loss": sum(r["loss"] for r in rows) / len(rows),
            "largest_bond": largest(dims),
            "mean_bond": sum(dims) / len(dims),
            "discarded_weight": sum(r["discarded_weight"] for r in rows) / len(rows),
            "seconds": self.sweep_seconds,
        }
        if self.given.evaluate is not None:
            row |= self.given.evaluate(self.given.layer)
        if self.given.callbacks:
            row |= self._called(row)
        self.history.append(row)
        self._tick()
        self.sweep, self.index, self.sweep_seconds = self.sweep + 1, 0, 0.0
        self._save()
        if self.given.reporter is not None:
            self.given.reporter.epoch(row, self.options.sweeps)

    def _called(self, row: Row) -> Row:
        """What the callbacks measure on the layer as it is now."""
        layer = self.given.layer
        was_training = layer.training
        with forked_rng(self.device):
            found = called(self.given.callbacks, layer.eval(), None, row)
        layer.train(was_training)
        return found

    def _tick(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._clock
        self.sweep_seconds += now - self._clock
        self._clock = now

    def _save(self) -> None:
        folder = self.given.run_dir
        if folder is None:
            return
        self._tick()
        chain = self.sweeper.chain
        checkpoint.save(
            folder / CHECKPOINT,
            {
                "options": self.options.record(),
                "identity": dict(self.given.identity),
                "cores": chain.cores,
                "center": chain.center,
                "at": chain.at,
                "label": chain.label,
                "sweep": self.sweep,
                "index": self.index,
                "history": self.history,
                "bonds": self.bonds,
                "seconds": self.seconds,
                "sweep_seconds": self.sweep_seconds,
                "callbacks": callback_states(self.given.callbacks),
            },
        )
        write_metrics(folder / METRICS, self.history)
        write_metrics(folder / BONDS, self.bonds)
        self._saved_at = time.monotonic()

    def _restored(self, state: Mapping[str, Any]) -> CenteredChain:
        """The chain of a checkpoint, and where its run was.

        Raises:
            InputError: it belongs to a run with other options, data or shapes.
        """
        source = f"{self.given.run_dir}/{CHECKPOINT}"
        if "stepper" in state:
            raise InputError(
                f"{source} is the checkpoint of a training with gradients, not by sweeps; "
                "resume that one, or choose another folder"
            )
        try:
            check_same_run(source, state, self.options, self.given.identity, FREE)
            cores = [None if core is None else core.to(self.device) for core in state["cores"]]
            chain = CenteredChain(cores, state["center"].to(self.device), int(state["at"]), state["label"])
            self.sweep, self.index = int(state["sweep"]), int(state["index"])
            self.history = [dict(row) for row in state["history"]]
            self.bonds = [dict(row) for row in state["bonds"]]
            self.seconds, self.sweep_seconds = float(state["seconds"]), float(state["sweep_seconds"])
            restore_callbacks(self.given.callbacks, state.get("callbacks", []))
        except InputError:
            raise
        except (KeyError, TypeError, RuntimeError, AttributeError, ValueError, IndexError) as error:
            raise InputError(
                f"{source} is not the checkpoint of this run ({error}); start a new run"
            ) from error
        return chain
