"""`tnml explain`: which features or pixels the outputs of a model are due to."""

from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser

from tnml import report
from tnml.checks import whole
from tnml.cli.console import facts, say, table
from tnml.cli.explained import ExplainedSamples
from tnml.cli.parsing import new_parser, parse
from tnml.cli.reading import data_for
from tnml.cli.saved import SavedModel, open_model
from tnml.errors import InputError, choose
from tnml.estimators import MPSClassifier
from tnml.estimators.explained import KINDS
from tnml.files import user_path, write_text

MOST_ROWS, MOST_BACKGROUND = 100_000, 1_000_000
LISTED, PAGED = 20, 200  # samples on the terminal, and on the page
FORMATS = ("json", "csv")
EXAMPLES = (
    "tnml explain runs/mnist-001 mnist --rows 0:10 --figure maps.png",
    "tnml explain runs/mnist-001 mnist --rows 3 --label 7 --against 1 --figure seven.png",
    "tnml explain runs/flats-001 more-flats.csv --rows 0:200 --figure beeswarm.png --out values.csv",
    "tnml explain runs/flats-001 more-flats.csv --feature area --figure area.png",
    "tnml explain runs/flats-001 more-flats.csv --rows 0:200 --page why.html",
)


def run(words: Sequence[str]) -> int:
    """The exit code of `tnml explain` with these arguments.

    Raises:
        InputError: model and data do not match, an option does not fit them, or a file cannot be written.
    """
    asked = parse(_parser(), words)
    _check(asked)
    model = open_model(asked.model).for_data()
    outputs = _outputs_asked(model, asked)
    data, train = (
        data_for(model, asked.data, split, asked.scale, asked.target) for split in (asked.split, "train")
    )
    rows = chosen_rows(asked.rows, len(data))
    some, background = data.subset(rows), train.x[_spaced(len(train), asked.background)]
    found = model.ready.explain(some.x, background, kind=asked.kind, joint=asked.joint, **outputs)
    explained = ExplainedSamples(
        model=model, data=some, rows=rows, background=background, outputs=outputs, found=found
    )
    if asked.feature is not None:
        choose("feature", asked.feature, dict.fromkeys(explained.features))
    told = [
        ("data", f"{data.name}, {data.split}: {len(some)} of {len(data)} samples"),
        ("background", f"{len(background)} of {len(train)} training samples"),
        ("nodes", found.nodes),
        *([] if found.gap is None else [("gap", f"{found.gap:.1e}, of contributions added up to outputs")]),
    ]
    head, lines = explained.lines(LISTED)
    more = f"\n... and {len(rows) - LISTED} more" if len(rows) > LISTED else ""
    say(f"{facts(told)}\n\n{table(head, lines)}{more}")
    written = _write(explained, asked, told)
    if written:
        say("\n" + facts(written))
    return 0


def _parser() -> ArgumentParser:
    parser = new_parser(
        "tnml explain MODEL [DATA] [options]",
        "Shows what each feature or pixel contributes to the outputs of a model: exact Shapley values, "
        "compared with samples of the training part.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model file, or the folder of a run")
    add(
        "data",
        nargs="?",
        metavar="DATA",
        help="as in `tnml train`; if left out, what the model was trained on",
    )
    add("--rows", type=str, default="0:10", help="samples: first:last, the last one left out; or 4 or 4,7,9")
    add("--split", type=str, default="test", help="part of the data: train, test or all")
    add(
        "--scale",
        type=str | tuple[float, float],
        help="range [low, high] of the values; null: as in training",
    )
    add("--target", type=str, metavar="NAME", help="column of a table with the targets; null: as in training")
    add(
        "--label", type=str, metavar="CLASS", help="the class to explain; null: all, or of two the difference"
    )
    add("--against", type=str, metavar="CLASS", help="explain the difference to the output of this class")
    add("--kind", type=str, default="shapley", help="shapley, or banzhaf (does not add up to the output)")
    add("--background", type=int, default=1000, help="training samples to compare with, evenly spaced")
    add("--joint", type=bool, default=False, help="compare with each of them, not with the means of columns")
    add("--feature", type=str, metavar="NAME", help="plot how the outputs follow this column instead")
    add("--figure", type=str, metavar="FILE", help="where to plot: .png, .pdf or .svg")
    add("--page", type=str, metavar="FILE.html", help="where to write a page of figures and samples")
    add("--out", type=str, metavar="FILE", help="where to write all contributions: .json or .csv")
    return parser


def _check(asked: Any) -> None:
    """Raises if an option is wrong whatever the model and the data are."""
    whole("--background", asked.background, 1, MOST_BACKGROUND)
    choose("--kind", asked.kind, KINDS)
    if asked.figure is not None:
        report.figure_format(asked.figure)
    elif asked.feature is not None:
        raise InputError("--feature asks for a curve; say where to plot it with --figure FILE.png")
    for option, formats in (("out", FORMATS), ("page", ("html",))):
        if asked[option] is not None:
            ending = user_path(asked[option]).suffix[1:].lower()
            choose(f"format of --{option}", ending, dict.fromkeys(formats))


def chosen_rows(text: str, count: int) -> list[int]:
    """The rows that a text chooses among `count`: "0:10" as in Python, "4" or "4,7,9".

    Raises:
        InputError: it is something else, a row does not exist, or there are none or too many.

    Example:
        >>> chosen_rows("2:5", 100), chosen_rows("-2:", 100), chosen_rows("4,7", 100)
        ([2, 3, 4], [98, 99], [4, 7])
    """
    told = f"--rows must be first:last, a row or rows separated by commas, got {text!r}"
    try:
        ends = [int(word) if word.strip() else None for word in text.split(":")]
    except ValueError:
        ends = []
    if ":" not in text:
        try:
            rows = [int(word) for word in text.split(",")]
        except ValueError:
            raise InputError(told) from None
    elif not 1 < len(ends) <= 3 or 0 in ends[2:]:
        raise InputError(told)
    else:
        rows = list(range(count))[slice(*ends)]
    if not rows or not all(0 <= row < count for row in rows):
        raise InputError(f"--rows {text} chooses none of the {count} samples, or one that does not exist")
    if len(rows) > MOST_ROWS:
        raise InputError(f"--rows {text} chooses {len(rows)} samples; choose at most {MOST_ROWS}")
    return rows


def _spaced(count: int, wanted: int) -> list[int]:
    """Places among `count`, evenly spaced: the wanted number, or all if there are fewer."""
    number = min(count, wanted)
    return [place * count // number for place in range(number)]


def _outputs_asked(model: SavedModel, asked: Any) -> dict[str, Any]:
    """The arguments `target` and `against` of an explanation; of two classes, their difference."""
    if not isinstance(model.estimator, MPSClassifier):
        for name, value in (("--label", asked.label), ("--against", asked.against)):
            if value is not None:
                raise InputError(f"{name} names a class, and {model.path} is a regressor; leave it out")
        return {}
    classes = {str(label): label for label in model.estimator.classes_.tolist()}
    label, against = (
        None if value is None else choose("class", value, classes) for value in (asked.label, asked.against)
    )
    if len(classes) == 2 and asked.label is None and asked.against is None:
        against, label = classes.values()
    return {"target": label, "against": against}


def _write(
    explained: ExplainedSamples, asked: Any, told: Sequence[tuple[str, object]]
) -> list[tuple[str, object]]:
    """Writes what was asked for, and returns what was written."""
    written: list[tuple[str, object]] = []
    if asked.figure is not None:
        figure = explained.figure() if asked.feature is None else explained.curve(asked.feature)
        report.save_figure(figure, asked.figure)
        written.append(("figure", asked.figure))
    if asked.page is not None:
        head, lines = explained.lines(PAGED)
        title, adds_up = (
            f"Why {explained.model.path.parent.name or 'the model'} says so",
            asked.kind == "shapley",
        )
        facts_told = [("model", explained.model.path.name), *told]
        figures = explained.figures()
        report.explanation_page(asked.page, title, facts_told, figures, head, lines, adds_up=adds_up)
        written.append(("page", asked.page))
    if asked.out is not None:
        as_json = user_path(asked.out).suffix.lower() == ".json"
        write_text(asked.out, explained.to_json(asked.kind) if as_json else explained.to_csv())
        written.append(("contributions", asked.out))
    return written
