"""How good a classifier is, class by class, and how good a regressor is."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    mean_absolute_error,
    precision_recall_fscore_support,
    r2_score,
    root_mean_squared_error,
)

from tnml.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassScores:
    """What `class_scores` found; each array has one number per class, NaN where it is not defined.

    Args:
        precision: of the samples called c, the share that are c.
        recall: of the samples that are c, the share called c.
        f1: harmonic mean of the two.
        support: number of samples that are c.
        accuracy: share of all samples called by their own class.

    Example:
        >>> class_scores(np.array([[1, 1], [0, 2]])).accuracy
        0.75
    """

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]
    support: npt.NDArray[np.int64]
    accuracy: float


def confusion_counts(
    truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], n_classes: int
) -> npt.NDArray[np.int64]:
    """Counts `[c, c]`: row i, column j holds the samples of class i that were called j.

    Args:
        truth: `[n]` numbers from 0 to n_classes - 1.
        predicted: `[n]`, likewise.
        n_classes: number of classes c.

    Raises:
        InputError: the lengths differ, or a number is out of range.

    Example:
        >>> confusion_counts(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
        [[1, 0], [1, 1]]
    """
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise InputError(
            "truth and predicted must be [n] and of equal length, "
            f"got {list(truth.shape)} and {list(predicted.shape)}"
        )
    both = np.concatenate([truth, predicted])
    if both.size and (both.min() < 0 or both.max() >= n_classes):
        raise InputError(f"classes must lie in 0..{n_classes - 1}, got {both.min()}..{both.max()}")
    if truth.size == 0 or n_classes == 1:  # scikit-learn refuses the one and warns of the other
        return np.full((n_classes, n_classes), truth.size, dtype=np.int64)
    counts: npt.NDArray[np.int64] = confusion_matrix(truth, predicted, labels=np.arange(n_classes))
    return counts


def class_scores(counts: npt.NDArray[np.int64]) -> ClassScores:
    """Precision, recall, F1 and support of every class, and the accuracy, from `confusion_counts`.

    Raises:
        InputError: `counts` is not square, or holds no sample.

    Example:
        >>> class_scores(np.array([[1, 1], [0, 2]])).recall.tolist()
        [0.5, 1.0]
    """
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.sum() == 0:
        raise InputError(
            f"counts must be square and hold a sample, got shape {list(counts.shape)} and sum {counts.sum()}"
        )
    classes = np.arange(len(counts))
    truth, predicted = (
        np.repeat(classes, len(counts)),
        np.tile(classes, len(counts)),
    )  # each pair, counted below
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, predicted, labels=classes, sample_weight=counts.ravel(), zero_division=np.nan
    )
    accuracy = accuracy_score(truth, predicted, sample_weight=counts.ravel())
    return ClassScores(
        precision=precision, recall=recall, f1=f1, support=counts.sum(1), accuracy=float(accuracy)
    )


@dataclass(frozen=True, kw_only=True)
class RegressionScores:
    """What `regression_scores` found.

    Args:
        r2: 1 - (mean squared error) / (variance of the true values); NaN for a single sample.
        rmse: root of the mean squared error, in the units of the target.
        mae: mean absolute error, likewise.

    Example:
        >>> regression_scores(np.array([1.0, 3.0]), np.array([1.0, 2.0])).mae
        0.5
    """

    r2: float
    rmse: float
    mae: float


def regression_scores(truth: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64]) -> RegressionScores:
    """R2, root mean squared and mean absolute error of predictions, by scikit-learn.

    Args:
        truth: `[n]` true values.
        predicted: `[n]`.

    Raises:
        InputError: the lengths differ, or there is no sample.

    Example:
        >>> regression_scores(np.array([0.0, 2.0]), np.array([1.0, 1.0])).r2
        0.0
    """
    if truth.shape != predicted.shape or truth.ndim != 1 or not len(truth):
        raise InputError(
            "truth and predicted must be [n], of equal length and not empty, "
            f"got {list(truth.shape)} and {list(predicted.shape)}"
        )
    return RegressionScores(
        r2=float(r2_score(truth, predicted)) if len(truth) > 1 else np.nan,
        rmse=float(root_mean_squared_error(truth, predicted)),
        mae=float(mean_absolute_error(truth, predicted)),
    )
