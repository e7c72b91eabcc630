"""The tables of the tensor-train layer's benchmark for the terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from benchmarks.case_table import held, not_measured, show_cases, starred, times_in_words

TITLE = "Tensor-train layer, float32; step = forward and backward to inputs and all parameters"
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
    """One line per record, bars next to what was measured, and a count of the bars."""
    show_cases(result, console, TITLE, HEADINGS, case_in_words, lambda row: _cells(row, result["rows"]))


def case_in_words(row: Mapping[str, Any]) -> str:
    """Sizes, samples and rank, such as `784->512/128/4`."""
    return f"{sizes(row['ins'], row['outs'])}/{row['batch']}/{row['rank']}"


def sizes(ins: Sequence[int], outs: Sequence[int]) -> str:
    """Such as `784->512`."""
    return f"{math.prod(ins)}->{math.prod(outs)}"


def line(rows: list[dict[str, Any]]) -> str:
    """The times of one case, printed as soon as it is measured."""
    return times_in_words(rows, 2)


def _cells(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    if row["status"] != "ok":
        return not_measured(row)
    name, step = row["implementation"], row["step_wall_ms"]
    bars = {bar["what"]: bar for bar in _bars_of_case(row, rows)}
    own = {what: bar for what, bar in bars.items() if name == "tnml"}
    dense, over = row.get("over_dense"), row.get("over_tnml")
    return [
        starred(row),
        f"{step['median']:.3f} ({step['min']:.3f}-{step['max']:.3f})",
        f"{row['forward_wall_ms']['median']:.3f}",
        held(own.get("step_over_dense"), f"{dense['step']['median']:.3f}" if dense else ""),
        held(bars.get(f"{name}_over_tnml"), f"{over['step']['median']:.2f}" if over else ""),
        f"{row['memory']['peak_bytes'] / 1e6:.2f}",
        held(own.get("memory_over_dense"), f"{dense['memory']:.2f}" if dense else ""),
        "" if row.get("bound") is None else f"{row['bound']:.3f}",
    ]


def _bars_of_case(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The bars of tnml's record of the same case."""
    same = ("ins", "outs", "batch", "rank")
    found = [other for other in rows if all(other[key] == row[key] for key in same)]
    return [bar for other in found for bar in other.get("bars", [])]
