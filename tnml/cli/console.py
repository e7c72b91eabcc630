"""Text on the terminal: results on standard output, errors and notes on standard error."""

import os
import sys
from collections.abc import Sequence


def rank() -> int:
    """The rank that torchrun gave this process; 0 without torchrun.

    Example:
        >>> rank()
        0
    """
    return int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def say(text: str = "") -> None:
    """Writes one or more lines to standard output, only in the process of rank 0.

    Example:
        >>> say("test accuracy: 0.98")
        test accuracy: 0.98
    """
    if rank() == 0:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def complain(text: str, title: str = "error") -> None:
    r"""Writes one line to standard error; line breaks in the text become spaces.

    Example:
        >>> import contextlib, io
        >>> with contextlib.redirect_stderr(io.StringIO()) as stream:
        ...     complain("no such file\n  at a.npz")
        >>> stream.getvalue()
        'error: no such file at a.npz\n'
    """
    where = f" (process {rank()})" if rank() else ""
    sys.stderr.write(f"{title}{where}: {' '.join(text.split())}\n")
    sys.stderr.flush()


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """Lines `name: value`, with the values aligned.

    Example:
        >>> print(facts([("sites", 64), ("parameters", 25_728)]))
        sites:      64
        parameters: 25728
    """
    width = max(len(name) for name, _ in pairs) + 1
    return "\n".join(f"{name + ':':<{width}} {value}".rstrip() for name, value in pairs)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under a heading, the first one aligned left, the others right.

    Example:
        >>> print(table(["class", "recall"], [["0", "0.99"], ["cat", "1.00"]]))
        class  recall
        0        0.99
        cat      1.00
    """
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
