"""Locks between processes: files that the system unlocks when their holder ends, however it ends."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tnml.errors import InputError

_TRIES, _PAUSE = 5, 0.1  # somebody who only asks whether a lock is held holds it for a moment


@contextmanager
def held(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Inside the block this process alone holds the lock `path`.

    The file stays when the lock is gone; it names the last holder. It has to lie where `flock` works: on a
    local disk, or on a network disk whose server does locks.

    Args:
        path: the file, made where it is missing.
        what: what the error should say of the holder.
        wait: wait for as long as it takes.

    Raises:
        InputError: another process holds it and `wait` is off, or the file cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with held(Path(folder) / "lock", "another process is here"):
        ...         is_held(Path(folder) / "lock")
        True
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closed below, after the unlocking)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; choose a folder you can write to"
        ) from error
    with stream:
        if not _taken(stream, wait):
            raise InputError(f"{what}: {holder(path)}")
        try:
            stream.seek(0)
            stream.truncate()
            stream.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
            stream.flush()
            yield
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)  # also where a child of this process still has the file open


def holder(path: Path) -> str:
    """The last process that held the lock, as "pid 1234 on host".

    Example:
        >>> holder(Path("no-such-lock"))
        'pid unknown'
    """
    try:
        return path.read_text(encoding="utf-8").strip() or "pid unknown"
    except (OSError, UnicodeDecodeError):
        return "pid unknown"


def is_held(path: Path) -> bool:
    """Whether a process holds the lock now.

    Example:
        >>> is_held(Path("no-such-lock"))
        False
    """
    try:
        with open(path, encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
            fcntl.flock(stream, fcntl.LOCK_UN)
    except FileNotFoundError:
        pass
    return False


def _taken(stream: TextIO, wait: bool) -> bool:
    if wait:
        fcntl.flock(stream, fcntl.LOCK_EX)
        return True
    for _ in range(_TRIES):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE)
        else:
            return True
    return False
