"""Scores by class against scikit-learn's, and the figures: what is in them, and that they arrive whole."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from tnml import InputError, MPSClassifier, report
from tnml.cli import main
from tnml.cli.inspect import picture_of
from tnml.diagnostics import schmidt
from tnml.nn import MPSLayer


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


def test_entanglement_figure_draws_bonds_entropies_and_pixels(tmp_path: Path) -> None:
    entropies = [0.2, 0.6, 0.5, 0.1]
    picture = np.array([[0.2, 0.6], [0.1, 0.5]])
    figure = report.entanglement_figure([1, 2, 4], [4, 2, 1], entropies, picture, title="ours")
    bonds, chain, image = figure.axes[:3]
    assert [list(line.get_ydata()) for line in bonds.lines[:2]] == [[1, 2, 4], [4, 2, 1]]
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in chain.lines[:2]]
    assert drawn == [([1, 2], [0.2, 0.6]), ([2, 3], [0.5, 0.1])], "at the bond's own place"
    np.testing.assert_array_equal(image.images[0].get_array(), picture)
    labels = {axes.get_xlabel() for axes in figure.axes} | {axes.get_ylabel() for axes in figure.axes}
    assert {"sites to the left of the bond", "entropy S (nats)", "row of the image"} <= labels
    report.save_figure(figure, tmp_path / "a.png")
    assert imread(tmp_path / "a.png").std() > 0.05
    with pytest.raises(InputError, match="expected 4 entropies, one for each inner bond, got 3"):
        report.entanglement_figure([1, 2, 4], [4, 2, 1], entropies[:3])


@pytest.mark.parametrize(("left", "right"), [([1], [2, 1]), ([1, 2], [1]), ([1, 1], [1, 1])])
def test_short_chains_without_entropy_can_be_drawn(left: list[int], right: list[int], tmp_path: Path) -> None:
    figure = report.entanglement_figure(left, right, [0.0] * (len(left) + len(right) - 2))
    report.save_figure(figure, tmp_path / "a.png")
    assert len(figure.axes) == 2


def test_compression_figure_draws_every_curve(tmp_path: Path) -> None:
    curves = {"truncated": ([8, 4, 2], [1.0, 0.9, 0.1]), "whole": ([8], [0.99])}
    figure = report.compression_figure(curves)
    (axes,) = figure.axes
    drawn = {str(line.get_label()): list(line.get_ydata()) for line in axes.lines}
    assert drawn == {"truncated": pytest.approx([100.0, 90.0, 10.0]), "whole": [99.0]}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "4", "8"]
    low, high = axes.get_ylim()
    assert low < 10 < 100 <= high
    report.save_figure(figure, tmp_path / "a.png")
    with pytest.raises(
        InputError, match="truncated: expected one accuracy for each bond dimension, got 1 for 2"
    ):
        report.compression_figure({"truncated": ([8, 4], [1.0])})


@pytest.mark.parametrize("order", ["raster", "snake", "hilbert"])
def test_the_picture_puts_every_bond_at_its_pixel(order: str) -> None:
    layer = MPSLayer(16, 2, 2, order=order, shape=(4, 4), label_site=5)
    entropies = np.arange(16.0)
    picture = picture_of(layer, entropies.tolist(), (4, 4))
    assert picture is not None
    pixels = (layer.local_features(torch.arange(16.0)[None] / 16)[0, :, 1] * 16).round().long().numpy()
    np.testing.assert_array_equal(picture.reshape(-1)[pixels], entropies)
    assert picture_of(layer, entropies.tolist(), None) is None


def test_entropies_are_those_of_the_dense_tensor() -> None:
    layer = MPSLayer(4, 3, 3, noise=1.0, seed=2)
    dense = np.ones((1,))
    cores = [*layer.cores[:2], layer.label_core, *layer.cores[2:]]
    for core in cores:
        dense = np.tensordot(dense, core.detach().double().numpy(), axes=1)
    expected, rows = [], 1
    for dimension in (2, 2, 3, 2):
        rows *= dimension
        p = np.linalg.svd(dense.reshape(rows, -1), compute_uv=False) ** 2
        p = p[p > 1e-30] / p.sum()
        expected.append(-(p * np.log(p)).sum())
    np.testing.assert_allclose(schmidt(layer).entropies, expected, atol=1e-6)


def test_inspect_tells_and_draws_the_entropies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layer = MPSLayer(16, 3, 4, noise=0.6, seed=1, order="snake")
    path, figure = tmp_path / "model.safetensors", tmp_path / "figure.svg"
    MPSClassifier.from_layer(layer, ["a", "b", "c"]).save(path)
    assert main(["inspect", str(path), "--figure", str(figure)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    entropies = schmidt(layer).entropies.tolist()
    at = int(np.argmax(entropies))
    assert f"entropy: largest {entropies[at]:.4f} nats, at the bond" in shown
    assert f"effective: bond dimension {np.exp(entropies[at]):.2f} there" in shown
    assert "row of the image" in texts(figure), "16 sites are taken for an image of 4 x 4"
    assert main(["inspect", str(path), "--figure", "figure.jpeg"]) == 2
    told = capsys.readouterr()
    assert "unknown figure format 'jpeg'" in told.err
    assert not told.out, "before anything is measured"


def test_columns_are_not_drawn_as_an_image(tmp_path: Path) -> None:
    path, figure = tmp_path / "model.safetensors", tmp_path / "figure.svg"
    MPSClassifier.from_layer(MPSLayer(15, 2, 2), [0, 1]).save(path)
    assert main(["inspect", str(path), "--figure", str(figure)]) == 0
    assert "entropy S (nats)" in texts(figure)
    assert "row of the image" not in texts(figure)
    MPSClassifier.from_layer(MPSLayer(15, 2, 2), [0, 1], image_shape=(3, 5)).save(path)
    assert main(["inspect", str(path), "--figure", str(figure)]) == 0
    assert "row of the image" in texts(figure)


def texts(path: Path) -> set[str]:
    """What is written in an SVG file: matplotlib draws letters as shapes and keeps the text as a comment."""
    return {line.strip() for line in re.findall(r"<!--(.*?)-->", path.read_text(encoding="utf-8"))}


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


def test_regression_scores_are_their_formulas() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=50)
    predicted = truth + 0.3 * rng.normal(size=50)
    error = truth - predicted
    found = report.regression_scores(truth, predicted)
    assert found.r2 == pytest.approx(1 - np.square(error).sum() / np.square(truth - truth.mean()).sum())
    assert (found.rmse, found.mae) == pytest.approx((np.sqrt(np.square(error).mean()), np.abs(error).mean()))
    assert np.isnan(report.regression_scores(truth[:1], predicted[:1]).r2), "and no warning"
    with pytest.raises(InputError, match=r"equal length and not empty, got \[50\] and \[49\]"):
        report.regression_scores(truth, predicted[1:])


def test_prediction_figure_shows_every_sample(tmp_path: Path) -> None:
    truth, predicted = np.array([1.0, 2, 4]), np.array([1.5, 2, 3])
    figure = report.prediction_figure(truth, predicted, "ours", "price")
    axes = figure.axes[0]
    points, line = axes.lines
    assert np.array_equal(points.get_xydata(), np.stack([truth, predicted], 1))
    ends = line.get_xydata()
    assert np.array_equal(ends[:, 0], ends[:, 1]), "the line on which both are equal"
    assert (ends.min() < 1, ends.max() > 4) == (True, True)
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == (
        "ours",
        "true price",
        "predicted price",
    )
    report.save_figure(figure, tmp_path / "a.pdf")
    report.save_figure(report.prediction_figure(truth[:1], truth[:1]), tmp_path / "one.png")
    with pytest.raises(InputError, match=r"got \[3\] and \[2\]"):
        report.prediction_figure(truth, predicted[1:])
