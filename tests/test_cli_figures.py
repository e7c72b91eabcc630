"""Scores by class against scikit-learn's, and the figures: what is in them, and that they arrive whole."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from tnml import InputError, report


@pytest.mark.parametrize("n_classes", [2, 5, 10])
def test_scores_are_those_of_scikit_learn(n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    truth = rng.integers(0, n_classes, 300)
    predicted = np.where(rng.random(300) < 0.7, truth, rng.integers(0, n_classes, 300))
    counts = report.confusion_counts(truth, predicted, n_classes)
    np.testing.assert_array_equal(counts, confusion_matrix(truth, predicted))
    scores = report.class_scores(counts)
    expected = precision_recall_fscore_support(truth, predicted)
    for mine, theirs in zip(
        (scores.precision, scores.recall, scores.f1, scores.support), expected, strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    assert scores.accuracy == pytest.approx(accuracy_score(truth, predicted), rel=1e-12)


def test_nothing_is_said_of_absent_classes() -> None:
    scores = report.class_scores(np.array([[2, 0, 0], [1, 0, 0], [0, 0, 0]]))
    assert np.isnan(scores.precision).tolist() == [False, True, True]
    assert np.isnan(scores.recall).tolist() == [False, False, True]


def test_bad_counts() -> None:
    with pytest.raises(InputError, match=r"equal length, got \[2\] and \[3\]"):
        report.confusion_counts(np.zeros(2, np.int64), np.zeros(3, np.int64), 2)
    with pytest.raises(InputError, match=r"must lie in 0\.\.1, got 0\.\.2"):
        report.confusion_counts(np.array([0, 2]), np.array([0, 1]), 2)
    with pytest.raises(InputError, match="must be square"):
        report.class_scores(np.zeros((2, 3), np.int64))
    with pytest.raises(InputError, match="got \\[2, 2\\] and 3 labels"):
        report.confusion_figure(np.eye(2, dtype=np.int64), ["a", "b", "c"])


def test_confusion_figure_shows_every_count(tmp_path: Path) -> None:
    counts = np.array([[30, 2, 0], [0, 40, 1], [5, 0, 7]])
    figure = report.confusion_figure(counts, ["zero", "one", "many"], title="ours")
    axes = figure.axes[0]
    shown = {(int(t.get_position()[1]), int(t.get_position()[0])): int(t.get_text()) for t in axes.texts}
    assert shown == {(int(i), int(j)): int(counts[i, j]) for i, j in np.argwhere(counts)}
    assert [t.get_text() for t in axes.get_yticklabels()] == ["zero", "one", "many"]
    assert axes.get_title() == "ours"
    report.save_figure(figure, tmp_path / "a.png")
    picture = imread(tmp_path / "a.png")
    assert picture.shape[0] > 300
    assert picture.std() > 0.05


def test_many_classes_go_without_numbers() -> None:
    axes = report.confusion_figure(np.eye(40, dtype=np.int64), [f"c{i}" for i in range(40)]).axes[0]
    assert not axes.texts
    assert [t.get_text() for t in axes.get_yticklabels()] == [f"c{i}" for i in range(0, 40, 2)]


def test_bond_figure_draws_both_halves() -> None:
    axes = report.bond_figure([1, 2, 4, 4], [3, 1]).axes[0]
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines[:2]]
    assert drawn == [([0, 1, 2, 3], [1, 2, 4, 4]), ([3, 4], [3, 1])]


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_figures_are_saved_whole_or_not_at_all(ending: str, tmp_path: Path) -> None:
    figure = report.bond_figure([1], [1])
    report.save_figure(figure, tmp_path / f"a.{ending}")
    assert [p.name for p in tmp_path.iterdir()] == [f"a.{ending}"]
    with pytest.raises(InputError, match="cannot write"):
        report.save_figure(figure, tmp_path / f"a.{ending}" / f"b.{ending}")


def test_unknown_names_of_the_room() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pie_figure'"):
        _ = report.pie_figure
    assert "bond_figure" in dir(report)
