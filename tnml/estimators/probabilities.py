"""Probabilities from outputs that are not yet probabilities."""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64
from numpy import ndarray


def nearest_probabilities(outputs: Float64[ndarray, "b c"]) -> Float64[ndarray, "b c"]:
    """For each row the nearest point, in Euclidean distance, with entries of at least 0 that add up to 1.

        p_i = max(f_i - t, 0),   t such that sum_i p_i = 1

    A larger output never gets a smaller probability.

    Source: Duchi et al., Efficient projections onto the l1-ball, ICML 2008, figure 1.

    Example:
        >>> nearest_probabilities(np.array([[0.5, 0.3], [1.5, 0.2]]))
        array([[0.6, 0.4],
               [1. , 0. ]])
    """
    descending = -np.sort(-outputs, axis=1)
    excess = np.cumsum(descending, axis=1) - 1
    count = np.arange(1, outputs.shape[1] + 1)
    support = (descending * count > excess).sum(axis=1)  # entries that stay above 0: a prefix, at least one
    shift = excess[np.arange(len(outputs)), support - 1] / support
    found: npt.NDArray[np.float64] = np.maximum(outputs - shift[:, None], 0.0)
    return found
