"""Docstrings of classes that inherit the parameters and attributes of their bases."""

import inspect
import re
from collections.abc import Sequence

_SECTIONS = ("Args", "Attributes")  # sections whose entries are inherited


def with_entries_of(own: str, bases: Sequence[str]) -> str:
    r"""A docstring whose sections also have the entries of other docstrings that it does not have itself.

    Args:
        own: in Google's style.
        bases: the docstrings of the base classes, the nearest one first.

    Example:
        >>> print(with_entries_of("Mine.", ["Its.\n\nArgs:\n    size: in metres."]))
        Mine.
        <BLANKLINE>
        Args:
            size: in metres.
    """
    text = inspect.cleandoc(own)
    for section in _SECTIONS:
        entries: dict[str, str] = {}
        for doc in [*reversed([inspect.cleandoc(base) for base in bases]), text]:
            entries |= _entries(doc, section)
        if not entries:
            continue
        body, found = f"{section}:\n" + "\n".join(entries.values()), re.search(_section(section), text)
        if found is not None:
            text = text[: found.start()] + body + text[found.end() :]
        else:  # before the examples, which come last
            head, example, tail = text.partition("\n\nExample:")
            text = f"{head}\n\n{body}{example}{tail}"
    return text


def _entries(doc: str, section: str) -> dict[str, str]:
    """The entries of a section by name, with their lines unchanged."""
    found = re.search(_section(section), doc)
    if found is None:
        return {}
    lines = found.group().partition("\n")[2]
    return {
        re.split(r"[:,]", entry.strip(), maxsplit=1)[0]: entry.rstrip("\n")
        for entry in re.split(r"\n(?=    \S)", lines)
    }


def _section(name: str) -> str:
    """A pattern for a section of a clean docstring: its heading and the indented lines below it."""
    return rf"(?m)^{name}:(?:\n    .+)+"
