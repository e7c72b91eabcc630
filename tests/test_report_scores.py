"""Scores by class, counted one sample at a time."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from tnml import report


def counted(truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], of: int) -> list[float]:
    """Precision, recall, F1 and support of one class, NaN for 0 / 0."""
    pairs = list(zip(truth.tolist(), predicted.tolist(), strict=True))
    right = sum(t == p == of for t, p in pairs)
    called, support = sum(p == of for _, p in pairs), sum(t == of for t, _ in pairs)
    parts = [(right, called), (right, support), (2 * right, called + support)]
    return [a / b if b else math.nan for a, b in parts] + [support]


@pytest.mark.parametrize("seed", range(6))
def test_scores_against_counting(seed: int) -> None:
    """The largest classes are absent from the truth, the smallest from the predictions, one from both."""
    rng = np.random.default_rng(seed)
    n_classes = 4 + seed
    truth = rng.integers(0, n_classes - 2, 40)
    predicted = rng.integers(1, n_classes - 1, 40)
    counts = report.confusion_counts(truth, predicted, n_classes)
    assert counts.dtype == np.int64
    for row in range(n_classes):
        for column in range(n_classes):
            assert counts[row, column] == np.sum((truth == row) & (predicted == column))
    scores = report.class_scores(counts)
    found = np.stack([scores.precision, scores.recall, scores.f1, scores.support])
    expected = np.array([counted(truth, predicted, of) for of in range(n_classes)]).T
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(found[:3, -1]).all(), "nothing can be said of a class that nobody named"
    assert scores.support.dtype == np.int64
    assert scores.accuracy == np.mean(truth == predicted)


def test_one_class_and_no_samples() -> None:
    nothing = np.zeros(0, np.int64)
    assert report.confusion_counts(nothing, nothing, 3).tolist() == [[0] * 3] * 3
    assert report.confusion_counts(np.zeros(5, np.int64), np.zeros(5, np.int64), 1).tolist() == [[5]]
    scores = report.class_scores(np.array([[5]]))
    assert (scores.precision, scores.recall, scores.f1, scores.accuracy) == (1, 1, 1, 1)
