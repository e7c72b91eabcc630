"""Fits of small tables: whole steps by one native call, against autograd by two ways, and two peers.

By "autograd" go layers and losses that the native call does not know: forward and backward pass by direct
calls. The "long" way sends every chain through the registry of operators besides, keeps torch's own graph of
the loss and takes the optimiser's own step. Answers come before times: the last two must give the same bits,
and the probabilities of the native steps may differ from theirs by rounding, which a whole fit makes larger:
by `CLOSE` at most. Times are taken in turns; `--before FOLDER` takes the fits of an earlier checkout, too.
Compare CPU seconds: on a busy machine wall-clock seconds also measure other programs.
"""

import argparse
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import MinMaxScaler

from benchmarks.machine import header, in_words, summary
from tnml import MPSClassifier

SETS = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer}
STEP, FIT, LOAD, TURNS = 0.25e-3, 0.3, 0.8, 5  # bars in seconds: a step and a fit of iris, loading the engine
CLOSE = 1e-3  # between the probabilities of two ways
NATIVE = (("tnml.training.short", "MOST_WORK", 0),)
SHORT_WAYS = (
    ("tnml.contraction.chain.operator", "plain", lambda *_: False),
    ("tnml.contraction.chain.labelled", "plain", lambda *_: False),
    ("tnml.training.losses.cross_entropy", "plain", lambda *_: False),
    ("tnml.loop.step", "take_step", lambda optimizer: optimizer.step()),
)
LOADING = """
import time, torch
import tnml.contraction
from tnml.contraction import ChainShape, chain_flat
start, cpu = time.perf_counter(), time.process_time()
shape = ChainShape(2, (1, 2, 4), (4, 2, 1))
weight = torch.ones(shape.n_weights, requires_grad=True)
chain_flat(torch.ones(32, 4, 2), weight, shape, "native").left.sum().backward()
print(time.perf_counter() - start, time.process_time() - cpu)
"""
FITTING = """
import sys, time, sklearn.datasets
from tnml import MPSClassifier
x, y = getattr(sklearn.datasets, sys.argv[1])(return_X_y=True)
model = MPSClassifier(random_state=0, epochs=eval(sys.argv[2]), device="cpu")
model.fit(x, y)
for _ in range(int(sys.argv[3])):
    start, cpu = time.perf_counter(), time.process_time()
    model.fit(x, y)
    print(time.perf_counter() - start, time.process_time() - cpu)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--turns", type=int, default=None, help=f"samples of each time (default: {TURNS})")
    parser.add_argument("--before", type=Path, help="an earlier checkout, whose fits are measured, too")


@contextmanager
def without(*changes: tuple[str, str, Any]) -> Iterator[None]:
    """Inside, the names of modules mean something else."""
    with ExitStack() as stack:
        for module, name, instead in changes:
            stack.enter_context(mock.patch.object(importlib.import_module(module), name, instead))
        yield


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: a row per set, the time to load the engine, and the bars."""
    result = header("small", options.smoke)
    turns = options.turns or (1 if options.smoke else TURNS)
    names = ["iris"] if options.smoke else list(SETS)
    with console.status("loading") as status:
        result["loading"] = loading(turns)
        result["rows"] = []
        for name in names:
            status.update(name)
            row = compare(name, turns, 2 if options.smoke else None, options.before)
            result["rows"].append(row)
            if not options.smoke:
                cpu = {fit: times["cpu"]["median"] for fit, times in row["seconds"].items()}
                console.print(f"{name}: " + ", ".join(f"{fit} {1e3 * t:.0f} ms" for fit, t in cpu.items()))
    result["errors"] = [
        f"{row['set']}: {error}"
        for row in result["rows"]
        for error, found in (
            ("the two ways through autograd end in different bits", not row["same_bits"]),
            ("the native steps end elsewhere", row["difference"] > CLOSE),
        )
        if found
    ]
    result["bars"] = bars(result)
    return result


def loading(turns: int) -> dict[str, Any]:
    """Seconds from the first chain to its gradient, in fresh processes; the first does not count."""
    times = []
    for _ in range(turns + 1):
        done = subprocess.run(
            [sys.executable, "-c", LOADING], capture_output=True, text=True, check=True, timeout=600
        )
        times.append([float(word) for word in done.stdout.split()])
    return {"wall": summary([w for w, _ in times[1:]]), "cpu": summary([c for _, c in times[1:]])}


def compare(name: str, turns: int, epochs: int | None, before: Path | None = None) -> dict[str, Any]:
    """One row: whether the ways agree, and the seconds of all fits."""
    x, y = SETS[name](return_X_y=True)
    ours = MPSClassifier(random_state=0, epochs=epochs, device="cpu")
    peers = {
        "HistGradientBoosting": HistGradientBoostingClassifier(random_state=0),
        "MLP": MLPClassifier(random_state=0, max_iter=epochs or 2000),
    }
    scaled = MinMaxScaler().fit_transform(x)
    native = ours.fit(x, y).predict_proba(x)
    with without(*NATIVE):
        state, probabilities = ours.fit(x, y).layer_.state_dict(), ours.predict_proba(x)
    with without(*NATIVE, *SHORT_WAYS):
        long = ours.fit(x, y).layer_.state_dict()
    fits: dict[str, Callable[[], object]] = {
        "native": lambda: ours.fit(x, y),
        "autograd": lambda: _changed(ours, x, y, *NATIVE),
        "long": lambda: _changed(ours, x, y, *NATIVE, *SHORT_WAYS),
        **{peer: lambda model=model: model.fit(scaled, y) for peer, model in peers.items()},
    }
    found: dict[str, dict[str, list[float]]] = {fit: {"wall": [], "cpu": []} for fit in fits}
    for _ in range(turns):
        for fit, call in fits.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            _note(found[fit], time.perf_counter() - wall, time.process_time() - cpu)
        if before is not None:
            _note(found.setdefault("before", {"wall": [], "cpu": []}), *fit_of(before, name, epochs))
    steps = ours.n_iter_ * -(-len(x) // 32)
    return {
        "set": name,
        "samples": len(x),
        "columns": x.shape[1],
        "same_bits": all(torch.equal(state[key], long[key]) for key in long),
        "difference": float(abs(native - probabilities).max()),
        "epochs": ours.n_iter_,
        "steps": steps,
        "seconds": {fit: {kind: summary(s) for kind, s in times.items()} for fit, times in found.items()},
        "score": {"native": ours.score(x, y), **{peer: m.score(scaled, y) for peer, m in peers.items()}},
    }


def fit_of(checkout: Path, name: str, epochs: int | None) -> tuple[float, float]:
    """Wall-clock and CPU seconds of the second fit in a process of another checkout."""
    words = [sys.executable, "-c", FITTING, SETS[name].__name__, repr(epochs), "1"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, timeout=600, cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout.absolute())},
    )  # fmt: skip
    wall, cpu = done.stdout.split()
    return float(wall), float(cpu)


def _note(times: dict[str, list[float]], wall: float, cpu: float) -> None:
    times["wall"].append(wall)
    times["cpu"].append(cpu)


def _changed(model: MPSClassifier, x: Any, y: Any, *changes: tuple[str, str, Any]) -> None:
    with without(*changes):
        model.fit(x, y)


def bars(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The bars, of CPU time: a fit of iris, each of its steps, loading the engine."""
    iris = next(row for row in result["rows"] if row["set"] == "iris")
    fit = iris["seconds"]["native"]["cpu"]["median"]
    measured = (
        ("a step of iris", fit / iris["steps"], STEP),
        ("a fit of iris", fit, FIT),
        ("loading the engine", result["loading"]["cpu"]["median"], LOAD),
    )
    return [{"what": w, "measured": m, "at_most": most, "passed": m <= most} for w, m, most in measured]


def show(result: dict[str, Any], console: Console) -> None:
    """The table and the bars."""
    console.print("\n" + in_words(result["machine"]))
    fits = list(result["rows"][0]["seconds"])
    table = Table(title="A default fit: CPU seconds, median (min-max); ms of a step; training accuracy")
    for heading in ("set", "same bits", "difference", "ms, native", "ms, autograd", *fits, "accuracy"):
        table.add_column(heading, justify="right")
    for row in result["rows"]:
        cpu = {fit: row["seconds"][fit]["cpu"] for fit in fits}
        steps = [f"{1e3 * cpu[way]['median'] / row['steps']:.2f}" for way in ("native", "autograd")]
        spread = [f"{c['median']:.2f} ({c['min']:.2f}-{c['max']:.2f})" for c in cpu.values()]
        scores = " / ".join(f"{s:.3f}" for s in row["score"].values())
        agree = "yes" if row["same_bits"] else "NO", f"{row['difference']:.1e}"
        table.add_row(row["set"], *agree, *steps, *spread, scores)
    console.print(table)
    for bar in result["bars"]:
        verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
        console.print(f"{bar['what']}: {bar['measured']:.4g} s (at most {bar['at_most']:g}): {verdict}")
