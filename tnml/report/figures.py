"""Figures, drawn without a display and without matplotlib's global state."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tnml.errors import InputError, choose
from tnml.files import atomic_path, no_space

FORMATS = ("png", "pdf", "svg")
_MANY = 25  # classes; with more the numbers in the cells cannot be read


def confusion_figure(
    counts: npt.NDArray[np.int64], labels: Sequence[object], title: str = "Confusion matrix"
) -> Figure:
    """The confusion matrix: each row is a true class, shaded by the share of its samples in each column.

    The shade grows with the root of the share, so that rare confusions can be seen beside the diagonal.

    Args:
        counts: `[c, c]` from `tnml.report.confusion_counts`.
        labels: names of the classes.
        title: above the figure.

    Raises:
        InputError: the number of labels is another than c.

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


def bond_figure(left: Sequence[int], right: Sequence[int]) -> Figure:
    """The bond dimensions along the chain, with the label core where it stands.

    Args:
        left: from the left end to the label core.
        right: from the label core to the right end.

    Example:
        >>> bond_figure([1, 2, 4], [4, 2, 1]).axes[0].get_ylabel()
        'bond dimension'
    """
    label_site = len(left) - 1
    figure, axes = _canvas((7.0, 3.2), f"Bond dimensions; dashed: the label core, after site {label_site}")
    axes.step(range(len(left)), left, where="mid", color="tab:blue")
    axes.step(range(label_site, label_site + len(right)), right, where="mid", color="tab:blue")
    axes.axvline(label_site, color="tab:orange", linestyle="--")
    axes.set_xlabel("sites to the left of the bond")
    axes.set_ylabel("bond dimension")
    axes.set_ylim(0, 1.15 * max([*left, *right]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure to a .png, .pdf or .svg file, whole or not at all.

    Raises:
        InputError: another ending, or the file cannot be written.

    Example:
        >>> save_figure(bond_figure([1], [1]), "bonds.jpeg")
        Traceback (most recent call last):
        tnml.errors.InputError: unknown figure format 'jpeg'... Choose from: png, pdf, svg
    """
    kind = choose("figure format", Path(path).suffix[1:].lower(), {name: name for name in FORMATS})
    with atomic_path(path) as temporary, no_space(path):
        figure.savefig(temporary, format=kind, dpi=150)


def _canvas(size: tuple[float, float], title: str) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes, not known to pyplot."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes
