"""Features, which may be any real numbers, scaled to [0, 1], where the feature maps are defined."""

from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Inexact
from numpy import ndarray

from tnml.data.scaling import checked_range, to_unit
from tnml.errors import InputError


def fit_range(x: Inexact[ndarray, "b n"], rule: Any) -> Float64[ndarray, "2 n"] | None:
    """The lowest and highest value of each feature, which `scale` maps to 0 and 1; None leaves x unchanged.

    Args:
        x: finite training samples.
        rule: "auto" takes (0, 1) if all values lie in [0, 1], else each feature's own lowest and highest
            value; a pair (low, high) applies to every feature; None returns None.

    Raises:
        InputError: the rule is none of these, or the values are too far apart to subtract.

    Example:
        >>> fit_range(np.array([[0.0, 5.0], [1.0, 5.0]]), "auto")
        array([[0., 5.],
               [1., 5.]])
    """
    if rule is None:
        return None
    if isinstance(rule, str) and rule == "auto":
        low, high = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
        if low.min() >= 0 and high.max() <= 1:
            low, high = np.zeros_like(low), np.ones_like(high)
    else:
        pair = _pair(rule)
        low, high = (np.full(x.shape[1], end) for end in pair)
    return checked_range(low, high)


def _pair(rule: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in rule)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError(
            f"feature_range must be 'auto', None or a pair (low, high), low < high; got {rule!r}"
        )
    return low, high


def scale(x: Inexact[ndarray, "b n"], limits: Float64[ndarray, "2 n"] | None) -> Float32[ndarray, "b n"]:
    """`x` with `limits` mapped to 0 and 1 and values outside clipped, as a new float32 array.

    A feature that was constant in training becomes 0 there.

    Example:
        >>> scale(np.array([[0.0], [2.0], [9.0]]), np.array([[0.0], [4.0]]))
        array([[0. ],
               [0.5],
               [1. ]], dtype=float32)
    """
    return x.astype(np.float32) if limits is None else to_unit(x, limits)
