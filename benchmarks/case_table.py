"""The table of a benchmark that measures several implementations case by case."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.machine import in_words

Row = dict[str, Any]


def show_cases(
    result: dict[str, Any],
    console: Console,
    title: str,
    headings: Sequence[str],
    case_of: Callable[[Row], str],
    cells_of: Callable[[Row], list[str]],
) -> None:
    """One line per record, then notes, errors and a count of the bars.

    Args:
        result: with its "machine", "rows", "not_installed" and "errors".
        console: where to print.
        title: of the table.
        headings: of the case, of the implementation, and of the columns of numbers.
        case_of: the text of the first column, shown where it differs from the line above.
        cells_of: the other columns of a record.
    """
    console.print("\n" + in_words(result["machine"]))
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 2 else "right", no_wrap=True)
    previous = None
    for row in result["rows"]:
        case = case_of(row)
        if previous not in (None, case):
            table.add_section()
        table.add_row(case if case != previous else "", *cells_of(row))
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


def starred(row: Row) -> str:
    """The implementation of a record, with an asterisk if it has a note."""
    return row["implementation"] + (" *" if "note" in row else "")


def not_measured(row: Row) -> list[str]:
    """The cells of a record that failed or was skipped."""
    return [row["implementation"], f"{row['status']}: {row['reason']}"[:60]]


def times_in_words(rows: Sequence[Row], digits: int) -> str:
    """The times of one case, printed as soon as it is measured."""
    return ", ".join(
        f"{row['implementation']} {row['step_wall_ms']['median']:.{digits}f} ms"
        if row["status"] == "ok"
        else f"{row['implementation']} {row['status']}"
        for row in rows
    )


def held(bar: dict[str, Any] | None, text: str) -> str:
    """The measured value with its bar, green where it passes."""
    if bar is None:
        return text
    limit = f">={bar['at_least']:g}" if "at_least" in bar else f"<={bar['at_most']:g}"
    if bar["passed"]:
        return f"{text} {limit} [green]{'equal' if bar.get('equal') else 'pass'}[/green]"
    return f"{text} {limit} [red]miss[/red]"
