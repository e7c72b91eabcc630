"""The machine: what it is, its GEMM peak, memory of this process, summaries of timings, JSON files."""

import ctypes
import gc
import json
import math
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tnml
from tnml.files import write_text

GEMM_SIZE = 2048
FORMAT = 1  # of the JSON files


def describe() -> dict[str, Any]:
    """The machine in general words: no host name, no user, no path."""
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "memory_gb": round(_meminfo("MemTotal") / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "simd": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def in_words(machine: dict[str, Any]) -> str:
    """The machine on one line."""
    return (
        f"{machine['cpu']}; {machine['cores']} cores, {machine['threads']} threads, {machine['simd']}; "
        f"torch {machine['torch']}, Python {machine['python']}"
    )


def cpu_model() -> str:
    """The processor's own name."""
    source = Path("/proc/cpuinfo")
    if source.is_file():
        text = source.read_text(encoding="utf-8")
        found = {
            key: re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE)
            for key in ("model name", "cpu family", "model")
        }
        if found["model name"]:
            numbers = [f"{key} {match[1]}" for key, match in found.items() if match and key != "model name"]
            return ", ".join([found["model name"][1].strip(), *numbers])
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def header(name: str, smoke: bool) -> dict[str, Any]:
    """The first entries of every result file."""
    return {
        "format": FORMAT,
        "benchmark": name,
        "smoke": smoke,
        "date": time.strftime("%Y-%m-%d"),
        "tnml": tnml.__version__,
        "machine": describe(),
        "errors": [],
    }


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Writes the result whole or not at all; numbers to six digits, infinities and NaN as null."""
    write_text(path, json.dumps(_plain(result), indent=1, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


class GemmPeak:
    """Floating-point operations per second of a square float32 `torch.mm`, one sample per call.

    Args:
        size: rows and columns; smaller ones are for quick trials.
    """

    def __init__(self, size: int = GEMM_SIZE) -> None:
        generator = torch.Generator().manual_seed(0)
        self._factors = torch.rand(2, size, size, generator=generator)
        self._product = torch.empty(size, size)
        self()

    def __call__(self) -> float:
        """One more sample."""
        start = time.perf_counter()
        torch.mm(self._factors[0], self._factors[1], out=self._product)
        return 2 * len(self._product) ** 3 / (time.perf_counter() - start)


def timed(call: Callable[[], object], calls: int) -> dict[str, list[float]]:
    """Seconds of wall clock and of CPU time (all threads) of each of several calls."""
    samples: dict[str, list[float]] = {"wall": [], "cpu": []}
    for _ in range(calls):
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        samples["wall"].append(time.perf_counter() - wall)
        samples["cpu"].append(time.process_time() - cpu)
    return samples


def summary(samples: Sequence[float], unit: float = 1.0) -> dict[str, float]:
    """Median, smallest, largest and number of the samples, in the unit (1e-3: milliseconds)."""
    return {
        "median": statistics.median(samples) / unit,
        "min": min(samples) / unit,
        "max": max(samples) / unit,
        "count": len(samples),
    }


def resident() -> int:
    """Bytes of memory this process holds now (its peak, where the system does not report it)."""
    return _status("VmRSS")


def peak_resident() -> int:
    """Most bytes this process has held since `reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> bool:
    """Starts a new peak, after returning what is free; False where the system cannot (not Linux)."""
    gc.collect()
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if libc is not None and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    switch = Path("/proc/self/clear_refs")
    if not switch.exists():
        return False
    switch.write_text("5")
    return True


def _status(field: str) -> int:
    source = Path("/proc/self/status")
    if source.is_file():
        match = re.search(rf"^{field}:\s+(\d+) kB", source.read_text(encoding="ascii"), re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory() -> int:
    """Bytes that can be had without swapping; a guess of 8 GB where the system does not report it."""
    return _meminfo("MemAvailable")


def _meminfo(field: str) -> int:
    source = Path("/proc/meminfo")
    match = (
        re.search(rf"^{field}:\s+(\d+) kB", source.read_text(encoding="ascii"), re.MULTILINE)
        if source.is_file()
        else None
    )
    return int(match[1]) * 1024 if match else 8 * 10**9


def relative_error(found: Tensor, true: Tensor) -> float:
    """Largest deviation over the largest magnitude of the true values."""
    return float((found.detach().double() - true).abs().max() / true.abs().max().clamp_min(1e-300))
