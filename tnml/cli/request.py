"""Reads the words after `tnml train`: preset, YAML file, stored run and options, each before the last."""

from argparse import SUPPRESS
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from tnml.cli.options import GROUPS, SHARED, DataOptions, ModelOptions, RunOptions
from tnml.cli.parsing import MAX_SEED, bounded, checked, new_parser, parse, plain
from tnml.cli.runs import OPTIONS
from tnml.data.shipped import SHIPPED
from tnml.errors import InputError
from tnml.training import TrainOptions
from tnml.training.presets import preset

EXAMPLES = (
    "tnml train digits",
    "tnml train mnist --preset accurate --out runs/best",
    "tnml train images.npz --model.bond_dim 30 --train.epochs 20 --data.pool 2",
    "tnml train --config runs/digits-001/options.yaml --seed 1",
    "tnml train --resume runs/digits-001",
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A parsed `tnml train`.

    Args:
        options: of the run.
        out: folder asked for; None chooses one.
        resume: folder of the run to continue, or None.

    Example:
        >>> Request(options=RunOptions(dataset="digits"), out=None, resume=None).resume is None
        True
    """

    options: RunOptions
    out: Path | None
    resume: Path | None


def read_request(words: Sequence[str]) -> Request:
    """What `tnml train` was asked for.

    The preset gives the defaults, the file of `--config` (or the run of `--resume`) goes before them, and
    the words typed go before all, wherever they stand.

    Raises:
        InputError: unknown options or names, wrong types or values, a missing or malformed file.
        SystemExit: `--help` was asked for and shown.

    Example:
        >>> read_request(["mnist", "--model.bond_dim", "7", "--seed", "3"]).options.train.seed
        3
    """
    parser = _parser()
    first = parse(parser, [word for word in words if word not in ("-h", "--help")])
    stored: dict[str, Any] = {}
    if first.resume is not None:
        stored |= _resumed(parser, Path(first.resume))
    if first.config is not None:
        stored |= _stored(parser, Path(first.config), "config file")
    dataset = first.dataset or stored.get("dataset", "digits")
    chosen = first.preset or stored.get("preset", "default")
    parser.set_defaults({**_preset_defaults(dataset, chosen), **stored, "dataset": dataset, "preset": chosen})
    found = plain(parse(parser, words))
    bounded("--seed", found["seed"], 0, MAX_SEED)
    train = TrainOptions(**found["train"], **{name: found[name] for name in SHARED})
    options = RunOptions(
        dataset=_located(found["dataset"]),
        preset=found["preset"],
        data=DataOptions(**found["data"]),
        model=ModelOptions(**found["model"]),
        train=train,
    )
    folder = {name: None if found[name] is None else Path(found[name]) for name in ("out", "resume")}
    if folder["out"] is not None and folder["resume"] is not None:
        raise InputError("--resume continues in the folder of the run; leave --out away")
    return Request(options=options, **folder)


def _preset_defaults(dataset: str, name: str) -> dict[str, Any]:
    """The options of a preset, by dotted name."""
    recipe = preset(dataset, name)
    model = {f"model.{option}": value for option, value in recipe.model.items()}
    train = {
        f"train.{option}": value for option, value in recipe.train.record().items() if option not in SHARED
    }
    return model | train


def _parser() -> ArgumentParser:
    parser = new_parser(
        "tnml train [DATA] [options]",
        "Trains a matrix product state to tell classes apart, and keeps it in a model file.",
        EXAMPLES,
    )
    add = parser.add_argument
    add(
        "dataset",
        nargs="?",
        metavar="DATA",
        help="digits, mnist, fashion-mnist, a folder with IDX files or a .npz file",
    )
    add("--preset", type=str, help="where the defaults below come from: default (fast) or accurate")
    add(
        "--config",
        type=str,
        metavar="FILE.yaml",
        help="options from a file, as options.yaml in every run folder",
    )
    add("--out", type=str, metavar="FOLDER", help="folder of the run; null: runs/NAME-001, 002, ...")
    add(
        "--resume",
        type=str,
        metavar="FOLDER",
        help="continue the run in this folder, exactly where it stopped",
    )
    add("--seed", type=int, default=0, help="of everything random")
    add("--device", type=str, default="auto", help="auto (CUDA where there is one), cpu, cuda or cuda:1")
    add("--devices", type=int, default=1, help="processes, one device each; leave it at 1 under torchrun")
    parser.add_class_arguments(DataOptions, "data")
    parser.add_class_arguments(ModelOptions, "model")
    parser.add_class_arguments(TrainOptions, "train", skip=SHARED)
    for action in parser._actions:  # jsonargparse offers a file for each group, too: one --config is enough
        if action.dest in GROUPS:
            action.help = SUPPRESS
    return parser


def _resumed(parser: ArgumentParser, folder: Path) -> dict[str, Any]:
    """The options of the run in a folder."""
    if folder.is_dir() and not (folder / OPTIONS).exists():
        raise InputError(
            f"there is no run to resume in {folder}: it holds no {OPTIONS}, which is written first; "
            f"check the path, or start the run again with `tnml train DATA --out {folder}`"
        )
    return _stored(parser, folder / OPTIONS, "run to resume")


def _stored(parser: ArgumentParser, path: Path, what: str) -> dict[str, Any]:
    """The options in a YAML file, checked, by dotted name."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        raise InputError(f"cannot read the {what} {path}: {reason}; check the path") from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(
            f"{path} is not valid YAML ({error}); correct it, or take options.yaml of a run"
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} must hold options such as `train: {{epochs: 5}}`, got {content!r:.40}; "
            "options.yaml of a run shows them all"
        )
    for name in GROUPS:
        if not isinstance(content.get(name, {}), dict):
            raise InputError(
                f"{path}: {name} must hold options such as `{name}: {{...}}`, got {content[name]!r:.40}"
            )
    return checked(parser, {str(name): value for name, value in content.items()}, str(path))


def _located(dataset: str) -> str:
    """The whole path of a folder or file, so that a run can be resumed from anywhere; names as they are."""
    path = Path(dataset).expanduser()
    is_path = path.exists() and dataset not in ("digits", *SHIPPED)
    return str(path.resolve()) if is_path else dataset
