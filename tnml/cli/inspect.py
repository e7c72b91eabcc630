"""`tnml inspect`: what a model file holds."""

import csv
import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tnml import report
from tnml.checks import whole
from tnml.cli.console import facts, say
from tnml.cli.goals import in_line, shown
from tnml.cli.parsing import MAX_SEED, new_parser, parse
from tnml.cli.reading import data_for, pair
from tnml.cli.saved import SavedModel, n_parameters, open_model
from tnml.diagnostics import Schmidt, schmidt
from tnml.estimators import MPSClassifier
from tnml.files import read_model, user_path
from tnml.loop.loop import METRICS
from tnml.nn import TensorNetworkLayer
from tnml.nn.layer import Chain
from tnml.randomness import seeded

MOST_SAMPLES = 1_000_000
_UNSAID = ("name", "dim", "columns", "missing")  # shown in another way, or too long
EXAMPLES = (
    "tnml inspect runs/digits-001",
    "tnml inspect model.safetensors mnist --figure bonds.png",
)


def run(words: Sequence[str]) -> int:
    """The exit code of `tnml inspect` with these arguments.

    Raises:
        InputError: the model or the data cannot be read, or they do not match.
    """
    parser = new_parser(
        "tnml inspect MODEL [DATA] [options]",
        "Shows what a model file holds, its entanglement, and its outputs on random inputs or on data.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model file, or the folder of a run")
    add(
        "data",
        nargs="?",
        metavar="DATA",
        help="data to measure the outputs on; if left out, uniform random inputs",
    )
    add("--split", type=str, default="test", help="train, test or all")
    add("--target", type=str, metavar="NAME", help="column of a table with the targets; null: as in training")
    add("--samples", type=int, default=1000, help="largest number of samples that are measured")
    add("--seed", type=int, default=0, help="seed of the random inputs")
    add(
        "--figure",
        type=str,
        metavar="FILE",
        help="also plot bond dimensions and entropies: .png, .pdf or .svg",
    )
    asked = parse(parser, words)
    whole("--samples", asked.samples, 1, MOST_SAMPLES)
    whole("--seed", asked.seed, 0, MAX_SEED)
    if asked.figure is not None:
        report.figure_format(asked.figure)
    model = open_model(asked.model)
    cuts = schmidt(model.layer)
    entropies: list[float] = cuts.entropies.tolist()
    say(facts([*_contents(model), *_entanglement(model, entropies)]))
    if (last := _last_row(user_path(asked.model) / METRICS)) is not None:
        say(f"\n{last}")
    if asked.data is None:
        generator = seeded(asked.seed)
        x = torch.rand(asked.samples, model.layer.n_sites, generator=generator)
        source = "uniform random inputs"
    else:
        data = data_for(model.for_data(), asked.data, asked.split, None, asked.target)
        x, source = torch.from_numpy(data.x[: asked.samples]), f"{data.name}, {data.split}"
    say(f"\noutputs on {len(x)} samples ({source})\n{facts(_scales(model, x))}")
    if asked.figure is not None:
        left, right = _bonds(model.layer, cuts)
        picture = picture_of(model.layer, entropies, _image_shape(model))
        figure = report.entanglement_figure(left, right, entropies, picture)
        report.save_figure(figure, asked.figure)
        say(f"\nfigure: {asked.figure}")
    return 0


def _contents(model: SavedModel) -> list[tuple[str, object]]:
    """The contents of the file, as names and values."""
    layer = model.layer
    version = read_model(model.path)[1].get("tnml", "unknown")
    results = model.data.get("results", {})
    options = ", ".join(
        f"{k}={v}" for k, v in layer.features.spec.items() if k not in _UNSAID and v is not None
    )
    order = layer.config["order"]
    found: list[tuple[str, object]] = [
        ("file", f"{model.path} ({model.path.stat().st_size:,} bytes, tnml {version})"),
        ("kind", _kind(model)),
        ("network", f"{layer.network} ({type(layer).__name__})"),
        (
            "sites",
            f"{layer.n_sites}"
            + (f", label core after site {layer.label_site}" if isinstance(layer, Chain) else ""),
        ),
        ("order", order if isinstance(order, str) else "a permutation"),
        (
            "features",
            f"{layer.features.name}, dimension {layer.features.dim}" + (f", {options}" if options else ""),
        ),
        ("bonds", _runs(layer.bond_dims)),
        ("parameters", f"{n_parameters(layer)} ({str(layer.dtype).removeprefix('torch.')})"),
    ]
    if model.names is not None:
        found.append(("columns", in_line(model.names)))
    if "provenance" in model.data:
        found.append(("trained on", model.data["provenance"]))
    found += [(name, shown(name, value)) for name, value in results.items() if name.startswith("test ")]
    if (done := model.data.get("compression")) is not None:
        tuned = done.get("fine_tuned_epochs", 0)
        found.append(
            (
                "compressed",
                f"from bond dimension {done['bond_dim_before']}, {done['parameters_before']} parameters; "
                f"relative error {done['relative_error']:.3g}"
                + (f", {tuned} epoch{'s' if tuned > 1 else ''} after it" if tuned else ""),
            )
        )
    return found


def _kind(model: SavedModel) -> str:
    """What the model predicts."""
    if isinstance(model.estimator, MPSClassifier):
        classes = model.estimator.classes_
        return f"classifier of {len(classes)} classes: {in_line(classes)}"
    count, name = len(model.estimator.y_mean_), model.data.get("target")
    return f"regressor of {count} target{'s' if count > 1 else ''}" + (f": {name}" if name else "")


def _last_row(metrics: Path) -> str | None:
    """The last line of a run's history; None if there is none."""
    try:
        with open(metrics, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError:  # a model file by itself
        return None
    if not rows:
        return None
    numbers = [(name, f"{float(value):.6g}") for name, value in rows[-1].items() if name and value]
    return f"last row of {metrics}\n{facts(numbers)}"


def _bonds(layer: TensorNetworkLayer, cuts: Schmidt) -> tuple[list[int], list[int] | None]:
    """Bond dimensions on both sides of the label core, or at the cuts of a network that is not a chain."""
    if isinstance(layer, Chain):
        return layer.bond_dims[: layer.label_site + 1], layer.bond_dims[layer.label_site + 1 :]
    return [len(values) for values in cuts.values], None


def picture_of(
    layer: TensorNetworkLayer, entropies: Sequence[float], shape: tuple[int, int] | None
) -> npt.NDArray[np.float64] | None:
    """Each bond's entropy `[height, width]` at the pixel whose core it joins to the label core's side.

    Every inner bond of a chain has one such pixel: around the label core there are n bonds and n sites. Cuts
    of other networks are shown if there is one for each site.

    Args:
        layer: its site order determines the pixels.
        entropies: of the inner bonds or cuts.
        shape: of the image; None returns None.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> picture_of(MPSLayer(4, 2, 2, order="snake", shape=(2, 2)), [0.1, 0.2, 0.3, 0.4], (2, 2))
        array([[0.1, 0.2],
               [0.4, 0.3]])
    """
    if shape is None or len(entropies) != layer.n_sites:
        return None
    picture = np.empty(layer.n_sites)
    picture[layer.order.cpu().numpy()] = entropies
    return picture.reshape(shape)


def _image_shape(model: SavedModel) -> tuple[int, int] | None:
    """(height, width) of an image: from the file, else a square."""
    stored = model.estimator.image_shape or pair(model.data.get("image_shape"))
    side = math.isqrt(model.layer.n_sites)
    square = side >= 4 and side * side == model.layer.n_sites
    return stored or ((side, side) if square else None)


def _entanglement(model: SavedModel, entropies: Sequence[float]) -> list[tuple[str, object]]:
    """Where the entropy is largest, and how many equal Schmidt values would have the same entropy."""
    if not entropies:
        return []
    at = int(np.argmax(entropies))
    where = f"at cut {at + 1} of {len(entropies)}"
    if isinstance(model.layer, Chain):
        side = "left" if at < model.layer.label_site else "right"
        sites = at + 1 if side == "left" else at
        where = f"at the bond after site {sites}"
        if sites == model.layer.label_site:
            where = f"at the bond {side} of the label core"
    return [
        ("entropy", f"largest {entropies[at]:.4f} nats, {where}"),
        ("effective", f"bond dimension {math.exp(entropies[at]):.2f} there, exp(entropy)"),
    ]


@torch.no_grad()
def _scales(model: SavedModel, x: Tensor) -> list[tuple[str, object]]:
    """Statistics of the outputs, in natural logarithms if they may be huge."""
    value, log_scale = model.layer.log_forward(x.to(model.layer.dtype))
    logits = (value * log_scale.exp()[:, None]).double()
    log_norm = value.double().square().sum(1).sqrt().log() + log_scale
    middle = log_norm.median().item()
    return [
        ("mean", f"{logits.mean():.4g}"),
        ("standard deviation", f"{logits.std():.4g}"),
        ("median |output|", f"{logits.abs().median():.4g}"),
        ("norm, log of median", f"{middle:.4g}"),
        ("norm, largest / median", f"{(log_norm.max() - middle).exp():.4g}"),
        ("norm, median / smallest", f"{(middle - log_norm.min()).exp():.4g}"),
    ]


def _runs(numbers: Sequence[int]) -> str:
    """Numbers with their repetitions counted.

    Example:
        >>> _runs([1, 2, 4, 4, 4, 2])
        '1 2 4(x3) 2'
    """
    groups = [(number, len(list(group))) for number, group in groupby(numbers)]
    return " ".join(f"{number}(x{times})" if times > 1 else str(number) for number, times in groups)
