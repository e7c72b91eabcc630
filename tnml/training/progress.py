"""What a person sees of a run: a live line on a terminal, one line per epoch anywhere else."""

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tnml.training.job import StepView
from tnml.training.outcomes import Row

_REFRESH = 0.2  # seconds between two drawings; each reads the loss from the device


class ProgressReporter:
    r"""Shows epoch, loss, accuracy, samples per second and time to go. Pass it as `progress=` or `reporter=`.

    On a terminal it redraws one live line, at most five times a second; elsewhere (a pipe, a log file) it
    writes one line after each epoch. It costs about 1 us per step.

    Args:
        file: where to; None is the standard output of the process that trains.

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

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._drawn = 0.0

    def start(self) -> None:
        """Looks whether this is a terminal and gets ready."""
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
        """Redraws the live line when it is time to."""
        if self._live is None:
            return
        now = time.monotonic()
        if now - self._drawn < _REFRESH:
            return
        self._drawn = now
        rate = {"samples_per_second": view.samples / max(view.seconds, 1e-9)}
        done = (view.epoch - 1) * view.steps_per_epoch + view.step
        self._draw(
            view.epoch, view.epochs, done, view.epochs * view.steps_per_epoch, {**view.means(), **rate}
        )

    def epoch(self, row: Row, epochs: int) -> None:
        """Writes the epoch's line, or redraws the live one with what was measured at the epoch's end."""
        epoch = int(row["epoch"])
        if self._live is None:
            head = f"epoch {epoch:>{len(str(epochs))}}/{epochs}"
            seconds = f"{row['seconds']:.1f} s" if "seconds" in row else ""
            line = "  ".join(part for part in (head, _numbers(row), seconds) if part)
            stream = self._file or sys.stdout
            stream.write(line + "\n")
            stream.flush()
        elif self._task is not None:
            total = self._live.tasks[self._task].total or 1.0
            self._draw(epoch, epochs, total * epoch / epochs, total, row)

    def stop(self) -> None:
        """Leaves the last state on the screen and gives the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self, epoch: int, epochs: int, done: float, total: float, row: Row) -> None:
        if self._live is None:
            return
        numbers, title = _numbers(row), f"epoch {epoch}/{epochs}"
        if self._task is None:
            self._task = self._live.add_task(title, total=total, completed=int(done), numbers=numbers)
        self._live.update(self._task, description=title, completed=done, numbers=numbers, refresh=True)


def _numbers(row: Row) -> str:
    """Losses, accuracies and whatever else was measured, then the rate."""
    known = ("epoch", "lr", "seconds", "samples_per_second")
    parts = [f"{name} {value:.4f}" for name, value in row.items() if name not in known]
    if "samples_per_second" in row:
        parts.append(f"{row['samples_per_second']:,.0f} samples/s")
    return "  ".join(parts)
