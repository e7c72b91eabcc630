"""Temperature scaling: probabilities that are right as often as they say, on held-out samples."""

import math

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, Int64
from numpy import ndarray
from scipy.special import softmax

_BINS = 15
_COLDEST, _HOTTEST = 1e-2, 1e2
_HALVINGS = 60  # of that range, down to less than the last digit of a double


def best_temperature(
    outputs: Float64[ndarray, "b c"],
    codes: Int64[ndarray, " b"],
    weight: Float64[ndarray, " b"] | None = None,
) -> float:
    """The temperature T between 0.01 and 100 at which `softmax(outputs / T)` makes the labels most probable.

    The mean log loss is convex in 1 / T, so the zero of its derivative is found by bisection. One number for
    all classes keeps the order of the probabilities, and so every decision.

    Args:
        outputs: logits of held-out samples.
        codes: the indices of their labels.
        weight: of these samples; None if all count alike.

    Source: Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML 2017, section 4.2.

    Example:
        >>> outputs = np.array([[2.0, 0.0]] * 4)
        >>> print(f"{best_temperature(outputs, np.array([0, 0, 0, 1])):.4f}, {2 / math.log(3):.4f}")
        1.8205, 1.8205
    """
    own = np.take_along_axis(outputs, codes[:, None], 1)[:, 0]
    low, high = math.log(1 / _HOTTEST), math.log(1 / _COLDEST)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        expected = (softmax(outputs * math.exp(middle), axis=1) * outputs).sum(axis=1)
        if np.average(expected - own, weights=weight) > 0:  # the derivative of the loss
            high = middle
        else:
            low = middle
    return math.exp(-0.5 * (low + high))


def log_loss(
    probabilities: Float64[ndarray, "b c"],
    codes: Int64[ndarray, " b"],
    weight: Float64[ndarray, " b"] | None = None,
) -> float:
    """The mean of minus the logarithm of the probability of each label, in nats; 0 counts as 2e-16.

    Example:
        >>> round(log_loss(np.full((3, 2), 0.5), np.array([0, 1, 1])), 4)
        0.6931
    """
    own = np.take_along_axis(probabilities, codes[:, None], 1)[:, 0]
    return float(-np.average(np.log(np.maximum(own, np.finfo(np.float64).eps)), weights=weight))


def expected_calibration_error(
    probabilities: Float64[ndarray, "b c"],
    codes: Int64[ndarray, " b"],
    weight: Float64[ndarray, " b"] | None = None,
) -> float:
    """How far the share of correct decisions is from their probabilities, on average.

        sum over bins of (share of samples in the bin) |share that is correct - mean probability|

    Args:
        probabilities: of the classes; the largest one is the decision.
        codes: the indices of the labels.
        weight: of the samples; None if all count alike.

    Source: Naeini, Cooper and Hauskrecht, AAAI 2015; 15 equal bins as in Guo et al., ICML 2017.

    Example:
        >>> round(expected_calibration_error(np.array([[0.7, 0.3]] * 2), np.array([0, 1])), 4)
        0.2
    """
    sure = probabilities.max(axis=1)
    each: npt.NDArray[np.float64] = np.ones(len(sure)) if weight is None else weight
    excess = each * ((probabilities.argmax(axis=1) == codes) - sure)
    bins = np.minimum((sure * _BINS).astype(np.int64), _BINS - 1)
    return float(np.abs(np.bincount(bins, weights=excess, minlength=_BINS)).sum() / each.sum())
