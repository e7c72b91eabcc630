"""The common options of commands that start a run: options file, folder, seed and devices."""

from argparse import SUPPRESS
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from tnml.errors import InputError
from tnml.files import user_path


def add_run_options(parser: ArgumentParser) -> None:
    """Adds `--config`, `--out`, `--resume`, `--seed`, `--device` and `--devices`.

    Example:
        >>> parser = ArgumentParser()
        >>> add_run_options(parser)
        >>> parser.parse_args(["--out", "runs/best"]).out
        'runs/best'
    """
    add = parser.add_argument
    add(
        "--config",
        type=str,
        metavar="FILE.yaml",
        help="read options from a file, such as options.yaml in any run folder",
    )
    add("--out", type=str, metavar="FOLDER", help="folder of the run; null: runs/NAME-001, 002, ...")
    add(
        "--resume",
        type=str,
        metavar="FOLDER",
        help="continue the run in this folder, exactly where it stopped",
    )
    add("--seed", type=int, default=0, help="seed of everything random")
    add("--device", type=str, default="auto", help="auto (CUDA if available), cpu, cuda or cuda:1")
    add(
        "--devices",
        type=int,
        default=1,
        help="number of processes, one device each; leave it at 1 under torchrun",
    )


def run_folders(found: Mapping[str, Any]) -> tuple[Path | None, Path | None]:
    """The folders of `--out` and `--resume`, each None if not given.

    Raises:
        InputError: both were given.

    Example:
        >>> run_folders({"out": None, "resume": "runs/digits-001"})[0] is None
        True
    """
    out, resume = (None if found[name] is None else user_path(found[name]) for name in ("out", "resume"))
    if out is not None and resume is not None:
        raise InputError("--resume continues in the folder of the run; leave out --out")
    return out, resume


def hide_files_of_groups(parser: ArgumentParser, groups: Collection[str]) -> None:
    """Hides the file option that jsonargparse adds for each group from the help: one `--config` is enough.

    Example:
        >>> parser = ArgumentParser()
        >>> _ = parser.add_argument("--train", help="a file")
        >>> hide_files_of_groups(parser, ["train"])
        >>> "--train" in parser.format_help()
        False
    """
    for action in parser._actions:
        if action.dest in groups:
            action.help = SUPPRESS
