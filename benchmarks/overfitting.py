"""The shipped studies of overfitting against bond dimension, and what their numbers say.

Runs the studies, or continues those in their folders, and evaluates them: where least squares by sweeps peak,
whether label noise leads to an interior optimum, what susceptibility and geometric complexity follow, and how
much is lost at the largest bond dimension.
"""

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.machine import header, in_words
from tnml.report import study_figures
from tnml.study import STUDIES, run

TEACHERS = ("overfitting-1d", "overfitting-permuted", "overfitting-grid", "double-descent")
NAMES = (*TEACHERS, "label-noise", "mnist-bond-dimension")
FIGURES = Path(__file__).parent.parent / "docs" / "figures"
NOISY = 0.3  # the label noise at which an interior optimum is required
Row = Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--studies", default=",".join(NAMES), help=f"comma-separated (default: {','.join(NAMES)})"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/overfitting"), help="of the studies")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one per core)")
    parser.add_argument(
        "--figures", type=Path, default=None, help="folder (default: docs/figures, not with --smoke)"
    )


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Medians of every study and the bars."""
    result = header("overfitting", options.smoke)
    result["studies"], result["bars"] = {}, []
    figures = options.figures or (None if options.smoke else FIGURES)
    for name in options.studies.split(","):
        folder = options.folder / (f"{name}-smoke" if options.smoke else name)
        table = run(name, folder=folder, workers=0 if options.smoke else options.workers, smoke=options.smoke)
        cells = summarised(table.rows)
        result["studies"][name] = {"runs": len(table.rows), "seconds": _seconds(table.rows), "cells": cells}
        if not options.smoke:
            result["bars"] += judge(name, table.rows, cells)
        if figures is not None:
            study_figures(folder, figures / name)
        console.print(f"{name}: {len(table.rows)} runs")
    return result


def _seconds(rows: Sequence[Row]) -> float:
    return sum(row["seconds"] for row in rows)


def summarised(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Over the seeds of every cell of the grid: medians, and the range of the test error."""
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        cells.setdefault(tuple(row.get(name) for name in AXES), []).append(row)
    found = []
    for place, members in cells.items():
        cell = {name: value for name, value in zip(AXES, place, strict=True) if value is not None}
        for name in MEASURED:
            values = [row[name] for row in members if isinstance(row.get(name), int | float)]
            if values:
                cell[name] = statistics.median(values)
        errors = [row["test_error"] for row in members]
        found.append({**cell, "seeds": len(members), "least": min(errors), "most": max(errors)})
    return found


AXES = ("solver", "n_train", "noise", "bond_dim")
MEASURED = (
    "train_error",
    "test_error",
    "largest_core",
    "memorised",
    "zeta",
    "geometric_complexity",
    "seconds",
)


def judge(name: str, rows: Sequence[Row], cells: Sequence[Row]) -> list[dict[str, Any]]:
    """The bars of one study."""
    if name in TEACHERS:
        return [bar for curve in _curves(cells) for bar in _teacher_bars(name, curve)]
    if name == "label-noise":
        return _noise_bars(rows, cells)
    return [_said(f"{name} {_where(curve[0])}", curve) for curve in _curves(cells)]


def _curves(cells: Sequence[Row]) -> list[list[Row]]:
    """The cells that differ only in their bond dimension, in its order."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for cell in sorted(cells, key=lambda cell: cell["bond_dim"]):
        found.setdefault(tuple(cell.get(name) for name in AXES[:-1]), []).append(cell)
    return list(found.values())


def _where(cell: Row) -> str:
    return " ".join(str(cell[name]) for name in AXES[:-1] if name in cell)


def _teacher_bars(name: str, curve: Sequence[Row]) -> list[dict[str, Any]]:
    bars = [_said(f"{name} {_where(curve[0])}", curve)]
    bonds = [cell["bond_dim"] for cell in curve]
    predicted = math.sqrt(curve[0]["n_train"] / 2)  # d chi^2 = n_train
    if curve[0].get("solver", "als") != "als":
        return bars
    peak = max(curve, key=lambda cell: cell["test_error"])["bond_dim"]
    if curve[-1].get("largest_core", math.inf) < curve[0]["n_train"]:
        bars[0]["what"] += f"; no largest core reaches {curve[0]['n_train']}, so no peak is predicted"
    elif peak == bonds[-1]:
        bars[0]["what"] += f"; still rising at the end, a peak predicted at {predicted:.1f} has no far side"
    else:
        nearest = min(bonds, key=lambda bond: abs(math.log(bond / predicted)))
        off = abs(bonds.index(peak) - bonds.index(nearest))
        what = f"{name} {_where(curve[0])}: peak at {peak}, predicted {predicted:.1f}, grid steps off"
        bars.append({"what": what, "measured": off, "at_most": 1, "passed": off <= 1})
    return bars


def _said(what: str, curve: Sequence[Row]) -> dict[str, Any]:
    """Has no bar: how much worse the largest bond dimension is than the best."""
    best, last = min(curve, key=lambda cell: cell["test_error"]), curve[-1]
    return {
        "what": f"{what}: best {best['test_error']:.3g} at {best['bond_dim']}, at {last['bond_dim']} over it",
        "measured": last["test_error"] / best["test_error"],
    }


def _noise_bars(rows: Sequence[Row], cells: Sequence[Row]) -> list[dict[str, Any]]:
    bars = []
    for curve in _curves(cells):
        errors = {
            cell["bond_dim"]: statistics.mean(
                row["test_error"]
                for row in rows
                if row["noise"] == cell["noise"] and row["bond_dim"] == cell["bond_dim"]
            )
            for cell in curve
        }
        best, last = min(errors, key=errors.__getitem__), max(errors)
        points = 100 * (errors[last] - errors[best])
        bar: dict[str, Any] = {
            "what": f"noise {curve[0]['noise']}: best at {best}, points of accuracy lost at {last}",
            "measured": points,
        }
        if curve[0]["noise"] == NOISY:
            bar |= {"at_least": 3.0, "passed": points >= 3 and min(errors) < best < last}
        bars.append(bar)
        runs = [row for row in rows if row["noise"] == curve[0]["noise"]]
        gaps = [row["test_error"] - row["train_error"] for row in runs]
        complexity = [row["geometric_complexity"] for row in runs]
        bars.append(
            {
                "what": f"noise {curve[0]['noise']}: Spearman of geometric complexity and gap, single runs",
                "measured": float(spearmanr(complexity, gaps).statistic),
            }
        )
        if curve[0]["noise"] > 0:
            zeta, kept = ([cell[name] for cell in curve] for name in ("zeta", "memorised"))
            rank = float(spearmanr(zeta, kept).statistic)
            bar = {
                "what": f"noise {curve[0]['noise']}: Spearman of susceptibility and memorised, medians",
                "measured": rank,
            }
            if curve[0]["noise"] == NOISY:
                bar |= {"at_least": 0.6, "passed": rank >= 0.6}
            bars.append(bar)
    return bars


def show(result: dict[str, Any], console: Console) -> None:
    """The tables: one line per curve."""
    console.print("\n" + in_words(result["machine"]))
    for name, study in result["studies"].items():
        curves = _curves(study["cells"])
        table = Table(title=f"{name}: {STUDIES[name].about}; median test error")
        bonds = sorted({cell["bond_dim"] for curve in curves for cell in curve})
        for heading in ("", *map(str, bonds)):
            table.add_column(heading, justify="right")
        for curve in curves:
            errors = {cell["bond_dim"]: f"{cell['test_error']:.3g}" for cell in curve}
            table.add_row(_where(curve[0]), *(errors.get(bond, "") for bond in bonds))
        console.print(table)
    for bar in result["bars"]:
        limit = f" (<= {bar['at_most']:g})" if "at_most" in bar else ""
        limit = f" (>= {bar['at_least']:g})" if "at_least" in bar else limit
        verdict = {True: " [green]pass[/green]", False: " [red]miss[/red]", None: ""}[bar.get("passed")]
        console.print(f"{bar['what']}: {bar['measured']:.3g}{limit}{verdict}")
