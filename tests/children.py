"""Child processes as tests start them: Ctrl-C as in a terminal, and nothing of them left behind.

A shell that starts a test run in the background lets it ignore SIGINT, and children inherit that. A child
that hangs must end with its test. So every process that a test kills, interrupts or talks to starts here.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import psutil

POLL = 0.005  # seconds between two looks at a condition


@contextmanager
def child(command: Sequence[str | Path], **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """Starts a process in a group of its own, and kills what is left of the group after the block.

    Args:
        command: the program and its words.
        settings: of `subprocess.Popen`; both outputs are text in pipes unless they say otherwise.
    """
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with _sigint_by_default():
        process = subprocess.Popen([*map(str, command)], **{**pipes, **settings, "start_new_session": True})
    try:
        yield process
    finally:
        _end(process)


@contextmanager
def _sigint_by_default() -> Iterator[None]:
    """Children started in this block get SIGINT by default: a handler is reset when a program starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, before)


def _end(process: subprocess.Popen[str]) -> None:
    """Kills the process, its descendants in whatever group, and its group; closes the pipes."""
    left = []
    with suppress(psutil.NoSuchProcess):
        left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for descendant in left:
        with suppress(psutil.NoSuchProcess):
            descendant.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


class Process(Protocol):
    """What is asked of a process."""

    returncode: int | None

    def poll(self) -> int | None: ...

    def communicate(self) -> tuple[str, str]: ...


def finish(process: Process, code: int = 0) -> str:
    """Waits for the end of a process, which must end with this code; what it printed."""
    output, errors = process.communicate()
    assert process.returncode == code, (process.returncode, output, errors)
    return output


def complete(command: Sequence[str | Path], **settings: Any) -> str:
    """What a program prints that has to end well."""
    with child(command, **settings) as process:
        return finish(process)


def complaints(errors: str) -> str:
    """What a program wrote to its error output but for the note that may come where compiling takes long."""
    return errors.replace("tnml: compiling the native engine, once, about 10 seconds\n", "")


def wait_until(condition: Callable[[], object], process: Process | None = None) -> None:
    """Waits for as long as it takes; a process that ends before the condition is met fails the test.

    The time limit of the test is the only one: how long a thing takes says little on a busy machine.
    """
    while not condition():
        assert process is None or process.poll() is None or condition(), "the process ended too early"
        time.sleep(POLL)


def environment(root: Path, **more: str) -> Mapping[str, str]:
    """This process's environment with the project on the path and one thread, which fixes the bits."""
    paths = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", **more}
