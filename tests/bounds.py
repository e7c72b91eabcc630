"""How far two correct ways of computing the same sum may be apart in floating point.

A sum of products has no bound relative to itself: where the terms cancel, every order of summation gives
other last digits of the terms, and these may be all the digits of the sum. The bound is relative to the sum
of the absolute values of the terms. With the unit roundoff u = eps / 2, any order of n operations between an
input and the result, with or without fused multiply-adds, is off by at most

    gamma(n) * (the same sum with every number replaced by its absolute value),    gamma(n) = n u / (1 - n u)

(Higham, Accuracy and Stability of Numerical Algorithms, chapters 3 and 4). Two ways of computing it are both
that close to the truth, so they differ by twice as much at most.
"""

from typing import Any

import numpy as np


def gamma(operations: int, dtype: Any = np.float64) -> float:
    """The largest relative error of that many roundings."""
    rounding = operations * float(np.finfo(dtype).eps) / 2
    return rounding / (1 - rounding)


def assert_same_sums(found: Any, expected: Any, magnitude: Any, operations: int, dtype: Any = None) -> None:
    """Two ways of computing the same sums of products agree as well as floating point allows.

    Args:
        found: array or tensor.
        expected: computed another way.
        magnitude: the same sums with the absolute values of everything that enters them.
        operations: additions and multiplications between an input and a result, on the longest way.
        dtype: the least exact type that was computed in; None: that of `found`.
    """
    found, expected, magnitude = (np.asarray(values) for values in (found, expected, magnitude))
    assert found.shape == expected.shape == magnitude.shape
    excess = np.abs(found - expected) - 2 * gamma(operations, dtype or found.dtype) * magnitude
    assert excess.max(initial=0.0) <= 0, f"beyond the bound by {excess.max():.3g}"
