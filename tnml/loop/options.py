"""Everything that can be chosen about one optimisation, checked once, when the options are made."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tnml.checks import keep_number, keep_whole
from tnml.errors import InputError, choose

OPTIMIZERS = ("adam", "adamw", "sgd", "lbfgs")
SCHEDULES = ("one-cycle", "cosine", "constant", "step")
AVERAGES = ("none", "ema")
PRECISIONS = ("auto", "32", "64", "bf16-mixed")
MONITOR_MODES = ("auto", "min", "max")
DECAYS = ("zero", "path")

_NAMED = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "average": AVERAGES,
    "precision": PRECISIONS,
    "monitor_mode": MONITOR_MODES,
    "decay_to": DECAYS,
}
# These may change when a run is resumed: they move it to another machine or write more or less often.
_FREE = frozenset({"device", "devices", "checkpoint_every", "checkpoint_seconds", "tensorboard"})

IDENTITY = "identity"
"""Where an identity keeps its version: 2 compares every module and buffer, a missing one means tnml 0.1."""
_SINCE_2 = ("module", "buffer ", IDENTITY)  # prefix of the entries that version 2 added


class Recorded(Protocol):
    """Options that can be written down, and all of which have defaults."""

    def record(self) -> dict[str, Any]:
        """As plain values."""


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """The options of one optimisation, for any loss; a wrong value raises when the object is made.

    Args:
        epochs: passes over the batches.
        optimizer: "adam", "adamw", "sgd" or "lbfgs" (strong Wolfe line search on each batch).
        lr: peak learning rate; for "lbfgs" the first step of the line search, by convention 1.
        weight_decay: decoupled for "adamw", an L2 penalty for "adam" and "sgd"; "lbfgs" has none.
        decay_to: where `weight_decay` pulls: to "zero", or to the module's "path", weights at which it has a
            simple, well-conditioned function; the module needs a method `path`, see
            `tnml.loop.protocols.HasPath`.
        beta1: decay of the mean of the gradient, adam and adamw.
        beta2: decay of the mean of the squared gradient, adam and adamw.
        eps: added to the root of the latter.
        momentum: of sgd.
        lbfgs_iterations: inner iterations of "lbfgs" on each batch.
        schedule: "one-cycle" (cosine rise from lr/25, cosine decay to lr/250,000), "cosine" (decay to 0),
            "constant", or "step" (times `decay_factor` after every `decay_every` epochs).
        warmup: fraction of all steps that "one-cycle" spends rising.
        decay_every: epochs between the drops of "step".
        decay_factor: what "step" multiplies by.
        clip_norm: longest gradient (2-norm over all parameters); None clips nothing.
        average: "ema" keeps an exponential moving average of the weights; it is what gets evaluated and
            what the module holds at the end. "none" keeps none.
        ema_decay: decay per step, reached after a warm-up: at step t it is min(ema_decay, (1+t)/(10+t)).
        patience: epochs without a better `monitor` after which training stops and the best weights come
            back; None always trains to the end and keeps the last weights.
        monitor: the number `patience` watches, any column of the history: what `evaluate` or a callback
            measures, or the loss and its metrics.
        monitor_mode: "min" where lower is better, "max" where higher is; "auto" takes "max" for names with
            "accuracy" in them.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
        devices: processes, one device each; under torchrun leave it at 1 and torchrun's count is taken.
        precision: "auto" (the module as it is), "32", "64", or "bf16-mixed".
        seed: of everything random in the run.
        checkpoint_every: epochs between checkpoints (the last epoch always writes one).
        checkpoint_seconds: longest time without a checkpoint inside an epoch; None waits for the epoch.
        tensorboard: also write TensorBoard event files to the run's folder.

    Raises:
        InputError: a value is out of its range or a name is unknown.

    Example:
        >>> LoopOptions(epochs=3, lr=1e-2).optimizer
        'adam'
        >>> LoopOptions(optimizer="adma")
        Traceback (most recent call last):
        tnml.errors.InputError: unknown optimizer 'adma'; did you mean ... Choose from: ...
    """

    epochs: int = 10
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    decay_to: str = "zero"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9
    lbfgs_iterations: int = 20
    schedule: str = "one-cycle"
    warmup: float = 0.1
    decay_every: int = 10
    decay_factor: float = 0.1
    clip_norm: float | None = None
    average: str = "none"
    ema_decay: float = 0.999
    patience: int | None = None
    monitor: str = "val_loss"
    monitor_mode: str = "auto"
    device: str = "auto"
    devices: int = 1
    precision: str = "auto"
    seed: int = 0
    checkpoint_every: int = 1
    checkpoint_seconds: float | None = 60.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name, known in _NAMED.items():
            choose(name, getattr(self, name), dict.fromkeys(known))
        keep_whole(self, "epochs", "lbfgs_iterations", "decay_every", "devices", "checkpoint_every", least=1)
        keep_whole(self, "seed")
        keep_number(self, "lr", "eps", "decay_factor", above=0.0)
        keep_number(self, "weight_decay", least=0.0)
        keep_number(self, "beta1", "beta2", "momentum", "ema_decay", "warmup", least=0.0, below=1.0)
        for name in ("clip_norm", "checkpoint_seconds"):
            if getattr(self, name) is not None:
                keep_number(self, name, above=0.0)
        if self.patience is not None:
            keep_whole(self, "patience", least=1)
        _check_lbfgs(self)
        check_device(self.device)

    def record(self) -> dict[str, Any]:
        """The options as a flat dictionary of numbers, strings and None, as checkpoints keep them.

        Example:
            >>> LoopOptions(lr=0.5).record()["lr"]
            0.5
        """
        return dataclasses.asdict(self)


def differences(saved: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = _FREE) -> list[str]:
    """What differs between the record of a stored run and a new one in a way that changes the result.

    Where it runs and how often it writes may change. `epochs` may change where the learning rate does not
    depend on it: under the schedules "constant" and "step". Where the stored record is an identity of an
    earlier version, what it did not keep is not compared.

    Args:
        saved: the record in the checkpoint.
        now: that of the new run.
        free: names that may change.

    Returns:
        One text per difference, "lr: 0.1 in the checkpoint, 0.2 now".

    Example:
        >>> differences({"lr": 0.1, "device": "cpu"}, {"lr": 0.2, "device": "cuda"})
        ['lr: 0.1 in the checkpoint, 0.2 now']
    """
    free = set(free)
    if now.get("schedule") in ("constant", "step"):
        free.add("epochs")
    if IDENTITY in now and IDENTITY not in saved:
        free |= {name for name in now if name.startswith(_SINCE_2) and name not in saved}
    names = [name for name in {**saved, **now} if name not in free]
    return [
        f"{name}: {saved.get(name)!r} in the checkpoint, {now.get(name)!r} now"
        for name in names
        if saved.get(name) != now.get(name)
    ]


def check_same_run(
    source: str,
    state: Mapping[str, Any],
    options: Recorded,
    identity: Mapping[str, Any],
    free: Collection[str] = _FREE,
) -> None:
    """Raises unless a checkpoint is one of this run.

    A checkpoint of an earlier version lacks options that have come since; they had their defaults.

    Args:
        source: the checkpoint, as the error calls it.
        state: what is in it: "options" and "identity" are read.
        options: of this run.
        identity: of this run.
        free: names of options that may change.

    Raises:
        InputError: with everything that differs.

    Example:
        >>> stored = {"options": {}, "identity": {"samples": 3}}
        >>> check_same_run("checkpoint.pt", stored, LoopOptions(), {"samples": 4})
        Traceback (most recent call last):
        tnml.errors.InputError: checkpoint.pt belongs to another run: samples: 3 in the checkpoint, 4 now; ...
    """
    stored = {**type(options)().record(), **state["options"]}
    other = differences(stored, options.record(), free) + differences(state["identity"], identity)
    if other:
        raise InputError(
            f"{source} belongs to another run: {'; '.join(other)}; use the same or start a new run"
        )


def _check_lbfgs(options: LoopOptions) -> None:
    if options.optimizer != "lbfgs":
        return
    if options.clip_norm is not None:
        raise InputError("clip_norm would bend the line search of optimizer='lbfgs'; set clip_norm to None")
    if options.weight_decay:
        raise InputError("optimizer='lbfgs' has no weight decay; set weight_decay to 0")


def check_device(device: object) -> None:
    """Raises unless `device` is the name of one.

    Raises:
        InputError: it is not.

    Example:
        >>> check_device("cuda:1")
    """
    kind, colon, index = str(device).partition(":")
    named = isinstance(device, str) and kind in ("auto", "cpu", "cuda")
    if not named or (colon and (kind != "cuda" or not index.isdecimal())):
        raise InputError(f"device must be 'auto', 'cpu', 'cuda' or like 'cuda:1', got {device!r}")
