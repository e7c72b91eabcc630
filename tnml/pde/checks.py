"""Checks that problems share."""

import math
import operator

from tnml.errors import InputError


def check_dim(dim: object) -> int:
    """`dim` as an int, if it is a positive integer of any kind, NumPy's for one.

    Raises:
        InputError: it is not.

    Example:
        >>> check_dim(3)
        3
    """
    try:
        found = 0 if isinstance(dim, bool) else operator.index(dim)  # type: ignore[arg-type]
    except TypeError:
        found = 0
    if found < 1:
        raise InputError(f"dim must be a positive integer, got {dim!r}; give the number of coordinates")
    return found


def check_positive(**values: object) -> None:
    """Raises unless every value, called by its name, is a positive finite number.

    Raises:
        InputError: one is not.

    Example:
        >>> check_positive(sigma=0.4)
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"{name} must be a positive finite number, got {value!r}")
