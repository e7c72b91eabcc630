"""The tensor-train layer against `torch.nn.Linear` and two other libraries: time and memory of a step.

One process per implementation and case, measured in turns (`worker_process.py`). Ratios are taken within a
round, so that drift of the machine affects both sides.
"""

import argparse
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import torch
from rich.console import Console

from benchmarks import tt_table
from benchmarks.machine import header, summary
from benchmarks.tt_peers import CONTENDERS, Case, Contender
from benchmarks.tt_worker import serve
from benchmarks.worker_process import Turn, start_process, take_turns
from tnml.contraction import TTShape, tt_plans
from tnml.contraction.tt.plans import choose_plan
from tnml.contraction.tt.rates import rates_of

OWN, BASE = "tnml", "dense"

# name: factors of inputs and outputs, samples, ranks
ROWS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, tuple[int, ...]]] = {
    "4096": ((16, 16, 16), (16, 16, 16), 128, (2, 4, 8, 16, 32)),
    "1024": ((32, 32), (32, 32), 128, (2, 4, 8, 16)),
    "256": ((16, 16), (16, 16), 5000, (2, 4, 8)),
    "64": ((8, 8), (8, 8), 5000, (2, 4, 8)),
    "784": ((28, 28), (32, 16), 128, (2, 4, 8, 16)),
}
SMOKE = Case("60", (4, 3, 5), (2, 6, 3), 16, 3)

# The bars.
SLOWEST = 1.05  # times the dense layer's step
FASTEST = {("4096", 4): 0.14}
OVER_PEERS = 1.1
MEMORY = 1.1  # times the dense layer's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--only", default=",".join(CONTENDERS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--rows", default=None, help=f"sizes, comma-separated (default: {','.join(ROWS)})")
    parser.add_argument("--ranks", default=None, help="comma-separated (default: the ranks of every row)")
    parser.add_argument("--rounds", type=int, default=None, help="rounds for every case (default: 9)")


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: one record per implementation and case, with ratios and bars."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the workers' profiler would log every start
    result = header("tt_linear", options.smoke)
    names = [name.strip() for name in options.only.split(",")]
    if unknown := [name for name in names if name not in CONTENDERS]:
        raise SystemExit(f"unknown implementation {unknown[0]!r}; choose from: {', '.join(CONTENDERS)}")
    result["rows"] = []
    result["not_installed"] = [name for name in names if not CONTENDERS[name].installed()]
    chosen = [CONTENDERS[name] for name in names if CONTENDERS[name].installed()]
    rounds = options.rounds or (2 if options.smoke else 9)
    cases = list(cases_of(options))
    # The first call measures the rates by which tnml chooses its plans: do it before other processes run.
    result["rates"] = rates_of(torch.device("cpu"), torch.float32)._asdict()
    try:
        for number, case in enumerate(cases, 1):
            text = tt_table.case_in_words(asdict(case))
            with console.status(f"case {number} of {len(cases)}: {text}"):
                rows = measure_case(case, chosen, rounds)
            compare(rows)
            for row in rows:
                if row["implementation"] == OWN:
                    row.update(products(case))
            result["rows"] += rows
            result["errors"] += [
                f"{text}: {r['implementation']}: {r['reason']}" for r in rows if r["status"] == "failed"
            ]
            if not options.smoke:
                console.print(f"{text}: {tt_table.line(rows)}")
    except KeyboardInterrupt:
        result["errors"].append("interrupted: not all cases were measured")
    return result


def show(result: dict[str, Any], console: Console) -> None:
    """The table."""
    tt_table.show(result, console)


def cases_of(options: argparse.Namespace) -> Iterator[Case]:
    """The cases that the options choose."""
    if options.smoke:
        yield SMOKE
        return
    names = options.rows.split(",") if options.rows else list(ROWS)
    for name in names:
        if name not in ROWS:
            raise SystemExit(f"unknown row {name!r}; choose from: {', '.join(ROWS)}")
        ins, outs, batch, ranks = ROWS[name]
        wanted = tuple(int(word) for word in options.ranks.split(",")) if options.ranks else ranks
        yield from (Case(name, ins, outs, batch, rank) for rank in wanted)


def measure_case(case: Case, chosen: Sequence[Contender], rounds: int) -> list[dict[str, Any]]:
    """One record per contender; a failure of one is recorded and does not stop the others."""
    turns = [_Turn(contender.name, case, start_process(serve, contender.name, case)) for contender in chosen]
    take_turns(turns, rounds)
    return [turn.record for turn in turns]


class _Turn(Turn):
    """The parent's side of one worker.

    Args:
        name: of the contender.
        case: what it measures.
        connection: to the process.
    """

    def __init__(self, name: str, case: Case, connection: Connection) -> None:
        super().__init__({"implementation": name, **asdict(case), "status": "ok"}, connection)
        self.record["parameters"] = (
            math.prod(case.ins) * math.prod(case.outs) if name == BASE else case.n_weights
        )

    def _judge(self) -> None:
        if self.record["check"]["matched"]:
            return
        if CONTENDERS[self.record["implementation"]].peer:
            self.record["note"] = "its answer is outside the tolerance; timed nevertheless"
        else:
            self._fail("its answer is wrong, so it is not timed")

    def _sum_up(self) -> None:
        for kind in ("step", "forward"):
            for clock in ("wall", "cpu"):
                self.record[f"{kind}_{clock}_ms"] = summary(self._samples(kind, clock), 1e-3)
            medians = [1e3 * statistics.median(found[kind]["wall"]) for found in self._rounds]
            self.record[f"{kind}_round_ms"] = medians


def compare(rows: list[dict[str, Any]]) -> None:
    """Adds to the records of one case the ratios over the dense layer, and to tnml's those of the peers."""
    good = {row["implementation"]: row for row in rows if row["status"] == "ok"}
    own = good.get(OWN)
    for row in good.values():
        if BASE in good:
            row["over_dense"] = {kind: ratio(row, good[BASE], kind) for kind in ("step", "forward")}
            least = max(1, good[BASE]["memory"]["peak_bytes"])
            row["over_dense"]["memory"] = row["memory"]["peak_bytes"] / least
        if own and CONTENDERS[row["implementation"]].peer:
            row["over_tnml"] = {kind: ratio(row, own, kind) for kind in ("step", "forward")}
    if own:
        own["bars"] = list(bars(own, good))


def ratio(row: dict[str, Any], other: dict[str, Any], kind: str) -> dict[str, float]:
    """Time of one over that of the other, round by round: median and quartiles."""
    pairs = zip(row[f"{kind}_round_ms"], other[f"{kind}_round_ms"], strict=True)
    found = [mine / theirs for mine, theirs in pairs]
    low, median, high = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
    return {"median": median, "low": low, "high": high}


def bars(own: dict[str, Any], good: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What tnml's record must reach, what was measured, and whether it passes."""
    if own["name"] not in ROWS:
        return
    if "over_dense" in own:
        most = FASTEST.get((own["name"], own["rank"]), SLOWEST)
        step, memory = own["over_dense"]["step"]["median"], own["over_dense"]["memory"]
        yield {"what": "step_over_dense", "measured": step, "at_most": most, "passed": step <= most}
        yield {
            "what": "memory_over_dense",
            "measured": memory,
            "at_most": MEMORY,
            "passed": memory <= MEMORY,
        }
    for name, row in good.items():
        if "over_tnml" in row:
            found = row["over_tnml"]["step"]
            yield {
                "what": f"{name}_over_tnml",
                "measured": found["median"],
                "at_least": OVER_PEERS,
                "equal": found["median"] < OVER_PEERS and found["low"] <= 1 <= found["high"],
                "passed": found["median"] >= OVER_PEERS or found["low"] <= 1 <= found["high"],
            }


def products(case: Case) -> dict[str, Any]:
    """How tnml computes a case, and the operations of the cheapest way over the dense layer's."""
    shape = TTShape(case.ins, case.outs, case.ranks)
    rates = rates_of(torch.device("cpu"), torch.float32)
    chosen = choose_plan(shape, case.batch, "auto", 4, True, rates)
    dense = 3 * 2 * case.batch * shape.in_size * shape.out_size  # forward, and backward to inputs and matrix
    cheapest = min(plan.flops for plan in tt_plans(shape, case.batch))
    return {"plan": str(chosen), "bound": cheapest / dense}
