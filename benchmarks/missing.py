"""Missing pixels: exact averages over what is missing, imputation, and training with site dropout.

MNIST, pooled to 14 x 14. A share of the pixels of every test image, drawn at random,
or one of its quadrants is missing. A network is linear in the features of each site, so the mean of its
outputs over a missing pixel is its output at mean features ("averaged over"). With features linear in the
pixel that is the same as the mean pixel, and so only one of them is measured there. All masks are drawn from
the seed. Nothing was chosen on the test set: the sizes were set by the time that they take.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import header, in_words
from benchmarks.tables_run import one_thread
from tnml.data import Dataset, load
from tnml.nn import MPSLayer
from tnml.report import save_figure
from tnml.training import TrainOptions, train_classifier

SHARES = (0.0, 0.1, 0.3, 0.5, 0.7)
QUADRANT = "quadrant"
FEATURES = {"linear": "linear", "quadratic": {"name": "legendre", "dim": 3}}  # in each pixel
DROPOUT = 0.5  # of a site in training: the middle of the shares that are missing later
BOND_DIM, EPOCHS = 10, 5
ROWS, ROW_IMAGES = 20, 1000  # of training images that fill the gaps together; of test images for these
QUICK = 5_000  # training images
BLOCK = 2000  # images at a time
FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "missing.png"
# What is done about a missing pixel, by the way the network was trained.
PLAIN = {
    "mean": "mean pixel",
    "averaged": "averaged over exactly",
    "rows": f"averaged over {ROWS} training images",
    "black": "black",
}
DROPPED = {"dropout": "trained with site dropout, dropped", "dropout-averaged": "the same, averaged over"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} training images, one seed")
    parser.add_argument("--seeds", type=int, default=None, help="of fits and masks (default: 3)")
    parser.add_argument(
        "--figure",
        type=Path,
        default=None,
        help="default: docs/figures/missing.png, not with --smoke, --quick",
    )


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: a record per seed, features, treatment and mask, and the means. Ctrl-C keeps some."""
    result = header("missing", options.smoke)
    small = options.smoke or options.quick
    seeds = options.seeds or (1 if small else 3)
    if options.smoke:
        training, test = (load("digits", split=split).subset(range(300)) for split in ("train", "test"))
    else:
        training, test = (load("mnist", split=split, pool=2) for split in ("train", "test"))
        training = training.subset(np.arange(QUICK)) if options.quick else training
    result |= {
        "quick": options.quick,
        "images": len(training),
        "features": FEATURES,
        "bond_dim": BOND_DIM,
        "dropout": DROPOUT,
        "rows": [],
        "fits": [],
    }
    with one_thread(), console.status("starting") as status:
        try:
            for seed in range(seeds):
                for features in FEATURES:
                    for dropout in (0.0, DROPOUT):
                        status.update(f"seed {seed}, {features}, site dropout {dropout:g}")
                        layer, fit = trained(
                            training, features, dropout, seed, 2 if options.smoke else EPOCHS
                        )
                        result["fits"].append(fit)
                        told = {"seed": seed, "features": features}
                        result["rows"] += [told | row for row in judged(layer, training, test, dropout, seed)]
        except KeyboardInterrupt:
            result["errors"].append("interrupted: not all networks were trained")
    result["machine"]["threads"] = 1
    result["summary"] = summarise(result["rows"])
    figure = options.figure or (None if small else FIGURE)
    if figure is not None and result["summary"]:
        save_figure(drawn(result["summary"]), figure)
    return result


def trained(
    training: Dataset, features: str, dropout: float, seed: int, epochs: int
) -> tuple[MPSLayer, dict[str, Any]]:
    """A network, and the record of its training."""
    start = time.process_time()
    layer = MPSLayer(
        training.x.shape[1],
        10,
        bond_dim=BOND_DIM,
        features=FEATURES[features],
        order="snake",
        shape=training.image_shape,
        site_dropout=dropout,
        seed=seed,
    ).rescale_(torch.from_numpy(training.x[:1000]))
    options = TrainOptions(
        epochs=epochs, lr=1e-3, schedule="one-cycle", label_smoothing=0.05, batch_size=100, seed=seed
    )
    found = train_classifier(layer, training.x, training.y, options)
    seconds = time.process_time() - start
    told = {"features": features, "site_dropout": dropout, "seed": seed, "cpu_seconds": seconds}
    return layer.eval(), {**told, "loss": found.history[-1]["loss"], "options": options.record()}


def judged(
    layer: MPSLayer, training: Dataset, test: Dataset, dropout: float, seed: int
) -> list[dict[str, Any]]:
    """Accuracies with every mask and every treatment that this network is for."""
    x, y = torch.from_numpy(test.x), torch.from_numpy(test.y)
    images = torch.from_numpy(training.x)
    mean = images.mean(0)
    average = torch.cat([layer.local_features(some) for some in images.split(BLOCK)]).mean(0)
    others = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:ROWS]]
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "mean": lambda x, gone: layer(torch.where(gone, mean, x)),
        "averaged": lambda x, gone: _outputs(layer, x, gone, average),
        "rows": lambda x, gone: _over_rows(layer, x, gone, others),
        "black": lambda x, gone: layer(torch.where(gone, 0.0, x)),
        "dropout": lambda x, gone: _outputs(layer, x, gone, layer.neutral),
        "dropout-averaged": lambda x, gone: _outputs(layer, x, gone, average),
    }
    wanted = [name for name in (DROPPED if dropout else PLAIN) if not _the_same(layer.features.name, name)]
    rows = []
    for mask in (*SHARES, QUADRANT):
        gone = missing(mask, len(x), test.image_shape or (1, x.shape[1]), seed)
        for name in wanted:
            many = ROW_IMAGES if name == "rows" else len(x)
            parts = zip(x[:many].split(BLOCK), gone[:many].split(BLOCK), strict=True)
            with torch.no_grad():
                found = torch.cat([ways[name](some, hidden).argmax(1) for some, hidden in parts])
            accuracy = float((found == y[:many]).double().mean())
            rows.append({"way": name, "mask": mask, "accuracy": accuracy, "images": many})
    return rows


def missing(mask: float | str, images: int, shape: tuple[int, int], seed: int) -> Tensor:
    """True where a pixel is missing, `[images, pixels]`; the same for every network of this seed."""
    generator = torch.Generator().manual_seed(1000 + seed)
    height, width = shape
    if mask != QUADRANT:
        return torch.rand(images, height * width, generator=generator) < float(mask)
    down, right = torch.randint(0, 2, (2, images, 1, 1), generator=generator)
    rows = (torch.arange(height) >= height / 2).view(1, -1, 1) == down.bool()
    columns = (torch.arange(width) >= width / 2).view(1, 1, -1) == right.bool()
    return (rows & columns).flatten(1)


def _the_same(features: str, way: str) -> bool:
    """Whether another way gives the same numbers: mean features are those of the mean pixel."""
    return features == "linear" and way == "averaged"


def _outputs(layer: MPSLayer, x: Tensor, gone: Tensor, instead: Tensor) -> Tensor:
    """Outputs with features `instead [n, d]`, in the network's order, at the missing pixels."""
    features = torch.where(layer.in_order(gone, -1).unsqueeze(2), instead.to(x), layer.local_features(x))
    value, exponent = layer.contract(features)
    return value * torch.exp2(exponent).unsqueeze(1)


def _over_rows(layer: MPSLayer, x: Tensor, gone: Tensor, others: Tensor) -> Tensor:
    """The mean of the outputs with the gaps filled from whole training images, one after the other."""
    return torch.stack([layer(torch.where(gone, other, x)) for other in others]).mean(0)


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean, the least and the largest accuracy over the seeds."""
    found = []
    for features, way, mask in dict.fromkeys((row["features"], row["way"], row["mask"]) for row in rows):
        own = [row for row in rows if (row["features"], row["way"], row["mask"]) == (features, way, mask)]
        values = [row["accuracy"] for row in own]
        entry = {"features": features, "way": way, "mask": mask, "seeds": [row["seed"] for row in own]}
        found.append(entry | {"mean": statistics.mean(values), "min": min(values), "max": max(values)})
    return found


def label(features: str, way: str) -> str:
    """What a way is called in table and figure."""
    if features == "linear" and way == "mean":
        return "mean pixel = averaged over exactly"
    return {**PLAIN, **DROPPED}[way]


def drawn(summary: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy against the share of missing pixels and with a missing quadrant, a panel for each map."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels = figure.subplots(1, len(FEATURES), sharey=True)
    figure.suptitle("MNIST, 14 x 14: test accuracy with missing pixels (mean and range of the seeds)")
    for axes, features in zip(panels, FEATURES, strict=True):
        own = [entry for entry in summary if entry["features"] == features]
        for way in dict.fromkeys(entry["way"] for entry in own):
            entries = [entry for entry in own if entry["way"] == way]
            place = list(PLAIN | DROPPED).index(way)  # the same color in both panels
            aside = 78 + 1.2 * place
            places = [aside if entry["mask"] == QUADRANT else 100 * entry["mask"] for entry in entries]
            mean = np.array([100 * entry["mean"] for entry in entries])
            spread = np.array([[100 * entry[end] for entry in entries] for end in ("min", "max")])
            off = np.abs(spread - mean)
            axes.plot(places[:-1], mean[:-1], label=label(features, way), color=f"C{place}")
            axes.errorbar(places, mean, off, fmt="o", markersize=4, capsize=3, color=f"C{place}")
        axes.set_xticks(
            [*(100 * share for share in SHARES), 81], [*(f"{s:.0%}" for s in SHARES), "a\nquadrant"]
        )
        axes.axvline(74.5, color="gray", linewidth=0.8, linestyle=":")
        axes.set_xlabel("missing pixels")
        axes.set_title(f"{features} features")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="lower left")
    panels[0].set_ylabel("test accuracy (%)")
    return figure


def show(result: dict[str, Any], console: Console) -> None:
    """The table."""
    console.print("\n" + in_words(result["machine"]))
    table = Table(title="Test accuracy %, mean (least-largest of the seeds), by the share of missing pixels")
    for heading in ("features", "a missing pixel is"):
        table.add_column(heading)
    masks = (*SHARES, QUADRANT)
    for mask in masks:
        table.add_column(mask if isinstance(mask, str) else f"{mask:.0%}", justify="right")
    found = {(entry["features"], entry["way"], entry["mask"]): entry for entry in result["summary"]}
    for features, way in dict.fromkeys((features, way) for features, way, _ in found):
        entries = [found.get((features, way, mask)) for mask in masks]
        cells = [
            "" if e is None else f"{100 * e['mean']:.2f} ({100 * e['min']:.2f}-{100 * e['max']:.2f})"
            for e in entries
        ]
        table.add_row(features, label(features, way), *cells)
    console.print(table)
    console.print(f"CPU seconds of training: {sum(fit['cpu_seconds'] for fit in result['fits']):.0f} in all")
    for text in result["errors"]:
        console.print(f"[red]{text}[/red]")
