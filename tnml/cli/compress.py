"""`tnml compress`: a smaller model file, and what the compression costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import numpy.typing as npt
from jsonargparse import ArgumentParser

from tnml import report
from tnml.checks import number, whole
from tnml.cli.console import facts, say, table
from tnml.cli.goals import Estimator, shown
from tnml.cli.parsing import MAX_SEED, new_parser, parse
from tnml.cli.reading import data_for
from tnml.cli.saved import SavedModel, n_parameters, open_model
from tnml.data import Dataset
from tnml.errors import InputError, choose
from tnml.files import user_path
from tnml.training import ProgressReporter
from tnml.training.fine_tune import fine_tuning
from tnml.training.options import TrainOptions

MOST_EPOCHS = 10_000
NORMS = {"samples": True, "tensor": False}
EXAMPLES = (
    "tnml compress runs/mnist-001 --max_error 0.01",
    "tnml compress runs/mnist-001 mnist --max_bond 10 --fine_tune 1 --out small.safetensors",
    "tnml compress runs/digits-001 digits --max_bond 8 --curve accuracy.png",
)


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """Scores on the test samples, accuracy or R2 first; None if not measured."""

    before: dict[str, float] | None = None
    truncated: dict[str, float] | None = None
    tuned: dict[str, float] | None = None

    @property
    def final(self) -> dict[str, float] | None:
        """The scores of the model that is written."""
        return self.truncated if self.tuned is None else self.tuned


def run(words: Sequence[str]) -> int:
    """The exit code of `tnml compress` with these arguments.

    Raises:
        InputError: no limit is given or one is out of range, model and data do not match, or a file cannot be
            read or written.
    """
    asked = parse(_parser(), words)
    if asked.max_bond is None and asked.max_error is None:
        raise InputError("give --max_bond, --max_error or both: they determine how small the model becomes")
    if asked.max_bond is not None:
        whole("--max_bond", asked.max_bond, 1)
    if asked.max_error is not None:
        number("--max_error", asked.max_error, least=0.0, below=1.0)
    whole("--fine_tune", asked.fine_tune, 0, MOST_EPOCHS)
    whole("--seed", asked.seed, 0, MAX_SEED)
    if asked.curve is not None:
        report.figure_format(asked.curve)
    by_samples = None if asked.norm is None else choose("norm", asked.norm, NORMS)
    model = open_model(asked.model).for_data()
    if asked.curve is not None and model.real_targets:
        raise InputError("--curve draws accuracies, which a regressor does not have; leave it out")
    out = _out(model, asked.out)
    options = _tuning(model, asked)
    train = test = None
    if asked.data is not None or asked.fine_tune or asked.curve is not None or by_samples:
        train, test = (
            data_for(model, asked.data, split, asked.scale, asked.target) for split in ("train", "test")
        )
        for part in (train, test):
            model.goal.targets(part)  # reports unknown labels before anything takes long
    samples = None if train is None or by_samples is False else train.x
    small = model.ready.compressed(max_bond=asked.max_bond, max_error=asked.max_error, X=samples)
    scores = _scored(model, small, test)
    if options is not None and train is not None and test is not None:
        _fine_tune(model, small, train, options)
        scores = replace(scores, tuned=model.goal.measured(small, test))
    same = test is not None and asked.data in (None, model.data.get("name"))
    _keep(model, small, out, scores, asked.fine_tune, same=same)
    say(_summary(model, small, test, scores, asked.fine_tune, out))
    if asked.curve is not None and test is not None:
        _draw(model, small, test, scores, asked, samples)
        say(f"figure: {asked.curve}")
    return 0


def _parser() -> ArgumentParser:
    """The options of `tnml compress`."""
    parser = new_parser(
        "tnml compress MODEL [DATA] [options]",
        "Makes the bonds of a model smaller, writes the result to a model file and shows what that costs.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model file, or the folder of a run")
    add(
        "data",
        nargs="?",
        metavar="DATA",
        help="as in `tnml train`: the training part shows which inputs matter; accuracy (for a "
        "regressor R2 and RMSE) is measured on the test part",
    )
    add("--max_bond", type=int | None, help="largest bond dimension; null: limited by --max_error only")
    add(
        "--max_error",
        type=float | None,
        help="largest relative error, from 0 to 1; null: limited by --max_bond only",
    )
    add(
        "--norm",
        type=str | None,
        help="what the error refers to: tensor (all entries of the weight tensor) or samples (outputs on "
        "inputs like the training part of the data); null: samples if data are given, else tensor",
    )
    add(
        "--out",
        type=str,
        metavar="FILE",
        help="where to write the model; null: next to the original, NAME-compressed",
    )
    add(
        "--fine_tune",
        type=int,
        default=0,
        metavar="EPOCHS",
        help="then train that many epochs on the training part of the data",
    )
    add("--lr", type=float | None, help="learning rate at the start; null: half the recipe's highest")
    add("--seed", type=int, default=0, help="of the training")
    add("--device", type=str, default="auto", help="of the training: auto, cpu, cuda or cuda:1")
    add(
        "--target",
        type=str,
        metavar="NAME",
        help="column of a table with the targets; null: as in training",
    )
    add(
        "--scale",
        type=str | tuple[float, float],
        help="range [low, high] of the values; null: as in training",
    )
    add(
        "--curve",
        type=str,
        metavar="FILE",
        help="also plot the accuracy of a classifier against the bond dimension: .png, .pdf or .svg",
    )
    return parser


def _out(model: SavedModel, asked: str | None) -> Path:
    """The path of the smaller model; never that of the larger one."""
    out = model.path.with_name(f"{model.path.stem}-compressed{model.path.suffix}")
    if asked is not None:
        out = user_path(asked)
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name a file in it, such as {out / 'small.safetensors'}")
    if out.exists() and out.samefile(model.path):
        raise InputError(f"--out {out} is the model to compress; choose another file")
    return out


def _tuning(model: SavedModel, asked: Any) -> TrainOptions | None:
    """The options of the fine-tuning; None if none was asked for."""
    if not asked.fine_tune:
        return None
    if (networks := len(model.estimator.layers_)) > 1:
        raise InputError(f"--fine_tune trains one network, but {model.path} holds {networks}; leave it out")
    name = asked.data or model.data.get("name") or "other"
    changes: dict[str, Any] = {"lr": asked.lr, "seed": asked.seed, "device": asked.device}
    if model.estimator.image_shape is None:
        changes["max_shift"] = 0
    if model.estimator.loss not in (None, "cross-entropy"):
        changes |= {"loss": model.estimator.loss, "label_smoothing": 0.0}
    return fine_tuning(name, asked.fine_tune, task=model.goal.task.name, **changes)


def _scored(model: SavedModel, small: Estimator, test: Dataset | None) -> _Scores:
    if test is None:
        return _Scores()
    measured = model.goal.measured
    return _Scores(before=measured(model.ready, test), truncated=measured(small, test))


def _fine_tune(model: SavedModel, small: Estimator, train: Dataset, options: TrainOptions) -> None:
    """Trains the small model in place."""
    result = model.goal.train(
        small.layer_,
        train.x,
        model.goal.targets(train),
        options,
        model.estimator.image_shape,
        progress=ProgressReporter(),
    )
    small.layer_.to("cpu").eval()
    small.n_iter_ += len(result.history)


def _keep(
    model: SavedModel, small: Estimator, out: Path, scores: _Scores, epochs: int, *, same: bool
) -> None:
    """Writes the model file, with what was done to the model and, on the `same` data, its new scores."""
    data = dict(small.data_ or {})
    data["compression"] = {**data["compression"], "fine_tuned_epochs": epochs}
    if same and scores.final is not None:
        data["results"] = {f"test {name}": value for name, value in scores.final.items()}
    small.data_ = data
    small.feature_range_ = model.limits  # it takes raw values again, like the original model
    if model.names is not None:
        small.feature_names_in_ = np.array(model.names, dtype=object)
    small.save(out)


def _summary(
    model: SavedModel, small: Estimator, test: Dataset | None, scores: _Scores, epochs: int, out: Path
) -> str:
    many, few = (n_parameters(layer) for layer in (model.layer, small.layer_))
    bonds = [max(layer.bond_dims) for layer in (model.layer, small.layer_)]
    means = [np.mean(layer.bond_dims) for layer in (model.layer, small.layer_)]
    rows = [
        ["parameters", str(many), str(few), f"{many / few:.2f} times fewer"],
        ["largest bond dimension", *map(str, bonds), ""],
        ["mean bond dimension", *(f"{mean:.2f}" for mean in means), ""],
    ]
    for step, found in (("truncated", scores.truncated), ("fine-tuned", scores.tuned)):
        for name, value in (found or {}).items():
            before = (scores.before or {})[name]
            rows.append(
                [f"{name}, {step}", shown(name, before), shown(name, value), _change(name, before, value)]
            )
    done = (small.data_ or {})["compression"]
    counted = {"tensor": "of the weight tensor", "samples": "of outputs on inputs like the training data"}
    lines = [("relative error", f"{done['relative_error']:.3e} {counted[done['norm']]}")]
    if test is not None:
        lines.append(("data", f"{test.name}, test: {len(test)} samples"))
    if epochs:
        lines.append(("fine-tuned", f"{epochs} epoch{'s' if epochs > 1 else ''}"))
    lines.append(("model", str(out)))
    words = quote(str(out))
    return (
        f"{table(['', 'before', 'after', 'change'], rows)}\n\n{facts(lines)}\n\nnext: tnml evaluate {words}"
    )


def _change(name: str, before: float, after: float) -> str:
    """The change, for accuracies in percentage points; -0.00 is written +0.00."""
    if name == "accuracy":
        return f"{round(100 * (after - before), 2) + 0.0:+.2f} points"
    return f"{after - before + 0.0:+.4g}"


def halves(largest: int) -> list[int]:
    """The bond dimensions of the curve: from the largest down to 1, divided by about sqrt(2) each time.

    Example:
        >>> halves(20)
        [20, 14, 10, 7, 5, 4, 3, 2, 1]
    """
    found = [largest]
    while found[-1] > 1:
        step = largest / math.sqrt(2) ** len(found)
        found.append(max(1, min(found[-1] - 1, math.ceil(step - 0.2))))
    return found


def _draw(
    model: SavedModel,
    small: Estimator,
    test: Dataset,
    scores: _Scores,
    asked: Any,
    samples: npt.NDArray[np.float32] | None,
) -> None:
    """Draws the accuracy of the model truncated to each bond dimension, and of the model that was written."""
    bonds = halves(max(model.layer.bond_dims))
    shares = [float(model.ready.compressed(max_bond=bond, X=samples).score(test.x, test.y)) for bond in bonds]
    curves: dict[str, tuple[Sequence[int], Sequence[float]]] = {"truncated": (bonds, shares)}
    if scores.final is not None:
        kind = "fine-tuned" if asked.fine_tune else "truncated"
        curves[f"written: {kind}"] = ([max(small.layer_.bond_dims)], [scores.final["accuracy"]])
    title = f"Accuracy on {test.name} ({test.split}) after compression"
    report.save_figure(report.compression_figure(curves, title), asked.curve)
