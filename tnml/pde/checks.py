"""What the numbers of an equation have to be."""

from tnml.checks import number


def as_number(name: str, value: object, *, above: float | None = None) -> float:
    """`value` if it is a finite number above `above`: Python's own as it is, any other as a float.

    The options of an equation are kept in files and compared when a run is resumed; there 1 and 1.0 differ,
    and NumPy's numbers have no place.

    Raises:
        InputError: it is not.

    Example:
        >>> import numpy as np
        >>> as_number("sigma", 1, above=0.0), as_number("sigma", np.float32(0.5), above=0.0)
        (1, 0.5)
    """
    found = number(name, value, above=above)
    return value if isinstance(value, int | float) else found
