"""Equations in many dimensions: speed of a loss, accuracy, schemes, tensor networks against dense ones, cost.

speed     the Euler loss in one call against the sequential form: seconds, memory
accuracy  every named problem with a true value, several seeds, a time limit for each run
schemes   EM against Un-EM, hard against soft terminal conditions, at equal time
paper     tensor-train networks against dense ones of the same widths and of the same number of parameters
cost      seconds per iteration against d and N
"""

import argparse
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console
from rich.table import Table

from benchmarks import pde_speed
from benchmarks.machine import header, in_words
from benchmarks.pde_bias import euler_bias
from tnml.errors import InputError
from tnml.pde import Problem, SolveOptions, preset, problem, solve
from tnml.report import cost_figure, save_figure

PARTS = ("speed", "accuracy", "schemes", "paper", "cost")
FIGURES = Path(__file__).parent.parent / "docs" / "figures"
EQUAL = 1.2  # the tensor network's error over the dense one's, at most
PAPER = {"bsb": 2500, "hjb": 1000}  # iterations
FEW = 0.15  # its parameters over the dense one's, at most

# Problem, its options, the bar on a relative error, which error: along paths or at (0, x0).
CASES: tuple[tuple[str, dict[str, Any], float, str], ...] = (
    ("bsb", {"dim": 100}, 2e-4, "path_mean"),
    ("hjb", {"dim": 100}, 2e-4, "path_mean"),
    ("allen-cahn", {"dim": 20}, 1e-3, "at_start"),
    ("allen-cahn", {"dim": 100}, 1e-3, "at_start"),
    ("heston", {}, 1e-3, "path_mean"),
    ("geometric-basket", {"dim": 10}, 1e-3, "path_mean"),
    ("geometric-basket", {"dim": 50}, 1e-3, "path_mean"),
    ("geometric-basket", {"dim": 100}, 1e-3, "path_mean"),
    ("arithmetic-basket", {"dim": 10}, 1e-3, "at_start"),
    ("arithmetic-basket", {"dim": 50}, 1e-3, "at_start"),
    ("arithmetic-basket", {"dim": 100}, 1e-3, "at_start"),
)

COLUMNS = {
    "speed": [
        *("problem", "dim", "loss_off", "gradient_off", "times_faster", "times_faster_than_published"),
        "times_faster_at_most",
    ],
    "accuracy": [
        *(
            "problem",
            "dim",
            "seed",
            "at_start",
            "path_mean",
            "path_max",
            "euler_bias",
            "bias_ahead",
            "trivial",
        ),
        *("terminal_at_start", "terminal_mean", "parameters", "seconds", "iterations"),
    ],
    "schemes": ["problem", "terminal", "loss", "seed", "at_start", "path_mean", "terminal_mean", "seconds"],
    "paper": ["problem", "kind", "seed", "parameters", "at_start", "path_mean", "seconds_to_1e-3", "seconds"],
    "cost": ["problem", "what", "size"],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--parts", default=",".join(PARTS), help=f"comma-separated (default: {','.join(PARTS)})"
    )
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated (default: 0,1,2)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of training per run of schemes (default: 60)"
    )
    parser.add_argument(
        "--cases", default=None, help="of accuracy: names of problems, comma-separated (default: all)"
    )
    parser.add_argument("--turns", type=int, default=5, help="repetitions of a timing (default: 5)")
    parser.add_argument(
        "--figures", type=Path, default=None, help="folder (default: docs/figures, not with --smoke)"
    )


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The results of all requested parts. Ctrl-C keeps what is done."""
    result = header("pde", options.smoke)
    parts = options.parts.split(",")
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise InputError(f"unknown parts {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    seeds = [0] if options.smoke else [int(word) for word in options.seeds.split(",")]
    limit = {"smoke": options.smoke, "seconds": options.seconds}
    turns = 1 if options.smoke else options.turns
    try:
        for part in parts:
            if part == "speed":
                result[part] = pde_speed.speed(smoke=options.smoke, turns=turns)
            elif part == "cost":
                result[part] = pde_speed.cost(smoke=options.smoke, turns=turns)
            elif part == "accuracy":
                asked = None if options.cases is None else options.cases.split(",")
                result[part] = {"rows": accuracy(seeds, asked, console, smoke=options.smoke)}
            elif part == "schemes":
                result[part] = {"rows": schemes(seeds, console, **limit)}
            else:
                result[part] = {"rows": paper(seeds, console, smoke=options.smoke)}
    except KeyboardInterrupt:
        result["errors"].append("interrupted: not everything was measured")
    result["bars"] = [] if options.smoke else judge(result)
    folder = options.figures or (None if options.smoke else FIGURES)
    if folder is not None:
        draw(result, folder)
    return result


def one_run(case: Problem, options: SolveOptions) -> dict[str, Any]:
    """The record of one run: errors, what to compare them with, size, time, history."""
    solution = solve(case, options=options)
    errors = solution.relative_error(paths=512)
    return {
        "problem": case.name,
        "dim": case.dim,
        "seed": options.seed,
        "value": solution.value,
        **errors._asdict(),
        "parameters": solution.n_parameters,
        "seconds": solution.seconds,
        "iterations": solution.iterations,
        "options": solution.options.record(),
        "history": [
            {name: row[name] for name in ("seconds", "loss", "u0", "error", "path_error") if name in row}
            for row in solution.history
        ],
    }


def recipe(case: Problem, seed: int, *, smoke: bool, **changes: Any) -> SolveOptions:
    """The problem's recipe; a few small iterations for a smoke test."""
    small: dict[str, Any] = {"iterations": 4, "reports": 2, "paths": 4, "time_steps": 5, "width": 8}
    return preset(case, **{**changes, **(small if smoke else {})}, seed=seed, device="cpu")


def limited(case: Problem, seed: int, *, smoke: bool, seconds: float, **changes: Any) -> SolveOptions:
    """The problem's recipe, limited to that many seconds."""
    size: dict[str, Any] = {} if smoke else {"iterations": 10**6, "max_seconds": seconds}
    return recipe(case, seed, smoke=smoke, **{**changes, **size})


def accuracy(
    seeds: Sequence[int], asked: Sequence[str] | None, console: Console, *, smoke: bool
) -> list[dict[str, Any]]:
    """A row for every problem and seed, with the problem's own recipe."""
    rows = []
    for name, arguments, bar, which in CASES:
        if asked is not None and name not in asked:
            continue
        given = {**arguments, "dim": 3} if smoke and "dim" in arguments else arguments
        case = problem(name, **given)
        bias = biases(case, recipe(case, 0, smoke=smoke), smoke=smoke)
        for seed in seeds:
            options = recipe(case, seed, smoke=smoke)
            row = {**one_run(case, options), "bar": bar, "which": which, **bias}
            rows.append(row)
            console.print(f"{name} d={case.dim} seed {seed}: {which} {_percent(row[which])}")
    return rows


def biases(case: Problem, options: SolveOptions, *, smoke: bool = False) -> dict[str, float | None]:
    """The bias of whole steps and of steps ahead, None below twice its standard error, and these errors."""
    found: dict[str, float | None] = {}
    size: dict[str, int] = {"most": 2} if smoke else {}
    step = case.horizon / options.time_steps
    for name, length in (("euler_bias", step), ("bias_ahead", step * options.ahead)):
        bias = euler_bias(case, options.time_steps, length, **size)
        found[name] = None if bias is None else bias.clear
        found[f"{name}_error"] = None if bias is None else bias.error
    return found


def schemes(seeds: Sequence[int], console: Console, *, smoke: bool, seconds: float) -> list[dict[str, Any]]:
    """EM and Un-EM with every terminal condition that fits."""
    rows = []
    hard = {"bsb": ("soft", "multiplicative"), "hjb": ("soft", "additive", "smoothed")}
    for name, terminals in hard.items():
        case = problem(name, dim=3 if smoke else 100)
        for terminal, loss, seed in itertools.product(terminals, ("euler", "unbiased"), seeds):
            if terminal == "soft" and loss == "unbiased":
                continue  # that loss has no terms at the horizon
            options = limited(case, seed, smoke=smoke, seconds=seconds, terminal=terminal, loss=loss)
            row = {**one_run(case, options), "terminal": terminal, "loss": loss}
            rows.append(row)
            console.print(f"{name} {terminal} {loss} seed {seed}: {_percent(row['path_mean'])}")
    return rows


def paper(seeds: Sequence[int], console: Console, *, smoke: bool) -> list[dict[str, Any]]:
    """Networks of tensor trains, dense ones as wide, dense ones as large, with equally many iterations."""
    rows = []
    width = 16 if smoke else 256
    for name, iterations in PAPER.items():
        case = problem(name, dim=3 if smoke else 100)
        tensor = preset(case, network="tnn", width=width).make_network(case.dim).n_parameters
        few = _width_of(tensor, case)
        kinds: Mapping[str, dict[str, Any]] = {
            "dense, same widths": {"width": width},
            "tnn": {"network": "tnn", "width": width},
            "dense, same parameters": {"width": few},
        }
        for (kind, changes), seed in itertools.product(kinds.items(), seeds):
            options = recipe(case, seed, smoke=smoke, iterations=iterations, **changes)
            row = {**one_run(case, options), "kind": kind}
            row["seconds_to_1e-3"] = seconds_to(row["history"], 1e-3)
            rows.append(row)
            console.print(
                f"{name} {kind} seed {seed}: {row['parameters']:,} parameters {_percent(row['path_mean'])}"
            )
    return rows


def _width_of(parameters: int, case: Problem) -> int:
    """The width of the largest dense network with at most `parameters` parameters."""
    width = 1
    while preset(case, width=width + 1).make_network(case.dim).n_parameters <= parameters:
        width += 1
    return width


def seconds_to(history: Sequence[Mapping[str, float]], error: float) -> float | None:
    """When the error along paths first was below `error`; None if it never was."""
    spent = 0.0
    for row in history:
        spent += row["seconds"]
        if row.get("path_error", math.inf) <= error:
            return spent
    return None


def judge(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every bar with what was measured: the worst seed of an accuracy, medians over seeds of a comparison."""
    bars = []
    for row in result.get("speed", {}).get("rows", []):
        bars.append(_bar(f"{row['problem']} loss off", row["loss_off"], at_most=1e-6))
        faster = row["times_faster_than_published"]
        bars.append(_bar(f"{row['problem']} times faster than as published", faster, at_least=10.0))
        growth = row["bytes"]["one call"][1] / max(1, row["bytes"]["one call"][0])
        bars.append(_bar(f"{row['problem']} memory at 2 M over M", growth, at_most=2.2))
    found = result.get("accuracy", {}).get("rows", [])
    for key, rows in _grouped(found, "problem", "dim").items():
        worst = max(row[row["which"]] for row in rows)
        bars.append(_bar(f"{key} {rows[0]['which']}, worst seed", worst, at_most=rows[0]["bar"]))
    for key, rows in _grouped(result.get("paper", {}).get("rows", []), "problem").items():
        kinds = _grouped(rows, "kind")
        dense, tensor = kinds.get("dense, same widths"), kinds.get("tnn")
        if dense and tensor:
            ratio = _median(tensor, "path_mean") / _median(dense, "path_mean")
            bars.append(_bar(f"{key} error of tnn over dense", ratio, at_most=EQUAL))
            share = tensor[0]["parameters"] / dense[0]["parameters"]
            bars.append(_bar(f"{key} parameters of tnn over dense", share, at_most=FEW))
    return bars


def _bar(what: str, measured: float, **limits: float) -> dict[str, Any]:
    low, high = limits.get("at_least", -math.inf), limits.get("at_most", math.inf)
    return {"what": what, "measured": measured, **limits, "passed": low <= measured <= high}


def _grouped(rows: Sequence[dict[str, Any]], *names: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(" ".join(str(row[name]) for name in names), []).append(row)
    return found


def _median(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.median(row[name] for row in rows)


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Cost against sizes, and error against time of the kinds of network."""
    for what in ("d", "N"):
        rows = [row for row in result.get("cost", {}).get("rows", []) if row["what"] == what]
        curves = {
            name: ([row["size"] for row in part], [row["seconds"]["median"] for row in part])
            for name, part in _grouped(rows, "problem").items()
        }
        if curves:
            save_figure(
                cost_figure(curves, what, "seconds per iteration", f"Cost against {what}"),
                folder / f"pde_{what}.png",
            )
    rows = result.get("paper", {}).get("rows", [])
    if rows:
        save_figure(_paper_figure(rows), folder / "pde_tnn.png")


def _paper_figure(rows: Sequence[dict[str, Any]]) -> matplotlib.figure.Figure:
    groups = _grouped(rows, "problem")
    figure = matplotlib.figure.Figure(figsize=(5.5 * len(groups), 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, part) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
    ):
        for number, (kind, runs) in enumerate(_grouped(part, "kind").items()):
            for place, run in enumerate(runs):
                spent = list(itertools.accumulate(row["seconds"] for row in run["history"]))
                label = f"{kind}, {run['parameters']:,}" if place == 0 else None
                axes.plot(
                    spent, [row["path_error"] for row in run["history"]], color=f"C{number}", label=label
                )
        axes.set(yscale="log", xlabel="seconds", ylabel="relative L2 error along paths", title=name)
        axes.legend()
    return figure


def show(result: Mapping[str, Any], console: Console) -> None:
    """The tables."""
    console.print("\n" + in_words(result["machine"]))
    for part, names in COLUMNS.items():
        rows = result.get(part, {}).get("rows", [])
        if not rows:
            continue
        table = Table(title=part)
        extra = ("ms, median",) if part in ("speed", "cost") else ()
        for name in (*names, *extra):
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*(_cell(row[name]) for name in names), *(_milliseconds(row) for _ in extra))
        console.print(table)
    for bar in result["bars"]:
        verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
        limit = f"<= {bar['at_most']:g}" if "at_most" in bar else f">= {bar['at_least']:g}"
        console.print(f"{bar['what']}: {bar['measured']:.3g} ({limit}) {verdict}")
    for text in result["errors"]:
        console.print(f"[red]{text}[/red]")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _milliseconds(row: Mapping[str, Any]) -> str:
    seconds = row["seconds"]
    if "median" in seconds:
        return f"{1e3 * seconds['median']:.1f}"
    return " / ".join(f"{form} {1e3 * found['median']:.1f}" for form, found in seconds.items())


def _percent(error: float | None) -> str:
    return "not known" if error is None else f"{100 * error:.3g} %"
