"""The tables of the chain benchmark for the terminal."""

from typing import Any

from rich.console import Console

from benchmarks.case_table import held, not_measured, show_cases, starred, times_in_words

TITLE = "MPS layer, d = 2, 10 outputs, float32; step = forward and backward to all parameters"
HEADINGS = (
    "N/B/chi",
    "implementation",
    "step ms (min-max)",
    "CPU ms",
    "% of peak",
    "fwd ms",
    "x loop",
    "x best peer",
    "memory MB",
    "x needed",
)


def show(result: dict[str, Any], console: Console) -> None:
    """One line per record, bars next to what was measured, and a count of the bars."""
    show_cases(result, console, TITLE, HEADINGS, _case, _cells)


def line(rows: list[dict[str, Any]]) -> str:
    """One line for one case, printed as soon as it is measured."""
    first = rows[0]
    case = f"N={first['n_sites']} B={first['batch']} chi={first['bond_dim']}"
    return f"{case}: {times_in_words(rows, 1)}"


def _case(row: dict[str, Any]) -> str:
    return f"{row['n_sites']}/{row['batch']}/{row['bond_dim']}"


def _cells(row: dict[str, Any]) -> list[str]:
    if row["status"] != "ok":
        return not_measured(row)
    step, bars = row["step_wall_ms"], {bar["what"]: bar for bar in row.get("bars", [])}
    over_loop, over_peer = (_ratio(row.get(f"times_faster_than_{other}")) for other in ("loop", "best_peer"))
    return [
        starred(row),
        f"{step['median']:.2f} ({step['min']:.2f}-{step['max']:.2f})",
        f"{row['step_cpu_ms']['median']:.2f}",
        held(bars.get("percent_of_peak"), f"{row['step_percent_of_peak']:.1f}"),
        f"{row['forward_wall_ms']['median']:.2f}",
        over_loop,
        held(bars.get("times_faster_than_best_peer"), over_peer),
        f"{row['memory']['peak_bytes'] / 1e6:.1f}",
        held(bars.get("memory_ratio"), f"{row['memory']['ratio']:.2f}"),
    ]


def _ratio(found: dict[str, Any] | None) -> str:
    return "" if found is None else f"{found['step']:.1f}"
