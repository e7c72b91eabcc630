"""How the chain benchmark looks on a terminal."""

from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.machine import in_words

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
    """One line per record, bars beside what was measured, and a count of the bars."""
    console.print("\n" + in_words(result["machine"]))
    title = "MPS layer, d = 2, 10 outputs, float32; step = forward and backward to all parameters"
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right", no_wrap=True)
    previous = None
    for row in result["rows"]:
        case = row["n_sites"], row["batch"], row["bond_dim"]
        if previous not in (None, case):
            table.add_section()
        table.add_row("/".join(map(str, case)) if case != previous else "", *_cells(row))
        previous = case
    console.print(table)
    for name in result["not_installed"]:
        console.print(f"{name}: not installed here, not measured")
    for row in result["rows"]:
        if "note" in row:
            console.print(f"{row['implementation']}: {row['note']}")
    bars = [bar for row in result["rows"] for bar in row.get("bars", [])]
    if bars:
        console.print(f"bars: {sum(bar['passed'] for bar in bars)} of {len(bars)} passed")


def line(rows: list[dict[str, Any]]) -> str:
    """One line for one case, printed as soon as it is measured."""
    first = rows[0]
    times = [
        f"{row['implementation']} {row['step_wall_ms']['median']:.1f} ms"
        if row["status"] == "ok"
        else f"{row['implementation']} {row['status']}"
        for row in rows
    ]
    return f"N={first['n_sites']} B={first['batch']} chi={first['bond_dim']}: {', '.join(times)}"


def _cells(row: dict[str, Any]) -> list[str]:
    if row["status"] != "ok":
        return [row["implementation"], f"{row['status']}: {row['reason']}"[:60]]
    step, bars = row["step_wall_ms"], {bar["what"]: bar for bar in row.get("bars", [])}
    ratios = [_ratio(row.get(f"times_faster_than_{other}")) for other in ("loop", "best_peer")]
    if "times_faster_than_best_peer" in bars:
        ratios[1] = _held("times_faster_than_best_peer", bars, ratios[1])
    return [
        row["implementation"] + (" *" if "note" in row else ""),
        f"{step['median']:.2f} ({step['min']:.2f}-{step['max']:.2f})",
        f"{row['step_cpu_ms']['median']:.2f}",
        _held("percent_of_peak", bars, f"{row['step_percent_of_peak']:.1f}"),
        f"{row['forward_wall_ms']['median']:.2f}",
        *ratios,
        f"{row['memory']['peak_bytes'] / 1e6:.1f}",
        _held("memory_ratio", bars, f"{row['memory']['ratio']:.2f}"),
    ]


def _ratio(found: dict[str, Any] | None) -> str:
    return "" if found is None else f"{found['step']:.1f}"


def _held(what: str, bars: dict[str, dict[str, Any]], text: str) -> str:
    """The measured value with its bar, green where it passes."""
    bar = bars.get(what)
    if bar is None:
        return text
    limit = f">={bar['at_least']:g}" if "at_least" in bar else f"<={bar['at_most']:g}"
    verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
    return f"{text} {limit} {verdict}"
