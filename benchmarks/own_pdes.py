"""Own equations with the defaults and a time: value, interval, doubts in words, and the strategy taken.

Time is that of the processor, so that other programs on the machine change nothing. Every finished row is
written at once; a later call adds seeds.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import header
from benchmarks.own_pdes_cases import CASES, Case
from tnml.errors import InputError
from tnml.pde import SolveOptions
from tnml.pde.search import search

WITHIN = 0.01  # relative error of a right answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--seconds", type=float, default=60.0, help="processor seconds of each row")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first")
    parser.add_argument("--rows", default="", help="numbers of rows, from 0, with commas; default: all")
    parser.add_argument("--partial", type=Path, help="JSON file that gets every row when it is finished")


def one_run(case: Case, seconds: float, seed: int) -> dict[str, Any]:
    """One row for one seed."""
    begin = time.process_time()
    truth = None if case.truth is None else float(case.truth())
    row: dict[str, Any] = {"case": case.name, "seed": seed, "truth": truth}
    begin = time.process_time()
    try:
        found = search(
            case.make(),
            options=SolveOptions(seconds=seconds, seed=seed, device="cpu", reports=10),
            clock=time.process_time,
        )
    except InputError as error:
        return {**row, "refused": str(error), "verdict": "refused"}
    check = found.checked
    assert check is not None
    row |= {
        "value": check.value,
        "network": found.value,
        "interval": check.interval,
        "kind": check.kind,
        "flags": [flag.text for flag in check.flags],
        "strategy": found.strategy,
        "paths": check.paths,
        "processor_seconds": time.process_time() - begin,
    }
    if truth is not None:
        row["error"] = abs(check.value / truth - 1)
        row["covers"] = check.interval is not None and check.interval[0] <= truth <= check.interval[1]
    right = truth is not None and row["error"] <= WITHIN
    row["verdict"] = "right" if right and check.passed else "flagged" if not check.passed else "WRONG"
    return row


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All rows; those that the partial file holds already are kept."""
    torch.set_num_threads(1)
    numbers = [int(part) for part in options.rows.split(",") if part] or range(len(CASES))
    seconds, cases = options.seconds, [CASES[number] for number in numbers]
    if options.smoke:
        seconds, cases = 1.0, [CASES[7], CASES[14]]
    rows: list[dict[str, Any]] = []
    if options.partial is not None and options.partial.exists():
        rows = json.loads(options.partial.read_text(encoding="utf-8"))
    done = {(row["case"], row["seed"]) for row in rows}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for case in cases:
            if (case.name, seed) in done:
                continue
            rows.append(one_run(case, seconds, seed))
            console.print({name: value for name, value in rows[-1].items() if name != "flags"})
            if options.partial is not None:
                options.partial.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return {**header("own_pdes", options.smoke), "seconds": seconds, "rows": rows, "errors": []}


def show(result: dict[str, Any], console: Console) -> None:
    """The table."""
    table = Table(
        "problem", "seed", "value", "truth", "error", "interval", "covers", "verdict", "what is said"
    )
    for row in result["rows"]:
        said = row.get("refused") or "; ".join(row.get("flags", []))
        ends = row.get("interval")
        table.add_row(
            row["case"],
            str(row["seed"]),
            _number(row.get("value")),
            _number(row["truth"]),
            f"{100 * row['error']:.2g} %" if "error" in row else "",
            "" if ends is None else f"{ends[0]:.5g} to {ends[1]:.5g}",
            str(row.get("covers", "")),
            row["verdict"],
            said,
        )
    console.print(table)


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.5g}"
