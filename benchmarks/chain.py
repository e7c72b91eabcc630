"""The MPS layer against a plain per-site loop and the peers.

One process per implementation and case, measured in turns (`worker_process.py`).
"""

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

from rich.console import Console

from benchmarks import chain_table
from benchmarks.chain_worker import SLOW, Case, serve
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.machine import GEMM_SIZE, available_memory, header, summary
from benchmarks.reference import bonds
from benchmarks.worker_process import Turn, start_process, take_turns

SITES, BATCHES, BONDS = (784, 196), (100, 500), (10, 20, 50, 100)

# The bars: percent of the GEMM peak by (engine, batch), one number for each of BONDS; speedup by chi.
PERCENT = {
    ("native", 100): (15, 35, 50, 50),
    ("native", 500): (25, 50, 60, 60),
    ("torch", 100): (2, 8, 20, 30),
}
OVER_PEER = {10: 15.0, 20: 25.0, 50: 25.0}
MEMORY = 2.0  # times cores and left vectors, native engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--only", default=",".join(CONTENDERS), help="implementations, comma-separated (default: %(default)s)"
    )
    parser.add_argument("--sites", default=None, help="numbers of sites, comma-separated (default: 784,196)")
    parser.add_argument("--batch", default=None, help="batch sizes, comma-separated (default: 100,500)")
    parser.add_argument(
        "--bond", default=None, help="bond dimensions, comma-separated (default: 10,20,50,100)"
    )
    parser.add_argument("--rounds", type=int, default=None, help="rounds for every case (default: 7)")
    parser.add_argument(
        "--trial-seconds", type=float, default=6.0, help="seconds for trying a peer's settings (default: 6)"
    )
    parser.add_argument(
        "--gigabytes", type=float, default=10.0, help="peers that need more are skipped (default: 10)"
    )


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: one record per implementation and case, with ratios and bars."""
    result = header("chain", options.smoke)
    names = [name.strip() for name in options.only.split(",")]
    if unknown := [name for name in names if name not in CONTENDERS]:
        raise SystemExit(f"unknown implementation {unknown[0]!r}; choose from: {', '.join(CONTENDERS)}")
    result["rows"], result["not_installed"] = [], [n for n in names if not CONTENDERS[n].installed()]
    chosen = [CONTENDERS[name] for name in names if CONTENDERS[name].installed()]
    cases = list(_cases(options))
    for number, case in enumerate(cases, 1):
        text = f"N={case.n_sites} B={case.batch} chi={case.bond_dim}"
        with console.status(f"case {number} of {len(cases)}: {text}"):
            rows = measure_case(case, chosen, options)
        compare(rows)
        result["rows"] += rows
        result["errors"] += [
            f"{text}: {r['implementation']}: {r['reason']}" for r in rows if r["status"] == "failed"
        ]
        if not options.smoke:
            console.print(chain_table.line(rows))
    return result


def show(result: dict[str, Any], console: Console) -> None:
    """The table."""
    chain_table.show(result, console)


def _cases(options: argparse.Namespace) -> Iterator[Case]:
    small = options.smoke
    sites = _numbers(options.sites, (20,) if small else SITES)
    batches = _numbers(options.batch, (8,) if small else BATCHES)
    yield from (
        Case(*c) for c in itertools.product(sites, batches, _numbers(options.bond, (6,) if small else BONDS))
    )


def _numbers(text: str | None, default: tuple[int, ...]) -> tuple[int, ...]:
    return default if text is None else tuple(int(word) for word in text.split(","))


def measure_case(case: Case, chosen: list[Contender], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One record per contender; a failure of one is recorded and does not stop the others."""
    gemm_size = 128 if options.smoke else GEMM_SIZE
    rounds = options.rounds or (2 if options.smoke else 7)
    limit = min(options.gigabytes * 1e9, 0.6 * available_memory())
    records: list[dict[str, Any]] = []
    turns: list[_Turn] = []
    for contender in chosen:
        record = {"implementation": contender.name, **asdict(case), "status": "ok"}
        records.append(record)
        if (needed := contender.needed_bytes(case.n_sites, case.batch, case.bond_dim)) > limit:
            record |= {"status": "skipped", "reason": f"its site matrices need about {needed / 1e9:.0f} GB"}
            continue
        setup = (contender.name, case, options.trial_seconds, gemm_size)
        turns.append(_Turn(record, case, start_process(serve, *setup), rounds))
    take_turns(turns, rounds)
    return records


class _Turn(Turn):
    """The parent's side of one worker.

    Args:
        record: of the measurement, filled in as it proceeds.
        case: what it measures.
        connection: to the process.
        rounds: how many there will be; slow contenders get two.
    """

    def __init__(self, record: dict[str, Any], case: Case, connection: Connection, rounds: int) -> None:
        super().__init__(record, connection)
        self._case, self._left = case, rounds

    def measure(self) -> None:
        """One round, if any is left."""
        if self._left <= 0:
            return
        self._left -= 1
        super().measure()
        if self._rounds and self._rounds[-1]["step"]["wall"][0] > SLOW:
            self._left = min(self._left, 2 - len(self._rounds))

    def _judge(self) -> None:
        matched, finite = self.record["check"]["matched"], self.record["finite"]
        if CONTENDERS[self.record["implementation"]].own:
            if not (matched and finite):
                self._fail("its answer is wrong, so it is not timed")
        elif not matched:
            self.record["note"] = "not the same function: timed on its own numbers"
            if not finite:
                self._fail("its answer is not finite")

    def _sum_up(self) -> None:
        self.record["gemm_gflops"] = summary([found["gemm"] for found in self._rounds], 1e9)
        work = work_of(self._case)
        for kind, flops in (("step", 3 * work["flops_forward"]), ("forward", work["flops_forward"])):
            for clock in ("wall", "cpu"):
                self.record[f"{kind}_{clock}_ms"] = summary(self._samples(kind, clock), 1e-3)
            seconds = self.record[f"{kind}_wall_ms"]["median"] * 1e-3
            share = flops / seconds / (self.record["gemm_gflops"]["median"] * 1e9)
            self.record[f"{kind}_percent_of_peak"] = 100 * share
        self.record["memory"]["ratio"] = self.record["memory"]["peak_bytes"] / work["bytes"]


def work_of(case: Case) -> dict[str, int]:
    """The size of a case: core elements, operations of a forward pass, bytes of cores and left vectors."""
    dims, half = bonds(case.n_sites, case.bond_dim), case.n_sites // 2
    left, right = dims[: half + 1], dims[half + 1 :]
    pairs = itertools.chain(itertools.pairwise(left), itertools.pairwise(right))
    weights = sum(2 * l * r for l, r in pairs)
    vectors = case.batch * (sum(left[:-1]) + sum(right[1:]))
    return {"weights": weights, "flops_forward": 2 * case.batch * weights, "bytes": 4 * (weights + vectors)}


def compare(rows: list[dict[str, Any]]) -> None:
    """Adds to the records of one case the ratios over the loop and the best peer, and the bars."""
    good = {row["implementation"]: row for row in rows if row["status"] == "ok"}
    peers = {name: row for name, row in good.items() if CONTENDERS[name].peer}
    best = min(peers, key=lambda name: peers[name]["step_wall_ms"]["median"], default=None)
    for name, row in good.items():
        if not CONTENDERS[name].own:
            continue
        for label, other in (("loop", "loop"), ("best_peer", best)):
            if other in good:
                ratio = {
                    k: good[other][f"{k}_wall_ms"]["median"] / row[f"{k}_wall_ms"]["median"]
                    for k in ("step", "forward")
                }
                row[f"times_faster_than_{label}"] = {"name": other, **ratio}
        row["bars"] = list(_bars(row))


def _bars(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What this record must reach, what was measured, and whether it passes."""
    name, chi = row["implementation"], row["bond_dim"]
    if row["n_sites"] not in SITES or chi not in BONDS:
        return
    percent = PERCENT.get((name, row["batch"]))
    if percent:
        yield _bar("percent_of_peak", row["step_percent_of_peak"], at_least=percent[BONDS.index(chi)])
    if name == "native" and chi in OVER_PEER and "times_faster_than_best_peer" in row:
        yield _bar(
            "times_faster_than_best_peer", row["times_faster_than_best_peer"]["step"], at_least=OVER_PEER[chi]
        )
    if name == "native":
        yield _bar("memory_ratio", row["memory"]["ratio"], at_most=MEMORY)


def _bar(what: str, measured: float, at_least: float = 0.0, at_most: float = float("inf")) -> dict[str, Any]:
    bar = {"at_least": at_least} if at_least else {"at_most": at_most}
    return {"what": what, "measured": measured, **bar, "passed": at_least <= measured <= at_most}
