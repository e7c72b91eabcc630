"""Ctrl-C during a run: finish the step, save, then stop."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

# A launcher such as torchrun passes on the signal that the terminal has already sent to every process.
_SAME_SIGNAL = 2.0


class StopRequest:
    """Turns the first Ctrl-C inside a `with` block into a request that the loop reads between two steps.

    A second Ctrl-C, two seconds later or more, raises `KeyboardInterrupt` at once, for a step that hangs.
    Outside the main thread Python delivers no signals and nothing is changed. In a worker process the
    request comes from the parent: a file that appears, or the parent's death.

    Args:
        stop_file: of a worker process; None in every other.
        parent: of a worker process, the process that started it.

    Example:
        >>> with StopRequest() as request:
        ...     request.made()
        False
    """

    def __init__(self, stop_file: Path | None = None, parent: int | None = None) -> None:
        self._stop_file = stop_file
        self._parent = os.getppid() if parent is None else parent
        self._first: float | None = None
        self._before: Any = None
        self._installed = False

    def request(self) -> None:
        """Asks the loop to stop after this step."""
        self._first = time.monotonic() if self._first is None else self._first

    def made(self) -> bool:
        """Whether the loop has been asked to stop."""
        if self._stop_file is not None and (self._stop_file.exists() or os.getppid() != self._parent):
            self.request()
        return self._first is not None

    @contextmanager
    def withheld(self) -> Iterator[None]:
        """Processes started inside this block ignore Ctrl-C; so does this one until the block's end."""
        if not self._installed:
            yield
            return
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._first is not None and time.monotonic() - self._first > _SAME_SIGNAL:
            raise KeyboardInterrupt
        self.request()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handler = signal.SIG_IGN if self._stop_file is not None else self._on_signal
            self._before = signal.signal(signal.SIGINT, handler)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler if self._before is None else self._before)
            self._installed = False
