"""How the benchmark of the tensor-train layer looks on a terminal."""

import math
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.machine import in_words

HEADINGS = (
    "sizes/batch/rank",
    "implementation",
    "step ms (min-max)",
    "fwd ms",
    "x dense",
    "x tnml",
    "memory MB",
    "x dense",
    "bound",
)


def show(result: dict[str, Any], console: Console) -> None:
    """One line per record, bars beside what was measured, and a count of the bars."""
    console.print("\n" + in_words(result["machine"]))
    title = "Tensor-train layer, float32; step = forward and backward to inputs and all parameters"
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right", no_wrap=True)
    previous = None
    for row in result["rows"]:
        case = f"{sizes(row['ins'], row['outs'])}/{row['batch']}/{row['rank']}"
        if previous not in (None, case):
            table.add_section()
        table.add_row(case if case != previous else "", *_cells(row, result["rows"]))
        previous = case
    console.print(table)
    for name in result["not_installed"]:
        console.print(f"{name}: not installed here, not measured")
    for row in result["rows"]:
        if "note" in row:
            console.print(f"{row['implementation']} (*): {row['note']}")
    for text in result["errors"]:
        console.print(f"[red]{text}[/red]")
    bars = [bar for row in result["rows"] for bar in row.get("bars", [])]
    if bars:
        console.print(f"bars: {sum(bar['passed'] for bar in bars)} of {len(bars)} passed")


def sizes(ins: Sequence[int], outs: Sequence[int]) -> str:
    """Such as `784->512`."""
    return f"{math.prod(ins)}->{math.prod(outs)}"


def line(rows: list[dict[str, Any]]) -> str:
    """The times of one case, printed as soon as it is measured."""
    return ", ".join(
        f"{row['implementation']} {row['step_wall_ms']['median']:.2f} ms"
        if row["status"] == "ok"
        else f"{row['implementation']} {row['status']}"
        for row in rows
    )


def _cells(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    if row["status"] != "ok":
        return [row["implementation"], f"{row['status']}: {row['reason']}"[:60]]
    name, step = row["implementation"], row["step_wall_ms"]
    bars = {bar["what"]: bar for bar in _bars_of_case(row, rows)}
    own = {what: bar for what, bar in bars.items() if name == "tnml"}
    dense, over = row.get("over_dense"), row.get("over_tnml")
    return [
        name + (" *" if "note" in row else ""),
        f"{step['median']:.3f} ({step['min']:.3f}-{step['max']:.3f})",
        f"{row['forward_wall_ms']['median']:.3f}",
        _held(own.get("step_over_dense"), f"{dense['step']['median']:.3f}" if dense else ""),
        _held(bars.get(f"{name}_over_tnml"), f"{over['step']['median']:.2f}" if over else ""),
        f"{row['memory']['peak_bytes'] / 1e6:.2f}",
        _held(own.get("memory_over_dense"), f"{dense['memory']:.2f}" if dense else ""),
        "" if row.get("bound") is None else f"{row['bound']:.3f}",
    ]


def _bars_of_case(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The bars of tnml's record of the same case."""
    same = ("ins", "outs", "batch", "rank")
    found = [other for other in rows if all(other[key] == row[key] for key in same)]
    return [bar for other in found for bar in other.get("bars", [])]


def _held(bar: dict[str, Any] | None, text: str) -> str:
    """The measured value with its bar, green where it passes."""
    if bar is None:
        return text
    limit = f">={bar['at_least']:g}" if "at_least" in bar else f"<={bar['at_most']:g}"
    if bar["passed"]:
        return f"{text} {limit} [green]{'equal' if bar.get('equal') else 'pass'}[/green]"
    return f"{text} {limit} [red]miss[/red]"
