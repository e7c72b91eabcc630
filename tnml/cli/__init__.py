"""The command `tnml`: parse, call the library, print. Each command is a module, loaded when it is used."""

import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TextIO

from tnml.cli.console import complain, say
from tnml.errors import InputError, choose
from tnml.version import __version__

__all__ = ["main"]

BAD_INPUT, INTERRUPTED, CLOSED_PIPE = 2, 130, 141  # 128 + the signal's number, as shells count

COMMANDS = {
    "train": "train a tensor network on labels or real targets and keep it in a model file",
    "evaluate": "measure a model: accuracy and a table by class, or R2 and errors; figures of both",
    "predict": "write labels and probabilities, or predicted values, of new samples as CSV",
    "inspect": "show what a model file holds: sites, bonds, entanglement, scale of its outputs",
    "explain": "show which features or pixels the outputs of a model are due to, exactly; figures of that",
    "compress": "make a model smaller, train it a little more, and show what that costs",
    "pde": "solve parabolic equations in many dimensions",
    "study": "many runs over a grid of options, kept through crashes, and a report of them",
    "data": "list the data sets known by name, or download one",
}
READERS = {"train": "request"}

HELP = f"""usage: tnml COMMAND [options]

Tensor networks for machine learning.

commands:
{chr(10).join(f"  {name:<10} {text}" for name, text in COMMANDS.items())}

options:
  -h, --help  show this help; `tnml COMMAND --help` shows a command's options and their defaults
  --version   show the version

to get started:
  tnml train digits
  tnml train mnist --preset accurate
  tnml train table.csv --task regression --target price
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command `tnml` with these arguments.

    0: done. 2: bad input, with one line `error: ...` on standard error. 130: stopped by Ctrl-C. 141: the
    reader of a pipe has stopped. Any other failure is a bug in tnml and keeps its traceback.

    Args:
        argv: the arguments after `tnml`; None takes those of this process.

    Example:
        >>> main(["data", "list"]) == main(["--version"])  # doctest: +ELLIPSIS
        name ...
        True
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # On a shared machine, threads that spin for long while they wait for each other cost tens of times the
    # work itself. OpenMP reads this when torch loads, which no command has done yet.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    try:
        code = _run(words)
        sys.stdout.flush()
    except InputError as error:
        complain(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        complain("interrupted", title="tnml")
        return INTERRUPTED
    except BrokenPipeError:  # `tnml predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        complain(
            f"{error.strerror}: {error.filename or 'the disk'}; check the path, permissions and free space"
        )
        return BAD_INPUT
    return code


def _run(words: list[str]) -> int:
    """Runs the command that the first argument names."""
    if not words or words[0] in ("-h", "--help", "help"):
        say(HELP.rstrip())
        return 0 if words else BAD_INPUT
    if words[0] == "--version":
        say(f"tnml {__version__}")
        return 0
    name = choose("command", words[0], {name: name for name in COMMANDS})
    asked: Any = words[1:]
    if name in READERS:  # its options are read, and their help shown, before the heavy libraries load
        asked = import_module(f"tnml.cli.{READERS[name]}").read_request(asked)
    command: Callable[[Any], int] = import_module(f"tnml.cli.{name}").run
    with _notes():
        return command(asked)


@contextmanager
def _notes() -> Iterator[None]:
    """Shows each warning for users as one line, without its place in the code."""
    shown = warnings.showwarning

    def note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if category is UserWarning:
            complain(str(message), title="note")
        else:
            shown(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = note
        yield
