"""`tnml evaluate`: scores of a model on data whose targets are known."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tnml import report
from tnml.cli.console import facts, say, table
from tnml.cli.goals import Labels, shown
from tnml.cli.parsing import new_parser, parse
from tnml.cli.reading import data_for
from tnml.cli.saved import SavedModel, open_model
from tnml.data import Dataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = (
    "tnml evaluate runs/digits-001 digits",
    "tnml evaluate model.safetensors mnist --figure confusion.png",
    "tnml evaluate model.safetensors mine.npz --split all --scale [0,16]",
    "tnml evaluate runs/flats-001 more-flats.csv --split all --figure predictions.png",
)


def run(words: Sequence[str]) -> int:
    """The exit code of `tnml evaluate` with these arguments.

    Raises:
        InputError: model and data do not match, or one of them cannot be read.
    """
    parser = new_parser(
        "tnml evaluate MODEL [DATA] [options]", "Measures a model on data with known targets.", EXAMPLES
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model file, or the folder of a run")
    add(
        "data",
        nargs="?",
        metavar="DATA",
        help="as in `tnml train`; if left out, what the model was trained on",
    )
    add("--split", type=str, default="test", help="train, test or all")
    add(
        "--scale",
        type=str | tuple[float, float],
        help="range [low, high] of the values; null: as in training",
    )
    add("--target", type=str, metavar="NAME", help="column of a table with the targets; null: as in training")
    add(
        "--figure",
        type=str,
        metavar="FILE",
        help="also plot the confusion matrix, or predicted against true targets: .png, .pdf or .svg",
    )
    asked = parse(parser, words)
    if asked.figure is not None:
        report.figure_format(asked.figure)
    model = open_model(asked.model).for_data()
    goal, draw = model.goal, asked.figure is not None
    data = data_for(model, asked.data, asked.split, asked.scale, asked.target)
    if isinstance(goal, Labels):
        text, figure = _labels(model, goal, data, draw=draw)
    else:
        text, figure = _reals(model, data, draw=draw)
    say(text)
    if figure is not None:
        report.save_figure(figure, asked.figure)
        say(f"\nfigure: {asked.figure}")
    return 0


def _labels(model: SavedModel, goal: Labels, data: Dataset, *, draw: bool) -> "tuple[str, Figure | None]":
    """Accuracy and a table by class, as text; and the confusion matrix as a figure."""
    classes, truth = goal.classes, goal.targets(data)
    predicted = np.searchsorted(classes, model.ready.predict(data.x))
    counts = report.confusion_counts(truth, predicted, len(classes))
    scores = report.class_scores(counts)
    rows = [
        [str(label), f"{p:.4f}", f"{r:.4f}", f"{f:.4f}", str(n)]
        for label, p, r, f, n in zip(
            classes, scores.precision, scores.recall, scores.f1, scores.support, strict=True
        )
    ]
    by_class = table(["class", "precision", "recall", "f1", "support"], rows).replace(" nan", "   -")
    text = f"{facts([_about(data), ('accuracy', f'{scores.accuracy:.4f}')])}\n\n{by_class}"
    title = f"{data.name} ({data.split}): {100 * scores.accuracy:.2f} % of {len(data)}"
    return text, report.confusion_figure(counts, classes.tolist(), title) if draw else None


def _reals(model: SavedModel, data: Dataset, *, draw: bool) -> "tuple[str, Figure | None]":
    """R2 and errors, as text; and a figure of predicted against true targets."""
    predicted = np.asarray(model.ready.predict(data.x))
    scores = report.regression_scores(data.y, predicted)
    found = {"R2": scores.r2, "RMSE": scores.rmse, "MAE": scores.mae}
    text = facts([_about(data), *((name, shown(name, value)) for name, value in found.items())])
    title = f"{data.name} ({data.split}): R2 {scores.r2:.4f} of {len(data)} samples"
    target = model.data.get("target") or "target"
    return text, report.prediction_figure(data.y, predicted, title, target) if draw else None


def _about(data: Dataset) -> tuple[str, object]:
    return "data", f"{data.name}, {data.split}: {len(data)} samples"
