"""What tnml adds to `import torch`, and how long `tnml --help` takes, in fresh processes that alternate."""

import argparse
import subprocess
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import header, in_words, summary

BAR = 1.5  # seconds that `import tnml` may add to `import torch`
REPEATS = 9
BASE = "import torch"
PROGRAMS = {
    BASE: ["-c", "import torch"],
    "import tnml": ["-c", "import torch, tnml"],
    "tnml.nn.MPSLayer": ["-c", "import torch, tnml; tnml.nn.MPSLayer"],
    "tnml.MPSClassifier": ["-c", "import torch, tnml; tnml.MPSClassifier"],
    "every public name": ["-c", "import torch, tnml; [getattr(tnml, name) for name in tnml.__all__]"],
    "tnml --help": ["-m", "tnml", "--help"],
    "tnml train --help": ["-m", "tnml", "train", "--help"],
}
SMOKE = (BASE, "import tnml", "tnml --help")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--repeats", type=int, default=None, help=f"processes of each kind (default: {REPEATS})"
    )


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: seconds of every program, and what it adds to `import torch`."""
    result = header("imports", options.smoke)
    repeats = options.repeats or (1 if options.smoke else REPEATS)
    programs = SMOKE if options.smoke else tuple(PROGRAMS)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    failed: dict[str, str] = {}
    with console.status("starting processes"):
        for number in range(repeats + 1):  # the first of each fills the file cache
            for name in [name for name in programs if name not in failed]:
                elapsed, complaint = _run(PROGRAMS[name])
                if complaint:
                    failed[name] = complaint
                elif number:
                    seconds[name].append(elapsed)
    result["errors"] = [f"{name}: {text}" for name, text in failed.items()]
    result["rows"] = _rows({name: s for name, s in seconds.items() if name not in failed})
    return result


def _run(arguments: list[str]) -> tuple[float, str]:
    """Seconds of one process from start to end, and its error message if it failed."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    elapsed = time.perf_counter() - start
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return elapsed, f"exit status {done.returncode}: {last}"
    silent = "--help" in arguments and "usage" not in done.stdout.lower()
    return elapsed, "it showed no help" if silent else ""


def _rows(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, samples in seconds.items():
        row: dict[str, Any] = {"program": name, "seconds": summary(samples)}
        if name != BASE and BASE in seconds:
            row["beyond_torch"] = row["seconds"]["median"] - summary(seconds[BASE])["median"]
        if name == "import tnml" and "beyond_torch" in row:
            passed = row["beyond_torch"] < BAR
            row["bars"] = [
                {"what": "beyond_torch", "measured": row["beyond_torch"], "at_most": BAR, "passed": passed}
            ]
        rows.append(row)
    return rows


def show(result: dict[str, Any], console: Console) -> None:
    """The table."""
    console.print("\n" + in_words(result["machine"]))
    table = Table(title="Seconds of a fresh process, median (min-max)")
    for heading in ("program", "seconds", "beyond import torch", "bar"):
        table.add_column(heading, justify="left" if heading == "program" else "right")
    for row in result["rows"]:
        s = row["seconds"]
        beyond = f"{row['beyond_torch']:+.2f}" if "beyond_torch" in row else ""
        bars = [
            f"<{b['at_most']:g} {'[green]pass' if b['passed'] else '[red]miss'}" for b in row.get("bars", [])
        ]
        table.add_row(row["program"], f"{s['median']:.2f} ({s['min']:.2f}-{s['max']:.2f})", beyond, *bars)
    console.print(table)
    for text in result["errors"]:
        console.print(f"[red]failed[/red] {text}")
