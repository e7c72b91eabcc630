"""Figures of explanations: maps over the pixels of images, bars of one sample, all samples of a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from tnml.errors import InputError
from tnml.report.figures import canvas

_MOST_IMAGES, _MOST_COLUMNS = 12, 12
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

    Red pixels raise the output, blue ones lower it; every row has its own scale, shared by its maps.

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
    if not 0 < count <= _MOST_IMAGES or outputs > _MOST_COLUMNS:
        raise InputError(
            f"expected 1 to {_MOST_IMAGES} images, up to {_MOST_COLUMNS} outputs; got {count} and {outputs}"
        )
    figure = canvas((1.05 * (outputs + 1) + 0.5, 1.1 * count + 0.7), title)
    cells = figure.subplots(count, outputs + 1, squeeze=False)
    for row, (image, contributions) in enumerate(zip(images, values, strict=True)):
        largest = float(np.abs(contributions).max()) or 1.0
        cells[row, 0].imshow(image.reshape(shape), cmap="gray_r", vmin=0, vmax=1)
        if rows is not None:
            cells[row, 0].set_ylabel(rows[row], rotation=0, ha="right", va="center")
        for place in range(outputs):
            cell = cells[row, place + 1]
            cell.imshow(contributions[:, place].reshape(shape), cmap="RdBu_r", vmin=-largest, vmax=largest)
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
        >>> figure.axes[0].get_xlabel()
        'contribution (output 1.5 from 2 of the background)'
    """
    if values.shape != (len(features),):
        raise InputError(f"expected one name per contribution, got {len(features)} names and {values.shape}")
    order = np.argsort(-np.abs(values), kind="stable")
    shown, rest = order[:most], order[most:]
    names, bars = [str(features[place]) for place in shown], [float(values[place]) for place in shown]
    if len(rest):
        names.append(f"{len(rest)} others")
        bars.append(float(values[rest].sum()))
    figure = canvas((6.4, 0.34 * len(bars) + 1.3), title)
    axes = figure.subplots()
    axes.barh(names[::-1], bars[::-1], color=["#c23b3b" if bar > 0 else "#3b6ac2" for bar in bars[::-1]])
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_xlabel(f"contribution (output {base + values.sum():.4g} from {base:.4g} of the background)")
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
