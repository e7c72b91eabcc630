"""How sure classifiers are and how sure they should be: conformal sets, temperatures, ensembles of five.

MNIST and Fashion-MNIST, pooled to 14 x 14, and pendigits: one network and an ensemble of five, each with a
quarter of the training samples held out for the threshold of the sets and for the temperature. For one seed
a coverage has a standard error of 0.4 points on the images and of 0.9 on pendigits, hence more seeds there.
The test sets are read once per fit; nothing is chosen on them.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy.special import softmax
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from benchmarks.machine import header, in_words
from benchmarks.tables_run import one_thread
from tnml import MPSClassifier
from tnml.data import load
from tnml.data.download import VARIABLE
from tnml.estimators import expected_calibration_error
from tnml.estimators.calibration import log_loss

ALPHA, BAR = 0.1, 0.01  # of labels that sets may miss; how far their coverage may be from 1 - ALPHA
NETWORKS = (1, 5)
IMAGES = {"bond_dim": 10, "epochs": 5, "batch_size": 100, "image_shape": (14, 14)}
PENS = {"bond_dim": 10, "features": {"name": "legendre", "dim": 4}, "epochs": 20, "batch_size": 100}
QUICK = 5_000  # training images
SEEDS, SEEDS_OF_PENS = 3, 10
HELD_OUT = 0.25
RANGED = ("accuracy", "coverage", "ece")  # shown with the least and the largest of the seeds


class Parts(NamedTuple):
    """Samples to fit and to test with."""

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    x_test: npt.NDArray[Any]
    y_test: npt.NDArray[Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} training images, two seeds")
    parser.add_argument("--seeds", type=int, default=None, help="of fits and splits (default: 3, or 10)")
    parser.add_argument("--sets", default=None, help="comma-separated (default: all)")


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: a record per set, seed and size of the ensemble, the means, the bars. Ctrl-C keeps some."""
    result = header("uncertainty", options.smoke)
    few = 1 if options.smoke else 2 if options.quick else None
    known = {"digits": _digits} if options.smoke else SETS
    wanted = list(known) if options.sets is None else options.sets.split(",")
    if unknown := [name for name in wanted if name not in known]:
        raise SystemExit(f"unknown set {unknown[0]!r}; choose from: {', '.join(known)}")
    if any(map(_is_pendigits, wanted)) and _pendigits_folder() is None:
        wanted = [name for name in wanted if not _is_pendigits(name)]
        console.print(f"skipped: pendigits; put its files into ${VARIABLE}/pendigits")
    result |= {"alpha": ALPHA, "quick": options.quick, "rows": []}
    settings = {name: dict(PENS if _is_pendigits(name) else IMAGES) for name in wanted}
    if options.smoke:
        settings = {"digits": {"bond_dim": 4, "epochs": 3}}
    result["settings"] = settings
    with one_thread(), console.status("starting") as status:
        try:
            for name in wanted:
                usual = SEEDS_OF_PENS if _is_pendigits(name) else SEEDS
                for seed in range(options.seeds or few or usual):
                    status.update(f"{name}, seed {seed}")
                    parts = known[name](seed, options.quick)
                    for networks in NETWORKS:
                        row = fitted(parts, settings[name], networks, seed)
                        result["rows"].append({"set": name, **row})
        except KeyboardInterrupt:
            result["errors"].append("interrupted: not all sets and seeds were measured")
    result["machine"]["threads"] = 1
    result["summary"] = summarise(result["rows"])
    result["bars"] = [] if options.smoke or options.quick else bars(result["summary"])
    return result


def fitted(parts: Parts, settings: dict[str, Any], networks: int, seed: int) -> dict[str, Any]:
    """The record of one fit: everything is measured on the test part."""
    start = time.process_time()
    given = {**settings, "n_estimators": networks, "random_state": seed}
    model = MPSClassifier(**given, calibrate=True, validation_fraction=HELD_OUT).fit(parts.x, parts.y)
    seconds = time.process_time() - start
    codes = np.searchsorted(model.classes_, parts.y_test)
    outputs = model.decision_function(parts.x_test)
    before, after = softmax(outputs, axis=1), model.predict_proba(parts.x_test)
    sets = model.predict_set(parts.x_test, ALPHA)
    filled = model.predict_set(parts.x_test, ALPHA, allow_empty=False)
    own, right = np.arange(len(codes)), before.argmax(axis=1) == codes
    found = model.predict_uncertainty(parts.x_test)
    wrong = (~right).astype(int)
    both = 0 < wrong.sum() < len(wrong)
    return {
        "networks": networks,
        "seed": seed,
        "samples": len(parts.x),
        "held_out": int(model.calibration_["samples"]),
        "test": len(codes),
        "accuracy": float(right.mean()),
        "log_loss_before": log_loss(before, codes),
        "log_loss": log_loss(after, codes),
        "ece_before": expected_calibration_error(before, codes),
        "ece": expected_calibration_error(after, codes),
        "temperature": model.temperature_,
        "coverage": float(sets[own, codes].mean()),
        "set_size": float(sets.sum(axis=1).mean()),
        "empty": float((~sets.any(axis=1)).mean()),
        "coverage_filled": float(filled[own, codes].mean()),
        "epistemic_right": float(found.epistemic[right].mean()),
        "epistemic_wrong": float(found.epistemic[~right].mean()) if both else 0.0,
        "auc_of_errors_total": float(roc_auc_score(wrong, found.total)) if both else None,
        "auc_of_errors_epistemic": float(roc_auc_score(wrong, found.epistemic)) if both else None,
        "cpu_seconds": seconds,
    }


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The means over the seeds, and the least and the largest of them."""
    found = []
    for name, networks in dict.fromkeys((row["set"], row["networks"]) for row in rows):
        own = [row for row in rows if (row["set"], row["networks"]) == (name, networks)]
        entry: dict[str, Any] = {"set": name, "networks": networks, "seeds": [row["seed"] for row in own]}
        for key, value in own[0].items():
            values = [row[key] for row in own]
            if isinstance(value, float) and None not in values:
                entry[key] = {"mean": statistics.mean(values), "min": min(values), "max": max(values)}
        found.append(entry)
    return found


def bars(summary: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean coverage of every set whose test samples are drawn like the held-out ones."""
    return [
        {
            "what": f"coverage on {entry['set']}, {entry['networks']} network(s)",
            "measured": entry["coverage"]["mean"],
            "equals": 1 - ALPHA,
            "within": BAR,
            "passed": abs(entry["coverage"]["mean"] - (1 - ALPHA)) <= BAR,
        }
        for entry in summary
        if entry["set"] != OTHER_WRITERS
    ]


def show(result: dict[str, Any], console: Console) -> None:
    """The tables."""
    console.print("\n" + in_words(result["machine"]))
    columns = {
        "accuracy %": ("accuracy", 100, 2),
        "coverage %": ("coverage", 100, 2),
        "classes a set": ("set_size", 1, 3),
        "empty %": ("empty", 100, 2),
        "filled %": ("coverage_filled", 100, 2),
        "ECE before": ("ece_before", 1, 4),
        "ECE": ("ece", 1, 4),
        "log loss before": ("log_loss_before", 1, 4),
        "log loss": ("log_loss", 1, 4),
        "temperature": ("temperature", 1, 3),
        "CPU s": ("cpu_seconds", 1, 1),
    }
    table = Table(title=f"On the test sets, means over the seeds; sets may miss {ALPHA:.0%}")
    for heading in ("set", "networks", *columns):
        table.add_column(heading, justify="left" if heading == "set" else "right")
    for entry in result["summary"]:
        cells = [_cell(entry[key], times, digits, key in RANGED) for key, times, digits in columns.values()]
        table.add_row(entry["set"], str(entry["networks"]), *cells)
    console.print(table)
    for bar in result["bars"]:
        verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
        console.print(f"{bar['what']}: {bar['measured']:.4f} ({bar['equals']} +- {bar['within']}) {verdict}")
    for text in result["errors"]:
        console.print(f"[red]{text}[/red]")


def _cell(entry: dict[str, float], times: float, digits: int, ranged: bool) -> str:
    mean, low, high = (f"{times * entry[key]:.{digits}f}" for key in ("mean", "min", "max"))
    return f"{mean} ({low}-{high})" if ranged else mean


def _images(name: str) -> Callable[[int, bool], Parts]:
    def read(seed: int, quick: bool) -> Parts:
        training, test = (load(name, split=split, pool=2) for split in ("train", "test"))
        if quick:
            training = training.subset(np.random.default_rng(seed).permutation(len(training))[:QUICK])
        return Parts(training.x, training.y, test.x, test.y)

    return read


def _digits(seed: int, quick: bool) -> Parts:
    """The smoke test's."""
    del seed, quick
    training, test = (load("digits", split=split) for split in ("train", "test"))
    return Parts(training.x, training.y, test.x, test.y)


def _is_pendigits(name: str) -> bool:
    return name.startswith("pendigits")


def _pendigits_folder() -> Path | None:
    folder = Path(os.environ.get(VARIABLE, "")) / "pendigits"
    return folder if (folder / "pendigits.tra").is_file() else None


def _shuffled(published: Callable[[int, bool], Parts], share: float) -> Callable[[int, bool], Parts]:
    """All samples of a set, a share of them drawn at random for the test."""

    def read(seed: int, quick: bool) -> Parts:
        whole = published(seed, quick)
        x, y = np.concatenate([whole.x, whole.x_test]), np.concatenate([whole.y, whole.y_test])
        x, x_test, y, y_test = train_test_split(x, y, test_size=share, stratify=y, random_state=seed)
        return Parts(x, y, x_test, y_test)

    return read


def _other_writers(seed: int, quick: bool) -> Parts:
    """The parts as published: the test samples are those of 14 writers, the others of 30 different ones."""
    del seed, quick
    folder = _pendigits_folder() or Path()
    read = (np.loadtxt(folder / f"pendigits.{part}", delimiter=",") for part in ("tra", "tes"))
    (x, y), (x_test, y_test) = ((rows[:, :-1] / 100, rows[:, -1].astype(np.int64)) for rows in read)
    return Parts(x, y, x_test, y_test)


OTHER_WRITERS = "pendigits by writer"
SETS: dict[str, Callable[[int, bool], Parts]] = {
    "mnist": _images("mnist"),
    "fashion-mnist": _images("fashion-mnist"),
    "fashion-mnist shuffled": _shuffled(_images("fashion-mnist"), 1 / 7),
    "pendigits": _shuffled(_other_writers, 0.2),
    OTHER_WRITERS: _other_writers,
}
