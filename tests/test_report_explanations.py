"""Figures of explanations: what they hold, and bad input."""

import numpy as np
import pytest

from tnml.errors import InputError
from tnml.report import (
    beeswarm_figure,
    contribution_figure,
    dependence_figure,
    explanation_page,
    importance_figure,
    pixel_figure,
    save_figure,
)


def test_maps_of_pixels(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 12, 2))
    images = np.abs(values[..., 0])
    figure = pixel_figure(values, images, (3, 4), ["cat", "dog"], rows=["a", "b", "c"])
    assert len(figure.axes) == 9
    drawn = figure.axes[4].images[0]
    assert np.array_equal(drawn.get_array(), values[1, :, 0].reshape(3, 4))
    assert drawn.get_clim() == (-np.abs(values[1]).max(), np.abs(values[1]).max())
    assert figure.axes[4].images[0].get_clim() == figure.axes[5].images[0].get_clim(), "one scale a row"
    save_figure(figure, tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 1000


def test_bars_add_up_to_the_output():
    values = np.array([0.1, -2.0, 0.3, 1.0, -0.2])
    figure = contribution_figure(values, list("abcde"), 0.5, most=2)
    bars = figure.axes[0].patches
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["3 others", "d", "b"]
    assert [bar.get_width() for bar in bars] == pytest.approx([0.2, 1.0, -2.0])
    assert "output -0.3, of the background 0.5" in figure.axes[0].get_xlabel()
    few = contribution_figure(values, list("abcde"), 0.5, most=4)
    assert len(few.axes[0].patches) == 5, "a single small one keeps its name"


def test_points_of_all_samples():
    rng = np.random.default_rng(0)
    values, inputs = rng.normal(size=(200, 3)) * [1, 5, 0.1], rng.random((200, 3))
    figure = beeswarm_figure(values, inputs, ["a", "b", "c"], most=2)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    for drawn, place in zip(axes.collections, (0, 1), strict=True):
        points = np.asarray(drawn.get_offsets())
        assert np.array_equal(points[:, 0], values[:, place])
        assert np.abs(points[:, 1] - (0 if place == 0 else 1)).max() <= 0.36
    constant = beeswarm_figure(np.zeros((4, 1)), np.ones((4, 1)), ["a"])
    assert len(constant.axes[0].collections) == 1


def test_bars_of_all_outputs_are_stacked():
    importance = np.array([[1.0, 0.5], [3.0, 1.0], [0.1, 0.1]])
    figure = importance_figure(importance, ["a", "b", "c"], ["cat", "dog"], most=2)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert bars == [(0, 1.0), (0, 3.0), (1.0, 0.5), (3.0, 1.0)]


def test_curves_of_samples_and_their_mean():
    grid, curves = np.linspace(0, 2, 5), np.random.default_rng(0).normal(size=(7, 5, 6))
    figure = dependence_figure(grid, curves, "age", list("abcdef"), np.array([0.1, np.nan, 1.9]), most=3)
    assert [axes.get_visible() for axes in figure.axes] == [True] * 6 + [False] * 2
    lines = figure.axes[1].lines
    for line, row in zip(lines[:3], (0, 3, 6), strict=True):
        assert np.array_equal(line.get_xydata(), np.stack([grid, curves[row, :, 1]], 1))
    np.testing.assert_allclose(lines[3].get_ydata(), curves[..., 1].mean(0))
    words = dependence_figure(np.array(["low", "high"], dtype=object), curves[:, :2, :1], "rank", ["a"])
    assert [label.get_text() for label in words.axes[0].get_xticklabels()] == ["low", "high"]


def test_a_page_holds_everything_and_escapes_it(tmp_path):
    figure = importance_figure(np.ones((1, 1)), ["a"], ["b"])
    path = tmp_path / "why.html"
    explanation_page(path, "a < b", [("data", "<script>")], [("Bars", "of <one>", figure)], ["row"], [["<3"]])
    text = path.read_text()
    assert "<title>a &lt; b</title>" in text
    assert "&lt;script&gt;" in text
    assert "<td>&lt;3</td>" in text
    assert "<script" not in text
    assert 'src="data:image/png;base64,iVBOR' in text


@pytest.mark.parametrize(
    "call",
    [
        lambda: importance_figure(np.ones((2, 1)), ["a"], ["b"]),
        lambda: dependence_figure(np.ones(3), np.ones((2, 4, 1)), "a", ["b"]),
        lambda: dependence_figure(np.ones(3), np.ones((2, 3, 13)), "a", ["b"] * 13),
        lambda: pixel_figure(np.ones((1, 4, 2)), np.ones((1, 4)), (2, 3), ["a", "b"]),
        lambda: pixel_figure(np.ones((13, 4, 1)), np.ones((13, 4)), (2, 2), ["a"]),
        lambda: contribution_figure(np.ones(3), ["a"], 0.0),
        lambda: beeswarm_figure(np.ones((0, 2)), np.ones((0, 2)), ["a", "b"]),
        lambda: beeswarm_figure(np.ones((3, 2)), np.ones((3, 1)), ["a", "b"]),
    ],
)
def test_bad_input(call):
    with pytest.raises(InputError, match="expected"):
        call()
