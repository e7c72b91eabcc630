"""Tables: tnml's estimators with `preset="tables"` next to scikit-learn's, on 43 sets of labels, 40 others.

The sets come from two wheels of PyPI (`tables_files.py`); what is compared is in `tables_methods.py`. All
run on one thread and see the same rows. Scores are accuracy and R2 on rows not trained on: for labels the
mean of the ten folds that come with the sets (the first three with `--quick`), for real targets that of three
random splits. At most 4,000 rows are trained on. Whatever is chosen about tnml is chosen on the half of the
sets called "choosing" (`tables_data.py`) and judged on the other half; both are printed.

Fits are written to a journal as they end, and an interrupted run continues from there.
"""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import header
from benchmarks.tables_data import (
    FOLDS,
    HALVES,
    QUICK_FOLDS,
    SPLITS,
    TTML_SPLITS,
    TableSet,
    classification_sets,
    regression_sets,
    small_sets,
    ttml_sets,
)
from benchmarks.tables_files import COMMON, KEEL, NotAvailableError
from benchmarks.tables_methods import BESIDE, INTERVALS, PEERS, Maker, configurations, of_tnml
from benchmarks.tables_run import Journal, one_thread, run
from benchmarks.tables_show import show
from benchmarks.tables_summary import bars, by_set, summaries
from tnml.files import cache_folder

__all__ = ["add_arguments", "measure", "show"]
PARTS = {"classification": classification_sets, "regression": regression_sets, "ttml": ttml_sets}
COUNTS = {"classification": FOLDS, "regression": SPLITS, "ttml": TTML_SPLITS}
QUICK = {"classification": QUICK_FOLDS, "regression": SPLITS, "ttml": 3}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="three folds of labels and of TTML's protocol")
    parser.add_argument("--half", choices=HALVES, default=None, help="only the sets for choosing, or judged")
    parser.add_argument("--sets", default=None, help="names, comma-separated (default: all)")
    parser.add_argument("--only", default=None, help="methods by name, comma-separated (default: all)")
    parser.add_argument(
        "--folds", default=None, help="splits of each set; or three numbers, one for each part"
    )
    parser.add_argument(
        "--also",
        action="append",
        metavar="NAME=JSON",
        help="one more tnml, with these parameters; repeatable",
    )
    parser.add_argument("--cache", type=Path, default=None, help="folder of the wheels and the journal")


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: the mean of each set and method, summaries and bars. Ctrl-C keeps what is done."""
    parts = options.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        raise SystemExit(f"unknown part {unknown[0]!r}; choose from: {', '.join(PARTS)}")
    result = header("tables", options.smoke)
    tables, skipped = sets_of(parts, options)
    for reason in skipped:
        console.print(f"skipped: {reason}")
    if not tables:
        console.print("there is nothing to measure" if skipped else "no set has that name")
        raise SystemExit(0 if skipped else 2)
    counts = splits_of(options)
    result |= {
        "skipped": skipped,
        "licences": {wheel.name: wheel.licence for wheel in (KEEL, COMMON)},
        "splits": counts,
        "configurations": configurations(options.also),
    }
    journal = Journal(None if options.smoke else cache_folder(options.cache) / "tables.jsonl")
    rows: list[dict[str, Any]] = []
    with one_thread(), console.status("starting") as status:
        warm_up(tables)
        try:
            for table in tables:
                methods = methods_of(table.task, options)
                rows += run(table, counts[table.task], methods, journal, status.update)
        except KeyboardInterrupt:
            result["errors"].append("interrupted: run it again to continue from here")
    result["machine"]["threads"] = 1
    result["cells"] = by_set(rows)
    result["errors"] += [
        f"{cell['set']}, {cell['method']}: {cell['errors'][0]}"
        for cell in result["cells"]
        if "errors" in cell
    ]
    result["summary"] = summaries(result["cells"])
    whole = not (options.smoke or options.half or options.sets or result["errors"])
    result["bars"] = bars(result["summary"], result["cells"], complete=whole)
    return result


def sets_of(parts: list[str], options: argparse.Namespace) -> tuple[list[TableSet], list[str]]:
    """The requested sets, and why some are missing."""
    skipped: list[str] = []
    tables: list[TableSet] = []
    if options.smoke:
        tables = [table for table in small_sets() if table.task in parts]
    for part in [] if options.smoke else parts:
        try:
            tables += PARTS[part](options.cache)
        except NotAvailableError as error:
            skipped.append(f"{part}: {error}")
    names = options.sets.split(",") if options.sets else None
    return [
        table
        for table in tables
        if options.half in (None, table.half) and (names is None or table.name in names)
    ], skipped


def splits_of(options: argparse.Namespace) -> dict[str, int]:
    """How many splits the sets of each part have."""
    if options.smoke:
        return dict.fromkeys(PARTS, 2)
    if options.folds is None:
        return QUICK if options.quick else COUNTS
    numbers = [int(number) for number in options.folds.split(",")]
    if len(numbers) == 1:
        numbers *= len(PARTS)
    if len(numbers) != len(PARTS):
        raise SystemExit(f"--folds takes one number, or one for each of {', '.join(PARTS)}: {options.folds}")
    return dict(zip(PARTS, numbers, strict=True))


def methods_of(task: str, options: argparse.Namespace) -> dict[str, tuple[Maker, Any]]:
    """What is fitted on a set, by name, with the parameters of tnml's estimators."""
    few = {"epochs": 2} if options.smoke else {}
    found: dict[str, tuple[Maker, Any]] = {
        name: (of_tnml(task, {**given, **few}), given)
        for name, given in configurations(options.also).items()
        if task == "regression" or name != INTERVALS
    }
    peers = {**PEERS[task], **(BESIDE if task == "regression" else {})}
    found |= {name: (maker, None) for name, maker in peers.items()}
    if options.only is None:
        return found
    wanted = options.only.split(",")
    return {name: entry for name, entry in found.items() if name in wanted}


def warm_up(tables: list[TableSet]) -> None:
    """One fit of each kind that is not timed: imports, and the native engine's compile."""
    for task in dict.fromkeys(table.task for table in tables):
        quick = of_tnml(task, {"epochs": 1}), of_tnml(task, {"epochs": 1, "preset": "tables"})
        for make in (*quick, *PEERS[task].values()):
            make((), 40).fit([[i / 40, i % 3] for i in range(40)], [i % 2 for i in range(40)])
