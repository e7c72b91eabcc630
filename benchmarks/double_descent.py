"""The double descent of least squares: test error against bond dimension on data from a random MPS.

The protocol is our own (the reference study does not publish its sizes): ten sites, features (1, sqrt 3
(2x - 1)), targets of a random Gaussian MPS of bond dimension 4 scaled to unit variance, label noise of
standard deviation 0.1 on 300 training samples, 4,000 test samples without noise; one-site sweeps of exact
least squares, of least norm where there are many solutions.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import header, in_words
from tnml.nn import MPSLayer
from tnml.training import SweepOptions, sweep_regressor

SITES, TEACHER_BOND, N_TRAIN, N_TEST, NOISE = 10, 4, 300, 4000, 0.1
BONDS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
PEAK = 12  # 2 * 12**2 = 288 parameters of the largest core against 300 samples


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--seeds", type=int, default=None, help="teachers and starts (default: 5)")
    parser.add_argument("--sweeps", type=int, default=10, help="there and back (default: 10)")


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: a record per bond dimension and seed, the medians, and whether the shape is there."""
    result = header("double_descent", options.smoke)
    seeds = options.seeds or (1 if options.smoke else 5)
    bonds = (2, 4) if options.smoke else BONDS
    sweeps = 2 if options.smoke else options.sweeps
    result["rows"] = []
    with console.status("sweeping") as status:
        for bond in bonds:
            for seed in range(seeds):
                status.update(f"bond dimension {bond}, seed {seed}")
                result["rows"].append(fit(bond, seed, sweeps))
    result["medians"] = {
        bond: statistics.median(row["test_mse"] for row in result["rows"] if row["bond_dim"] == bond)
        for bond in bonds
    }
    result["bars"] = [] if options.smoke else bars(result["medians"])
    return result


def teacher_data(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs `[b, n]`, targets `[b]` and noisy targets of all samples, the training ones first."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(N_TRAIN + N_TEST, SITES, generator=generator, dtype=torch.float64)
    features = torch.stack([torch.ones_like(x), 3**0.5 * (2 * x - 1)], dim=2)
    vector = torch.ones(len(x), 1, dtype=torch.float64)
    for site in range(SITES):
        left = 1 if site == 0 else TEACHER_BOND
        right = 1 if site == SITES - 1 else TEACHER_BOND
        core = torch.randn(left, 2, right, generator=generator, dtype=torch.float64)
        vector = torch.einsum("bl,bd,ldr->br", vector, features[:, site], core)
    targets = vector[:, 0] / vector[:, 0].std()
    return x, targets, targets + NOISE * torch.randn(len(x), generator=generator, dtype=torch.float64)


def fit(bond: int, seed: int, sweeps: int) -> dict[str, Any]:
    """The record of one fit."""
    x, truth, noisy = teacher_data(seed)
    layer = MPSLayer(SITES, 1, bond_dim=bond, features="legendre", dtype="float64", noise=1.0, seed=seed)
    options = SweepOptions(
        sweeps=sweeps,
        sites=1,
        max_bond=bond,
        max_error=0.0,
        metric="frobenius",
        solver="als",
        loss="mse",
        ridge=0.0,
        seed=seed,
        device="cpu",
    )
    start = time.perf_counter()
    found = sweep_regressor(layer, x[:N_TRAIN], noisy[:N_TRAIN], options)
    with torch.no_grad():
        test = (layer(x[N_TRAIN:])[:, 0] - truth[N_TRAIN:]).square().mean().item()
    return {
        "bond_dim": bond,
        "seed": seed,
        "train_mse": found.history[-1]["loss"],
        "test_mse": test,
        "largest_core": max(core.numel() for core in layer.cores),
        "seconds": time.perf_counter() - start,
    }


def bars(medians: dict[int, float]) -> list[dict[str, Any]]:
    """Minimum at the teacher's bond dimension, peak at 12, and below a tenth of the peak beyond."""
    least, most = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    beyond = max(medians[bond] for bond in medians if bond > PEAK)
    return [
        {"what": "minimum at", "measured": least, "equals": TEACHER_BOND, "passed": least == TEACHER_BOND},
        {"what": "peak at", "measured": most, "equals": PEAK, "passed": most == PEAK},
        {
            "what": "beyond, over the peak",
            "measured": beyond / medians[PEAK],
            "at_most": 0.1,
            "passed": beyond < 0.1 * medians[PEAK],
        },
    ]


def show(result: dict[str, Any], console: Console) -> None:
    """The table."""
    console.print("\n" + in_words(result["machine"]))
    table = Table(title="Test MSE (variance of the targets: 1) against bond dimension, median (min-max)")
    for heading in ("bond dimension", "largest core", "training MSE", "test MSE"):
        table.add_column(heading, justify="right")
    for bond, median in result["medians"].items():
        rows = [row for row in result["rows"] if row["bond_dim"] == bond]
        tests, trains = [r["test_mse"] for r in rows], [r["train_mse"] for r in rows]
        table.add_row(
            str(bond),
            str(rows[0]["largest_core"]),
            f"{statistics.median(trains):.2g}",
            f"{median:.3g} ({min(tests):.3g}-{max(tests):.3g})",
        )
    console.print(table)
    for bar in result["bars"]:
        bound = f"= {bar['equals']}" if "equals" in bar else f"< {bar['at_most']}"
        verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
        console.print(f"{bar['what']} {bar['measured']:.3g} ({bound}): {verdict}")
