"""Progress output of a run: a live line on a terminal, one line per epoch or sweep anywhere else."""

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tnml.loop.protocols import StepView
from tnml.loop.results import Row

_REFRESH = 0.2  # seconds between two redraws; each reads the loss from the device


class ProgressReporter:
    r"""Shows epoch, loss, accuracy, samples per second and time to go. Pass it as `progress=` or `reporter=`.

    On a terminal it redraws one live line, at most five times a second; elsewhere (a pipe, a log file) it
    writes one line after each epoch. It costs about 1 us per step. Training by sweeps reports each bond as
    a step and each sweep as an epoch; the numbers of the bonds take the place of the samples per second.

    Args:
        file: where to write; None is the standard output of the process that trains.
        unit: what a row of the history stands for, and its key in the row: "epoch" or "sweep".

    Example:
        >>> import io
        >>> log = io.StringIO()
        >>> reporter = ProgressReporter(log)
        >>> reporter.start()
        >>> reporter.epoch({"epoch": 2, "loss": 0.25, "accuracy": 0.9, "seconds": 1.5}, epochs=10)
        >>> reporter.stop()
        >>> log.getvalue()
        'epoch  2/10  loss 0.2500  accuracy 0.9000  1.5 s\n'
    """

    def __init__(self, file: TextIO | None = None, *, unit: str = "epoch") -> None:
        self._file, self._unit = file, unit
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._drawn = 0.0

    def start(self) -> None:
        """Checks whether this is a terminal and gets ready."""
        console = Console(file=self._file or sys.stdout)
        self._drawn, self._task = 0.0, None
        if console.is_terminal:
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                console=console,
                auto_refresh=False,
            )
            self._live.start()

    def step(self, view: StepView) -> None:
        """Redraws the live line when it is due."""
        if self._live is None:
            return
        now = time.monotonic()
        if now - self._drawn < _REFRESH:
            return
        self._drawn = now
        row = view.means()
        if self._unit == "epoch":
            row = {**row, "samples_per_second": view.samples / max(view.seconds, 1e-9)}
        done = (view.epoch - 1) * view.steps_per_epoch + view.step
        self._draw(view.epoch, view.epochs, done, view.epochs * view.steps_per_epoch, row)

    def epoch(self, row: Row, epochs: int) -> None:
        """Writes the epoch's line, or redraws the live one with what was measured at the epoch's end."""
        epoch = int(row[self._unit])
        if self._live is None:
            head = f"{self._unit} {epoch:>{len(str(epochs))}}/{epochs}"
            seconds = f"{row['seconds']:.1f} s" if "seconds" in row else ""
            line = "  ".join(part for part in (head, self._numbers(row), seconds) if part)
            stream = self._file or sys.stdout
            stream.write(line + "\n")
            stream.flush()
        elif self._task is not None:
            total = self._live.tasks[self._task].total or 1.0
            self._draw(epoch, epochs, total * epoch / epochs, total, row)

    def stop(self) -> None:
        """Leaves the last state on the screen and releases the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self, epoch: int, epochs: int, done: float, total: float, row: Row) -> None:
        if self._live is None:
            return
        numbers, title = self._numbers(row), f"{self._unit} {epoch}/{epochs}"
        if self._task is None:
            self._task = self._live.add_task(title, total=total, completed=int(done), numbers=numbers)
        self._live.update(self._task, description=title, completed=done, numbers=numbers, refresh=True)

    def _numbers(self, row: Row) -> str:
        """Losses, accuracies and whatever else was measured, then the rate."""
        known = (self._unit, "lr", "seconds", "samples_per_second")
        parts = [f"{name} {_number(value)}" for name, value in row.items() if name not in known]
        if "samples_per_second" in row:
            parts.append(f"{row['samples_per_second']:,.0f} samples/s")
        return "  ".join(parts)


def _number(value: float) -> str:
    """Whole numbers as they are, others with four decimals, or two digits where these would show nothing.

    Example:
        >>> _number(12), _number(0.25), _number(3.14159e-7), _number(0.0)
        ('12', '0.2500', '3.1e-07', '0.0000')
    """
    if isinstance(value, int):
        return str(value)
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"
