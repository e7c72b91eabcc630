"""Training on a mapped file that is larger than it should be in memory: peak memory, and what reading costs.

The whole file is written with random numbers, in a temporary folder, and removed at the end. Its pages are
dropped from the system's cache before the epoch over all of it, where the system allows that. For comparison,
training runs on a part of the same rows, in memory and from the file, whose pages are in the cache by then.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.machine import header, in_words, peak_resident, reset_peak, resident, summary
from tnml.nn import MPSLayer
from tnml.training import StepView, TrainingInterrupted, TrainOptions, train_classifier

SITES, CLASSES, BATCH, BOND = 784, 10, 100, 10
GIGABYTES, PART = 5.0, 0.2  # of the file, and of the part that is also trained on in memory
CHUNK = 20_000  # rows written at a time
GROWTH = 0.3  # bar: gigabytes that the process may grow by in an epoch over the file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--gigabytes", type=float, default=None, help=f"of the file (default: {GIGABYTES:g})")
    parser.add_argument(
        "--dtype", choices=("float32", "uint8"), default="float32", help="of its rows (default: float32)"
    )
    parser.add_argument("--steps", type=int, default=None, help="number of steps (default: all of one epoch)")
    parser.add_argument("--bond", type=int, default=BOND, help=f"bond dimension (default: {BOND})")
    parser.add_argument("--folder", type=Path, default=None, help="for the file (default: the system's)")


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: a row per source of the samples, and the bar."""
    result = header("streams", options.smoke)
    size = options.gigabytes or (0.004 if options.smoke else GIGABYTES)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="tnml-") as name:
        free = shutil.disk_usage(name).free
        if free < 1.1e9 * size:
            result["errors"].append(f"the file needs {size:g} GB, {free / 1e9:.1f} GB are free; see --folder")
            return result | {"rows": [], "bars": []}
        path = Path(name) / "x.npy"
        with console.status(f"writing {size:g} GB"):
            rows = write(path, options.dtype, max(BATCH, round(1e9 * size / SITES / itemsize(options.dtype))))
        result["file"] = {
            "gigabytes": path.stat().st_size / 1e9,
            "rows": rows,
            "sites": SITES,
            "dtype": options.dtype,
            "written": "all of it",
            "dropped from the cache": drop(path),
        }
        with console.status("training"):
            result["rows"] = compare(path, rows, options)
    result["bars"] = bars(result["rows"])
    return result


def itemsize(dtype: str) -> int:
    """Bytes per number."""
    return np.dtype(dtype).itemsize


def write(path: Path, dtype: str, rows: int) -> int:
    """Writes rows of numbers in [0, 1], and waits until they are on the disk."""
    random = np.random.default_rng(0)
    file = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), (rows, SITES))
    for start in range(0, rows, CHUNK):
        shape = (min(CHUNK, rows - start), SITES)
        whole = dtype == "uint8"
        file[start : start + CHUNK] = (
            random.integers(0, 2, shape, dtype) if whole else random.random(shape, np.float32)
        )
    file.flush()
    return rows


def drop(path: Path) -> bool:
    """Asks the system to drop the file from its cache; whether the system supports that."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def compare(path: Path, rows: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Training from the whole file, from a part of it, and on that part in memory."""
    y = np.random.default_rng(1).integers(0, CLASSES, rows)
    part = min(rows, max(BATCH, round(1e9 * PART / SITES / itemsize(options.dtype))))
    train(np.random.default_rng(2).random((2 * BATCH, SITES)), y[: 2 * BATCH], options)  # compiles
    found = []
    for source, count in (("file", rows), ("file", part), ("memory", part)):
        x = np.load(path, mmap_mode="r")[:count]
        reset_peak()
        before = resident()
        if source == "memory":
            x = np.fromfile(path, x.dtype, x.size, offset=x.offset).reshape(x.shape)
        wall, cpu = train(x, y[:count], options)
        found.append(
            {
                "source": source,
                "rows": count,
                "gigabytes": x.nbytes / 1e9,
                "grown_gigabytes": (peak_resident() - before) / 1e9,
                "steps": len(wall),
                "seconds_of_a_step": summary(wall),
                "cpu_seconds_of_a_step": summary(cpu),
                "seconds": sum(wall),
            }
        )
    return found


def train(
    x: npt.NDArray[Any], y: npt.NDArray[Any], options: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Wall-clock and CPU seconds of each step of one epoch except the first, reading included."""
    moments: list[tuple[float, float]] = []

    def look(view: StepView) -> None:
        moments.append((time.perf_counter(), time.process_time()))
        if view.step == options.steps:
            raise KeyboardInterrupt

    layer = MPSLayer(SITES, CLASSES, bond_dim=options.bond)
    settings = TrainOptions(epochs=1, batch_size=BATCH, lr=1e-4, device="cpu")
    try:
        train_classifier(layer, x, y, settings, on_step=look)
    except TrainingInterrupted:
        if len(moments) != options.steps:
            raise
    wall, cpu = np.diff(moments, axis=0).T.tolist()
    return wall, cpu


def bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Memory of the epoch over the whole file."""
    grown = rows[0]["grown_gigabytes"]
    return [
        {"what": "gigabytes grown", "measured": grown, "at_most": GROWTH, "passed": bool(grown <= GROWTH)}
    ]


def show(result: dict[str, Any], console: Console) -> None:
    """The table and the bar."""
    console.print("\n" + in_words(result["machine"]))
    table = Table(title="One epoch of training: growth of memory, and time of a step (median, min-max)")
    for heading in ("samples", "rows", "gigabytes", "steps", "grown by GB", "ms a step", "CPU ms", "seconds"):
        table.add_column(heading, justify="left" if heading == "samples" else "right")
    for row in result["rows"]:
        median, least, most = (1e3 * row["seconds_of_a_step"][name] for name in ("median", "min", "max"))
        table.add_row(
            f"in {'a file' if row['source'] == 'file' else 'memory'}",
            f"{row['rows']:,}",
            f"{row['gigabytes']:.3g}",
            str(row["steps"]),
            f"{row['grown_gigabytes']:.3f}",
            f"{median:.3g} ({least:.3g}-{most:.3g})",
            f"{1e3 * row['cpu_seconds_of_a_step']['median']:.3g}",
            f"{row['seconds']:.3g}",
        )
    console.print(table)
    for bar in result["bars"]:
        verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
        console.print(f"{bar['what']} {bar['measured']:.3f} (at most {bar['at_most']:g}): {verdict}")
    for text in result["errors"]:
        console.print(f"[red]failed[/red] {text}")
