"""What a smaller bond dimension costs: a trained classifier truncated, and fine-tuned for one epoch.

The model is that of `tnml train mnist`. It is truncated to each bond dimension in turn, once by the norm of
the weight tensor and once by that of outputs on inputs like the training samples. The latter is trained for
one epoch with the options of `tnml compress --fine_tune 1`.
"""

import argparse
import copy
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import header, in_words
from tnml.data import Dataset, load
from tnml.nn import MPSLayer
from tnml.report import compression_figure, save_figure
from tnml.training import TrainOptions, evaluate, train_classifier, truncate_layer
from tnml.training.fine_tune import fine_tuning
from tnml.training.presets import preset

BOND_DIMS = (20, 18, 15, 12, 10, 8, 6, 5, 4, 3, 2)
BAR = 0.5  # points lost at half the bond dimension after one epoch
FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "compress.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--data", default=None, help="digits, mnist or fashion-mnist (default: mnist)")
    parser.add_argument(
        "--bonds", default=None, help=f"comma-separated (default: {','.join(map(str, BOND_DIMS))})"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: 0)")
    parser.add_argument(
        "--lr", type=float, default=None, help="of the fine-tuning (default: half the recipe's)"
    )
    parser.add_argument("--device", default="cpu", help="as for `tnml train` (default: cpu)")
    parser.add_argument(
        "--figure", type=Path, default=None, help="default: docs/figures/compress.png, not with --smoke"
    )


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: the whole model, one record for each bond dimension, the bar. Ctrl-C keeps what is done."""
    result = header("compress", options.smoke)
    name = options.data or ("digits" if options.smoke else "mnist")
    recipe = preset(name)
    training, test = load(name, split="train"), load(name, split="test")
    first = dataclasses.replace(recipe.train, seed=options.seed, device=options.device)
    model = dict(recipe.model)
    if options.smoke:
        first, model = dataclasses.replace(first, epochs=4), {**model, "bond_dim": 6}
    largest = int(model["bond_dim"])
    bonds = [int(word) for word in options.bonds.split(",")] if options.bonds else list(BOND_DIMS)
    bonds = [bond for bond in bonds if bond <= largest] if not options.smoke else [6, 3]
    tune = fine_tuning(name, 1, lr=options.lr, seed=options.seed, device=options.device)
    layer = MPSLayer(
        training.x.shape[1],
        int(training.y.max()) + 1,
        **{"shape": training.image_shape, **model},
        seed=options.seed,
    )
    result["data"], result["model"] = name, model
    result["train_options"], result["fine_tune_options"] = first.record(), tune.record()
    result["rows"] = []
    try:
        with console.status(f"training on {name}"):
            whole = _trained(layer, training, test, first)
        result["whole"] = {"bond_dim": largest, "parameters": _parameters(layer), **whole}
        console.print(f"whole model: test accuracy {whole['test_accuracy']:.4f} in {whole['seconds']:.0f} s")
        for bond in bonds:
            result["rows"].append(compressed(layer, bond, training, test, tune, whole, console))
    except KeyboardInterrupt:
        result["errors"].append("interrupted: not all bond dimensions were measured")
    result["bars"] = [] if options.smoke else judge(result["rows"], largest)
    figure = options.figure or (None if options.smoke else FIGURE)
    if figure is not None and result["rows"]:
        draw(result, figure)
    return result


def compressed(
    layer: MPSLayer,
    bond: int,
    training: Dataset,
    test: Dataset,
    tune: TrainOptions,
    whole: dict[str, Any],
    console: Console,
) -> dict[str, Any]:
    """The record of one bond dimension."""
    plain, plain_error = layer.compressed(max_bond=bond)
    start = time.perf_counter()
    small, error = truncate_layer(layer, training.x, max_bond=bond)
    seconds = time.perf_counter() - start
    with console.status(f"bond dimension {bond}"):
        by_tensor, truncated = _accuracy(plain, test), _accuracy(small, test)
        tuned = _trained(copy.deepcopy(small), training, test, tune)
    console.print(
        f"bond dimension {bond}: test accuracy {by_tensor:.4f} truncated by the tensor, "
        f"{truncated:.4f} by the samples, {tuned['test_accuracy']:.4f} after one epoch"
    )
    return {
        "bond_dim": bond,
        "parameters": _parameters(small),
        "tensor_relative_error": plain_error,
        "tensor_truncated_accuracy": by_tensor,
        "relative_error": error,
        "truncate_seconds": seconds,
        "truncated_accuracy": truncated,
        "truncated_points_lost": 100 * (whole["test_accuracy"] - truncated),
        "tuned_accuracy": tuned["test_accuracy"],
        "tuned_points_lost": 100 * (whole["test_accuracy"] - tuned["test_accuracy"]),
        "tune_seconds": tuned["seconds"],
    }


def judge(rows: Sequence[dict[str, Any]], largest: int) -> list[dict[str, Any]]:
    """The bar: what half the bond dimension costs after one epoch."""
    return [
        {
            "what": "points_lost_at_half_the_bond_dimension",
            "measured": row["tuned_points_lost"],
            "at_most": BAR,
            "passed": row["tuned_points_lost"] <= BAR,
        }
        for row in rows
        if 2 * row["bond_dim"] == largest
    ]


def draw(result: dict[str, Any], path: Path) -> None:
    """Accuracy against bond dimension, truncated and fine-tuned."""
    bonds = [row["bond_dim"] for row in result["rows"]]
    curves = {
        "truncated by the weight tensor": (
            bonds,
            [row["tensor_truncated_accuracy"] for row in result["rows"]],
        ),
        "truncated by the training samples": (bonds, [row["truncated_accuracy"] for row in result["rows"]]),
        "and one epoch of fine-tuning": (bonds, [row["tuned_accuracy"] for row in result["rows"]]),
        "the whole model": ([result["whole"]["bond_dim"]], [result["whole"]["test_accuracy"]]),
    }
    save_figure(compression_figure(curves, f"Test accuracy on {result['data']} after compression"), path)


def show(result: dict[str, Any], console: Console) -> None:
    """The table."""
    console.print("\n" + in_words(result["machine"]))
    whole = result.get("whole")
    if whole is not None:
        table = Table(
            title=f"{result['data']}: bond dimension {whole['bond_dim']}, "
            f"{whole['parameters']:,} parameters, test accuracy {100 * whole['test_accuracy']:.2f} %"
        )
        for heading in (
            "bond dim",
            "parameters",
            "error",
            "by tensor %",
            "error",
            "by samples %",
            "points lost",
        ):
            table.add_column(heading, justify="right")
        for heading in ("+ one epoch %", "points lost", "seconds", "bar"):
            table.add_column(heading, justify="right")
        for row in result["rows"]:
            half = 2 * row["bond_dim"] == whole["bond_dim"]
            verdict = [f"<={bar['at_most']:g} {_verdict(bar)}" for bar in result["bars"]] if half else []
            table.add_row(
                str(row["bond_dim"]),
                f"{row['parameters']:,}",
                f"{row['tensor_relative_error']:.2e}",
                f"{100 * row['tensor_truncated_accuracy']:.2f}",
                f"{row['relative_error']:.2e}",
                f"{100 * row['truncated_accuracy']:.2f}",
                f"{row['truncated_points_lost']:.2f}",
                f"{100 * row['tuned_accuracy']:.2f}",
                f"{row['tuned_points_lost']:.2f}",
                f"{row['tune_seconds']:.1f}",
                *verdict,
            )
        console.print(table)
    for text in result["errors"]:
        console.print(f"[red]{text}[/red]")


def _verdict(bar: dict[str, Any]) -> str:
    return "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"


def _trained(layer: MPSLayer, training: Dataset, test: Dataset, options: TrainOptions) -> dict[str, Any]:
    """Trains in place; test accuracy and seconds."""
    found = train_classifier(
        layer,
        training.x,
        training.y,
        options,
        x_test=test.x,
        y_test=test.y,
        image_shape=training.image_shape,
    )
    return {"test_accuracy": found.test["accuracy"], "seconds": found.seconds}


def _accuracy(layer: MPSLayer, test: Dataset) -> float:
    return evaluate(layer, torch.from_numpy(test.x), torch.from_numpy(test.y))["accuracy"]


def _parameters(layer: MPSLayer) -> int:
    return sum(p.numel() for p in layer.parameters())
