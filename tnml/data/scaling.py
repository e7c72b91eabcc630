"""Columns of any real numbers brought to [0, 1], where the feature maps live."""

import numpy as np
from jaxtyping import Float32, Float64, Inexact
from numpy import ndarray

from tnml.errors import InputError


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
