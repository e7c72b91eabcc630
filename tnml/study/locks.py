"""Locks between processes: files that the system unlocks when their holder ends, however it ends."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor, unlock_descriptor

from tnml.errors import InputError

_TRIES, _PAUSE = 5, 0.1  # a process that only asks whether a lock is held holds it for a moment
_PATIENCE = (0.0, 0.002, 0.005, 0.01, 0.02, 0.04)  # seconds: so does another process that asks


@contextmanager
def held(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Inside the block this process alone holds the lock `path`.

    The file stays when the lock is gone; it names the last holder. It has to lie where the system's locks of
    whole files work: on a local disk, or on a network disk whose server does locks.

    Args:
        path: the file, made where it is missing.
        what: what the error should say about the holder.
        wait: wait for as long as it takes.

    Raises:
        InputError: another process holds it and `wait` is off, or the file cannot be made or locked.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with held(Path(folder) / "lock", "another process is here"):
        ...         is_held(Path(folder) / "lock")
        True
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed below, after the unlocking)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; choose a folder you can write to"
        ) from error
    with stream:
        if not _taken(stream, path, wait):
            raise InputError(f"{what}: {holder(path)}")
        try:
            stream.truncate(0)
            stream.write(f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
            yield
        finally:
            unlock_descriptor(stream.fileno())  # also where a child of this process still has the file open


def holder(path: Path) -> str:
    """The last process that held the lock, as "pid 1234 on host".

    Example:
        >>> holder(Path("no-such-lock"))
        'pid unknown'
    """
    try:
        with open(path, "rb", buffering=0) as stream:
            stream.seek(1)  # the first letter, "p", is what Windows locks: no other process may read it
            rest = stream.read().decode().strip()
    except (OSError, UnicodeDecodeError):
        rest = ""
    return f"p{rest}" if rest else "pid unknown"


def is_held(path: Path) -> bool:
    """Whether a process holds the lock now.

    Example:
        >>> is_held(Path("no-such-lock"))
        False
    """
    try:
        stream = _opened(path)
    except FileNotFoundError:
        return False
    with stream:
        for pause in _PATIENCE:
            time.sleep(pause)
            try:
                free = lock_descriptor(stream.fileno(), blocking=False)
            except OSError:  # a disk without support for locks
                return True
            if free:
                unlock_descriptor(stream.fileno())
                return False
    return True


def _opened(path: Path) -> BinaryIO:
    """The file of a lock, opened for writing where allowed: some network disks lock no other files."""
    try:
        return open(path, "r+b", buffering=0)
    except FileNotFoundError:
        raise
    except OSError:
        return open(path, "rb", buffering=0)


def _taken(stream: BinaryIO, path: Path, wait: bool) -> bool:
    try:
        for _ in range(1 if wait else _TRIES):
            if lock_descriptor(stream.fileno(), blocking=wait):
                return True
            time.sleep(_PAUSE)
    except OSError as error:
        raise InputError(
            f"cannot lock {path}: {error.strerror or error}; choose a folder on a disk that does locks"
        ) from error
    return False
