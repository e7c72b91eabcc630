"""Networks of tensor-train layers on Fashion-MNIST: against dense networks, and the effect of depth."""

import argparse
import dataclasses
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import header, in_words
from tnml.data import load
from tnml.nn import TNN
from tnml.training import StepView, TrainOptions, train_classifier

PARTS = ("fashion", "depth")
RANK = 8
TARGET = 0.8  # training accuracy
WATCHED, EVERY = 3000, 10  # training samples on which it is measured, and steps between two measurements

# The learning rates, each network's own, were chosen on 10,000 held-out training images; the test set is
# used only for the measurement.
TRAIN = TrainOptions(epochs=10, batch_size=128, optimizer="adam", device="cpu")
LR = {"tensor trains": 1e-2, "dense, same widths": 5e-3, "dense, same parameters": 1e-2}
DEPTH = dataclasses.replace(TRAIN, epochs=1, schedule="constant", lr=1e-3)


@dataclass(frozen=True)
class Data:
    """Images as rows of mean 0 and variance 1 over the training set, and labels.

    Attributes:
        x: `[n, pixels]` for training.
        y: `[n]`.
        x_test: for the test.
        y_test: for the test.
    """

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--parts", default=None, help=f"comma-separated (default: {','.join(PARTS)})")
    parser.add_argument("--seeds", type=int, default=None, help="number of seeds for everything (default: 3)")
    parser.add_argument(
        "--data", default=None, help="digits, mnist or fashion-mnist (default: fashion-mnist)"
    )
    parser.add_argument("--device", default="cpu", help="as for `tnml train` (default: cpu)")


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: a record for each network and seed, and the bar. Ctrl-C keeps what is done."""
    result = header("tnn", options.smoke)
    parts = options.parts.split(",") if options.parts else list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        raise SystemExit(f"unknown part {unknown[0]!r}; choose from: {', '.join(PARTS)}")
    name = options.data or ("digits" if options.smoke else "fashion-mnist")
    seeds = options.seeds or (1 if options.smoke else 3)
    data = read(name)
    place: dict[str, Any] = {"device": options.device} | (
        {"epochs": 5, "lr": 1e-2, "batch_size": 64} if options.smoke else {}
    )
    train, deep = dataclasses.replace(TRAIN, **place), dataclasses.replace(DEPTH, **place)
    result |= {"data": name, "fashion": [], "depth": []}
    result["train_options"], result["depth_options"] = train.record(), deep.record()
    jobs = [
        *(("fashion", network) for network in beside_dense(data, options.smoke) if "fashion" in parts),
        *(("depth", network) for network in of_depth(data, options.smoke) if "depth" in parts),
    ]
    try:
        for seed in range(seeds):
            for part, network in jobs:
                with console.status(f"{part}: {network['network']}, seed {seed}"):
                    if part == "fashion":
                        chosen = dataclasses.replace(train, seed=seed, lr=LR[network["network"]])
                        row = trained(network, data, chosen)
                    else:
                        row = climb(network, data, dataclasses.replace(deep, seed=seed))
                result[part].append(row)
                console.print(f"{part}: {network['network']}, seed {seed}: {_said(row)}")
    except KeyboardInterrupt:
        result["errors"].append("interrupted: not all networks were trained")
    result["summary"] = list(summaries(result))
    result["bars"] = [] if options.smoke else bars(result["depth"])
    return result


def read(name: str) -> Data:
    """The data set, its pixels scaled by the mean and standard deviation of those for training."""
    training, test = load(name, split="train"), load(name, split="test")
    x, x_test = torch.from_numpy(training.x), torch.from_numpy(test.x)
    mean, std = x.mean(), x.std()
    y, y_test = torch.from_numpy(training.y), torch.from_numpy(test.y)
    return Data((x - mean) / std, y, (x_test - mean) / std, y_test)


def beside_dense(data: Data, small: bool) -> Iterator[dict[str, Any]]:
    """Tensor trains, dense layers of the same widths, and dense layers with as many parameters."""
    ends, hidden = (data.x.shape[1], int(data.y.max()) + 1), 16 if small else 256
    widths, how = [ends[0], hidden, hidden, ends[1]], {"activation": "elu"}
    trains = TNN(widths, rank=2 if small else RANK, **how)
    yield {"network": "tensor trains", "widths": widths, "rank": trains.rank, **how}
    yield {"network": "dense, same widths", "widths": widths, "rank": None, **how}
    width = equal_width(trains.n_parameters, *ends)
    yield {
        "network": "dense, same parameters",
        "widths": [ends[0], width, width, ends[1]],
        "rank": None,
        **how,
    }


def equal_width(size: int, inputs: int, outputs: int) -> int:
    """The smallest width of two dense hidden layers with at least `size` parameters."""
    width = 1
    while (inputs + 1 + width + 1 + outputs) * width + outputs < size:
        width += 1
    return width


def of_depth(data: Data, small: bool) -> Iterator[dict[str, Any]]:
    """Eight layers with either activation; sixteen plain, with batch norm and with skips."""
    ends, hidden = (data.x.shape[1], int(data.y.max()) + 1), 16 if small else 256
    eight, sixteen = (3, 4) if small else (8, 16)
    for activation in ("elu", "relu"):
        widths = [ends[0], *[hidden] * (eight - 1), ends[1]]
        yield {
            "network": f"{eight} layers, {activation}",
            "widths": widths,
            "rank": RANK,
            "activation": activation,
        }
    for name, more in (("plain", {}), ("batch norm", {"norm": "batch"}), ("skip", {"skip": True})):
        widths = [ends[0], *[hidden] * (sixteen - 1), ends[1]]
        how = {"activation": "elu", **more}
        yield {"network": f"{sixteen} layers, {name}", "widths": widths, "rank": RANK, **how}


def build(network: dict[str, Any], seed: int) -> TNN:
    """The network of a record."""
    torch.manual_seed(seed)
    how = {key: value for key, value in network.items() if key not in ("network", "widths")}
    return TNN(network["widths"], **how)


def trained(network: dict[str, Any], data: Data, options: TrainOptions) -> dict[str, Any]:
    """Trains for all epochs; accuracies, parameters and seconds."""
    model = build(network, options.seed)
    found = train_classifier(model, data.x, data.y, options, x_test=data.x_test, y_test=data.y_test)
    return {
        **network,
        "seed": options.seed,
        "lr": options.lr,
        "parameters": model.n_parameters,
        "dense_parameters": model.dense_parameters,
        "train_accuracy": found.history[-1]["accuracy"],
        "test_accuracy": found.test["accuracy"],
        "seconds": found.seconds,
    }


def climb(network: dict[str, Any], data: Data, options: TrainOptions) -> dict[str, Any]:
    """Trains; how the training accuracy rises, the steps to the target, and the accuracy at the end."""
    model = build(network, options.seed)
    x, y = data.x[:WATCHED], data.y[:WATCHED]
    curve: list[tuple[int, float]] = []

    def watch(view: StepView) -> None:
        step = (view.epoch - 1) * view.steps_per_epoch + view.step
        if step % EVERY == 0:
            curve.append((step, accuracy(model, x, y)))

    found = train_classifier(model, data.x, data.y, options, on_step=watch)
    return {
        **network,
        "seed": options.seed,
        "lr": options.lr,
        "parameters": model.n_parameters,
        "steps_to_target": next((step for step, reached in curve if reached >= TARGET), None),
        "steps": curve[-1][0],
        "train_accuracy": curve[-1][1],
        "curve": curve,
        "seconds": found.seconds,
    }


@torch.no_grad()
def accuracy(model: TNN, x: Tensor, y: Tensor) -> float:
    """Share of correct answers, in eval mode."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    right = (model(x.to(device)).argmax(1).cpu() == y).double().mean().item()
    model.train(was_training)
    return right


def summaries(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Over the seeds: means and standard deviations of accuracies, medians of steps and seconds."""
    for part in PARTS:
        for network in dict.fromkeys(row["network"] for row in result[part]):
            rows = [row for row in result[part] if row["network"] == network]
            steps = [row.get("steps_to_target") for row in rows]
            yield {
                "part": part,
                "network": network,
                "parameters": rows[0]["parameters"],
                "seeds": len(rows),
                "seconds": statistics.median(row["seconds"] for row in rows),
                "steps_to_target": median_steps(steps) if part == "depth" else None,
                "train_accuracy": _mean_and_deviation(row["train_accuracy"] for row in rows),
                "test_accuracy": _mean_and_deviation(
                    row["test_accuracy"] for row in rows if "test_accuracy" in row
                ),
            }


def median_steps(steps: list[int | None]) -> float | None:
    """The median, where runs that never got there count as endless; None if it is one of those."""
    median = statistics.median_low([float("inf") if step is None else float(step) for step in steps])
    return None if median == float("inf") else median


def bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The smooth activation needs no more steps than the one with a kink, in the median of the seeds."""
    found = {}
    for activation in ("elu", "relu"):
        steps = [row["steps_to_target"] for row in rows if row["network"] == f"8 layers, {activation}"]
        if not steps:
            return []
        found[activation] = median_steps(steps)
    elu, relu = (float("inf") if found[name] is None else found[name] for name in ("elu", "relu"))
    return [
        {
            "what": "steps_of_elu",
            "measured": elu,
            "at_most": relu,
            "passed": elu <= relu and elu < float("inf"),
        }
    ]


def show(result: dict[str, Any], console: Console) -> None:
    """The table."""
    console.print("\n" + in_words(result["machine"]))
    table = Table(
        title=f"{result['data']}: mean and standard deviation over the seeds, medians of steps and seconds"
    )
    for heading in (
        "part",
        "network",
        "parameters",
        "test %",
        "training %",
        f"steps to {TARGET:.0%}",
        "seconds",
    ):
        table.add_column(heading, justify="left" if heading in ("part", "network") else "right")
    for row in result["summary"]:
        steps = row["steps_to_target"]
        never = "not reached" if row["part"] == "depth" else ""
        table.add_row(
            row["part"],
            row["network"],
            f"{row['parameters']:,}",
            _spread(row["test_accuracy"]),
            _spread(row["train_accuracy"]),
            never if steps is None else f"{steps:.0f}",
            f"{row['seconds']:.1f}",
        )
    console.print(table)
    for bar in result["bars"]:
        verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
        console.print(f"steps of ELU {bar['measured']:g}, of ReLU {bar['at_most']:g}: {verdict}")
    for text in result["errors"]:
        console.print(f"[red]{text}[/red]")


def _said(row: dict[str, Any]) -> str:
    if "test_accuracy" in row:
        return f"test accuracy {row['test_accuracy']:.4f} in {row['seconds']:.1f} s"
    steps = row["steps_to_target"]
    reached = f"{TARGET:.0%} not reached" if steps is None else f"{TARGET:.0%} after {steps} steps"
    return f"{reached}, training accuracy {row['train_accuracy']:.4f} after {row['steps']}"


def _mean_and_deviation(values: Iterator[float]) -> list[float] | None:
    found = list(values)
    return [statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else 0.0] if found else None


def _spread(found: list[float] | None) -> str:
    return "" if found is None else f"{100 * found[0]:.2f} +- {100 * found[1]:.2f}"
