"""`tnml predict`: labels and probabilities of new samples, or their real targets, as CSV."""

import csv
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from tnml.cli.columns import read_columns
from tnml.cli.console import complain, say
from tnml.cli.parsing import new_parser, parse
from tnml.cli.samples import read_samples
from tnml.cli.saved import SavedModel, open_model
from tnml.errors import InputError
from tnml.estimators import MPSRegressor
from tnml.files import write_text

EXAMPLES = (
    "tnml predict runs/mnist-001 t10k-images-idx3-ubyte.gz --out labels.csv",
    "tnml predict model.safetensors new.csv --scale [0,16] | head",
)


def run(words: Sequence[str]) -> int:
    """The exit code of `tnml predict` with these arguments.

    Raises:
        InputError: the samples do not match the model, or a file cannot be read or written.
    """
    parser = new_parser(
        "tnml predict MODEL FILE [options]",
        "Writes one line for each sample: its index from 0, its label and the probability of every class, or "
        "the predicted value.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model file, or the folder of a run")
    add(
        "file",
        metavar="FILE",
        help="samples: .npz (x), .npy, .csv (one sample per line, optional heading), .parquet or IDX "
        "images; if the model was trained on a table, columns are found by name",
    )
    add(
        "--scale",
        type=str | tuple[float, float],
        help="range [low, high] of the values; null: as in training",
    )
    add("--out", type=str, metavar="FILE.csv", help="where to write; null: standard output")
    asked = parse(parser, words)
    model = open_model(asked.model)
    if model.encoders and asked.scale is not None:
        raise InputError(f"{model.path} scales the columns of a table itself; leave --scale out")
    x = read_columns(asked.file, model) if model.encoders else read_samples(asked.file, model, asked.scale)
    rows = _rows(model, x)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    if asked.out is None:
        say(text.getvalue().rstrip("\n"))
    else:
        write_text(asked.out, text.getvalue())
        complain(f"{len(rows) - 1} predictions in {asked.out}", title="tnml")
    return 0


def _rows(model: SavedModel, x: Shaped[ndarray, "b n"]) -> list[list[object]]:
    """A heading and one row for each sample."""
    if isinstance(model.ready, MPSRegressor):
        values = np.asarray(model.ready.predict(x))
        head = ["prediction"] if values.ndim == 1 else [f"prediction_{c}" for c in range(values.shape[1])]
        numbers = values.reshape(len(x), -1).tolist()
        return [["index", *head], *([index, *map(_digits, row)] for index, row in enumerate(numbers))]
    classes, probabilities = model.ready.classes_, model.ready.predict_proba(x)
    best = probabilities.argmax(1)
    return [
        ["index", "label", *(f"p_{label}" for label in classes)],
        *(
            [index, classes[best[index]], *(f"{p:.6g}" for p in row)]
            for index, row in enumerate(probabilities.tolist())
        ),
    ]


def _digits(value: float) -> str:
    """The number with nine digits, which is enough for single precision."""
    return f"{value:.9g}"
