"""jsonargparse with tnml's rules: no abbreviations, one line per error, nearest names."""

import difflib
import re
from argparse import SUPPRESS, ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from tnml.errors import InputError

MAX_SEED = 2**32 - 1


class _Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Shows the default after each option, and the examples unchanged below."""


def new_parser(usage: str, description: str, examples: Sequence[str]) -> ArgumentParser:
    """A parser without options.

    Args:
        usage: the form of a call, such as "tnml train [DATA] [options]".
        description: one or two sentences.
        examples: whole command lines, shown below the options.

    Example:
        >>> parser = new_parser("tnml sing [SONG]", "Sings.", ["tnml sing"])
        >>> parser.add_argument("song", nargs="?", default="la").dest
        'song'
        >>> parse(parser, []).song
        'la'
    """
    shown = "\n".join(f"  {line}" for line in examples)
    return ArgumentParser(
        prog=" ".join(usage.split()[:2]),
        usage=usage,
        description=description,
        epilog=f"examples:\n{shown}",
        formatter_class=_Help,
        exit_on_error=False,
        allow_abbrev=False,
        default_env=False,
    )


def parse(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """The options parsed from these arguments.

    Raises:
        InputError: an unknown option, a value of the wrong type, a missing or malformed config file.
        SystemExit: `--help` was given, and the help was shown.

    Example:
        >>> parser = new_parser("tnml sing", "Sings.", [])
        >>> _ = parser.add_argument("--loud", type=bool, default=False)
        >>> parse(parser, ["--luod=true"])
        Traceback (most recent call last):
        tnml.errors.InputError: unknown option --luod; did you mean --loud? See `tnml sing --help`
    """
    try:
        return parser.parse_args(list(words))
    except ArgumentError as error:
        raise InputError(_reworded(parser, str(error))) from error


def checked(parser: ArgumentParser, content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Nested options converted by the parser, by dotted name: numbers from text, tuples from lists.

    Raises:
        InputError: an unknown name or a value of the wrong type; the message names `source`.

    Example:
        >>> parser = new_parser("tnml sing", "Sings.", [])
        >>> checked(parser, {"loud": 1}, "song.yaml")
        Traceback (most recent call last):
        tnml.errors.InputError: song.yaml: unknown option loud. See `tnml sing --help`
    """
    try:
        taken = parser.parse_object(dict(content))
    except ArgumentError as error:
        raise InputError(f"{source}: {_reworded(parser, str(error), dashes='')}") from error
    names = [
        f"{name}.{inner}" if isinstance(taken[name], Namespace) else name
        for name, value in content.items()
        for inner in (value if isinstance(taken[name], Namespace) else [name])
    ]
    return {name: taken[name] for name in names}


def plain(namespace: Namespace | Mapping[str, Any]) -> dict[str, Any]:
    """The parsed options as nested dictionaries.

    Example:
        >>> plain(Namespace(a=Namespace(b=1)))
        {'a': {'b': 1}}
    """
    return dict(namespace.as_dict() if isinstance(namespace, Namespace) else namespace)


def option_names(parser: ArgumentParser) -> list[str]:
    """Every long option that the parser knows.

    Example:
        >>> option_names(new_parser("tnml sing", "Sings.", []))
        ['--help']
    """
    return [
        name
        for action in parser._actions
        if action.help != SUPPRESS
        for name in action.option_strings
        if name.startswith("--")
    ]


def _reworded(parser: ArgumentParser, text: str, dashes: str = "--") -> str:
    """The message of jsonargparse as one sentence that says what to do; options begin with `dashes`."""
    line = " ".join(text.split())
    more = f"`{parser.prog} --help`"
    known = [name.replace("--", dashes, 1) for name in option_names(parser)]
    if match := re.match(r"[Uu]nrecognized arguments: (\S+)", line):
        word = match[1].partition("=")[0]
        unknown = word.startswith("-")
        return (
            f"unknown option {_nearest(word, known)} See {more}"
            if unknown
            else f"unexpected word {word!r}; see {more}"
        )
    if match := re.match(r"(?:Group '(?P<group>[\w.]+)' does not accept o|O)ption '(?P<name>[\w.-]+)'", line):
        name = ".".join(part for part in (match["group"], match["name"]) if part)
        return f"unknown option {_nearest(dashes + name, known)} See {more}"
    if match := re.match(r'Parser key "([\w.]+)": (.*)', line):
        return f"option {dashes}{match[1]}: {_tidy(match[2])}; see {more}"
    return f"{line}; see {more}"


def _tidy(reason: str) -> str:
    """The reason with types by their names, and alternatives in one line."""
    reason = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", reason)
    if match := re.search(r"Subtypes: \[(.*?)\] Errors:.* Given value: (.*)$", reason):
        return f"expected {match[1].replace('NoneType', 'null').replace(', ', ' or ')}, got {match[2]}"
    if match := re.match(r"Expected an? (.*?)\. Got value: (.*)$", reason):
        return f"expected {match[1]}, got {match[2]}"
    return reason[:1].lower() + reason[1:]


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"{name}; did you mean {near[0]}?" if near else f"{name}."
