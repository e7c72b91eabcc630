"""Reads the arguments of `tnml pde solve`: preset, YAML file or run, options, in rising precedence."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from tnml.checks import whole
from tnml.cli.parsing import MAX_SEED, checked, new_parser, parse, plain
from tnml.cli.run_options import add_run_options, hide_files_of_groups, run_folders
from tnml.cli.runs import OPTIONS
from tnml.errors import InputError, choose
from tnml.files import user_path
from tnml.pde import SolveOptions, preset
from tnml.pde.equations.table import PROBLEMS

SHARED = frozenset({"seed", "device", "devices"})  # given once, at the top level
EXAMPLES = (
    "tnml pde solve bsb",
    "tnml pde solve hjb --problem.dim 20 --solve.max_seconds 60 --out runs/hjb",
    "tnml pde solve --config runs/bsb-001/options.yaml --seed 1",
    "tnml pde solve --resume runs/bsb-001",
)


@dataclass(frozen=True, kw_only=True)
class PdeRequest:
    """A parsed `tnml pde solve`.

    Args:
        name: of the problem.
        problem: arguments of the function that makes it.
        solve: the options of the solution.
        out: folder given with `--out`; None chooses one.
        resume: folder of the run to continue, or None.

    Example:
        >>> PdeRequest(name="bsb", problem={"dim": 3}, solve=SolveOptions(), out=None, resume=None).name
        'bsb'
    """

    name: str
    problem: dict[str, Any]
    solve: SolveOptions
    out: Path | None
    resume: Path | None

    def record(self) -> dict[str, Any]:
        """Plain numbers, words and lists for `options.yaml`, which `--config` reads."""
        options = self.solve.record()
        shared = {name: options.pop(name) for name in sorted(SHARED)}
        return {"name": self.name, **shared, "problem": dict(self.problem), "solve": options}


def read_request(words: Sequence[str]) -> PdeRequest:
    """The parsed arguments of `tnml pde solve`.

    The problem's preset gives the defaults, the file of `--config` (or the run of `--resume`) takes
    precedence over them, and the command line over both. If the command line names a different problem than
    the file, the file's problem options are ignored. A run to resume must solve the named problem.

    Raises:
        InputError: unknown options or names, wrong types or values, a missing or malformed file.
        SystemExit: `--help` was given, and the help was shown.

    Example:
        >>> read_request(["bsb", "--problem.dim", "7", "--seed", "3"]).solve.seed
        3
        >>> read_request(["--seed", "3", "hjb"]).name
        'hjb'
    """
    config, resume = (_value_of(option, words) for option in ("--config", "--resume"))
    if config is not None and resume is not None:
        raise InputError("--resume uses the options of the run; leave --config out")
    stored: dict[str, Any] = {}
    source = config if resume is None else str(user_path(resume) / OPTIONS)
    if source is not None:
        stored = _stored(user_path(source))
    place = _place_of_name(words)
    typed = None if place is None else words[place]
    if place is not None:  # move it to the front, where it is read whatever follows
        words = [words[place], *words[:place], *words[place + 1 :]]
    if resume is not None and typed not in (None, stored.get("name")):
        raise InputError(
            f"the run to resume solves {stored.get('name')!r}, got {typed!r}; leave the name out"
        )
    name = typed or stored.get("name")
    if name is None:
        if "-h" not in words and "--help" not in words:
            raise InputError(f"name a problem: tnml pde solve NAME; choose from: {', '.join(PROBLEMS)}")
        name = next(iter(PROBLEMS))
    choose("problem", name, PROBLEMS)
    parser = _parser(name)
    if stored.get("name", name) != name:
        stored = {key: value for key, value in stored.items() if key != "problem"}
    asked = _value_of("--solve.loss", words) or stored.get("solve", {}).get("loss")
    recipe = preset(name, loss="deep-bsde") if asked == "deep-bsde" else preset(name)
    defaults = {f"solve.{key}": value for key, value in recipe.record().items() if key not in SHARED}
    defaults |= checked(parser, {str(key): value for key, value in stored.items()}, str(source))
    parser.set_defaults({**defaults, "name": name})
    found = plain(parse(parser, words))
    whole("--seed", found["seed"], 0, MAX_SEED)
    options = SolveOptions(**found["solve"], **{key: found[key] for key in SHARED})
    out, resume_folder = run_folders(found)
    return PdeRequest(
        name=name, problem=dict(found.get("problem", {})), solve=options, out=out, resume=resume_folder
    )


def _place_of_name(words: Sequence[str]) -> int | None:
    """The position of the first argument that is not an option or its value; an option has at most one."""
    place = 0
    while place < len(words):
        word = words[place]
        if not word.startswith("-"):
            return place
        alone = "=" in word or word in ("-h", "--help") or words[place + 1 : place + 2] == []
        place += 1 if alone or words[place + 1].startswith("--") else 2
    return None


def _value_of(option: str, words: Sequence[str]) -> str | None:
    """The value of an option, in either spelling; the last one counts."""
    found = None
    for place, word in enumerate(words):
        if word == option and place + 1 < len(words):
            found = words[place + 1]
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def _parser(name: str) -> ArgumentParser:
    parser = new_parser(
        "tnml pde solve NAME [options]",
        "Solves a parabolic equation with a network along random paths, and writes a model file.",
        EXAMPLES,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help=", ".join(PROBLEMS))
    add_run_options(parser)
    parser.add_function_arguments(PROBLEMS[name], "problem")
    parser.add_class_arguments(SolveOptions, "solve", skip=set(SHARED))
    hide_files_of_groups(parser, ("problem", "solve"))
    return parser


def _stored(path: Path) -> dict[str, Any]:
    """The options in a YAML file."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"cannot read the options in {path}: {reason}; check the path") from error
    except yaml.YAMLError as error:
        raise InputError(
            f"{path} is not valid YAML ({error}); correct it, or use options.yaml of a run"
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(group, {}), dict) for group in ("problem", "solve")
    ):
        raise InputError(
            f"{path} must hold options such as `name: bsb` and `solve: {{iterations: 500}}`; "
            "options.yaml of a run shows them all"
        )
    return content
