"""Networks beyond the open chain beside the methods of other libraries: answers first, then time and memory.

Outputs and the gradient to the inputs of every contender are compared with tnml's before a time is taken.
Times are of a step, forward and backward to all parameters, taken in turns in one process; memory is the peak
of two steps in a process of its own, beyond what it held before. Ratios are of medians of CPU seconds, with
the smallest and largest ratio of one turn.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import header, in_words, peak_resident, reset_peak, resident, summary
from benchmarks.networks_contenders import CASES, OTHER_NUMBERS, SMOKE, Case, Made, make
from benchmarks.worker_process import FAILURES, start_process

SAME, TURNS, FACTOR = 1e-3, 7, 10.0  # share of the largest entry; turns; the bar of the networks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--turns", type=int, default=None, help=f"samples of each time (default: {TURNS})")
    parser.add_argument("--networks", nargs="+", default=None, help="only these (default: all)")


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: a row per case and contender, and the bars."""
    result = header("networks", options.smoke)
    turns = options.turns or (1 if options.smoke else TURNS)
    result["rows"] = []
    with console.status("starting") as status:
        for case in SMOKE if options.smoke else CASES:
            if options.networks is None or case.network in options.networks:
                status.update(case.name)
                result["rows"] += compare(case, turns, memory=not options.smoke)
    result["errors"] = [
        f"{row['case']}: {row['contender']} gives another answer"
        for row in result["rows"]
        if row["status"] == "another answer"
    ]
    result["bars"] = bars(result["rows"])
    return result


def compare(case: Case, turns: int, *, memory: bool) -> list[dict[str, Any]]:
    """The rows of a case, tnml's first."""
    x = torch.rand(case.inputs, generator=torch.Generator().manual_seed(1))
    rows: list[dict[str, Any]] = []
    ready: dict[str, Made] = {}
    expected = answer(make(case, "tnml"), x)
    for name in ("tnml", *case.peers):
        row = {"case": case.name, "network": case.network, "contender": name, "status": "ok"}
        rows.append(row)
        try:
            made = make(case, name)
            found = answer(made, x)
        except FAILURES as error:
            row["status"] = f"failed: {type(error).__name__}"
            continue
        row["parameters"] = sum(parameter.numel() for parameter in made.parameters)
        if name not in OTHER_NUMBERS:
            row["off"] = max(off(one, other) for one, other in zip(found, expected, strict=True))
            if not row["off"] < SAME:
                row["status"] = "another answer"
                continue
        ready[name] = made
    times = in_turns(ready, x, turns)
    for row in rows:
        name = row["contender"]
        if name in times:
            row["step"] = {clock: summary(found, 1e-3) for clock, found in times[name].items()}
            row["times_slower"] = ratios(times[name]["cpu"], times["tnml"]["cpu"])
            row["memory_mb"] = memory_of(case, name) / 1e6 if memory else None
    return rows


def answer(made: Made, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs, and the gradient of the sum of their squares to the inputs."""
    x = x.clone().requires_grad_()
    found = made.call(x)
    (gradient,) = torch.autograd.grad(found.square().sum(), x)
    return found.detach(), gradient


def off(found: Tensor, expected: Tensor) -> float:
    """The largest difference in parts of the largest entry."""
    return float((found - expected).abs().max() / expected.abs().max())


def step(made: Made, x: Tensor) -> None:
    """One training step without the optimiser."""
    for parameter in made.parameters:
        parameter.grad = None
    made.call(x).square().sum().backward()


def in_turns(ready: dict[str, Made], x: Tensor, turns: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of the steps of every contender, after one that does not count."""
    times: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in ready}
    for turn in range(turns + 1):
        for name, made in ready.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step(made, x)
            if turn:
                times[name]["cpu"].append(time.process_time() - cpu)
                times[name]["wall"].append(time.perf_counter() - wall)
    return times


def ratios(theirs: list[float], ours: list[float]) -> dict[str, float]:
    """Theirs over ours: of the medians, and the smallest and largest of one turn."""
    each = [one / other for one, other in zip(theirs, ours, strict=True)]
    return {"median": statistics.median(theirs) / statistics.median(ours), "min": min(each), "max": max(each)}


def memory_of(case: Case, name: str) -> float:
    """Bytes that two steps need in a process of their own; NaN where it fails."""
    connection = start_process(serve_memory, case, name)
    found: float = connection.recv()
    return found


def serve_memory(connection: Any, case: Case, name: str) -> None:
    """In a process of its own: loads kernels with one sample, then measures two steps of the batch."""
    try:
        x = torch.rand(case.inputs)
        step(make(case, name), x[:1])
        reset_peak()
        before = resident()
        made = make(case, name)
        for _ in range(2):
            step(made, x)
        connection.send(float(peak_resident() - before))
    except FAILURES:
        connection.send(float("nan"))


def bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Networks: the fastest other method is at least 10 times slower. Convolutions: `Conv2d` is no faster."""
    found = []
    for case in dict.fromkeys(row["case"] for row in rows):
        peers = [row for row in rows if row["case"] == case and "times_slower" in row][1:]
        conv = bool(peers) and peers[0]["network"] == "conv"
        judged = [row for row in peers if not conv or row["contender"] == "Conv2d"]
        if judged:
            least, fastest = (1.0 if conv else FACTOR), min(row["times_slower"]["median"] for row in judged)
            found.append(
                {"what": case, "measured": fastest, "at_least": least, "passed": bool(fastest >= least)}
            )
    return found


def show(result: dict[str, Any], console: Console) -> None:
    """The table and the bars."""
    console.print("\n" + in_words(result["machine"]))
    table = Table(title="A step: CPU milliseconds, median (min-max); times slower than tnml; memory")
    for heading in ("case", "contender", "off", "parameters", "ms", "times slower", "MB"):
        table.add_column(heading, justify="left" if heading in ("case", "contender") else "right")
    for row in result["rows"]:
        if "step" not in row:
            table.add_row(row["case"], row["contender"], row["status"])
            continue
        cpu, slower = row["step"]["cpu"], row["times_slower"]
        table.add_row(
            row["case"],
            row["contender"],
            f"{row['off']:.1e}" if "off" in row else "own numbers",
            f"{row['parameters']:,}",
            f"{cpu['median']:.1f} ({cpu['min']:.1f}-{cpu['max']:.1f})",
            f"{slower['median']:.2f} ({slower['min']:.2f}-{slower['max']:.2f})",
            "" if row["memory_mb"] is None else f"{row['memory_mb']:.1f}",
        )
    console.print(table)
    for bar in result["bars"]:
        verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
        console.print(
            f"{bar['what']}: nearest {bar['measured']:.2f} times slower "
            f"(at least {bar['at_least']:g}): {verdict}"
        )
