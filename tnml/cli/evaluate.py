"""`tnml evaluate`: how good a model is on labelled data."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tnml import report
from tnml.cli.console import facts, say, table
from tnml.cli.parsing import new_parser, parse
from tnml.cli.saved import SavedModel, data_for, open_model
from tnml.data import Dataset
from tnml.errors import InputError

EXAMPLES = (
    "tnml evaluate runs/digits-001 digits",
    "tnml evaluate model.safetensors mnist --figure confusion.png",
    "tnml evaluate model.safetensors mine.npz --split all --scale [0,16]",
)


def run(words: Sequence[str]) -> int:
    """The exit code of `tnml evaluate` with these words.

    Raises:
        InputError: model and data do not fit, or one of them cannot be read.
    """
    parser = new_parser(
        "tnml evaluate MODEL [DATA] [options]", "Measures a model on labelled data.", EXAMPLES
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model file, or the folder of a run")
    add(
        "data",
        nargs="?",
        metavar="DATA",
        help="as in `tnml train`; what the model was trained on where it is left out",
    )
    add("--split", type=str, default="test", help="train, test or all")
    add(
        "--scale",
        type=str | tuple[float, float],
        help="range [low, high] of the values; null: as in training",
    )
    add("--figure", type=str, metavar="FILE", help="also draw the confusion matrix: .png, .pdf or .svg")
    asked = parse(parser, words)
    model = open_model(asked.model)
    data = data_for(model, asked.data, asked.split, asked.scale)
    truth = positions(model, data)
    predicted = model.classifier.predict_proba(data.x).argmax(1)
    counts = report.confusion_counts(truth, predicted, len(model.classifier.classes_))
    scores = report.class_scores(counts)
    say(
        facts(
            [
                ("data", f"{data.name}, {data.split}: {len(data)} samples"),
                ("accuracy", f"{scores.accuracy:.4f}"),
            ]
        )
    )
    say(f"\n{_table(model, scores)}")
    if asked.figure is not None:
        title = f"{data.name} ({data.split}): {100 * scores.accuracy:.2f} % of {len(data)}"
        report.save_figure(
            report.confusion_figure(counts, model.classifier.classes_.tolist(), title), asked.figure
        )
        say(f"\nfigure: {asked.figure}")
    return 0


def positions(model: SavedModel, data: Dataset) -> npt.NDArray[np.int64]:
    """The labels as positions in the model's classes.

    Raises:
        InputError: a label the model does not know.
    """
    strange = np.setdiff1d(data.y, model.classifier.classes_)
    if len(strange):
        known = ", ".join(map(str, model.classifier.classes_[:10])) + (
            ", ..." if len(model.classifier.classes_) > 10 else ""
        )
        raise InputError(
            f"{data.name} holds the label {strange[0]}, the model knows {known}; drop those samples"
        )
    return np.searchsorted(model.classifier.classes_, data.y).astype(np.int64)


def _table(model: SavedModel, scores: report.ClassScores) -> str:
    rows = [
        [str(label), f"{p:.4f}", f"{r:.4f}", f"{f:.4f}", str(n)]
        for label, p, r, f, n in zip(
            model.classifier.classes_, scores.precision, scores.recall, scores.f1, scores.support, strict=True
        )
    ]
    return table(["class", "precision", "recall", "f1", "support"], rows).replace(" nan", "   -")
