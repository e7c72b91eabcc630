"""Born machines: a step of training beside a plain loop, and binarised MNIST by gradients and by sweeps.

Every answer is checked before it is timed: the log-likelihood against the plain loop in double precision.
Test likelihoods are in nats per image, lower is better; images are binarised once, each pixel being 1
with the probability of its grey value (seed 0 for the training images, 1 for the test images).
Compare CPU seconds: on a busy machine wall-clock seconds also measure other programs. The file is written
after every row.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import tnml
from benchmarks.machine import header, in_words, summary, write_json
from tnml.nn import BornMachine
from tnml.training import TrainOptions, sweep_density, train_density
from tnml.training.dmrg.likelihood import USUAL

STEP, SHARE = 8e-3, 0.4  # bars: seconds of the small step, share of the GEMM peak of the large ones
RESULTS = Path(__file__).parent / "results" / "density.json"
PARTS = ("speed", "mnist")


@dataclasses.dataclass(frozen=True)
class Size:
    """Of a step: sites, bond dimension, levels, samples."""

    sites: int
    bond: int
    levels: int
    batch: int

    @property
    def operations(self) -> float:
        """Multiplications and additions of a step: the amplitudes' and the norm's, with gradients."""
        amplitude = 6 * self.batch * self.sites * self.levels * self.bond**2
        return amplitude + 10 * self.sites * self.levels * self.bond**3


SIZES = (Size(100, 32, 8, 32), Size(784, 50, 2, 500), Size(784, 100, 2, 500))


@dataclasses.dataclass(frozen=True)
class Fit:
    """A training run on images of a side length."""

    side: int
    way: str
    bond: int
    rounds: int
    batch: int | None = None
    lr: float = 1e-2


FITS = (
    Fit(14, "gradient", 20, 6, 100),
    Fit(14, "sweeps", 20, 4, 20_000),
    Fit(28, "sweeps", 20, 3, 10_000),
    Fit(28, "gradient", 20, 3, 250),
    Fit(14, "gradient", 50, 6, 250),
    Fit(14, "sweeps", 50, 4, 20_000),
    Fit(28, "sweeps", 50, 4, 10_000),
    Fit(28, "gradient", 50, 4, 500, 3e-3),
)
SMOKE_FITS = (Fit(14, "gradient", 3, 1, 100), Fit(14, "sweeps", 3, 1, 200))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--part", choices=PARTS, help="only this part (default: both)")
    parser.add_argument("--minutes", type=float, help="no training begins after this time")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: rows of speed, rows of likelihood, and the bars."""
    torch.set_num_threads(options.threads)
    result = {**header("density", options.smoke), "speed": [], "mnist": [], "bars": []}
    out = options.out or (None if options.smoke else RESULTS)

    def keep() -> None:
        if out is not None:
            write_json(out, result)

    parts = [options.part] if options.part else PARTS
    if "speed" in parts:
        for size in [Size(6, 4, 3, 5)] if options.smoke else SIZES:
            result["speed"].append(compare(size, 2 if options.smoke else 7))
            result["bars"] = bars(result["speed"])
            keep()
    if "mnist" in parts:
        started = time.monotonic()
        for fit in SMOKE_FITS if options.smoke else FITS:
            if options.minutes and time.monotonic() - started > 60 * options.minutes:
                break
            row = {**dataclasses.asdict(fit), "history": []}
            result["mnist"].append(row)
            run(fit, row, keep, 400 if options.smoke else None, console)
            keep()
    result["errors"] = [
        f"{row['size']}: error {row['error']:.1e}" for row in result["speed"] if row["error"] > 1e-4
    ]
    return result


def compare(size: Size, turns: int) -> dict[str, Any]:
    """A row: the error of the log-likelihood, and the CPU seconds of a step and of a plain loop's."""
    features = {"name": "one-hot", "dim": size.levels}
    machine = BornMachine(size.sites, size.bond, features=features)
    levels = torch.randint(
        0, size.levels, (size.batch, size.sites), generator=torch.Generator().manual_seed(0)
    )
    x = levels / (size.levels - 1)
    cores = [core.detach().clone().requires_grad_() for core in machine.psi.cores]
    wide = plain_log([core.detach().double() for core in cores], levels)
    error = float((machine(x)[:, 0].detach() - wide).abs().max() / wide.abs().max())
    ways = {
        "tnml": stepper(machine.parameters(), lambda: machine(x)),
        "plain loop": stepper(cores, lambda: plain_log(cores, levels)),
    }
    factor = torch.rand(1024, 1024)
    times: dict[str, list[float]] = {way: [] for way in ways}
    peaks = []
    for turn in range(turns + 1):
        for way, step in ways.items():
            if way != "tnml" and turn > 2:
                continue  # the plain loop takes long, and its spread is small
            before = time.process_time()
            step()
            if turn:
                times[way].append(time.process_time() - before)
        before = time.process_time()  # as the steps are: wall-clock peaks of a busy machine are too low
        torch.mm(factor, factor)
        peaks.append(2 * len(factor) ** 3 / (time.process_time() - before))
    best = min(times["tnml"])
    return {
        "size": dataclasses.asdict(size),
        "error": error,
        "seconds": {way: summary(samples) for way, samples in times.items()},
        "gemm_peak": max(peaks),
        "share_of_peak": size.operations / best / max(peaks),
    }


def stepper(parameters: Any, log: Callable[[], Tensor]) -> Callable[[], None]:
    """One step of Adam on the mean negative log-likelihood."""
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        (-log().mean()).backward()
        optimizer.step()

    return step


def plain_log(cores: list[Tensor], levels: Tensor) -> Tensor:
    """The logarithm of p `[b]` as one would write it: a product per site, rescaled, and so the norm."""
    vector = cores[0].new_ones(len(levels), 1)
    env, log, total = cores[0].new_ones(1, 1), 0.0, 0.0
    rows = torch.arange(len(levels))
    for site, core in enumerate(cores):
        left, d, right = core.shape
        vector = (vector @ core.reshape(left, -1)).view(-1, d, right)[rows, levels[:, site]]
        size = vector.detach().norm(dim=1, keepdim=True)
        vector, log = vector / size, log + size.log()[:, 0]
        env = torch.einsum("lm,ldr,mds->rs", env, core, core)
        scale = env.detach().norm()
        env, total = env / scale, total + scale.log()
    return 2 * (vector[:, 0].abs().log() + log) - env[0, 0].log() - total


def bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The small step's seconds, and the large ones' share of the peak."""
    found = []
    for row in rows:
        if row["size"]["sites"] == 784:
            share = row["share_of_peak"]
            found.append(
                {
                    "what": f"share of the GEMM peak, bond {row['size']['bond']}",
                    "measured": share,
                    "at_least": SHARE,
                    "passed": share >= SHARE,
                }
            )
        else:
            seconds = row["seconds"]["tnml"]["min"]
            found.append(
                {"what": "a small step", "measured": seconds, "at_most": STEP, "passed": seconds <= STEP}
            )
    return found


def images(side: int, split: str) -> Tensor:
    """Binarised MNIST `[b, side²]`."""
    grey = torch.as_tensor(tnml.data.load("mnist", split=split).x).float().view(-1, 28, 28)
    if side == 14:
        grey = torch.nn.functional.avg_pool2d(grey, 2)
    return torch.bernoulli(grey.flatten(1), generator=torch.Generator().manual_seed(int(split == "test")))


def independent(x: Tensor, test: Tensor) -> float:
    """The test likelihood of pixels that know nothing of each other, smoothed by half a sample."""
    p = (x.sum(0) + 0.5) / (len(x) + 1)
    return float(-(test * p.log() + (1 - test) * (1 - p).log()).sum(1).mean())


def run(fit: Fit, row: dict[str, Any], keep: Callable[[], None], rows: int | None, console: Console) -> None:
    """Trains, and adds to the row what every epoch or sweep reached on the test images."""
    x, test = images(fit.side, "train")[:rows], images(fit.side, "test")[:rows]
    row["independent"] = independent(x, test)
    shape = (fit.side, fit.side)
    bond = fit.bond if fit.way == "gradient" else 1
    machine = BornMachine(fit.side**2, bond, order="snake", shape=shape).start_(x)
    started, cpu = time.monotonic(), time.process_time()

    def after(layer: Any, optimizer: Any, numbers: Any) -> None:
        del layer, optimizer
        with torch.no_grad():
            found = -torch.cat([machine(part)[:, 0] for part in test.split(500)]).double().mean()
        row["history"].append(
            {
                "train": numbers["loss"],
                "test": float(found),
                "mean_bond": sum(machine.psi.bond_dims) / len(machine.psi.bond_dims),
                "cpu_seconds": time.process_time() - cpu,
                "seconds": time.monotonic() - started,
            }
        )
        console.print(f"{fit.side} {fit.way} {fit.bond}: {row['history'][-1]}")
        keep()

    if fit.way == "gradient":
        options = TrainOptions(epochs=fit.rounds, lr=fit.lr, batch_size=fit.batch or 100, device="cpu")
        train_density(machine, x, options, callbacks=[after])
    else:
        swept = dataclasses.replace(
            USUAL, sweeps=fit.rounds, max_bond=fit.bond, batch_size=fit.batch, proximal=0.1, device="cpu"
        )
        sweep_density(machine, x, swept, callbacks=[after])
    exact = torch.cat([machine.log_prob(part) for part in test[:2000].split(500)])
    row["test_of_2000_in_double"] = float(-exact.mean())
    row["test"] = row["history"][-1]["test"]


def show(result: dict[str, Any], console: Console) -> None:
    """Both tables and the bars."""
    console.print("\n" + in_words(result["machine"]))
    table = Table(title="A step of training: CPU milliseconds, median (min-max)")
    for heading in ("sites", "bond", "levels", "batch", "error", "tnml", "plain loop", "share of GEMM peak"):
        table.add_column(heading, justify="right")
    for row in result["speed"]:
        times = [
            f"{1e3 * s['median']:.1f} ({1e3 * s['min']:.1f}-{1e3 * s['max']:.1f})"
            for s in row["seconds"].values()
        ]
        table.add_row(
            *map(str, row["size"].values()), f"{row['error']:.0e}", *times, f"{row['share_of_peak']:.0%}"
        )
    console.print(table)
    table = Table(title="Binarised MNIST: negative log-likelihood of the test images in nats")
    for heading in (
        "side",
        "way",
        "largest bond",
        "mean bond",
        "independent pixels",
        "training",
        "test",
        "CPU s",
    ):
        table.add_column(heading, justify="right")
    for row in result["mnist"]:
        if row["history"]:
            last = row["history"][-1]
            table.add_row(
                str(row["side"]),
                row["way"],
                str(row["bond"]),
                f"{last['mean_bond']:.1f}",
                f"{row['independent']:.2f}",
                f"{last['train']:.2f}",
                f"{last['test']:.2f}",
                f"{last['cpu_seconds']:.0f}",
            )
    console.print(table)
    for bar in result["bars"]:
        verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
        console.print(f"{bar['what']}: {bar['measured']:.4g}: {verdict}")
