"""Progress output of a study: a live line on a terminal, one line per finished run anywhere else."""

import sys
from dataclasses import dataclass
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """Where a study is.

    Args:
        total: all runs.
        kept: runs that were done before this call.
        done: runs that are done, with those.
        running: runs that are handed out.
        failed: runs that failed and are not tried again.
        seconds: since the start of this call.

    Example:
        >>> StudyView(total=10, kept=2, done=6, running=2, failed=0, seconds=8.0).to_go
        8.0
    """

    total: int
    kept: int = 0
    done: int = 0
    running: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def to_go(self) -> float | None:
        """Seconds left if the other runs take as long as those so far; None before the first."""
        ended = self.done - self.kept + self.failed
        return self.seconds / ended * (self.total - self.done - self.failed) if ended else None


class StudyReporter(Protocol):
    """What reports on a study: `StudyProgress`, or your own."""

    def start(self, view: StudyView) -> None:
        """Called once, before the first run."""

    def update(self, view: StudyView) -> None:
        """Called after every change, and about twice a second."""

    def failed(self, identity: str, error: str, again: bool) -> None:
        """Called when a run has failed: its name, the error's last line, whether it is tried again."""

    def stop(self) -> None:
        """Called once at the end, even after an error."""


class StudyProgress:
    r"""Shows how many runs are done, running and failed, and the time to go. Pass it as `reporter=`.

    On a terminal it redraws one live line; elsewhere (a pipe, a log file) it writes a line whenever the
    number of finished runs has changed.

    Args:
        file: where to write; None is the standard output.

    Example:
        >>> import io
        >>> log = io.StringIO()
        >>> progress = StudyProgress(log)
        >>> progress.start(StudyView(total=12))
        >>> progress.update(StudyView(total=12, done=3, running=2, seconds=6.0))
        >>> progress.stop()
        >>> log.getvalue()
        'run  3/12  running 2  failed 0  to go 18 s\n'
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._ended = -1

    def start(self, view: StudyView) -> None:
        """Checks whether this is a terminal and gets ready."""
        console = Console(file=self._file or sys.stdout)
        self._ended = view.done + view.failed
        if console.is_terminal:
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[numbers]}"),
                console=console,
                auto_refresh=False,
            )
            self._live.start()
            self._task = self._live.add_task(
                _head(view), total=max(1, view.total), completed=self._ended, numbers=_numbers(view)
            )

    def update(self, view: StudyView) -> None:
        """Redraws the live line, or writes a line if a run has ended."""
        ended = view.done + view.failed
        if self._live is not None and self._task is not None:
            self._live.update(
                self._task,
                description=_head(view),
                completed=ended,
                numbers=_numbers(view),
                refresh=True,
            )
        elif ended != self._ended:
            self._write(f"{_head(view)}  {_numbers(view)}")
        self._ended = ended

    def failed(self, identity: str, error: str, again: bool) -> None:
        """Writes a line about the run."""
        what = "failed, is tried again" if again else "failed"
        self._write(f"run {identity} {what}: {error}")

    def stop(self) -> None:
        """Leaves the last state on the screen and releases the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _write(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False)
            return
        stream = self._file or sys.stdout
        stream.write(line + "\n")
        stream.flush()


def _head(view: StudyView) -> str:
    return f"run {view.done + view.failed:>{len(str(view.total))}}/{view.total}"


def _numbers(view: StudyView) -> str:
    text = f"running {view.running}  failed {view.failed}"
    return text if view.to_go is None else f"{text}  to go {_time(view.to_go)}"


def _time(seconds: float) -> str:
    """A duration in words.

    Example:
        >>> _time(18.2), _time(150), _time(9000)
        ('18 s', '2 min 30 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
