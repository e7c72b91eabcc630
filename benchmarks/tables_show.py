"""The tables of the benchmark of tables: a line for each set, a summary of each method, and the bars."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import in_words
from benchmarks.tables_methods import CONFORMAL, JUDGED, PEERS

SCORE = {"classification": "accuracy", "regression": "R2", "ttml": "mean square error"}
Row = dict[str, Any]


def show(result: dict[str, Any], console: Console) -> None:
    """All tables, losses included; * marks the judged half."""
    console.print("\n" + in_words(result["machine"]))
    for task in SCORE:
        cells = [cell for cell in result["cells"] if cell["task"] == task]
        if cells:
            console.print(_sets(task, cells))
        summary = [row for row in result["summary"] if row["task"] == task]
        for half in dict.fromkeys(row["half"] for row in summary):
            console.print(_methods(task, half, [row for row in summary if row["half"] == half]))
    for bar in result["bars"]:
        limits = " and ".join(
            f"{word} {bar[name]:.3g}" for name, word in (("at_least", ">="), ("at_most", "<=")) if name in bar
        )
        verdict = "[green]reached[/green]" if bar["passed"] else "[red]missed[/red]"
        console.print(f"{bar['what']}: {bar['measured']:.3g} ({limits}) {verdict}")
    for text in result["errors"]:
        console.print(f"[red]failed[/red] {text}")


def _sets(task: str, cells: Sequence[Row]) -> Table:
    """A line for each set: scores of all methods; how far tnml is behind the best peer."""
    methods = [name for name in dict.fromkeys(cell["method"] for cell in cells) if name != CONFORMAL]
    table = Table(title=f"{task}: {SCORE[task]} by set (* judged), and CPU seconds of a fit of {JUDGED}")
    for heading in ("set", "rows", "columns", *methods, f"{JUDGED} behind", "seconds"):
        table.add_column(heading, justify="left" if heading == "set" else "right")
    for name in dict.fromkeys(cell["set"] for cell in cells):
        own = {cell["method"]: cell for cell in cells if cell["set"] == name}
        first = next(iter(own.values()))
        what = "mse" if task == "ttml" else "score"
        scores = {method: own[method].get(what) for method in methods if method in own}
        table.add_row(
            name + ("*" if first["half"] == "judged" else ""),
            f"{first['rows']:.0f}" if "rows" in first else "",
            f"{first['columns']:.0f}" if "columns" in first else "",
            *(_number(scores.get(method)) for method in methods),
            _number(_behind(task, scores)),
            f"{own[JUDGED]['cpu_seconds']:.2f}" if JUDGED in own and "cpu_seconds" in own[JUDGED] else "",
        )
    if task == "ttml":
        table.caption = _parameters(cells)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _behind(task: str, scores: dict[str, float | None]) -> float | None:
    """The best peer's score over that of tnml's judged configuration."""
    peers = [score for name, score in scores.items() if name in PEERS[task] and score is not None]
    mine = scores.get(JUDGED)
    if mine is None or not peers:
        return None
    return mine - min(peers) if task == "ttml" else max(peers) - mine


def _parameters(cells: Sequence[Row]) -> str:
    counted = [cell for cell in cells if "parameters" in cell]
    return "parameters: " + "; ".join(
        f"{cell['set']} {cell['method']} {cell['parameters']:,.0f}" for cell in counted
    )


def _methods(task: str, half: str, rows: Sequence[Row]) -> Table:
    table = Table(
        title=f"{task}, {half} sets: {SCORE[task]}, ranks among {JUDGED} and the five others, CPU seconds"
    )
    headings = (
        "method",
        "sets",
        "mean",
        "median",
        "rank",
        "median s",
        "total s",
        "log loss",
        "coverage",
        "width",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for row in sorted(rows, key=lambda row: row.get("rank") or 99.0):
        relative = row.get("width_over_boosting")
        table.add_row(
            row["method"],
            str(row["sets"]),
            _number(row.get("score")),
            _number(row.get("median_score")),
            "" if row.get("rank") is None else f"{row['rank']:.2f}",
            _number(row.get("median_cpu_seconds")),
            "" if "total_cpu_seconds" not in row else f"{row['total_cpu_seconds']:.0f}",
            _number(row.get("log_loss")),
            _number(row.get("coverage")),
            "" if relative is None else f"{relative:.2f}x",
        )
    return table
