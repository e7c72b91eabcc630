"""Equal layers trained together against one by one: steps of all replicas per second, answers first.

The losses of both are compared before a time is taken; the times are taken in turns. One by one is
`train_regressor` on one layer after the other, with all threads; where that takes long, a few layers
represent all. CPU seconds are recorded in addition to wall-clock seconds: they vary less on a busy machine.
"""

import argparse
import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import header, in_words, summary
from tnml.nn import MPSLayer
from tnml.training import TrainOptions, TrainResult, train_regressor
from tnml.training.replicas.train import train_replicas, worth_it

SITES, BONDS = (10, 32, 196), (2, 4, 8, 16, 32)
REPLICAS, BATCH, STEPS, ALONE = 16, 64, 20, 4
FACTOR, MOST_SITES, MOST_BOND, SAME = 5.0, 32, 16, 1e-5  # the bar, where it holds, and what equal losses are


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--replicas", type=int, default=REPLICAS, help=f"layers (default: {REPLICAS})")
    parser.add_argument("--turns", type=int, default=None, help="samples of each time (default: 5)")
    parser.add_argument("--sites", type=int, nargs="+", default=None, help="numbers of sites")
    parser.add_argument("--bonds", type=int, nargs="+", default=None, help="bond dimensions")


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: a row per size, and the bars."""
    result = header("replicas", options.smoke)
    sites = options.sites or ((4,) if options.smoke else SITES)
    bonds = options.bonds or ((2,) if options.smoke else BONDS)
    turns = options.turns or (1 if options.smoke else 5)
    replicas = 3 if options.smoke else options.replicas
    result["rows"] = []
    with console.status("training") as status:
        for n in sites:
            for bond in bonds:
                status.update(f"{n} sites, bond dimension {bond}")
                result["rows"].append(compare(n, bond, replicas, turns, 2 if options.smoke else STEPS))
    result["bars"] = bars(result["rows"])
    return result


def compare(n_sites: int, bond: int, replicas: int, turns: int, steps: int) -> dict[str, Any]:
    """One row: how far the losses are apart, and the seconds of a step of all replicas in both ways."""
    generator = torch.Generator().manual_seed(n_sites)
    x = torch.rand(steps * BATCH // 2, n_sites, generator=generator)
    y = (x[:, 0] - x[:, -1]).abs()
    options = [
        TrainOptions(epochs=2, batch_size=BATCH, lr=1e-3, loss="mse", device="cpu", seed=seed)
        for seed in range(replicas)
    ]
    layers = [MPSLayer(n_sites, 1, bond_dim=bond, seed=seed) for seed in range(replicas)]
    some = min(ALONE, replicas)
    together, _, _ = _together(layers, x, y, options)
    alone, _, _ = _one_by_one(layers[:some], x, y, options)
    off = max(
        abs(one["loss"] / two["loss"] - 1)
        for a, b in zip(alone, together[:some], strict=True)
        for one, two in zip(a.history, b.history, strict=True)
    )
    taken = 2 * -(-len(x) // BATCH)
    seconds: dict[str, list[float]] = {
        "together": [],
        "one by one": [],
        "together, CPU": [],
        "one by one, CPU": [],
    }
    for _ in range(turns):
        for name, share, (_, wall, cpu) in (
            ("together", 1.0, _together(layers, x, y, options)),
            ("one by one", replicas / some, _one_by_one(layers[:some], x, y, options)),
        ):
            seconds[name].append(wall * share / taken)
            seconds[f"{name}, CPU"].append(cpu * share / taken)
    times = {name: summary(samples) for name, samples in seconds.items()}
    ratios = [b / a for a, b in zip(seconds["together"], seconds["one by one"], strict=True)]
    return {
        "sites": n_sites,
        "bond_dim": bond,
        "replicas": replicas,
        "batch": BATCH,
        "losses_off": off,
        "seconds_of_a_step": times,
        "times_faster": summary(ratios),
        "times_less_cpu": times["one by one, CPU"]["median"] / times["together, CPU"]["median"],
        "steps_a_second": replicas / times["together"]["median"],
        "worth_it": worth_it(layers[0], replicas, BATCH),
    }


def _together(
    layers: Sequence[MPSLayer], x: Tensor, y: Tensor, options: Sequence[TrainOptions]
) -> tuple[list[TrainResult], float, float]:
    copies = copy.deepcopy(list(layers))
    wall, cpu = time.perf_counter(), time.process_time()
    found = train_replicas(copies, x, y, options, task="regression")
    spent = time.perf_counter() - wall, time.process_time() - cpu
    return [each for each in found if isinstance(each, TrainResult)], *spent


def _one_by_one(
    layers: Sequence[MPSLayer], x: Tensor, y: Tensor, options: Sequence[TrainOptions]
) -> tuple[list[TrainResult], float, float]:
    copies = copy.deepcopy(list(layers))
    wall, cpu = time.perf_counter(), time.process_time()
    found = [train_regressor(layer, x, y, each) for layer, each in zip(copies, options, strict=False)]
    return found, time.perf_counter() - wall, time.process_time() - cpu


def bars(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Equal losses everywhere; at least the speedup where sites and bonds are within the bar's."""
    worst = max(row["losses_off"] for row in rows)
    found = [{"what": "losses off", "measured": worst, "at_most": SAME, "passed": worst <= SAME}]
    for row in rows:
        if row["sites"] <= MOST_SITES and row["bond_dim"] <= MOST_BOND:
            faster = row["times_faster"]["median"]
            found.append(
                {
                    "what": f"{row['sites']} sites, bond {row['bond_dim']}, times faster",
                    "measured": faster,
                    "at_least": FACTOR,
                    "passed": faster >= FACTOR,
                }
            )
    return found


def show(result: dict[str, Any], console: Console) -> None:
    """The table and the bars."""
    console.print("\n" + in_words(result["machine"]))
    table = Table(title="A step of all replicas: together and one by one, milliseconds (median, min-max)")
    headings = (
        "sites",
        "bond",
        "losses off",
        "together",
        "one by one",
        "times faster",
        "less CPU",
        "steps/s",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in result["rows"]:
        times, faster = row["seconds_of_a_step"], row["times_faster"]
        table.add_row(
            str(row["sites"]),
            str(row["bond_dim"]),
            f"{row['losses_off']:.0e}",
            *(_spread(times[name]) for name in ("together", "one by one")),
            f"{faster['median']:.1f} ({faster['min']:.1f}-{faster['max']:.1f})",
            f"{row['times_less_cpu']:.1f}",
            f"{row['steps_a_second']:.0f}",
        )
    console.print(table)
    for bar in result["bars"]:
        bound = f"at most {bar['at_most']:g}" if "at_most" in bar else f"at least {bar['at_least']:g}"
        verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
        console.print(f"{bar['what']} {bar['measured']:.3g} ({bound}): {verdict}")


def _spread(times: dict[str, float]) -> str:
    """Milliseconds: median (min-max)."""
    median, least, most = (1e3 * times[name] for name in ("median", "min", "max"))
    return f"{median:.3g} ({least:.3g}-{most:.3g})"
