"""How a run can end: with a result, diverged, or interrupted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tnml.errors import InputError

Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class LoopResult:
    """What a finished run returns; the trained module itself holds the same weights.

    Args:
        history: one row per epoch: "epoch" (from 1), "loss" and the loss's other metrics (means over the
            epoch's samples, while training), "lr" (of the last step), "seconds", "samples_per_second", and
            what `evaluate` returned.
        state: the final weights, on the CPU: the average under `average="ema"`, the best under `patience`.
        stopped_early: whether `patience` ended the run.
        best_epoch: the epoch (from 1) of the best `monitor` where `patience` was set.
        seconds: time in the loop, over all resumed parts.
    """

    history: list[Row]
    state: Mapping[str, Tensor]
    stopped_early: bool
    best_epoch: int | None
    seconds: float


class TrainingDiverged(InputError):  # noqa: N818  (reads better than TrainingDivergedError)
    """The loss became NaN or infinite; the text says when and what to change.

    Example:
        >>> issubclass(TrainingDiverged, InputError)
        True
    """


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C ended the run; where `run_dir` is not None, `resume=True` continues it exactly.

    Args:
        run_dir: the folder with the checkpoint, None for a run without a folder.
        history: the rows of all whole epochs or sweeps, where the module keeps the weights; else None.

    Example:
        >>> str(TrainingInterrupted("runs/a"))
        'training was interrupted; resume it from runs/a'
        >>> print(TrainingInterrupted(history=[{"epoch": 1.0}]))
        training was interrupted; kept are the weights and the history of 1 epoch; there is no run folder ...
    """

    def __init__(self, run_dir: str | Path | None = None, history: Sequence[Row] | None = None) -> None:
        super().__init__(run_dir, history)
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.history = None if history is None else [dict(row) for row in history]

    def __str__(self) -> str:
        if self.run_dir is not None:
            return f"training was interrupted; resume it from {self.run_dir}"
        kept = ""
        if self.history is not None:
            unit = "sweep" if self.history and "sweep" in self.history[0] else "epoch"
            count = max((int(row[unit]) for row in self.history if unit in row), default=len(self.history))
            kept = f"kept are the weights and the history of {count} {unit}{'s' if count != 1 else ''}; "
        return f"training was interrupted; {kept}there is no run folder to resume from"
