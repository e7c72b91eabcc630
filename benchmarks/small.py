"""Fits of small tables: the short ways through a step against the long ones, answers first, and two peers.

The long way sends every chain through the registry of operators, keeps torch's own graph of the loss and
takes the optimiser's own step. The models of both ways are compared bit by bit before a time is taken; the
times are taken in turns. Compare CPU seconds: on a busy machine wall-clock seconds also measure other
programs.
"""

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--turns", type=int, default=None, help=f"samples of each time (default: {TURNS})")


@contextmanager
def long_way() -> Iterator[None]:
    """Inside, no short way is taken."""
    with ExitStack() as stack:
        for module, name, instead in SHORT_WAYS:
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
            result["rows"].append(compare(name, turns, 2 if options.smoke else None))
    result["errors"] = [
        f"{row['set']}: the two ways end in different bits" for row in result["rows"] if not row["same_bits"]
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


def compare(name: str, turns: int, epochs: int | None) -> dict[str, Any]:
    """One row: whether the two ways agree, and the seconds of all fits."""
    x, y = SETS[name](return_X_y=True)
    ours = MPSClassifier(random_state=0, epochs=epochs, device="cpu")
    peers = {
        "HistGradientBoosting": HistGradientBoostingClassifier(random_state=0),
        "MLP": MLPClassifier(random_state=0, max_iter=epochs or 2000),
    }
    scaled = MinMaxScaler().fit_transform(x)
    short = ours.fit(x, y).layer_.state_dict()
    with long_way():
        long = ours.fit(x, y).layer_.state_dict()
    fits: dict[str, Callable[[], object]] = {
        "short": lambda: ours.fit(x, y),
        "long": lambda: _long(ours, x, y),
        **{peer: lambda model=model: model.fit(scaled, y) for peer, model in peers.items()},
    }
    found: dict[str, dict[str, list[float]]] = {fit: {"wall": [], "cpu": []} for fit in fits}
    for _ in range(turns):
        for fit, call in fits.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            found[fit]["cpu"].append(time.process_time() - cpu)
            found[fit]["wall"].append(time.perf_counter() - wall)
    steps = ours.n_iter_ * -(-len(x) // 32)
    return {
        "set": name,
        "samples": len(x),
        "columns": x.shape[1],
        "same_bits": all(torch.equal(short[key], long[key]) for key in long),
        "epochs": ours.n_iter_,
        "steps": steps,
        "seconds": {fit: {kind: summary(s) for kind, s in times.items()} for fit, times in found.items()},
        "score": {"short": ours.score(x, y), **{peer: m.score(scaled, y) for peer, m in peers.items()}},
    }


def _long(model: MPSClassifier, x: Any, y: Any) -> None:
    with long_way():
        model.fit(x, y)


def bars(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The bars, of CPU time: a fit of iris, each of its steps, loading the engine."""
    iris = next(row for row in result["rows"] if row["set"] == "iris")
    fit = iris["seconds"]["short"]["cpu"]["median"]
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
    for heading in ("set", "same bits", "ms, short", "ms, long", *fits, "accuracy"):
        table.add_column(heading, justify="right")
    for row in result["rows"]:
        cpu = {fit: row["seconds"][fit]["cpu"] for fit in fits}
        steps = [f"{1e3 * cpu[way]['median'] / row['steps']:.2f}" for way in ("short", "long")]
        spread = [f"{c['median']:.2f} ({c['min']:.2f}-{c['max']:.2f})" for c in cpu.values()]
        scores = " / ".join(f"{s:.3f}" for s in row["score"].values())
        table.add_row(row["set"], "yes" if row["same_bits"] else "NO", *steps, *spread, scores)
    console.print(table)
    for bar in result["bars"]:
        verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
        console.print(f"{bar['what']}: {bar['measured']:.4g} s (at most {bar['at_most']:g}): {verdict}")
