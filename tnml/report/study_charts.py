"""Figures of a study for papers and docs: error against bond dimension, and heat maps of the test error."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from tnml.errors import InputError
from tnml.files import user_path
from tnml.report.figures import figure_format, save_figure
from tnml.report.study_curves import LABELS, Curve, HeatMap, curves_of, heat_maps_of, lower_edge, ticks_of
from tnml.report.study_rows import read_study

_LINES = (("train_error", "train", "#0072b2", "s", ":"), ("test_error", "test", "#d55e00", "o", "-"))
_TARGET, _THRESHOLD = "#00795c", "#3b3b3b"


def study_figures(
    folder: str | os.PathLike[str], out: str | os.PathLike[str], *, kind: str = "png"
) -> list[Path]:
    """Writes the figures of a study: error against bond dimension, heat maps over samples and over noise.

    Targets are rows of one figure; its columns are the noises or, if there is only one noise, the numbers of
    samples. Each combination of the other options that differ between runs, such as the solver, gets a file
    of its own, which is named after it.

    Args:
        folder: of the study, as `tnml study run` leaves it.
        out: the folder to write to; created if it is missing.
        kind: png, pdf or svg.

    Returns:
        The files: `error*`, `heat-n_train*` and `heat-noise*`.

    Raises:
        InputError: no finished run there, none with an error and a bond dimension, or another format.

    Example:
        >>> study_figures("nowhere", "figures")
        Traceback (most recent call last):
        tnml.errors.InputError: there is no study in nowhere: it holds no study.json; check the path
    """
    figure_format(f"figure.{kind}")
    curves = [curve for curve in curves_of(read_study(folder).runs) if "test_error" in curve.spreads]
    if not curves:
        raise InputError(f"no run at {folder} has both bond_dim and test_error: there is nothing to draw")
    place = user_path(out)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {place}: {error.strerror or error}") from error
    drawn: list[tuple[str, Figure]] = []
    keys = [curve.key for curve in curves]
    for name, some in _apart(keys, curves, ("target", _columns(keys))):
        drawn.append((f"error{name}", error_figure(some)))
    for along, other in (("n_train", "noise"), ("noise", "n_train")):
        maps = heat_maps_of(curves, along)
        for name, few in _apart([heat.key for heat in maps], maps, ("target", other)):
            drawn.append((f"heat-{along}{name}", heat_figure(few)))
    paths = []
    for name, figure in drawn:
        paths.append(place / f"{name}.{kind}")
        save_figure(figure, paths[-1])
    return paths


def error_figure(curves: Sequence[Curve]) -> Figure:
    """Train and test error against the bond dimension: median over the seeds, band from smallest to largest.

    Lines mark the bond dimension of the target and the one at which the solver can fit every sample. Errors
    below the axis, 0 among them, become triangles at its lower end.

    Args:
        curves: targets become rows, noises (or numbers of samples, if there is only one noise) columns; the
            rest of their keys should be equal.

    Raises:
        InputError: no curve.

    Example:
        >>> from tnml.report.study_curves import Spread
        >>> spread = Spread([0.2, 0.1], [0.1, 0.1], [0.3, 0.1])
        >>> curve = Curve({}, [1, 2], [[], []], {"test_error": spread}, {}, 2, [])
        >>> error_figure([curve]).axes[0].get_xlabel()
        'bond dimension'
    """
    if not curves:
        raise InputError("expected at least one curve, got none")
    keys = [curve.key for curve in curves]
    across = _columns(keys)
    rows, columns = _values(keys, "target"), _values(keys, across)
    figure, panels = _panels(len(rows), len(columns), (4.1, 3.3), sharey=True)
    edge = min(map(lower_edge, curves))
    drawn = [
        curve.spreads[column].high for curve in curves for column, *_ in _LINES if column in curve.spreads
    ]
    top = max([value for high in drawn for value in high if math.isfinite(value)], default=edge)
    for curve in curves:
        row, column = rows.index(curve.key.get("target")), columns.index(curve.key.get(across))
        axes = panels[row, column]
        _draw_errors(axes, curve, edge)
        axes.set_title(_title(curve.key, ("target", across)), fontsize=10)
        axes.set_ylim(0.8 * edge, 1.5 * max(top, edge))
        axes.set_xlabel("bond dimension")
        axes.set_ylabel(curve.error if column == 0 else "")
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    _finish(figure, panels)
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _columns(keys: Sequence[Mapping[str, Any]]) -> str:
    """The option whose values are shown side by side."""
    return "noise" if len(_values(keys, "noise")) > 1 else "n_train"


def heat_figure(maps: Sequence[HeatMap]) -> Figure:
    """Median test error over bond dimension and another option; a frame marks the smallest of each row.

    Args:
        maps: all over the same option; their targets become rows, the values of the next option columns.

    Raises:
        InputError: no map.

    Example:
        >>> heat = HeatMap("n_train", {}, [10, 20], [1, 2], [[1.0, 2.0], [0.1, 0.2]])
        >>> heat_figure([heat]).axes[0].get_ylabel()
        'training samples'
    """
    if not maps:
        raise InputError("expected at least one heat map, got none")
    along = maps[0].along
    other = "noise" if along == "n_train" else "n_train"
    keys = [heat.key for heat in maps]
    rows, columns = _values(keys, "target"), _values(keys, other)
    width = 0.9 + 0.42 * max(len(heat.bonds) for heat in maps)
    height = 1.3 + 0.42 * max(len(heat.values) for heat in maps)
    figure, panels = _panels(len(rows), len(columns), (width, height))
    positive = [v for heat in maps for line in heat.median for v in line if v > 0]
    norm = LogNorm(min(positive, default=0.1), max([*positive, 2 * min(positive, default=0.5)]))
    for heat in maps:
        row, column = rows.index(heat.key.get("target")), columns.index(heat.key.get(other))
        axes = panels[row, column]
        _draw_heat(axes, heat, norm)
        axes.set_title(_title(heat.key, ("target", other)), fontsize=10)
        axes.set_xlabel("bond dimension")
        axes.set_ylabel(LABELS.get(along, along) if column == 0 else "")
    image = next(axes.images[0] for axes in figure.axes if axes.images)
    bar = figure.colorbar(image, ax=panels, label="test error", fraction=0.05, aspect=18 * len(rows))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(_plain))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    _finish(figure, panels)
    return figure


def _draw_errors(axes: Axes, curve: Curve, edge: float) -> None:
    bonds = np.array(curve.bonds)
    for column, name, color, marker, style in _LINES:
        if column not in curve.spreads:
            continue
        median, low, high = (np.array(part) for part in curve.spreads[column])
        axes.fill_between(
            bonds, np.maximum(low, edge), np.maximum(high, edge), color=color, alpha=0.18, linewidth=0
        )
        axes.plot(bonds, np.maximum(median, edge), color=color, linestyle=style, linewidth=1.8)
        below = median < edge
        axes.plot(bonds[~below], median[~below], marker, color=color, markersize=4.5)
        axes.plot(bonds[below], np.full(below.sum(), edge), "v", mfc="white", color=color, markersize=5)
        axes.plot([], [], color=color, linestyle=style, marker=marker, markersize=4.5, label=f"{name} error")
    if curve.teacher is not None and bonds[0] <= curve.teacher <= bonds[-1]:
        axes.axvline(curve.teacher, color=_TARGET, linestyle="--", label="bond dimension of the target")
    for name, where in curve.thresholds:
        axes.axvline(where, color=_THRESHOLD, linestyle=":", label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    shown = ticks_of(curve.bonds, share=0.075)
    axes.set_xticks(shown, [str(bond) for bond in shown], fontsize=8.5)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    _draw_counts(axes, curve, shown)


def _draw_counts(axes: Axes, curve: Curve, shown: Sequence[int]) -> None:
    """A second axis above the first: how many parameters a bond dimension means."""
    name = next((name for name in ("gauge_free_parameters", "n_parameters") if name in curve.counts), None)
    if name is None:
        return
    above = axes.secondary_xaxis("top")
    few = ticks_of(shown, share=0.12)
    counts = dict(zip(curve.bonds, curve.counts[name], strict=True))
    labels = ["" if math.isnan(counts[bond]) else f"{counts[bond]:.0f}" for bond in few]
    above.set_xticks(few, labels, fontsize=7.5)
    above.xaxis.set_minor_locator(NullLocator())
    free = " without the gauge" if name == "gauge_free_parameters" else ""
    above.set_xlabel(f"parameters{free}", fontsize=8)


def _draw_heat(axes: Axes, heat: HeatMap, norm: LogNorm) -> None:
    median = np.array(heat.median, dtype=np.float64)
    clipped = np.where(np.isnan(median), np.nan, np.maximum(median, norm.vmin or 0.0))
    axes.imshow(clipped, norm=norm, cmap="cividis", aspect="auto", origin="lower")
    axes.set_xticks(range(len(heat.bonds)), [str(bond) for bond in heat.bonds], fontsize=8.5)
    axes.set_yticks(range(len(heat.values)), [_short(value) for value in heat.values], fontsize=8.5)
    axes.tick_params(length=0)
    for (row, column), value in np.ndenumerate(median):
        if not math.isnan(value):
            color = "white" if norm(max(value, norm.vmin or 0.0)) < 0.5 else "black"
            axes.text(
                column, row, _plain(value, digits=2), ha="center", va="center", color=color, fontsize=7.5
            )
    for row, line in enumerate(median):
        if not np.isnan(line).all():
            column = int(np.nanargmin(line))
            axes.add_patch(
                Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, color="#d55e00", linewidth=2)
            )


def _panels(
    rows: int, columns: int, size: tuple[float, float], *, sharey: bool = False
) -> tuple[Figure, Any]:
    figure = Figure(figsize=(size[0] * columns + 0.6, size[1] * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=sharey)


def _finish(figure: Figure, panels: Any) -> None:
    """Removes the panels that nothing was run for."""
    for axes in panels.flat:
        if not axes.has_data():
            figure.delaxes(axes)


def _apart(
    keys: Sequence[Mapping[str, Any]], things: Sequence[Any], together: tuple[str, ...]
) -> list[tuple[str, list[Any]]]:
    """Groups what differs in the options `together` only; each group with the end of its file's name."""
    lots: dict[str, list[Any]] = {}
    rest = [{n: v for n, v in key.items() if n not in together} for key in keys]
    many = [n for n in (rest[0] if rest else {}) if len({json.dumps(key[n]) for key in rest}) > 1]
    for key, thing in zip(rest, things, strict=True):
        ends = [re.sub(r"[^\w.]+", "-", str(key[n])).strip("-") for n in many]
        lots.setdefault("".join(f"-{end}" for end in ends), []).append(thing)
    return list(lots.items())


def _values(keys: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return list({json.dumps(key.get(name)): key.get(name) for key in keys}.values())


def _title(key: Mapping[str, Any], names: Sequence[str]) -> str:
    parts = [f"{LABELS[name]} {_short(key[name])}" for name in names if key.get(name) is not None]
    return ", ".join(parts)


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: float, position: object = None, *, digits: int = 3) -> str:
    """A number for a tick or a cell: short, without an exponent if possible."""
    del position  # matplotlib's place of the tick
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{float(f'{value:.{digits}g}'):g}"
    mantissa, _, power = f"{value:.0e}".partition("e")
    return f"$10^{{{int(power)}}}$" if mantissa == "1" else f"{mantissa}e{int(power)}"
