"""Split conformal prediction: what the scores of held-out samples say about those of new samples."""

import math

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64
from numpy import ndarray

from tnml.checks import number
from tnml.errors import InputError

_ROUNDING = 1e-9  # relative, of sums of weights


def conformal_quantile(
    scores: Float64[ndarray, "b c"],
    weight: Float64[ndarray, " b"] | None,
    coverage: float,
    *,
    remedy: str = "lower coverage",
) -> Float64[ndarray, " c"]:
    """The bound that the next score stays below with a probability of `coverage`, for each column.

    It is the `ceil(coverage (b + 1))`-th smallest of b scores. If the b samples and the next one are
    exchangeable, the next score is at most this large with a probability from `coverage` to
    `coverage + 1 / (b + 1)`, whatever the model and the distribution. With weights, the next sample is
    given the mean weight.

    Args:
        scores: of held-out samples, at least 0.
        weight: of these samples; None if all count alike.
        coverage: a probability.
        remedy: what else an error advises where there are too few samples.

    Raises:
        InputError: the coverage is out of range, or too high for that few samples.

    Source: Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, Distribution-free predictive inference for
    regression, JASA 113 (2018), theorem 2; weights as in Barber et al., Annals of Statistics 51 (2023).

    Example:
        >>> conformal_quantile(np.arange(1.0, 20.0)[:, None], None, 0.9)
        array([18.])
    """
    coverage = number("coverage", coverage, above=0.0, below=1.0)
    rows = len(scores)
    each: npt.NDArray[np.float64] = np.ones(rows) if weight is None else weight * (rows / weight.sum())
    needed = coverage * (rows + 1) * (1 - _ROUNDING)
    if needed > rows:
        raise InputError(
            f"coverage={coverage:g} needs at least {math.ceil(coverage / (1 - coverage) - _ROUNDING)} "
            f"held-out samples, got {rows}; raise validation_fraction, or {remedy}"
        )
    order = np.argsort(scores, axis=0, kind="stable")
    reached = np.cumsum(each[order], axis=0)
    places = np.minimum((reached < needed).sum(axis=0), rows - 1)
    found: npt.NDArray[np.float64] = np.take_along_axis(scores, order, 0)[places, np.arange(scores.shape[1])]
    return found
