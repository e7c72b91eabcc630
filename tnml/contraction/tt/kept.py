"""What was measured on this machine and stays for a month: small files in the user's cache folder.

Runs that are resumed ask the questions of the run before, and get its answers: a plan that changed in between
would change the last bits of the results.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from tnml.errors import InputError
from tnml.files import cache_folder, write_text

MOST_AGE = 30 * 24 * 3600.0  # seconds; drivers, cooling and libraries change


def machine(device: torch.device, threads: int) -> str:
    """The processor or GPU, the number of threads and torch's version: what a measured time depends on.

    Example:
        >>> "2 threads" in machine(torch.device("cpu"), 2)
        True
    """
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        where = f"{processor()}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores"
    return f"{where}, {threads} threads, torch {torch.__version__}"


@functools.cache
def processor() -> str:
    """The processor's name as the system tells it.

    Example:
        >>> bool(processor())
        True
    """
    named: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            named.setdefault(name.strip(), value.strip())
    except (OSError, ValueError):
        pass
    told = [named[name] for name in ("model name", "CPU implementer", "CPU part") if named.get(name)]
    return " ".join([platform.machine(), *(told or [platform.processor()])]).strip()


def recall(question: str) -> dict[str, Any] | None:
    """The answer that is kept, if it is not older than a month; None otherwise.

    Example:
        >>> recall("a question that nobody asked") is None
        True
    """
    try:
        answer = json.loads(_path(question).read_text(encoding="utf-8"))
        fresh = 0 <= time.time() - answer["time"] < MOST_AGE
        return answer if fresh and answer["question"] == question else None
    except (OSError, ValueError, TypeError, KeyError):
        return None  # none yet, or damaged


def keep(question: str, answer: dict[str, Any]) -> None:
    """Keeps an answer, in place of one that is there; where the folder cannot be written it is lost.

    Args:
        question: any text.
        answer: values of JSON.

    Example:
        >>> keep("an example", {"number": 42})
        >>> (recall("an example") or {"number": 42})["number"]
        42
    """
    path = _path(question)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"question": question, "time": time.time(), **answer}, indent=1))
    except (OSError, InputError):
        pass


def keep_first(question: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The answer that is kept from now on: that of the process that came first, where several ask at once.

    Args:
        question: any text.
        answer: values of JSON.

    Example:
        >>> keep_first("another example", {"number": 7})["number"]
        7
    """
    path = _path(question)
    mine = path.with_name(f"{path.stem}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if recall(question) is None:
            path.unlink(missing_ok=True)  # too old, or damaged
        write_text(mine, json.dumps({"question": question, "time": time.time(), **answer}, indent=1))
        os.link(mine, path)  # fails where there is one by now
    except (OSError, InputError):
        pass
    finally:
        with contextlib.suppress(OSError):
            mine.unlink(missing_ok=True)
    return recall(question) or answer


def _path(question: str) -> Path:
    name = hashlib.blake2b(question.encode(), digest_size=12).hexdigest()
    return cache_folder() / "measured" / f"{name}.json"
