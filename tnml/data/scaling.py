"""Columns of any real numbers brought to [0, 1], where the feature maps live."""

from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Inexact, Num
from numpy import ndarray

from tnml.errors import InputError

_BEYOND, _MANY = 0.1, 0.01  # of the range, of all values: less is not worth a warning


def column_range(x: Inexact[ndarray, "b n"]) -> Float64[ndarray, "2 n"]:
    """The lowest and the highest value of each column.

    Raises:
        InputError: the values are too far apart to subtract.

    Example:
        >>> column_range(np.array([[0.0, 5.0], [1.0, 4.0]]))
        array([[0., 4.],
               [1., 5.]])
    """
    return checked_range(x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64))


def checked_range(low: Float64[ndarray, " n"], high: Float64[ndarray, " n"]) -> Float64[ndarray, "2 n"]:
    """Both ends of the range of each column, `[2, n]`.

    Raises:
        InputError: they are too far apart to subtract.

    Example:
        >>> checked_range(np.zeros(1), np.ones(1)).shape
        (2, 1)
    """
    if np.max(high / 2 - low / 2) > np.finfo(np.float64).max / 2:
        raise InputError("the values of one feature are further apart than a float can tell; rescale them")
    return np.stack([low, high])


def limits_of(name: str, rule: Any, columns: int) -> Float64[ndarray, "2 n"]:
    """The ends `[2, n]` of every column's range, from a pair for all columns or from one for each of them.

    Args:
        name: what an error calls the rule.
        rule: (low, high), or low and high `[2, n]`.
        columns: how many there are.

    Raises:
        InputError: it is neither, or an end is not finite.

    Example:
        >>> limits_of("feature_range", (0, 4), 2)
        array([[0., 0.],
               [4., 4.]])
    """
    try:
        ends = np.asarray(rule, dtype=np.float64)
    except (TypeError, ValueError):
        ends = np.empty(0)
    limits = np.tile(ends[:, None], columns) if ends.shape == (2,) else ends
    if limits.shape != (2, columns) or not np.isfinite(limits).all() or (limits[0] > limits[1]).any():
        raise InputError(
            f"{name} must be a pair (low, high), or low and high [2, {columns}] of each column, "
            f"got {rule!r:.60}"
        )
    return checked_range(*limits)


def clipping(x: Num[ndarray, "b n"], limits: Float64[ndarray, "2 n"]) -> str | None:
    """What is worth saying about values that `to_unit` cuts off; None where that is not much.

    New samples of the same kind go a little beyond the range of the old ones. So only values count that lie
    beyond by more than a tenth of the range, and only where they are more than 1 % of all.

    Args:
        x: samples.
        limits: lowest and highest value of each column.

    Example:
        >>> clipping(np.array([[0.5], [1.05]]), np.array([[0.0], [1.0]])) is None
        True
        >>> clipping(np.array([[0.5], [10.0]]), np.array([[0.0], [1.0]]))
        '50.0 % of the values lie outside the range that becomes 0 to 1, and are cut off'
    """
    low, high = limits
    with np.errstate(over="ignore"):
        least, most = low - _BEYOND * (high - low), high + _BEYOND * (high - low)
    if not x.size or np.mean((x < least) | (x > most)) <= _MANY:
        return None
    share = 100 * np.mean((x < low) | (x > high))
    return f"{share:.1f} % of the values lie outside the range that becomes 0 to 1, and are cut off"


def to_unit(x: Inexact[ndarray, "b n"], limits: Float64[ndarray, "2 n"]) -> Float32[ndarray, "b n"]:
    """`x` with `limits` mapped to 0 and 1 and everything beyond cut off, as a new float32 array.

    A column without width, constant where the limits came from, becomes 0 there.

    Example:
        >>> to_unit(np.array([[0.0], [2.0], [9.0]]), np.array([[0.0], [4.0]]))
        array([[0. ],
               [0.5],
               [1. ]], dtype=float32)
    """
    low, high = limits
    if np.any(low != 0) or np.any(high != 1):
        x = np.clip(x, low, high)  # before the difference, which could overflow
        x = (x - low) / np.where(high > low, high - low, 1.0)
    unit: Float32[ndarray, "b n"] = np.clip(x, 0.0, 1.0).astype(np.float32, copy=False)
    return unit


def distance_beyond(x: Inexact[ndarray, "..."], low: Any, high: Any) -> Float64[ndarray, "..."]:
    """How far values are outside of a range, in units of its width, or as they are if it has none.

    Example:
        >>> distance_beyond(np.array([-1.0, 1.0, 3.0]), 0.0, 2.0)
        array([0.5, 0. , 0.5])
    """
    width = np.subtract(high, low)
    with np.errstate(over="ignore"):
        off = np.maximum(np.maximum(low - x.astype(np.float64), x - np.float64(high)), 0.0)
        found: Float64[ndarray, ...] = off / np.where(width > 0, width, 1.0)
    return found
