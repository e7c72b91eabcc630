"""Commands with actions: `tnml pde solve`, `tnml study run`."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tnml.cli.console import say
from tnml.cli.parsing import new_parser, parse
from tnml.errors import choose


class Action(NamedTuple):
    """A description of an action, and the function from its arguments to an exit code.

    Example:
        >>> Action("sings", lambda words: len(words)).perform(["la", "la"])
        2
    """

    about: str
    perform: Callable[[Sequence[str]], int]


def act(
    command: str, about: str, actions: Mapping[str, Action], examples: Sequence[str], words: Sequence[str]
) -> int:
    """The exit code of the action that the first argument names; shows the help if there is none.

    Args:
        command: its name, such as "tnml study".
        about: a sentence or two for the help.
        actions: by name.
        examples: whole command lines, for the help.
        words: the arguments after the command.

    Raises:
        InputError: the action is unknown, or its arguments are invalid.

    Example:
        >>> act("tnml sing", "Sings.", {"loud": Action("sings", len)}, [], ["loud", "la"])
        1
    """
    if not words or words[0] in ("-h", "--help"):
        parser = new_parser(f"{command} ACTION [options]", about, examples)
        texts = "; ".join(f"{name}: {action.about}" for name, action in actions.items())
        parser.add_argument("action", help=texts)
        if words:
            parse(parser, words[:1])
        say(parser.format_help())
        return 2
    return choose(f"action of {command}", words[0], actions).perform(words[1:])
