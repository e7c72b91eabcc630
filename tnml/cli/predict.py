"""`tnml predict`: labels and probabilities of new samples, as CSV."""

import csv
import io
from collections.abc import Sequence

from tnml.cli.console import complain, say
from tnml.cli.parsing import new_parser, parse
from tnml.cli.samples import read_samples
from tnml.cli.saved import open_model
from tnml.files import write_text

EXAMPLES = (
    "tnml predict runs/mnist-001 t10k-images-idx3-ubyte.gz --out labels.csv",
    "tnml predict model.safetensors new.csv --scale [0,16] | head",
)


def run(words: Sequence[str]) -> int:
    """The exit code of `tnml predict` with these words.

    Raises:
        InputError: the samples do not fit the model, or something cannot be read or written.
    """
    parser = new_parser(
        "tnml predict MODEL FILE [options]",
        "Writes one line for each sample: its index from 0, its label and the probability of every class.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model file, or the folder of a run")
    add(
        "file",
        metavar="FILE",
        help="samples: .npz (x), .npy, .csv (one sample a line, a heading is allowed) or IDX images",
    )
    add(
        "--scale",
        type=str | tuple[float, float],
        help="range [low, high] of the values; null: as in training",
    )
    add("--out", type=str, metavar="FILE.csv", help="where to; null: the standard output")
    asked = parse(parser, words)
    model = open_model(asked.model)
    classes = model.classifier.classes_
    probabilities = model.classifier.predict_proba(read_samples(asked.file, model, asked.scale))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", *(f"p_{label}" for label in classes)])
    for index, row in enumerate(probabilities.tolist()):
        label = classes[int(probabilities[index].argmax())]
        writer.writerow([index, label, *(f"{p:.6g}" for p in row)])
    if asked.out is None:
        say(text.getvalue().rstrip("\n"))
    else:
        write_text(asked.out, text.getvalue())
        complain(f"{len(probabilities)} predictions in {asked.out}", title="tnml")
    return 0
