"""Training by sweeps: time of a sweep against its sizes, share of matrix products, MNIST against Adam."""

import argparse
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import header, in_words, summary
from tnml.data import load
from tnml.nn import MPSLayer
from tnml.training import SweepOptions, TrainOptions, sweep_classifier, train_classifier
from tnml.training.presets import preset

PARTS = ("scaling", "mnist")
BASE = {"sites": 32, "bond_dim": 16, "samples": 4000}
SIZES = {"sites": (16, 32, 64), "bond_dim": (16, 32, 64, 128), "samples": (2000, 4000, 8000, 16000)}
ROUNDS = 3
PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::addmm_")
BARS = {"accuracy": 0.986, "seconds": 3600.0, "largest_bond": 60}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--parts", default=None, help=f"comma-separated (default: {','.join(PARTS)})")
    parser.add_argument("--seeds", default="0,1,2", help="of MNIST, comma-separated (default: %(default)s)")
    parser.add_argument(
        "--shares",
        default="0.1,1",
        help="of the first seed's time, given to Adam (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", help="as for `tnml train` (default: cpu)")


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: seconds of sweeps of many sizes, and one training on MNIST with each solver."""
    result = header("dmrg", options.smoke)
    parts = options.parts.split(",") if options.parts else PARTS
    result["rows"], result["exponents"], result["mnist"] = [], {}, []
    try:
        if "scaling" in parts:
            with console.status("sweeping") as status:
                scaling(result, options, status.update)
        if "mnist" in parts:
            shares = tuple(float(word) for word in options.shares.split(",") if word)
            for number, seed in enumerate(map(int, options.seeds.split(","))):
                mnist(result["mnist"], options, seed, () if number else shares, console)
    except KeyboardInterrupt:
        result["errors"].append("interrupted: not everything was measured")
    return result


def scaling(result: dict[str, Any], options: argparse.Namespace, tell: Any) -> None:
    """Fills in a row for each size, in rounds, and the exponent of the growth along each axis."""
    sizes = {name: values[:2] for name, values in SIZES.items()} if options.smoke else SIZES
    base = {"sites": 6, "bond_dim": 4, "samples": 200} if options.smoke else BASE
    if options.smoke:
        sizes = {"sites": (4,), "bond_dim": (2,), "samples": (100,)}
    for label in ("stays", "travels"):
        cases = [(axis, {**base, axis: value}) for axis, values in sizes.items() for value in values]
        times: list[list[float]] = [[] for _ in cases]
        for number in range(1 if options.smoke else ROUNDS):
            for place, (_, case) in enumerate(cases):
                if label == "travels" and case["bond_dim"] > 64:
                    continue
                tell(f"{label}, {case}, round {number + 1}")
                times[place].append(sweep_seconds(case, label, options.device))
        for (axis, case), found in zip(cases, times, strict=True):
            if found:
                row = {"axis": axis, "label": label, **case, "seconds": summary(found)}
                row["product_share"] = product_share(case, label, options.device)
                result["rows"].append(row)
        for axis in sizes:
            own = [r for r in result["rows"] if r["axis"] == axis and r["label"] == label]
            result["exponents"][f"{label} {axis}"] = exponent(own, axis)


def problem(case: dict[str, int]) -> tuple[MPSLayer, Tensor, Tensor]:
    """A layer whose bonds are all as large as possible, and random samples of ten classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(case["samples"], case["sites"], generator=generator)
    y = torch.randint(10, (case["samples"],), generator=generator)
    return MPSLayer(case["sites"], 10, bond_dim=case["bond_dim"]), x, y


def sweep_options(case: dict[str, int], label: str, device: str) -> SweepOptions:
    """One sweep that keeps the bonds at their size."""
    return SweepOptions(sweeps=1, max_bond=case["bond_dim"], max_error=0.0, label=label, device=device)


def sweep_seconds(case: dict[str, int], label: str, device: str) -> float:
    """Seconds of one sweep."""
    layer, x, y = problem(case)
    return sweep_classifier(layer, x, y, sweep_options(case, label, device)).seconds


def product_share(case: dict[str, int], label: str, device: str) -> float:
    """Share of CPU time that a sweep spends in matrix products."""
    layer, x, y = problem(case)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        sweep_classifier(layer, x, y, sweep_options(case, label, device))
    events = found.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    return sum(e.self_cpu_time_total for e in events if e.key in PRODUCTS) / max(total, 1)


def exponent(rows: list[dict[str, Any]], axis: str) -> float | None:
    """The exponent with which the median time grows with the size, between the two largest sizes."""
    if len(rows) < 2:
        return None
    first, last = rows[-2:]
    growth = last["seconds"]["median"] / first["seconds"]["median"]
    return math.log(growth) / math.log(last[axis] / first[axis])


def mnist(
    rows: list[dict[str, Any]],
    options: argparse.Namespace,
    seed: int,
    shares: Sequence[float],
    console: Console,
) -> None:
    """Adds sweeps with the recipe of `tnml train mnist --solver dmrg --data.pool 2`, and Adam for as long."""
    name = "digits" if options.smoke else "mnist"
    pool = 1 if options.smoke else 2
    train, test = (load(name, split=split, pool=pool) for split in ("train", "test"))
    recipe = preset(name)
    sweeps = dataclasses.replace(recipe.sweep, seed=seed, device=options.device)
    if options.smoke:
        sweeps = dataclasses.replace(sweeps, sweeps=1)
    sites, classes = train.x.shape[1], int(train.y.max()) + 1
    layer = MPSLayer(
        sites,
        classes,
        bond_dim=sweeps.starting_bond,
        order="snake",
        shape=train.image_shape,
        seed=seed,
    )
    with console.status(f"sweeping over {name}, seed {seed}"):
        found = sweep_classifier(
            layer, train.x, train.y, sweeps, x_test=test.x, y_test=test.y, image_shape=train.image_shape
        )
    rows.append(
        {
            "solver": "dmrg",
            "seed": seed,
            "test_accuracy": found.test["accuracy"],
            "seconds": found.seconds,
            "parameters": sum(p.numel() for p in layer.parameters()),
            "largest_bond": max(layer.bond_dims),
            "bond_dims": layer.bond_dims,
            "history": found.history,
            "options": sweeps.record(),
        }
    )
    if not options.smoke:
        rows[-1]["bars"] = bars(rows[-1])
    console.print(f"seed {seed}: test accuracy {found.test['accuracy']:.4f} in {found.seconds:.0f} s")
    beside(rows, train, test, sweeps, shares, console, smoke=options.smoke)


def bars(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Accuracy, time and bonds of the sweeps on MNIST."""
    accuracy, seconds, bond = row["test_accuracy"], row["seconds"], row["largest_bond"]
    return [
        {
            "what": "test_accuracy",
            "measured": accuracy,
            "at_least": BARS["accuracy"],
            "passed": accuracy >= BARS["accuracy"],
        },
        {
            "what": "seconds",
            "measured": seconds,
            "at_most": BARS["seconds"],
            "passed": seconds <= BARS["seconds"],
        },
        {
            "what": "largest_bond",
            "measured": bond,
            "at_most": BARS["largest_bond"],
            "passed": bond <= BARS["largest_bond"],
        },
    ]


def beside(
    rows: list[dict[str, Any]],
    train: Any,
    test: Any,
    sweeps: SweepOptions,
    shares: Sequence[float],
    console: Console,
    *,
    smoke: bool,
) -> None:
    """Adds Adam with the parameters and image shifts of the last row, for shares of that row's time."""
    if not shares:
        return
    swept = rows[-1]
    sites, classes = train.x.shape[1], int(train.y.max()) + 1
    bond = 1
    while size(sites, classes, bond + 1) <= swept["parameters"]:
        bond += 1
    base = TrainOptions(
        epochs=1,
        lr=5e-4,
        clip_norm=1.0,
        label_smoothing=0.1,
        average="ema",
        max_shift=sweeps.max_shift,
        device=sweeps.device,
        seed=sweeps.seed,
    )

    def fit(epochs: int) -> tuple[MPSLayer, Any]:
        layer = MPSLayer(
            sites, classes, bond_dim=bond, order="snake", shape=train.image_shape, seed=sweeps.seed
        )
        chosen = dataclasses.replace(base, epochs=epochs)
        return layer, train_classifier(layer, train.x, train.y, chosen, x_test=test.x, y_test=test.y)

    fit(1)  # compiles
    second = fit(1)[1].seconds
    for share in shares:
        epochs = 1 if smoke else max(1, round(share * swept["seconds"] / second))
        with console.status(f"Adam for {epochs} epochs"):
            layer, found = fit(epochs)
        rows.append(
            {
                "solver": "adam",
                "share_of_time": share,
                "epochs": epochs,
                "test_accuracy": found.test["accuracy"],
                "train_accuracy": found.history[-1]["accuracy"],
                "seconds": found.seconds,
                "parameters": sum(p.numel() for p in layer.parameters()),
                "largest_bond": max(layer.bond_dims),
            }
        )


def size(sites: int, classes: int, bond: int) -> int:
    """Parameters of a layer."""
    layer = MPSLayer(sites, classes, bond_dim=bond, noise=0.0)
    return sum(p.numel() for p in layer.parameters())


def show(result: dict[str, Any], console: Console) -> None:
    """The tables."""
    console.print("\n" + in_words(result["machine"]))
    table = Table(title="Seconds of one two-site sweep, 10 classes, median (min-max)")
    for heading in ("along", "label", "sites", "bond dimension", "samples", "seconds", "matrix products"):
        table.add_column(heading, justify="left" if heading in ("along", "label") else "right")
    for row in result["rows"]:
        s = row["seconds"]
        table.add_row(
            row["axis"],
            row["label"],
            *(str(row[name]) for name in BASE),
            f"{s['median']:.2f} ({s['min']:.2f}-{s['max']:.2f})",
            f"{row['product_share']:.0%}",
        )
    if result["rows"]:
        console.print(table)
    for name, power in result["exponents"].items():
        if power is not None:
            console.print(f"{name}: time grows with the power {power:.2f} between the two largest")
    for row in result["mnist"]:
        share = f", {row['epochs']} epochs" if row["solver"] == "adam" else f", seed {row['seed']}"
        console.print(
            f"{row['solver']}{share}: test accuracy {row['test_accuracy']:.4f} in {row['seconds']:.0f} s, "
            f"{row['parameters']:,} parameters, largest bond {row['largest_bond']}"
        )
        for bar in row.get("bars", []):
            bound = f">= {bar['at_least']}" if "at_least" in bar else f"<= {bar['at_most']}"
            verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
            console.print(f"  {bar['what']} {bar['measured']:.4g} ({bound}): {verdict}")
    for text in result["errors"]:
        console.print(f"[red]failed[/red] {text}")
