"""Checks that problems share."""

import math

from tnml.errors import InputError


def check_dim(dim: object) -> None:
    """Raises unless `dim` is a positive integer.

    Raises:
        InputError: it is not.

    Example:
        >>> check_dim(3)
    """
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise InputError(f"dim must be a positive integer, got {dim!r}")


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
