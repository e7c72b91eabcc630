"""Samples checked as by scikit-learn, sparse ones as arrays; and a check for values outside the range."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64
from numpy import ndarray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from tnml.checks import one_of
from tnml.data.scaling import clipping
from tnml.errors import InputError

_FLOATS = [np.float64, np.float32]
_MEMORY = Path("/proc/meminfo")
_COPIES = 1.5  # a dense array is also copied to single precision


def validated(estimator: BaseEstimator, X: Any, *y: Any, **settings: Any) -> Any:
    """What scikit-learn's `validate_data` returns, X as a dense array of floats, or (X, y).

    A network multiplies features of every column, so it gains nothing from zeros that sparse data leave out.

    Args:
        estimator: the one that is fitted or predicts.
        X: `[b, n]` samples, dense or sparse.
        y: targets, if there are any.
        settings: of `validate_data`.

    Raises:
        InputError: sparse data would not fit into memory as an array; scikit-learn's ValueError for
            data it does not accept.

    Example:
        >>> from scipy.sparse import eye_array
        >>> from tnml import MPSRegressor
        >>> validated(MPSRegressor(), eye_array(2), [1.0, 2.0])
        (array([[1., 0.],
               [0., 1.]]), array([1., 2.]))
    """
    settings = {"dtype": _FLOATS, "accept_sparse": "csr", **settings}
    found = validate_data(estimator, X, *y, **settings)
    samples, *rest = found if y else (found,)
    if issparse(samples):
        _check_memory(samples)
        samples = samples.toarray()
    return (samples, *rest) if y else samples


def _check_memory(samples: Any) -> None:
    """Raises if the dense array is larger than the available memory, where the system reports that."""
    rows, columns = samples.shape
    needed, there = _COPIES * rows * columns * samples.dtype.itemsize, _available()
    if there is not None and needed > there:
        raise InputError(
            f"the network needs sparse X [{rows}, {columns}] as an array, {needed / 1e9:.1f} GB, and "
            f"{there / 1e9:.1f} GB of memory are available; give fewer rows at a time, or fewer columns "
            "(sklearn's SelectKBest or TruncatedSVD)"
        )


def _available() -> int | None:
    """Bytes of memory that can be had, with the page cache; of all memory where that is unknown."""
    try:
        lines = _MEMORY.read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def look_at_range(X: npt.NDArray[Any], limits: Float64[ndarray, "2 n"] | None, clip: str) -> None:
    """Warns, does nothing or raises, as `clip` says, if many values lie outside the range.

    Args:
        X: `[b, n]` samples.
        limits: lowest and highest value of each feature; None if nothing is clipped.
        clip: "warn", "silent" or "error".

    Raises:
        InputError: `clip` is something else, or it is "error" and there are many such values.

    Example:
        >>> look_at_range(np.array([[9.0]]), np.array([[0.0], [1.0]]), "silent")
    """
    one_of("clip", clip, ("warn", "silent", "error"))
    told = None if limits is None else clipping(X, limits)
    if told is None or clip == "silent":
        return
    text = f"{told}; scale samples like those of fit, give a feature_range that covers them, or clip='silent'"
    if clip == "error":
        raise InputError(text)
    warnings.warn(text, UserWarning, stacklevel=5)
