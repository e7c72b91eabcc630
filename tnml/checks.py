"""The one place where numbers that a user gives are checked: one function and one wording for each kind."""

import math
import operator
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, TypeGuard

from tnml.errors import InputError, choose


def whole(name: str, value: object, least: int = 0, most: int | None = None) -> int:
    """`value` as an int if it is a whole number from `least` to `most`; NumPy's and torch's integers do, too.

    Args:
        name: what the error calls it.
        value: the value given. Booleans and floats are not whole numbers, and neither is 3.0.
        least: the smallest allowed.
        most: the largest allowed; None sets no limit.

    Raises:
        InputError: it is not.

    Example:
        >>> import numpy as np
        >>> whole("epochs", np.int64(3), 1)
        3
        >>> whole("epochs", 0, 1)
        Traceback (most recent call last):
        tnml.errors.InputError: epochs must be a whole number, at least 1, got 0
    """
    if not is_whole(value, least, most):
        rule = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} must be a whole number, {rule}, got {value!r}")
    return operator.index(value)


def is_whole(value: object, least: int = 0, most: int | None = None) -> TypeGuard[int]:
    """Whether `whole` would take the value.

    Example:
        >>> is_whole(2, 1), is_whole(0, 1), is_whole(2.0, 1), is_whole(True, 1)
        (True, False, False, False)
    """
    found = _index(value)
    return found is not None and found >= least and (most is None or found <= most)


def entries(value: object) -> list[Any] | None:
    """The entries of a list, a tuple, a range, or an array or tensor with one axis; None for all else.

    Texts and single numbers have none.

    Example:
        >>> import numpy as np
        >>> entries((2, 3)), entries(np.array([2, 3])), entries("23"), entries(2)
        ([2, 3], [2, 3], None, None)
    """
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(value)
    if getattr(value, "ndim", None) != 1 or _index(value) is not None:
        return None
    return list(value.tolist())  # type: ignore[attr-defined]  # whatever has axes has this, too


def number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float = math.inf,
    most: float | None = None,
) -> float:
    """`value` as a float if it is a finite real number above `above`, at least `least`, below `below`.

    Args:
        name: what the error calls it.
        value: the value given; NumPy's numbers are accepted, booleans are not.
        above: it has to be larger.
        least: it has to be as large.
        below: it has to be smaller.
        most: it must not be larger.

    Raises:
        InputError: it is not.

    Example:
        >>> number("warmup", 1.5, least=0.0, below=1.0)
        Traceback (most recent call last):
        tnml.errors.InputError: warmup must be a number, at least 0 and below 1, got 1.5
    """
    rules = []
    if above is not None:
        rules.append(f"above {above:g}")
    if least is not None:
        rules.append(f"at least {least:g}")
    if below < math.inf:
        rules.append(f"below {below:g}")
    if most is not None:
        rules.append(f"at most {most:g}")
    found = float(value) if is_number(value) else math.nan
    good = (
        math.isfinite(found)
        and (above is None or found > above)
        and (least is None or found >= least)
        and found < below
        and (most is None or found <= most)
    )
    if not good:
        rule = f" {' and '.join(rules)}," if rules else ""
        raise InputError(f"{name} must be a {'' if rules else 'finite '}number,{rule} got {value!r}")
    return found


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number, of Python, NumPy or torch, no boolean; NaN and infinities are.

    Example:
        >>> import numpy as np
        >>> is_number(np.float32(0.5)), is_number(1), is_number("1"), is_number(True)
        (True, True, False, False)
    """
    if not isinstance(value, Real) and getattr(value, "ndim", None) == 0:  # an array or tensor of one number
        value = value.item()  # type: ignore[attr-defined]
    return isinstance(value, Real) and not isinstance(value, bool)


def probability(name: str, value: object, *, one: bool = False) -> float:
    """`value` as a float if it is a probability: at least 0 and below 1, or up to 1 where `one` allows it.

    Raises:
        InputError: it is not.

    Example:
        >>> probability("site_dropout", 0.5)
        0.5
    """
    return number(name, value, least=0.0, most=1.0) if one else number(name, value, least=0.0, below=1.0)


def one_of(name: str, value: str, known: Iterable[str]) -> str:
    """`value` if it is one of the known names; otherwise the error gives the nearest and the whole list.

    Raises:
        InputError: it is not.

    Example:
        >>> one_of("loss", "mse", ("cross-entropy", "mse"))
        'mse'
    """
    return choose(name, value, {option: option for option in known})


def keep_whole(record: object, *names: str, least: int = 0) -> None:
    """Checks fields of a frozen dataclass with `whole` and keeps them as Python's own integers.

    NumPy's integers are numbers to a user, but neither checkpoints nor YAML files accept them.

    Raises:
        InputError: a field holds something else.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> record = SimpleNamespace(epochs=np.int64(3))
        >>> keep_whole(record, "epochs", least=1)
        >>> record
        namespace(epochs=3)
    """
    for name in names:
        object.__setattr__(record, name, whole(name, getattr(record, name), least))


def keep_number(
    record: object,
    *names: str,
    above: float | None = None,
    least: float | None = None,
    below: float = math.inf,
) -> None:
    """Checks fields of a frozen dataclass with `number` and keeps them as Python's own numbers.

    Python's integers stay integers.

    Raises:
        InputError: a field holds something else.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> record = SimpleNamespace(lr=np.float64(0.5), eps=1)
        >>> keep_number(record, "lr", "eps", above=0.0)
        >>> record
        namespace(lr=0.5, eps=1)
    """
    for name in names:
        given = getattr(record, name)
        found = number(name, given, above=above, least=least, below=below)
        object.__setattr__(record, name, given if type(given) is int else found)


def _index(value: object) -> int | None:
    """The value of an integer of any kind; None for everything else, booleans included."""
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # what it refuses is caught
    except TypeError:
        return None
