"""The recipes behind `tnml train mnist`: test accuracy and seconds on the real images, several seeds.

The recipes were chosen on a validation part of the training set; here they are trained on all of it, and the
test set is read once per run. The data come from TNML_DATA, the user's cache or the network.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import header, in_words
from tnml.data import Dataset, load
from tnml.nn import MPSLayer
from tnml.training import TrainOptions, train_classifier
from tnml.training.presets import preset

RECIPES = ("mnist:default", "mnist:accurate", "fashion-mnist:default")
# Every seed has to reach the accuracy, in these seconds of training after the native engine's compile.
BARS = {
    "mnist:default": {"accuracy": 0.983, "seconds": 180.0},
    "mnist:accurate": {"accuracy": 0.991, "seconds": 600.0},
    "fashion-mnist:default": {"accuracy": 0.895},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--recipes", default=None, help=f"DATA:PRESET, comma-separated (default: {','.join(RECIPES)})"
    )
    parser.add_argument("--seeds", default=None, help="comma-separated (default: 0,1,2)")
    parser.add_argument("--device", default="cpu", help="as for `tnml train` (default: cpu)")


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: one record per recipe and seed, and a summary per recipe. Ctrl-C keeps what is done."""
    result = header("mnist", options.smoke)
    recipes = (options.recipes or ("digits:default" if options.smoke else ",".join(RECIPES))).split(",")
    seeds = [int(word) for word in (options.seeds or ("0" if options.smoke else "0,1,2")).split(",")]
    result["rows"] = []
    try:
        for recipe in recipes:
            for seed in seeds:
                result["rows"].append(train(recipe, seed, options.device, options.smoke, console))
    except KeyboardInterrupt:
        result["errors"].append("interrupted: not all recipes and seeds were trained")
    result["recipes"] = summarise(result["rows"], bars=not options.smoke)
    return result


def train(recipe: str, seed: int, device: str, smoke: bool, console: Console) -> dict[str, Any]:
    """The record of one training: accuracy on the test set, seconds, and all options."""
    data, _, name = recipe.partition(":")
    recipe_of = preset(data, name or "default")
    options = dataclasses.replace(recipe_of.train, seed=seed, device=device)
    model: Mapping[str, Any] = recipe_of.model
    training, test = load(data, split="train"), load(data, split="test")
    if smoke:
        options, model = dataclasses.replace(options, epochs=2), {**model, "bond_dim": 4}
    classes = int(training.y.max()) + 1
    compile_seconds = warm_up(training, classes, model, options)
    layer = MPSLayer(training.x.shape[1], classes, **{"shape": training.image_shape, **model}, seed=seed)
    with console.status(f"{recipe}, seed {seed}") as status:

        def tell(row: dict[str, float]) -> None:
            status.update(
                f"{recipe}, seed {seed}: epoch {row['epoch']:.0f} of {options.epochs}, loss {row['loss']:.4f}"
            )

        found = train_classifier(
            layer,
            training.x,
            training.y,
            options,
            x_test=test.x,
            y_test=test.y,
            image_shape=training.image_shape,
            on_epoch=tell,
        )
    console.print(
        f"{recipe}, seed {seed}: test accuracy {found.test['accuracy']:.4f} in {found.seconds:.0f} s"
    )
    return {
        "recipe": recipe,
        "seed": seed,
        "test_accuracy": found.test["accuracy"],
        "test_loss": found.test["loss"],
        "train_accuracy": found.history[-1].get("accuracy"),
        "train_seconds": found.seconds,
        "compile_seconds": compile_seconds,
        "epochs": len(found.history),
        "n_train": found.n_train,
        "n_test": len(test),
        "parameters": sum(p.numel() for p in layer.parameters()),
        "model": dict(model),
        "options": options.record(),
    }


def warm_up(data: Dataset, classes: int, model: Mapping[str, Any], options: TrainOptions) -> float:
    """Seconds that the first two batches of a layer take: imports and the native engine's compile."""
    start = time.perf_counter()
    layer = MPSLayer(data.x.shape[1], classes, **{"shape": data.image_shape, **model})
    for size in {options.batch_size, len(data) % options.batch_size} - {0}:
        layer(torch.as_tensor(data.x[:size])).square().mean().backward()
    return time.perf_counter() - start


def summarise(rows: list[dict[str, Any]], bars: bool = True) -> list[dict[str, Any]]:
    """Mean, worst and best of every recipe over its seeds, and the bars."""
    found = []
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        own = [row for row in rows if row["recipe"] == recipe]
        accuracy, seconds = [row["test_accuracy"] for row in own], [row["train_seconds"] for row in own]
        entry: dict[str, Any] = {
            "recipe": recipe,
            "seeds": [row["seed"] for row in own],
            "accuracy": {"mean": statistics.mean(accuracy), "min": min(accuracy), "max": max(accuracy)},
            "seconds": {"mean": statistics.mean(seconds), "min": min(seconds), "max": max(seconds)},
            "bars": [],
        }
        asked = BARS.get(recipe, {}) if bars else {}
        if "accuracy" in asked:
            entry["bars"].append(_bar("accuracy", min(accuracy), "at_least", asked["accuracy"]))
        if "seconds" in asked:
            entry["bars"].append(_bar("seconds", max(seconds), "at_most", asked["seconds"]))
        found.append(entry)
    return found


def _bar(what: str, measured: float, kind: str, limit: float) -> dict[str, Any]:
    passed = measured >= limit if kind == "at_least" else measured <= limit
    return {"what": what, "measured": measured, kind: limit, "passed": passed}


def show(result: dict[str, Any], console: Console) -> None:
    """The table."""
    console.print("\n" + in_words(result["machine"]))
    table = Table(
        title="Test accuracy: mean (worst-best of the seeds); seconds of training after the compile"
    )
    for heading in ("recipe", "seeds", "parameters", "epochs", "test accuracy %", "bar", "seconds", "bar"):
        table.add_column(heading, justify="left" if heading == "recipe" else "right")
    for entry in result["recipes"]:
        row = next(row for row in result["rows"] if row["recipe"] == entry["recipe"])
        verdicts = {bar["what"]: _verdict(bar) for bar in entry["bars"]}
        a, s = entry["accuracy"], entry["seconds"]
        table.add_row(
            entry["recipe"],
            str(len(entry["seeds"])),
            f"{row['parameters']:,}",
            str(row["epochs"]),
            f"{100 * a['mean']:.2f} ({100 * a['min']:.2f}-{100 * a['max']:.2f})",
            verdicts.get("accuracy", ""),
            f"{s['mean']:.0f} ({s['min']:.0f}-{s['max']:.0f})",
            verdicts.get("seconds", ""),
        )
    console.print(table)
    for text in result["errors"]:
        console.print(f"[red]{text}[/red]")


def _verdict(bar: dict[str, Any]) -> str:
    limit = f">={100 * bar['at_least']:g}" if "at_least" in bar else f"<={bar['at_most']:g}"
    return f"{limit} {'[green]pass[/green]' if bar['passed'] else '[red]miss[/red]'}"
