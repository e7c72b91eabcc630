"""What compressing a trained MLP costs: tensor-train layers of many sizes, and truncated SVD of equal size.

An MLP 784-1024-1024-10 is trained on MNIST. `tnml.nn.compress` reduces copies of it to a share of its
parameters, and each is trained for three more epochs. Every copy is compared with one in which the same
layers were replaced by two thin ones each, from a truncated singular value decomposition, with no fewer
parameters and the same number of epochs afterwards.
"""

import argparse
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.machine import header, in_words
from benchmarks.tt_svd import svd_like
from tnml.data import Dataset, load
from tnml.nn import TTLinear, compress
from tnml.report import compression_figure, save_figure
from tnml.training import TrainOptions, evaluate, train_classifier

TRAINS, SVD = "tensor trains", "truncated SVD"
RATIOS = (0.3, 0.2, 0.1, 0.05, 0.03, 0.02)
HIDDEN, DROPOUT = 1024, 0.2
BAR_RATIO, BAR_LOST, BAR_WHOLE = 0.1, 0.3, 0.983
FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "tt_compress.png"

# Both were chosen on 10,000 held-out training images; the test set is used only for the measurement.
TRAIN = TrainOptions(
    epochs=10, lr=1e-3, batch_size=128, optimizer="adamw", weight_decay=0.1, max_shift=1, device="cpu"
)
TUNE = dataclasses.replace(TRAIN, epochs=3, lr=2e-3, batch_size=64, weight_decay=0.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--data", default=None, help="digits, mnist or fashion-mnist (default: mnist)")
    parser.add_argument(
        "--ratios",
        default=None,
        help=f"parameters left, comma-separated (default: {','.join(map(str, RATIOS))})",
    )
    parser.add_argument(
        "--by", choices=("rank", "error"), default="rank", help="alike in all layers (default: rank)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--device", default="cpu", help="as for `tnml train` (default: cpu)")
    parser.add_argument(
        "--figure", type=Path, default=None, help="default: docs/figures/tt_compress.png, not with --smoke"
    )


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: the whole model, a record for each ratio and kind of layer. Ctrl-C keeps what is done."""
    result = header("tt_compress", options.smoke)
    name = options.data or ("digits" if options.smoke else "mnist")
    ratios = [float(word) for word in options.ratios.split(",")] if options.ratios else list(RATIOS)
    hidden = HIDDEN
    place: dict[str, Any] = {"seed": options.seed, "device": options.device}
    if options.smoke:
        ratios, hidden = [0.3], 64
        place |= {"batch_size": 16, "lr": 5e-3, "max_shift": 0}
    first, tune = dataclasses.replace(TRAIN, **place), dataclasses.replace(TUNE, **place)
    if options.smoke:
        first = dataclasses.replace(first, epochs=4)
    training, test = load(name, split="train"), load(name, split="test")
    result |= {"data": name, "hidden": hidden, "dropout": DROPOUT, "alike": options.by, "rows": []}
    result["train_options"], result["tune_options"] = first.record(), tune.record()
    try:
        with console.status(f"training on {name}"):
            torch.manual_seed(options.seed)
            model = mlp(training.x.shape[1], hidden, int(training.y.max()) + 1)
            whole = trained(model, training, test, first)
        result["whole"] = {"parameters": parameters(model), **whole}
        console.print(f"whole model: {_percent(whole['test_accuracy'])} % in {whole['seconds']:.0f} s")
        for ratio in ratios:
            with console.status(f"{ratio:.0%} of the parameters"):
                for row in compressed(model, ratio, options.by, training, test, tune):
                    row["points_lost"] = 100 * (whole["test_accuracy"] - row["tuned_accuracy"])
                    result["rows"].append(row)
                    console.print(
                        f"{ratio:.0%}, {row['layers']}: {_percent(row['cut_accuracy'])} % cut, "
                        f"{_percent(row['tuned_accuracy'])} % after {tune.epochs} epochs"
                    )
    except KeyboardInterrupt:
        result["errors"].append("interrupted: not all ratios were measured")
    result["bars"] = [] if options.smoke else judge(result)
    figure = options.figure or (None if options.smoke else FIGURE)
    if figure is not None and result["rows"]:
        save_figure(draw(result), figure)
    return result


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers with ReLU and dropout."""
    return nn.Sequential(
        *(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(DROPOUT)),
        *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(DROPOUT)),
        nn.Linear(hidden, outputs),
    )


def compressed(
    model: nn.Sequential, ratio: float, by: str, training: Dataset, test: Dataset, tune: TrainOptions
) -> Iterator[dict[str, Any]]:
    """The record of tensor trains of this ratio, then that of thin layers in the same places."""
    last = str(len(model) - 1)  # under 1 % of the parameters, and the classes need it: left as it is
    limit: dict[str, Any] = {"ratio": ratio} if by == "error" else {"rank": largest_rank(model, ratio)}
    start = time.perf_counter()
    trains, report = compress(model, **limit, skip=(last,))
    seconds = time.perf_counter() - start
    replaced = [row for row in report.rows if row.shape is not None]
    ranks: list[Any] = [row.shape.ranks[1:-1] for row in replaced]
    first = record(TRAINS, trains, ranks, seconds, training, test, tune)
    yield first | {"ratio": ratio, "weight_errors": [row.error for row in replaced]}

    start = time.perf_counter()
    thin, ranks = svd_like(model, [int(row.name) for row in replaced], parameters(trains))
    seconds = time.perf_counter() - start
    yield record(SVD, thin, ranks, seconds, training, test, tune) | {"ratio": ratio}


def largest_rank(model: nn.Sequential, ratio: float) -> int:
    """The largest rank, the same for all layers but the last, with at most this share of parameters."""
    dense = [layer for layer in model if isinstance(layer, nn.Linear)]

    def size(rank: int) -> int:
        sizes = [(layer.in_features, layer.out_features) for layer in dense[:-1]]
        return parameters(dense[-1]) + sum(
            TTLinear(*pair, rank=rank, device="meta").n_parameters for pair in sizes
        )

    rank = 1
    while size(rank + 1) <= ratio * parameters(model):
        rank += 1
    return rank


def record(
    layers: str,
    small: nn.Module,
    ranks: list[Any],
    seconds: float,
    training: Dataset,
    test: Dataset,
    tune: TrainOptions,
) -> dict[str, Any]:
    """Accuracy as cut and after fine-tuning without dropout."""
    for layer in small.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    cut = evaluate(small, torch.from_numpy(test.x), torch.from_numpy(test.y))["accuracy"]
    tuned = trained(small, training, test, tune)
    return {
        "layers": layers,
        "parameters": parameters(small),
        "ranks": ranks,
        "compress_seconds": seconds,
        "cut_accuracy": cut,
        "tuned_accuracy": tuned["test_accuracy"],
        "tune_seconds": tuned["seconds"],
    }


def trained(model: nn.Module, training: Dataset, test: Dataset, options: TrainOptions) -> dict[str, float]:
    """Trains in place; test accuracy and seconds."""
    data = {"x_test": test.x, "y_test": test.y, "image_shape": training.image_shape}
    found = train_classifier(model, training.x, training.y, options, **data)
    return {"test_accuracy": found.test["accuracy"], "seconds": found.seconds}


def parameters(model: nn.Module) -> int:
    """How many parameters the model has."""
    return sum(p.numel() for p in model.parameters())


def judge(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The bars: what the whole model reaches, and what tensor trains of a tenth of its parameters lose."""
    found = []
    if "whole" in result:
        reached = result["whole"]["test_accuracy"]
        found.append(
            {
                "what": "whole_test_accuracy",
                "measured": reached,
                "at_least": BAR_WHOLE,
                "passed": reached >= BAR_WHOLE,
            }
        )
    for row in result["rows"]:
        if (row["layers"], row["ratio"]) == (TRAINS, BAR_RATIO):
            found.append(
                {
                    "what": "points_lost_at_a_tenth_of_the_parameters",
                    "measured": row["points_lost"],
                    "at_most": BAR_LOST,
                    "passed": row["points_lost"] <= BAR_LOST
                    and row["parameters"] <= BAR_RATIO * result["whole"]["parameters"],
                }
            )
    return found


def draw(result: dict[str, Any]) -> Figure:
    """Accuracy against parameters, cut and fine-tuned, of both kinds of layers."""
    whole = result["whole"]
    curves = {}
    for layers in (TRAINS, SVD):
        rows = [row for row in result["rows"] if row["layers"] == layers]
        if rows:
            shares = [100 * row["ratio"] for row in rows]
            curves[f"{layers}, cut"] = shares, [row["cut_accuracy"] for row in rows]
            epochs = f"{result['tune_options']['epochs']} epochs later"
            curves[f"{layers}, {epochs}"] = shares, [row["tuned_accuracy"] for row in rows]
    curves["the whole model"] = [100], [whole["test_accuracy"]]
    figure = compression_figure(curves, f"Test accuracy of an MLP on {result['data']} after compression")
    axes = figure.axes[0]
    ticks = sorted({x for shares, _ in curves.values() for x in shares})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(f"parameters left, % of {whole['parameters']:,}")
    return figure


def show(result: dict[str, Any], console: Console) -> None:
    """The table."""
    console.print("\n" + in_words(result["machine"]))
    whole = result.get("whole")
    if whole is not None:
        table = Table(
            title=f"{result['data']}: MLP of {whole['parameters']:,} parameters, "
            f"test accuracy {_percent(whole['test_accuracy'])} %"
        )
        for heading in ("layers", "parameters", "%", "ranks", "cut %", "tuned %", "points lost", "s", "bar"):
            table.add_column(heading, justify="left" if heading == "layers" else "right")
        for row in result["rows"]:
            barred = (row["layers"], row["ratio"]) == (TRAINS, BAR_RATIO)
            held = [bar for bar in result["bars"] if "at_most" in bar] if barred else []
            table.add_row(
                row["layers"],
                f"{row['parameters']:,}",
                f"{100 * row['parameters'] / whole['parameters']:.2f}",
                ", ".join("-".join(map(str, r)) if isinstance(r, Sequence) else str(r) for r in row["ranks"]),
                _percent(row["cut_accuracy"]),
                _percent(row["tuned_accuracy"]),
                f"{row['points_lost']:.2f}",
                f"{row['tune_seconds']:.0f}",
                *(f"<={bar['at_most']:g} {_verdict(bar)}" for bar in held),
            )
        console.print(table)
    for bar in result["bars"]:
        if "at_least" in bar:
            console.print(f"whole model: at least {_percent(bar['at_least'])} %: {_verdict(bar)}")
    for text in result["errors"]:
        console.print(f"[red]{text}[/red]")


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _verdict(bar: dict[str, Any]) -> str:
    return "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
