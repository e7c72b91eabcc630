"""The one error for bad input, and the one lookup of names with a nearest-match hint."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """A user's input that cannot be used; the text says what was expected, what was given and what to do.

    It is a `ValueError`, so code written for scikit-learn or PyTorch catches it as usual. The command
    line turns it into one line and exit code 2.

    Example:
        >>> raise InputError("bond_dim must be at least 1, got 0; give a positive integer")
        Traceback (most recent call last):
        tnml.errors.InputError: bond_dim must be at least 1, got 0; give a positive integer
    """


def choose(what: str, name: str, options: Mapping[str, T]) -> T:
    """The entry of `options` called `name`.

    Args:
        what: what the name stands for, as the error should call it ("feature map").
        name: the name asked for.
        options: every known name and its value.

    Raises:
        InputError: the name is unknown; the text gives the nearest known names and the whole list.

    Example:
        >>> choose("order", "snake", {"raster": 0, "snake": 1})
        1
        >>> choose("order", "snaek", {"raster": 0, "snake": 1})
        Traceback (most recent call last):
        tnml.errors.InputError: unknown order 'snaek'; did you mean 'snake'? Choose from: raster, snake
    """
    if isinstance(name, str) and name in options:
        return options[name]
    near = difflib.get_close_matches(str(name), list(options), n=2, cutoff=0.5)
    if not near and len(str(name)) >= 3:  # a prefix, perhaps with a typo at its end
        near = [option for option in options if option.startswith(str(name)[:3])][:2]
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else "."
    raise InputError(f"unknown {what} {name!r}{hint} Choose from: {', '.join(options)}")
