"""Figures, drawn without a display and without matplotlib's global state."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from tnml.errors import InputError, choose
from tnml.files import atomic_path, no_space, user_path

FORMATS = ("png", "pdf", "svg")
_MANY = 25  # classes; with more the numbers in the cells cannot be read
_PERCENT = (0, 20, 40, 60, 70, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99, 100)


def confusion_figure(
    counts: npt.NDArray[np.int64], labels: Sequence[object], title: str = "Confusion matrix"
) -> Figure:
    """The confusion matrix: each row is a true class, shaded by the share of its samples in each column.

    The shade grows with the root of the share, so that rare confusions can be seen next to the diagonal.

    Args:
        counts: `[c, c]` from `tnml.report.confusion_counts`.
        labels: names of the classes.
        title: above the figure.

    Raises:
        InputError: the number of labels is not c.

    Example:
        >>> confusion_figure(np.array([[3, 1], [0, 4]]), ["cat", "dog"]).axes[0].get_xlabel()
        'predicted'
    """
    n_classes = len(counts)
    if counts.shape != (n_classes, n_classes) or len(labels) != n_classes:
        raise InputError(
            f"expected counts [c, c] and c labels, got {list(counts.shape)} and {len(labels)} labels"
        )
    side = min(12.0, 2.6 + 0.45 * n_classes)
    figure, axes = _canvas((side + 1.0, side), title)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    names = [str(label) for label in labels]
    shown = range(0, n_classes, -(-n_classes // _MANY))
    upright = max(map(len, names)) > 3
    axes.set_xticks(shown, [names[i] for i in shown], rotation=90 if upright else 0)
    axes.set_yticks(shown, [names[i] for i in shown])
    if n_classes <= _MANY:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(
        image, ax=axes, label="share of the true class", ticks=[0, 0.01, 0.1, 0.25, 0.5, 1], shrink=0.8
    )
    return figure


def prediction_figure(
    truth: npt.NDArray[np.float64],
    predicted: npt.NDArray[np.float64],
    title: str = "Predictions of the test samples",
    target: str = "target",
) -> Figure:
    """Predicted against true values, a point for each sample, and the line on which both are equal.

    Args:
        truth: `[n]` true values.
        predicted: `[n]`.
        title: above the figure.
        target: what is predicted, for the axes.

    Raises:
        InputError: the lengths differ, or there is no sample.

    Example:
        >>> prediction_figure(np.array([1.0, 2.0]), np.array([1.5, 1.8])).axes[0].get_xlabel()
        'true target'
    """
    if truth.shape != predicted.shape or truth.ndim != 1 or not len(truth):
        raise InputError(
            "truth and predicted must be [n], of equal length and not empty, "
            f"got {list(truth.shape)} and {list(predicted.shape)}"
        )
    figure, axes = _canvas((5.6, 5.4), title)
    faint = min(0.8, max(0.05, 30 / len(truth) ** 0.5))  # so that many points show where they are dense
    axes.plot(truth, predicted, ".", color="tab:blue", alpha=faint, markeredgewidth=0, rasterized=True)
    low, high = (float(end(np.concatenate([truth, predicted]))) for end in (np.min, np.max))
    room = 0.04 * (high - low) or 1.0
    ends = (low - room, high + room)
    axes.plot(ends, ends, color="tab:orange", linestyle="--", linewidth=1)
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    axes.set_xlabel(f"true {target}")
    axes.set_ylabel(f"predicted {target}")
    return figure


def bond_figure(left: Sequence[int], right: Sequence[int]) -> Figure:
    """The bond dimensions along the chain, with the place of the label core.

    Args:
        left: from the left end to the label core.
        right: from the label core to the right end.

    Example:
        >>> bond_figure([1, 2, 4], [4, 2, 1]).axes[0].get_ylabel()
        'bond dimension'
    """
    label_site = len(left) - 1
    figure, axes = _canvas((7.0, 3.2), f"Bond dimensions; dashed: the label core, after site {label_site}")
    _draw_bonds(axes, left, right)
    axes.set_xlabel("sites to the left of the bond")
    return figure


def entanglement_figure(
    left: Sequence[int],
    right: Sequence[int] | None,
    entropies: Sequence[float],
    picture: npt.NDArray[np.float64] | None = None,
    title: str = "Bond dimensions and entanglement of the model",
) -> Figure:
    """Bond dimensions and von Neumann entropies along the chain, entropies also as a picture of the image.

    The entropy axis has a second scale on its right, the bond dimension exp(S) that a flat spectrum of this
    entropy would need.

    Args:
        left: bonds from the left end to the label core; for a network that is not a chain, those at its cuts.
        right: bonds from the label core to the right end; None if there is no chain.
        entropies: of the n inner bonds, in nats, in chain order; the label core counts as a core. If there is
            no chain, those of the cuts.
        picture: `[height, width]` entropy of each pixel's bond towards the label core, or of its cut.
        title: above the figure.

    Raises:
        InputError: the number of entropies is not that of the inner bonds or cuts.

    Example:
        >>> figure = entanglement_figure([1, 2, 2], [2, 2, 1], [0.1, 0.6, 0.5, 0.2])
        >>> [axes.get_ylabel() for axes in figure.axes[:2]]
        ['bond dimension', 'entropy S (nats)']
    """
    inner = len(left) if right is None else len(left) + len(right) - 2
    if len(entropies) != inner:
        raise InputError(f"expected {inner} entropies, one for each inner bond, got {len(entropies)}")
    figure = Figure(figsize=(11.5 if picture is not None else 7.5, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    if picture is None:
        bonds, chain = figure.subplots(2, 1, sharex=True)
    else:
        grid = figure.add_gridspec(2, 2, width_ratios=(1.35, 1.0))
        bonds = figure.add_subplot(grid[0, 0])
        chain = figure.add_subplot(grid[1, 0], sharex=bonds)
        bonds.tick_params(labelbottom=False)
    line: dict[str, Any] = {"color": "tab:red", "linewidth": 1.2, "marker": ".", "markersize": 3}
    if right is None:
        _draw_cuts(bonds, left)
        chain.plot(range(1, inner + 1), entropies, **line)
        chain.set_xlabel("cut")
    else:
        place = len(left) - 1
        _draw_bonds(bonds, left, right)
        bonds.set_title(f"dashed: the label core, after site {place}", fontsize=9)
        where = [*range(1, place + 1), *range(place, inner)]
        for part in (slice(0, place), slice(place, None)):
            chain.plot(where[part], entropies[part], **line)
        chain.axvline(place, color="tab:orange", linestyle="--")
        chain.set_xlabel("sites to the left of the bond")
    chain.set_ylim(0, 1.15 * max([*entropies, 0.1]))
    chain.set_ylabel("entropy S (nats)")
    chain.secondary_yaxis("right", functions=(np.exp, _log)).set_ylabel(
        "effective bond dimension exp(S)", fontsize=9
    )
    if picture is not None:
        axes = figure.add_subplot(grid[:, 1])
        image = axes.imshow(picture, cmap="magma", vmin=0)
        towards = "cut" if right is None else "bond towards the label core"
        axes.set_title(f"entropy of each pixel's {towards}", fontsize=9)
        axes.set_xlabel("column of the image")
        axes.set_ylabel("row of the image")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(image, ax=axes, label="entropy S (nats)", shrink=0.8)
    return figure


def compression_figure(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], title: str = "Accuracy after compression"
) -> Figure:
    """Accuracy against bond dimension, both stretched so that small losses near 100 % can be seen.

    Args:
        curves: for each its name in the legend, its bond dimensions and its accuracies from 0 to 1; a curve
            of a single model becomes a star.
        title: above the figure.

    Raises:
        InputError: a curve has different numbers of bond dimensions and accuracies, or none.

    Example:
        >>> compression_figure({"truncated": ([2, 4, 8], [0.5, 0.8, 0.9])}).axes[0].get_xlabel()
        'bond dimension'
    """
    figure, axes = _canvas((7.0, 4.4), title)
    seen: set[int] = set()
    for name, (bonds, accuracy) in curves.items():
        if len(bonds) != len(accuracy) or not len(bonds):
            raise InputError(
                f"{name}: expected one accuracy for each bond dimension, got {len(accuracy)} for {len(bonds)}"
            )
        percent = [100 * share for share in accuracy]
        marker, size = ("o", 4) if len(bonds) > 1 else ("*", 13)
        axes.plot(bonds, percent, label=name, marker=marker, markersize=size)
        seen.update(bonds)
    axes.set_xscale("log")
    shown: list[int] = []
    for bond in sorted(seen):  # a label needs room
        if not shown or bond / shown[-1] > 1.09:
            shown.append(bond)
    axes.set_xticks(shown, [str(bond) for bond in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yscale("function", functions=(_stretched, _unstretched))
    lowest = min(100 * min(accuracy) for _, accuracy in curves.values())
    axes.set_ylim(max(0.0, lowest - 0.1 * (100 - lowest) - 0.2), 100)
    axes.yaxis.set_major_locator(FixedLocator(_PERCENT))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.set_xlabel("bond dimension")
    axes.set_ylabel("accuracy (%)")
    axes.legend(loc="lower right")
    return figure


def _log(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logarithm: npt.NDArray[np.float64] = np.log(np.maximum(values, 1e-300))  # matplotlib tries 0, too
    return logarithm


def _stretched(percent: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    stretched: npt.NDArray[np.float64] = -np.log(101.0 - np.minimum(percent, 100.5))
    return stretched


def _unstretched(height: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    percent: npt.NDArray[np.float64] = 101.0 - np.exp(-height)
    return percent


def figure_format(path: str | os.PathLike[str]) -> str:
    """The format that a file's ending asks for, so that a wrong one is noticed before anything is computed.

    Raises:
        InputError: it is not png, pdf or svg.

    Example:
        >>> figure_format("Bonds.PNG")
        'png'
    """
    return choose("figure format", user_path(path).suffix[1:].lower(), {name: name for name in FORMATS})


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure to a .png, .pdf or .svg file, whole or not at all.

    Raises:
        InputError: another ending, or the file cannot be written.

    Example:
        >>> save_figure(bond_figure([1], [1]), "bonds.jpeg")
        Traceback (most recent call last):
        tnml.errors.InputError: unknown figure format 'jpeg'... Choose from: png, pdf, svg
    """
    kind = figure_format(path)
    with atomic_path(path) as temporary, no_space(path):
        figure.savefig(temporary, format=kind, dpi=150)


def _canvas(size: tuple[float, float], title: str) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes, not known to pyplot."""
    figure = canvas(size, None)
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def canvas(size: tuple[float, float], title: str | None) -> Figure:
    """An empty figure, not known to pyplot.

    Example:
        >>> canvas((2, 1), "empty").axes
        []
    """
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    if title is not None:
        figure.suptitle(title)
    return figure


def _draw_bonds(axes: Axes, left: Sequence[int], right: Sequence[int]) -> None:
    """Both halves as steps, and a line at the label core."""
    label_site = len(left) - 1
    axes.step(range(len(left)), left, where="mid", color="tab:blue")
    axes.step(range(label_site, label_site + len(right)), right, where="mid", color="tab:blue")
    axes.axvline(label_site, color="tab:orange", linestyle="--")
    _finish_bonds(axes, [*left, *right])


def _draw_cuts(axes: Axes, dims: Sequence[int]) -> None:
    """The bond dimension at every cut, as steps."""
    axes.step(range(1, len(dims) + 1), dims, where="mid", color="tab:blue")
    _finish_bonds(axes, dims)


def _finish_bonds(axes: Axes, dims: Sequence[int]) -> None:
    axes.set_ylabel("bond dimension")
    axes.set_ylim(0, 1.15 * max([*dims, 1]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
