"""Equal layers trained together: the numbers of training them one by one, in a fraction of the time."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError, choose
from tnml.loop.callbacks import called
from tnml.loop.checkpoint import plain_copy
from tnml.loop.processes import device_of
from tnml.loop.protocols import Callback
from tnml.loop.results import Row, TrainingDiverged, TrainingInterrupted
from tnml.loop.stopping import Best
from tnml.nn import MPSLayer
from tnml.randomness import Stream, forked_rng, generator
from tnml.training.batches import batch_count, batch_slice
from tnml.training.inputs import Array
from tnml.training.losses import measure
from tnml.training.options import TrainOptions
from tnml.training.replicas.checks import check_callbacks, check_layers, check_options, one_each
from tnml.training.replicas.stack import Bank, Stack, group_key
from tnml.training.samples import Samples, samples_for
from tnml.training.supervised import TrainResult
from tnml.training.tasks import TASKS, Task

_LOSS_EVERY = 50  # steps between looks at the losses, as in the loop of a single run


def train_replicas(
    layers: Sequence[MPSLayer],
    x: Array | Sequence[Array],
    y: Array | Sequence[Array],
    options: TrainOptions | Sequence[TrainOptions] | None = None,
    *,
    task: Literal["regression", "classification"],
    x_test: Array | Sequence[Array] | None = None,
    y_test: Array | Sequence[Array] | None = None,
    test_every: int | None = None,
    stop: Callable[[int, Row], bool] | None = None,
    on_epoch: Callable[[int, Row], None] | None = None,
    diverged: Literal["raise", "return"] = "raise",
    sample_weight: Array | Sequence[Array] | None = None,
    callbacks: Sequence[Sequence[Callback]] = (),
) -> list[TrainResult | TrainingDiverged]:
    """One result per layer, all trained in place together, as `train_regressor` or `train_classifier` would.

    Batches, steps and schedules are those of training one by one with the same options: the losses agree to
    rounding. There is no run folder: an interrupted training starts from the beginning.

    Args:
        layers: of equal bonds, features, outputs, dtype and device, without dropout; weights may differ.
        x: `[n, sites]` or `[n, sites, d]` for all, or a list with one array per layer, of equal sizes.
        y: `[n]` or `[n, c]` targets, or `[n]` labels, for all or a list.
        options: for all or one each. The seed and all numbers of the optimiser, the schedule, clipping,
            averaging and early stopping may differ; epochs, batch_size, loss, label_smoothing, validation,
            precision and device may not.
        task: "regression" or "classification".
        x_test: like `x`; measured once, after training.
        y_test: like `y`.
        test_every: epochs between measurements on the test set, beside the one after the last: "test_loss"
            and, for labels, "test_accuracy" in the row of that epoch.
        stop: called after each epoch with the number of the layer and its row; True ends its training with
            the weights it has then.
        on_epoch: called after each epoch with the number of the layer and its row.
        diverged: "raise" ends everything when one loss is NaN or infinite; "return" puts the
            `TrainingDiverged` in the place of that layer's result and the others go on.
        sample_weight: `[n]` for all or a list, see `train_classifier`. Samples of weight 0 are left out, so
            every layer needs the same number of others.
        callbacks: one sequence for each layer, or nothing; see `tnml.training.run`. Their optimizer is None.

    Returns:
        As the single training, in the order of the layers. "seconds" is each layer's share: the time of all
        over the number that were training.

    Raises:
        InputError: layers, data and options do not fit each other, or an option has no form for replicas.
        TrainingDiverged: see `diverged`.
        TrainingInterrupted: after Ctrl-C; the layers hold their weights of that moment. Its history has the
            rows of all layers, one layer after the other, with its number as "layer".

    Cost: the arithmetic of one by one; what goes is the time between: see `worth_it`.

    Example:
        >>> x = torch.rand(64, 3, generator=torch.Generator().manual_seed(0))
        >>> layers = [MPSLayer(3, 1, bond_dim=2, seed=seed) for seed in range(4)]
        >>> options = TrainOptions(epochs=60, lr=0.1, batch_size=16, device="cpu")
        >>> results = train_replicas(layers, x, x.prod(1), options, task="regression")
        >>> [result.history[-1]["loss"] < 1e-2 for result in results]
        [True, True, True, True]
    """
    choose("diverged", diverged, dict.fromkeys(("raise", "return")))
    learned = choose("task", task, {name: TASKS[name] for name in ("regression", "classification")})
    check_layers(layers)
    chosen = check_options(options, len(layers), learned)
    check_callbacks(callbacks, chosen, learned)
    data = _samples(layers, (x, y, x_test, y_test, sample_weight), chosen[0], learned)
    if test_every is not None and (whole("test_every", test_every, 1) and data[0].test is None):
        raise InputError(f"test_every={test_every} needs x_test and y_test; give them, or leave it out")
    run = _Run(layers, data, chosen, test_every, stop, on_epoch, callbacks)
    try:
        run.execute(give_up=diverged == "raise")
    except KeyboardInterrupt as error:
        raise TrainingInterrupted(history=run.rows()) from error
    finally:
        run.hand_back()
    return [run.result(replica) for replica in range(len(layers))]


def worth_it(layer: MPSLayer, replicas: int, batch_size: int) -> bool:
    """Whether training that many layers like this one together is faster than one by one.

    Together saves the time between the pieces of arithmetic, about that of 40 million multiply-adds a step;
    where a step does ten times as many, a few per cent are left to gain, and memory to lose.

    Args:
        layer: one of them.
        replicas: how many.
        batch_size: samples of a step.

    Example:
        >>> worth_it(MPSLayer(32, 1, bond_dim=16), 16, 64), worth_it(MPSLayer(784, 10, bond_dim=64), 4, 1000)
        (True, False)
    """
    replicas, batch_size = whole("replicas", replicas, 1), whole("batch_size", batch_size, 1)
    return replicas > 1 and 3 * layer.weight.numel() * batch_size < _WORTH


_WORTH = 4e8  # multiply-adds a step of one layer


def _samples(
    layers: Sequence[MPSLayer], given: Sequence[Any], options: TrainOptions, task: Task
) -> list[Samples]:
    """Checked samples of every layer; arrays that layers share are checked once and stay shared.

    Args:
        layers: to be trained.
        given: x, y, x_test, y_test and sample_weight, each for all layers or a list.
        options: `precision` is read.
        task: what is to be learned.
    """
    if (given[2] is None) != (given[3] is None):
        raise InputError("x_test and y_test go together; give both or neither")
    names = ("x", "y", "x_test", "y_test", "sample_weight")
    columns = [one_each(name, v, len(layers)) for name, v in zip(names, given, strict=True)]
    found: dict[tuple[int, ...], Samples] = {}
    shared: dict[tuple[Any, ...], Any] = {}
    samples = []
    for arrays in zip(*columns, strict=True):
        key = tuple(id(array) for array in arrays)
        if key not in found:
            xs, ys, xt, yt, weight = arrays
            made = samples_for(
                task, layers[0], xs, ys, xt, yt, sample_weight=weight, precision=options.precision
            )
            # layers that share inputs but not targets (label noise) go on sharing the inputs
            w = id(weight)
            test = made.test
            if test is not None:
                test = shared.setdefault(("x", id(xt)), test[0]), shared.setdefault(("y", id(yt)), test[1])
            found[key] = dataclasses.replace(
                made,
                x=shared.setdefault(("x", id(xs), w), made.x),
                y=shared.setdefault(("y", id(ys), w), made.y),
                weight=shared.setdefault(("weight", w), made.weight),
                test=test,
            )
        samples.append(found[key])
    sizes = {(s.x.shape, s.y.shape, None if s.test is None else s.test[0].shape) for s in samples}
    if len(sizes) > 1:
        raise InputError(
            f"every layer needs as many samples as the others, got {sorted(str(s) for s in sizes)}"
        )
    return samples


class _Run:
    """One training of replicas: who still trains, in which row, and what came of each."""

    def __init__(
        self,
        layers: Sequence[MPSLayer],
        data: Sequence[Samples],
        options: Sequence[TrainOptions],
        test_every: int | None,
        stop: Callable[[int, Row], bool] | None,
        on_epoch: Callable[[int, Row], None] | None,
        callbacks: Sequence[Sequence[Callback]],
    ) -> None:
        self._layers, self._data, self._options = layers, data, options
        self._test_every, self._stop, self._on_epoch = test_every, stop, on_epoch
        self._callbacks = callbacks
        self._home = layers[0].weight.device
        device = device_of(options[0].device)
        precision = {"32": torch.float32, "64": torch.float64}.get(options[0].precision)
        for layer in layers:
            layer.to(device, precision)
        splits = [
            each.split(chosen.validation, chosen.seed) for each, chosen in zip(data, options, strict=True)
        ]
        self._train = [keep for keep, _ in splits]
        self._held = [held for _, held in splits]
        # rows of equal numbers stand side by side, so that one optimiser can have them
        self.active = sorted(range(len(layers)), key=lambda r: group_key(options[r]))
        weights, self._held_scale = _weights(data, self._train, self._held)
        self._bank = Bank(layers, [each.x for each in data], [each.y for each in data], weights)
        self._tests: Bank | None = None
        self._n_test = 0
        if data[0].test is not None and test_every is not None:
            tests = [each.test for each in data if each.test is not None]
            self._n_test = len(tests[0][0])
            self._tests = Bank(layers, [one for one, _ in tests], [one for _, one in tests])
        self._loss = options[0].loss_for(data[0].task)
        if self._loss.by_sample:
            raise InputError(
                f"replicas cannot minimise loss={options[0].loss!r}, which keeps numbers of every sample; "
                "train one by one (train_classifier)"
            )
        self._plain = self._loss.plain()
        self._stack = Stack([layers[r] for r in self.active], self._now)
        self._best = [Best(each) for each in options]
        self._history: list[list[Row]] = [[] for _ in layers]
        self._seconds = [0.0] * len(layers)
        self._stopped = [False] * len(layers)
        self._diverged: dict[int, TrainingDiverged] = {}

    @property
    def _now(self) -> list[TrainOptions]:
        return [self._options[r] for r in self.active]

    def execute(self, give_up: bool) -> None:
        """Trains to the end; with `give_up` to the first loss that is not finite."""
        for epoch in range(self._options[0].epochs):
            if not self.active:
                return
            self._epoch(epoch, give_up)

    def _epoch(self, epoch: int, give_up: bool) -> None:
        start, size = time.monotonic(), self._options[0].batch_size
        count = len(self._train[0])
        steps = batch_count(count, size)
        device = self._stack.weight.device
        order = torch.stack(
            [
                self._train[r][
                    torch.randperm(
                        count, generator=generator(self._options[r].seed, epoch, stream=Stream.ORDER)
                    )
                ]
                for r in self.active
            ]
        )
        rows = self._bank.place(order.to(device), self.active)
        sums = torch.zeros(len(self.active), dtype=torch.float64, device=device)
        metrics: dict[str, Tensor] = {}
        bad: dict[int, int] = {}  # row: the step after which it was seen
        for step in range(steps):
            batch = rows[:, :, batch_slice(count, size, step)]
            loss, found = self._stack.step(self._bank, batch, self._loss, epoch * steps + step, steps)
            sums.add_(loss, alpha=batch.shape[2])
            for name, value in found.items():
                metrics.setdefault(name, torch.zeros_like(sums)).add_(value)
            if (step + 1) % _LOSS_EVERY == 0 or step + 1 == steps:
                fine = torch.isfinite(sums)
                if step + 1 == steps:
                    fine &= self._stack.finite()
                for row, good in enumerate(fine.tolist()):
                    if not good:
                        bad.setdefault(row, step + 1)
                if bad and give_up:
                    break
        self._note_diverged(bad, epoch, steps)
        if bad and give_up:
            raise self._diverged[self.active[min(bad)]]
        means = {name: value / count for name, value in {"loss": sums, **metrics}.items()}
        spent = (time.monotonic() - start) / len(self.active)
        self._finish(epoch, means, spent, set(bad))
        share = (time.monotonic() - start) / len(self.active)
        for replica in self.active:
            self._seconds[replica] += share
        self._drop(set(bad))

    def _note_diverged(self, bad: dict[int, int], epoch: int, steps: int) -> None:
        for row, step in bad.items():
            replica = self.active[row]
            self._diverged[replica] = TrainingDiverged(
                f"layer {replica}: the loss or a weight became NaN or infinite in epoch {epoch + 1}, "
                f"at step {step} of {steps}; "
                f"try a lower lr (now {self._options[replica].lr:g}), or clip_norm=1.0 to bound the gradient"
            )

    def _finish(self, epoch: int, means: dict[str, Tensor], spent: float, bad: set[int]) -> None:
        """The rows of an epoch, from numbers measured for all replicas at once."""
        device = self._stack.weight.device
        numbers = {name: value.tolist() for name, value in means.items()}
        later: dict[str, list[float]] = {}
        if len(self._held[0]):
            index = torch.stack([self._held[r] for r in self.active]).to(device)
            found = self._stack.measure(self._bank, self._bank.place(index, self.active), self._plain)
            if self._held_scale is not None:
                found["loss"] = found["loss"] * self._held_scale[self.active].to(device)
            later |= {f"val_{name}": value.tolist() for name, value in found.items()}
        last = epoch + 1 == self._options[0].epochs
        if self._tests is not None and self._test_every and (last or (epoch + 1) % self._test_every == 0):
            index = torch.arange(self._n_test, device=device).expand(len(self.active), -1)
            found = self._stack.measure(self._tests, self._tests.place(index, self.active), self._plain)
            later |= {f"test_{name}": value.tolist() for name, value in found.items()}
        rates, count = self._stack.rates(), len(self._train[0])
        for row, replica in enumerate(self.active):
            if row in bad:
                continue
            entry: Row = {"epoch": epoch + 1, **{name: value[row] for name, value in numbers.items()}}
            entry |= {"lr": rates[row], "seconds": spent, "samples_per_second": count / max(spent, 1e-9)}
            entry |= {name: value[row] for name, value in later.items()}
            if self._callbacks:
                entry |= self._called(row, replica, entry)
            self._history[replica].append(entry)
            if self._on_epoch is not None:
                self._on_epoch(replica, entry)

    def _called(self, row: int, replica: int, entry: Row) -> Row:
        """What the callbacks of a layer say, which holds its weights then."""
        layer = self._layers[replica]
        self._stack.write(self._stack.final()[row], layer)
        was_training = layer.training
        with torch.no_grad(), forked_rng(layer.weight.device):
            found = called(self._callbacks[replica], layer.eval(), None, entry)
        layer.train(was_training)
        return found

    def _drop(self, bad: set[int]) -> None:
        """Takes out who diverged, was stopped or has waited long enough; their layers get their weights."""
        weights = self._stack.final()
        gone = set(bad)
        for row, replica in enumerate(self.active):
            if row in bad:
                continue
            best, entry = self._best[replica], self._history[replica][-1]
            if self._options[replica].patience is not None:
                self._stack.write(weights[row], self._layers[replica])
                best.look(entry, self._layers[replica])
            self._stopped[replica] = best.exhausted or (
                self._stop is not None and bool(self._stop(replica, dict(entry)))
            )
            if self._stopped[replica]:
                gone.add(row)
        if not gone:
            return
        for row in gone:
            self._stack.write(weights[row], self._layers[self.active[row]])
        kept = [row for row in range(len(self.active)) if row not in gone]
        self.active = [self.active[row] for row in kept]
        if kept:
            self._stack.keep(kept, self._now)

    def rows(self) -> list[Row]:
        """The history of all layers so far, each row with the number of its layer."""
        return [{"layer": replica, **row} for replica, rows in enumerate(self._history) for row in rows]

    def hand_back(self) -> None:
        """Puts the final weights into the layers and these where they came from."""
        weights = self._stack.final()
        for row, replica in enumerate(self.active):
            self._stack.write(weights[row], self._layers[replica])
        for replica, layer in enumerate(self._layers):
            state = self._best[replica].state
            if state is not None and replica not in self._diverged:
                layer.load_state_dict(state)
            layer.to(self._home)

    def result(self, replica: int) -> TrainResult | TrainingDiverged:
        """What came of one layer."""
        if replica in self._diverged:
            return self._diverged[replica]
        layer, data = self._layers[replica], self._data[replica]
        test: dict[str, float] = {}
        if data.test is not None:
            device = layer.weight.device
            test = measure(layer, self._plain, data.test[0].to(device), data.test[1].to(device))
        return TrainResult(
            history=self._history[replica],
            state=plain_copy(layer.state_dict()),
            stopped_early=self._stopped[replica],
            best_epoch=self._best[replica].epoch,
            seconds=self._seconds[replica],
            n_train=len(self._train[replica]),
            n_validation=len(self._held[replica]),
            test=test,
        )


def _weights(
    data: Sequence[Samples], train: Sequence[Tensor], held: Sequence[Tensor]
) -> tuple[list[Tensor] | None, Tensor | None]:
    """Weights `[n]` of every replica, of mean 1 where it trains, and factors for its held-out loss."""
    if all(each.weight is None for each in data):
        return None, None
    found, scales = [], []
    made: dict[tuple[int, bytes], Tensor] = {}
    for each, keep, rest in zip(data, train, held, strict=True):
        weight = torch.ones(len(each.x), dtype=each.x.dtype) if each.weight is None else each.weight
        key = (id(each.weight), keep.numpy().tobytes())
        mean = weight[keep].double().mean()
        found.append(made.setdefault(key, weight / mean.to(weight.dtype)))  # replicas go on sharing them
        scales.append(float(mean / weight[rest].double().mean()) if len(rest) else 1.0)
    return found, torch.tensor(scales, dtype=torch.float64)
