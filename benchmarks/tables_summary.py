"""What the fits of the benchmark of tables say: means, ranks, times, intervals and bars, for each half."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from benchmarks.tables_methods import BOOSTING, CONFORMAL, INTERVALS, JUDGED, LARGE, PEERS

ACCURACY = 0.828  # the mean over the 43 sets that is required of tnml
TIMES = 2.0  # of boosting's median seconds of a fit
COVERAGE = (0.88, 0.92)
TTML_BARS = {
    "airfoil": 2.43,
    "concrete": 19.05,
}  # XGBoost's mean square errors in that work; TTML 2.48 and 22.8
SHARE = 0.01  # of the parameters of boosting of that accuracy
ALL = "all"
Row = dict[str, Any]


def by_set(rows: Sequence[Row]) -> list[Row]:
    """One row for each set and method: the mean of its splits; a failed fit counts as a score of 0."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["set"], row["method"]), []).append(row)
    found = []
    for (task, name, method), members in groups.items():
        entry: Row = {"task": task, "set": name, "half": members[0]["half"], "method": method}
        entry["splits"] = len(members)
        entry["score"] = statistics.mean(row.get("score", 0.0) for row in members)
        for what in (
            "rows",
            "columns",
            "seconds",
            "cpu_seconds",
            "log_loss",
            "mse",
            "parameters",
            "coverage",
            "width",
        ):
            values = [row[what] for row in members if row.get(what) is not None]
            if values:
                entry[what] = statistics.mean(values)
        if errors := [row["error"] for row in members if "error" in row]:
            entry["errors"] = errors
        found.append(entry)
    return found


def summaries(cells: Sequence[Row]) -> list[Row]:
    """For each task, half and method: mean score, mean rank, seconds, intervals."""
    found = []
    for task in ("classification", "regression"):
        for half in (ALL, "choosing", "judged"):
            some = [cell for cell in cells if cell["task"] == task and half in (ALL, cell["half"])]
            for method in dict.fromkeys(cell["method"] for cell in some):
                found.append({"task": task, "half": half, **_summary(some, task, method)})
    return found


def _summary(cells: Sequence[Row], task: str, method: str) -> Row:
    own = [cell for cell in cells if cell["method"] == method]
    entry: Row = {"method": method, "sets": len(own)}
    if method != CONFORMAL:
        entry["score"] = statistics.mean(cell["score"] for cell in own)
        entry["median_score"] = statistics.median(cell["score"] for cell in own)
        entry["rank"] = mean_rank(cells, task, method)
    for what in ("seconds", "cpu_seconds"):
        values = [cell[what] for cell in own if what in cell]
        if values:
            entry[f"median_{what}"] = statistics.median(values)
            entry[f"total_{what}"] = sum(cell[what] * cell["splits"] for cell in own if what in cell)
    for what in ("log_loss", "coverage", "width"):
        values = [cell[what] for cell in own if what in cell]
        if values:
            entry[what] = statistics.mean(values)
    widths = _relative_widths(cells, own)
    if widths:
        entry["width_over_boosting"] = statistics.median(widths)
    return entry


def _relative_widths(cells: Sequence[Row], own: Sequence[Row]) -> list[float]:
    boosting = {
        cell["set"]: cell["width"] for cell in cells if cell["method"] == CONFORMAL and "width" in cell
    }
    return [
        cell["width"] / boosting[cell["set"]] for cell in own if "width" in cell and boosting.get(cell["set"])
    ]


def mean_rank(cells: Sequence[Row], task: str, method: str) -> float | None:
    """The mean over the sets of the place by score, 1 for the best, equal scores in between.

    A configuration of tnml is ranked among the peers alone; a peer among the others and tnml's judged one.
    """
    rivals = [*PEERS[task], JUDGED if method in PEERS[task] else method]
    ranks = []
    for name in dict.fromkeys(cell["set"] for cell in cells):
        scores = {cell["method"]: cell["score"] for cell in cells if cell["set"] == name}
        there = [rival for rival in rivals if rival in scores]
        if method in there and len(there) > 1:
            places = rankdata([-round(scores[rival], 9) for rival in there])
            ranks.append(float(places[there.index(method)]))
    return statistics.mean(ranks) if ranks else None


def bars(summary: Sequence[Row], cells: Sequence[Row], complete: bool) -> list[Row]:
    """The bars that can be judged from the measured sets.

    Args:
        summary: of `summaries`.
        cells: of `by_set`.
        complete: whether all sets were measured; the accuracy is that of all forty-three.
    """
    found = []
    table = {(row["task"], row["half"], row["method"]): row for row in summary}
    for half in (ALL, "judged"):
        labels = _of(table, "classification", half)
        if JUDGED in labels and len(labels) > 1:
            if half == ALL and complete:
                found.append(
                    _bar("classification, all: accuracy", labels[JUDGED]["score"], at_least=ACCURACY)
                )
            best = min(row["rank"] for name, row in labels.items() if name in PEERS["classification"])
            found.append(_bar(f"classification, {half}: mean rank", labels[JUDGED]["rank"], at_most=best))
        real = _of(table, "regression", half)
        if JUDGED in real and len(real) > 2:
            second = sorted(row["rank"] for name, row in real.items() if name in PEERS["regression"])[1]
            found.append(_bar(f"regression, {half}: mean rank", real[JUDGED]["rank"], at_most=second))
            if "coverage" in real.get(INTERVALS, {}):
                what = f"regression, {half}: coverage of intervals of 90 %"
                low, high = COVERAGE
                found.append(_bar(what, real[INTERVALS]["coverage"], at_least=low, at_most=high))
        for task, rows in (("classification", labels), ("regression", real)):
            if JUDGED in rows and BOOSTING in rows and "median_cpu_seconds" in rows[JUDGED]:
                ratio = rows[JUDGED]["median_cpu_seconds"] / rows[BOOSTING]["median_cpu_seconds"]
                found.append(_bar(f"{task}, {half}: median fit over boosting's", ratio, at_most=TIMES))
    return found + _ttml_bars(cells)


def _of(table: dict[tuple[str, str, str], Row], task: str, half: str) -> dict[str, Row]:
    own = {method: row for (a, b, method), row in table.items() if (a, b) == (task, half)}
    return {method: row for method, row in own.items() if row.get("rank") is not None}


def _ttml_bars(cells: Sequence[Row]) -> list[Row]:
    found = []
    own = {(cell["set"], cell["method"]): cell for cell in cells if cell["task"] == "ttml"}
    for name, limit in TTML_BARS.items():
        cell, large = own.get((name, JUDGED)), own.get((name, LARGE))
        if cell is not None and "mse" in cell:
            found.append(_bar(f"TTML's protocol, {name}: mean square error", cell["mse"], at_most=limit))
            if large is not None:
                share = cell["parameters"] / large["parameters"]
                found.append(
                    _bar(f"TTML's protocol, {name}: parameters over boosting's", share, at_most=SHARE)
                )
    return found


def _bar(what: str, measured: float, **limits: float) -> Row:
    passed = limits.get("at_least", -np.inf) <= measured <= limits.get("at_most", np.inf)
    return {"what": what, "measured": measured, **limits, "passed": bool(passed)}
