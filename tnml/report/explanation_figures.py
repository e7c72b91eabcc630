"""Figures of explanations: maps of pixels, bars of a sample or of all, points of a table, dependence."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure

from tnml.errors import InputError
from tnml.report.figures import canvas

MOST_IMAGES, MOST_COLUMNS = 12, 12
_LETTERS = 10.5  # of a title, in an inch
_MARGIN = 0.36  # of a point's row, over which equal values spread


def pixel_figure(
    values: npt.NDArray[np.float64],
    images: npt.NDArray[np.float64],
    shape: tuple[int, int],
    columns: Sequence[str],
    rows: Sequence[str] | None = None,
    title: str = "Contribution of each pixel",
) -> Figure:
    """A row for each image: the image, then a map of contributions for each output.

    Red pixels raise the output, blue ones lower it; every row has its own scale, shared by its maps. A thin
    line is the outline of the image.

    Args:
        values: `[b, n, k]` contributions, as `tnml.explain.shapley` gives them.
        images: `[b, n]` in [0, 1].
        shape: `(height, width)` with n pixels.
        columns: k names of the outputs.
        rows: b words at the left, or None.
        title: above the figure.

    Raises:
        InputError: the shapes do not fit, or there are more than 12 images or 12 outputs.

    Example:
        >>> figure = pixel_figure(np.ones((1, 4, 2)), np.ones((1, 4)), (2, 2), ["cat", "dog"])
        >>> [axes.get_title() for axes in figure.axes]
        ['image', 'cat', 'dog']
    """
    count, pixels, outputs = values.shape
    if images.shape != (count, pixels) or pixels != shape[0] * shape[1] or len(columns) != outputs:
        raise InputError(
            f"expected values [b, n, k], images [b, n], n = height x width and k names, got {values.shape}, "
            f"{images.shape}, {shape} and {len(columns)} names"
        )
    if not 0 < count <= MOST_IMAGES or outputs > MOST_COLUMNS:
        raise InputError(
            f"expected 1 to {MOST_IMAGES} images, up to {MOST_COLUMNS} outputs; got {count} and {outputs}"
        )
    width = 1.05 * (outputs + 1) + (0.5 if rows is None else 1.2)
    lines = textwrap.wrap(title, int(_LETTERS * width))
    figure = canvas((width, 1.1 * count + 0.5 + 0.2 * len(lines)), "\n".join(lines))
    cells = figure.subplots(count, outputs + 1, squeeze=False)
    for row, (image, contributions) in enumerate(zip(images, values, strict=True)):
        largest = float(np.abs(contributions).max()) or 1.0
        cells[row, 0].imshow(image.reshape(shape), cmap="gray_r", vmin=0, vmax=1)
        if rows is not None:
            cells[row, 0].set_ylabel(rows[row], rotation=0, ha="right", va="center", fontsize=9)
        for place in range(outputs):
            cell = cells[row, place + 1]
            cell.imshow(contributions[:, place].reshape(shape), cmap="RdBu_r", vmin=-largest, vmax=largest)
            if min(shape) > 1 and image.min() < 0.5 < image.max():
                cell.contour(image.reshape(shape), levels=[0.5], colors="0.35", linewidths=0.5)
    for cell, name in zip(cells[0], ["image", *columns], strict=True):
        cell.set_title(name, fontsize=9)
    for cell in cells.flat:
        cell.set_xticks([])
        cell.set_yticks([])
        for spine in cell.spines.values():
            spine.set_color("0.8")
    return figure


def contribution_figure(
    values: npt.NDArray[np.float64],
    features: Sequence[str],
    base: float,
    title: str = "Contribution of each feature",
    most: int = 12,
) -> Figure:
    """Bars of the largest contributions to one output of one sample; the smaller ones are added up.

    Args:
        values: `[n]` contributions.
        features: n names, with the sample's values if wanted.
        base: the output of the background, where the contributions start.
        title: above the figure.
        most: bars, at least 1.

    Raises:
        InputError: there are not as many names as values.

    Example:
        >>> figure = contribution_figure(np.array([0.5, -1.0]), ["age", "height"], 2.0)
        >>> figure.axes[0].get_xlabel().splitlines()
        ['contribution', '(output 1.5, of the background 2)']
    """
    if values.shape != (len(features),):
        raise InputError(f"expected one name per contribution, got {len(features)} names and {values.shape}")
    order = np.argsort(-np.abs(values), kind="stable")
    most += len(order) == most + 1  # no bar says "1 others"
    shown, rest = order[:most], order[most:]
    names, bars = [str(features[place]) for place in shown], [float(values[place]) for place in shown]
    if len(rest):
        names.append(f"{len(rest)} others")
        bars.append(float(values[rest].sum()))
    figure = canvas((6.4, 0.34 * len(bars) + 1.3), title)
    axes = figure.subplots()
    axes.barh(names[::-1], bars[::-1], color=["#c23b3b" if bar > 0 else "#3b6ac2" for bar in bars[::-1]])
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_xlabel(f"contribution\n(output {base + values.sum():.4g}, of the background {base:.4g})")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return figure


def beeswarm_figure(
    values: npt.NDArray[np.float64],
    inputs: npt.NDArray[np.float64],
    features: Sequence[str],
    title: str = "Contributions of all samples",
    most: int = 12,
) -> Figure:
    """A point for each sample and feature: its contribution to one output, coloured by the feature's value.

    The features with the largest mean contribution are at the top.

    Args:
        values: `[b, n]` contributions.
        inputs: `[b, n]` values of the features; colours go from the 5 % to the 95 % quantile of each.
        features: n names.
        title: above the figure.
        most: features shown, at least 1.

    Raises:
        InputError: the shapes do not fit, or there is no sample.

    Example:
        >>> figure = beeswarm_figure(np.ones((5, 2)), np.ones((5, 2)), ["age", "height"])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['height', 'age']
    """
    if (
        values.ndim != 2
        or not len(values)
        or inputs.shape != values.shape
        or len(features) != values.shape[1]
    ):
        raise InputError(
            f"expected values [b, n], inputs [b, n] and n names, got {values.shape}, {inputs.shape} "
            f"and {len(features)} names"
        )
    shown = np.argsort(-np.abs(values).mean(0), kind="stable")[:most][::-1]
    figure = canvas((6.8, 0.42 * len(shown) + 1.4), title)
    axes = figure.subplots()
    width = float(np.ptp(values)) or 1.0
    dots: dict[str, Any] = {"cmap": "coolwarm", "s": 9, "linewidths": 0}
    for height, place in enumerate(shown):
        column, level = values[:, place], inputs[:, place]
        low, high = np.nanquantile(level, [0.05, 0.95])
        shade = np.clip((level - low) / ((high - low) or 1.0), 0, 1)
        drawn = axes.scatter(column, height + _spread(column, width), c=shade, vmin=0, vmax=1, **dots)
    axes.axvline(0, color="0.3", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(shown)), [str(features[place]) for place in shown])
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlabel("contribution to the output")
    axes.grid(axis="y", alpha=0.3)
    bar = figure.colorbar(drawn, ax=axes, label="value of the feature", ticks=[0, 1], shrink=0.8)
    bar.ax.set_yticklabels(["low", "high"])
    return figure


def _spread(column: npt.NDArray[np.float64], width: float) -> npt.NDArray[np.float64]:
    """Offsets that keep points of nearly equal contributions apart, larger where they are dense."""
    bins = np.floor(column / (width / 100)).astype(np.int64)
    offsets = np.zeros(len(column))
    counts = np.unique(bins, return_counts=True)[1]
    for value in np.unique(bins):
        members = np.flatnonzero(bins == value)
        reach = _MARGIN * len(members) / counts.max()
        offsets[members] = np.linspace(-reach, reach, len(members)) if len(members) > 1 else 0.0
    return offsets


def importance_figure(
    importance: npt.NDArray[np.float64],
    features: Sequence[str],
    columns: Sequence[str],
    title: str = "Mean size of each contribution",
    most: int = 12,
) -> Figure:
    """Bars of the mean |contribution| of each feature, stacked over the outputs; the largest at the top.

    Args:
        importance: `[n, k]`, at least 0, as `Explanation.importance` gives it.
        features: n names.
        columns: k names of the outputs.
        title: above the figure.
        most: features shown, at least 1.

    Raises:
        InputError: the numbers of names do not fit.

    Example:
        >>> figure = importance_figure(np.array([[1.0, 2.0], [0.5, 0.1]]), ["age", "height"], ["cat", "dog"])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['cat', 'dog']
    """
    if importance.shape != (len(features), len(columns)):
        raise InputError(
            f"expected importance [n, k], n features and k names, got {importance.shape}, {len(features)} "
            f"and {len(columns)}"
        )
    shown = np.argsort(-importance.sum(1), kind="stable")[:most][::-1]
    figure = canvas((7.4, 0.34 * len(shown) + 1.4), title)
    axes = figure.subplots()
    start = np.zeros(len(shown))
    shades = colormaps["tab10" if len(columns) <= 10 else "tab20"]
    for place, name in enumerate(columns):
        width = importance[shown, place]
        axes.barh(range(len(shown)), width, left=start, color=shades(place % shades.N), label=str(name))
        start += width
    axes.set_yticks(range(len(shown)), [str(features[place]) for place in shown])
    axes.set_xlabel("mean |contribution|, added over the outputs")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside right upper", title="output", frameon=False)
    return figure


def dependence_figure(
    grid: npt.NDArray[Any],
    curves: npt.NDArray[np.float64],
    feature: str,
    columns: Sequence[str],
    observed: npt.NDArray[Any] | None = None,
    title: str | None = None,
    most: int = 100,
) -> Figure:
    """The output of each sample while one feature changes, and the mean of all; a panel for each output.

    Args:
        grid: `[g]` values of the feature, numbers or categories.
        curves: `[b, g, k]` outputs, as the `dependence` of an estimator gives them.
        feature: its name.
        columns: k names of the outputs.
        observed: values of the feature in the data, marked below the curves.
        title: above the figure; None names the feature.
        most: curves of single samples that are drawn, evenly spaced; the mean is of all.

    Raises:
        InputError: the shapes do not fit, there is no sample, or there are more than 12 outputs.

    Example:
        >>> figure = dependence_figure(np.linspace(0, 1, 5), np.ones((3, 5, 1)), "age", ["price"])
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('age', 'price')
    """
    if curves.ndim != 3 or not len(curves) or curves.shape[1:] != (len(grid), len(columns)):
        raise InputError(
            f"expected a grid [g], curves [b, g, k] and k names, got {grid.shape}, {curves.shape} and "
            f"{len(columns)} names"
        )
    if len(columns) > MOST_COLUMNS:
        raise InputError(f"expected up to {MOST_COLUMNS} outputs, got {len(columns)}; choose some of them")
    wide = min(4, len(columns))
    high = -(-len(columns) // wide)
    size = (5.6, 3.8) if len(columns) == 1 else (2.9 * wide + 0.4, 2.5 * high + 0.6)
    figure = canvas(size, title or f"Outputs while {feature} changes")
    panels = figure.subplots(high, wide, squeeze=False, sharex=True)
    some = np.linspace(0, len(curves) - 1, min(most, len(curves))).round().astype(np.int64)
    numbers = grid.dtype.kind in "iuf"
    at = grid if numbers else np.arange(len(grid))
    for place, axes in enumerate(panels.flat):
        if place >= len(columns):
            axes.set_visible(False)
            continue
        axes.plot(
            at, curves[some, :, place].T, color="0.55", linewidth=0.7, alpha=max(0.3, 0.8 - len(some) / 200)
        )
        axes.plot(at, curves[..., place].mean(0), color="#c23b3b", linewidth=2.2, label="mean")
        if observed is not None and numbers:
            ends = np.nanquantile(observed.astype(np.float64), np.linspace(0, 1, 51))
            axes.plot(
                ends, np.zeros(len(ends)), "|", color="0.2", alpha=0.6, transform=axes.get_xaxis_transform()
            )
        if not numbers:
            axes.set_xticks(at, [str(value) for value in grid], rotation=45, ha="right")
        axes.set_ylabel(str(columns[place]))
        axes.grid(alpha=0.3)
        if place + wide >= len(columns):
            axes.set_xlabel(feature)
            axes.tick_params(labelbottom=True)
    return figure
