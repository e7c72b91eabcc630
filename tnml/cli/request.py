"""Reads the arguments of `tnml train`: preset, YAML file or run, options, in rising precedence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from tnml.checks import whole
from tnml.cli.options import (
    GROUP_OF,
    GROUPS,
    NOT_SWEPT,
    SHARED,
    TRAINED,
    DataOptions,
    ModelOptions,
    RunOptions,
)
from tnml.cli.parsing import MAX_SEED, checked, new_parser, parse, plain
from tnml.cli.run_options import add_run_options, hide_files_of_groups, run_folders
from tnml.cli.runs import OPTIONS
from tnml.data.shipped import SHIPPED
from tnml.diagnostics.callbacks import CALLBACKS
from tnml.errors import InputError, choose
from tnml.files import user_path
from tnml.training import SweepOptions, TrainOptions
from tnml.training.presets import preset
from tnml.training.tasks import Task

EXAMPLES = (
    "tnml train digits",
    "tnml train mnist --preset accurate --out runs/best",
    "tnml train mnist --solver dmrg --data.pool 2 --sweep.max_bond 30",
    "tnml train images.npz --model.bond_dim 30 --train.epochs 20 --data.pool 2",
    "tnml train flats.csv --task regression --target price --data.drop [id]",
    "tnml train --config runs/digits-001/options.yaml --seed 1",
    "tnml train --resume runs/digits-001",
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A parsed `tnml train`.

    Args:
        options: of the run.
        out: folder given with `--out`; None chooses one.
        resume: folder of the run to continue, or None.

    Example:
        >>> Request(options=RunOptions(dataset="digits"), out=None, resume=None).resume is None
        True
    """

    options: RunOptions
    out: Path | None
    resume: Path | None


def read_request(words: Sequence[str]) -> Request:
    """The parsed arguments of `tnml train`.

    The preset gives the defaults, the file of `--config` (or the run of `--resume`) takes precedence over
    them, and the command line over both, in any order. Options of a solver that was not chosen are an error;
    but if `--solver` differs from the solver in a config file, the options of the file's solver are ignored.

    Raises:
        InputError: unknown options or names, wrong types or values, a missing or malformed file, options
            of the other solver.
        SystemExit: `--help` was given, and the help was shown.

    Example:
        >>> read_request(["mnist", "--model.bond_dim", "7", "--seed", "3"]).options.train.seed
        3
    """
    parser = _parser()
    first = parse(parser, [word for word in words if word not in ("-h", "--help")])
    stored: dict[str, Any] = {}
    if first.resume is not None:
        stored |= _resumed(parser, user_path(first.resume))
    if first.config is not None:
        stored |= _stored(parser, user_path(first.config), "config file")
    resumed = first.resume is not None
    solver = _settled("solver", first.solver, stored, "gradient", resumed=resumed)
    task = _settled("task", first.task, stored, "classification", resumed=resumed)
    stored = _of_solver(stored, words, solver, first.config)
    dataset = first.dataset or stored.get("dataset", "digits")
    chosen = first.preset or stored.get("preset", "default")
    recipe = _preset_defaults(dataset, chosen, choose("task", task, TRAINED))
    _drop_smoothing(recipe, plain(first), stored)
    defaults = {**recipe, **stored}
    parser.set_defaults({**defaults, "dataset": dataset, "task": task, "preset": chosen, "solver": solver})
    found = plain(parse(parser, words))
    whole("--seed", found["seed"], 0, MAX_SEED)
    out, resume = run_folders(found)
    return Request(options=_options(found), out=out, resume=resume)


def _options(found: Mapping[str, Any]) -> RunOptions:
    """The options of the run from what was parsed.

    Raises:
        InputError: a value is out of range, or options cannot be combined.
    """
    usual = TRAINED[found["task"]].default_loss  # by its name, so that options.yaml and checkpoints agree
    train, sweep = ({**found[group], "loss": found[group]["loss"] or usual} for group in ("train", "sweep"))
    callbacks = found["callbacks"]
    return RunOptions(
        dataset=_located(found["dataset"]),
        **{name: found[name] for name in ("task", "target", "preset", "solver")},
        data=DataOptions(**found["data"]),
        model=ModelOptions(**found["model"]),
        train=TrainOptions(**train, **{name: found[name] for name in SHARED}),
        sweep=SweepOptions(**sweep, seed=found["seed"], device=found["device"]),
        callbacks=(callbacks,) if isinstance(callbacks, str) else tuple(callbacks),
    )


def _settled(option: str, asked: str | None, stored: Mapping[str, Any], usual: str, *, resumed: bool) -> str:
    """The given solver or task, else that of the file, else the default; old files may not name it."""
    before: str = stored.get(option) or usual
    if asked is None:
        return before
    if resumed and asked != before:
        raise InputError(
            f"the run to resume was started with --{option} {before}, got {asked}; leave --{option} out, or "
            "start a new run"
        )
    return asked


def _of_solver(
    stored: Mapping[str, Any], words: Sequence[str], solver: str, config: str | None
) -> dict[str, Any]:
    """The stored options without those that only another solver used.

    Raises:
        InputError: an option on the command line, or in a file for this solver, belongs to another solver.
    """
    choose("solver", solver, dict.fromkeys(GROUP_OF))
    own = GROUP_OF[solver]

    def foreign(name: str) -> bool:
        group, _, option = name.partition(".")
        other = group in GROUP_OF.values() and group != own
        return other or (solver == "dmrg" and group == "model" and option in NOT_SWEPT)

    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--") and foreign(option[2:]):
            raise InputError(f"{option} does not go with --solver {solver}; {_instead(option, solver)}")
    for name in filter(foreign, stored):
        if (stored.get("solver") or "gradient") == solver:
            raise InputError(
                f"{config}: {name} does not go with solver: {solver}; {_instead('--' + name, solver)}"
            )
    return {name: value for name, value in stored.items() if not foreign(name)}


def _instead(option: str, solver: str) -> str:
    """What to do about an option of the other solver."""
    if option == "--model.bond_dim":
        return "the bonds grow from 1 as far as --sweep.max_bond lets them"
    if option.startswith("--model."):
        return "leave it out, sweeps do not use it"
    other = next(name for name in GROUP_OF if name != solver)
    return f"its options begin with --{GROUP_OF[solver]}, or choose --solver {other}"


def _preset_defaults(dataset: str, name: str, task: Task) -> dict[str, Any]:
    """The options of a preset, by dotted name."""
    recipe = preset(dataset, name, task.name)
    groups = {"model": recipe.model, "train": recipe.train.record(), "sweep": recipe.sweep.record()}
    return {
        f"{group}.{option}": value
        for group, values in groups.items()
        for option, value in values.items()
        if option not in SHARED
    }


def _drop_smoothing(recipe: dict[str, Any], first: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Takes the preset's label smoothing out of `recipe` if the chosen loss has none."""
    for group in GROUP_OF.values():
        loss = first[group]["loss"] or stored.get(f"{group}.loss")
        if loss not in (None, "cross-entropy"):
            recipe.pop(f"{group}.label_smoothing", None)


def _parser() -> ArgumentParser:
    parser = new_parser(
        "tnml train [DATA] [options]",
        "Trains a tensor network to predict class labels or real targets, and writes it to a model file.",
        EXAMPLES,
    )
    add = parser.add_argument
    add(
        "dataset",
        nargs="?",
        metavar="DATA",
        help="digits, mnist, fashion-mnist, a folder with IDX files, a .npz file or a table: .csv, .parquet",
    )
    add("--task", type=str, help="classification (of labels) or regression (of real targets)")
    add("--target", type=str, metavar="NAME", help="column to predict, for a table")
    add("--preset", type=str, help="where the defaults below come from: default (fast) or accurate")
    add(
        "--solver",
        type=str,
        help="gradient (with the options --train), or dmrg: sweeps over the bonds, which grow from 1 as the "
        "data need (with the options --sweep)",
    )
    add(
        "--callbacks",
        type=list[str] | str,
        default=[],
        metavar="[NAME, ...]",
        help=f"what to measure after every epoch or sweep and write to metrics.csv: {', '.join(CALLBACKS)}",
    )
    add_run_options(parser)
    parser.add_class_arguments(DataOptions, "data")
    parser.add_class_arguments(ModelOptions, "model")
    parser.add_class_arguments(TrainOptions, "train", skip=SHARED)
    parser.add_class_arguments(SweepOptions, "sweep", skip=SHARED - {"devices"})
    hide_files_of_groups(parser, GROUPS)
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
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"cannot read the {what} {path}: {reason}; check the path") from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(
            f"{path} is not valid YAML ({error}); correct it, or use options.yaml of a run"
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
    """The whole path of a folder or file, so that a run can be resumed from anywhere; names unchanged."""
    path = user_path(dataset)
    is_path = path.exists() and dataset not in ("digits", *SHIPPED)
    return str(path.resolve()) if is_path else dataset
