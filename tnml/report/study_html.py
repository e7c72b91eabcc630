"""One HTML file that shows a study: figures to click on, every run, and how to make it again."""

import json
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tnml.errors import InputError
from tnml.files import user_path, write_text
from tnml.report.study_curves import (
    COUNTED,
    ERRORS,
    KEYS,
    LABELS,
    MEASURED,
    Curve,
    curves_of,
    heat_maps_of,
    lower_edge,
    ticks_of,
)
from tnml.report.study_rows import Run, StoredStudy, is_finite, read_study
from tnml.report.study_template import page

_TITLES = {  # of figures; any other number keeps its own name
    "memorised": "wrong labels repeated (share)",
    "zeta": "susceptibility to noise",
    "geometric_complexity": "geometric complexity",
}
_FIRST = ("bond_dim", *KEYS, "seed", "train_error", "test_error", "train_loss", "test_loss", *COUNTED)
_MOST = 200  # rows of a history that are drawn; more cannot be distinguished


def study_page(folder: str | os.PathLike[str]) -> Path:
    """Writes `report.html` into a study's folder, from its stored runs alone.

    The page holds everything it needs, plotly.js included: it works without a network and can be sent to
    someone else. It shows train and test error against the bond dimension with medians and bands over the
    seeds, their gap, heat maps over the number of samples and over the noise, learning curves of the runs
    behind a point, every other number of the results that differs between runs, the table of all runs,
    options and commands. A figure whose columns no run has is left out.

    Args:
        folder: of the study, as `tnml study run` leaves it.

    Returns:
        The file's path.

    Raises:
        InputError: no finished run there, plotly is not installed, or the file cannot be written.

    Cost:
        About 5 MB for plotly.js, and up to 200 rows of each run's history.

    Example:
        >>> study_page("nowhere")
        Traceback (most recent call last):
        tnml.errors.InputError: there is no study in nowhere: it holds no study.json; check the path
    """
    study = read_study(folder)
    try:
        from plotly.offline import get_plotlyjs  # optional: the extra `report`
    except ImportError as error:
        raise InputError("the page needs plotly: python -m pip install 'tnml[report]'") from error
    data = json.dumps(_clean(page_data(study, folder)), ensure_ascii=False, allow_nan=False)
    target = user_path(folder) / "report.html"
    text = page(study.study.name, data.replace("<", "\\u003c"), get_plotlyjs())
    write_text(target, text)
    return target


def page_data(study: StoredStudy, folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Everything that the page's script draws.

    Args:
        study: the stored runs.
        folder: the last part of its path appears in the commands.

    Example:
        >>> row = {"bond_dim": 2, "test_error": 0.1}
        >>> from tnml.study import Study
        >>> study = Study(name="mine", runner="my.runs:one", grid={"seed": [0]})
        >>> page_data(StoredStudy(study, [Run("a", {}, row, [])], {}, 0), "runs/mine")["columns"]
        ['bond_dim', 'test_error', 'run']
    """
    curves = curves_of(study.runs)
    names = list(curves[0].key) if curves else []
    values = {name: _distinct(curve.key[name] for curve in curves) for name in names}
    number = {run.identity: i for i, run in enumerate(study.runs)}
    rows = {run.identity: run.row for run in study.runs}
    columns = _columns(study.runs)
    table = [[_single(run.row.get(name)) for name in columns] + [run.identity] for run in study.runs]
    place = user_path(folder).resolve().name
    return {
        "title": re.sub(r"[-_]+", " ", study.study.name).capitalize(),
        "about": study.study.about,
        "facts": _facts(study, curves),
        "warning": _warning(study, curves),
        "keys": [
            {"name": n, "label": LABELS.get(n, n.replace("_", " ")), "values": values[n]} for n in names
        ],
        "curves": [
            {
                "at": [values[name].index(curve.key[name]) for name in names],
                "bonds": curve.bonds,
                "runs": [[number[identity] for identity in some] for some in curve.runs],
                "spreads": curve.spreads,
                "counts": curve.counts,
                "teacher": curve.teacher,
                "thresholds": curve.thresholds,
                "edge": lower_edge(curve),
                "gap_scale": _gap_scale(curve),
                "ticks": ticks_of(curve.bonds),
                "best": _best(curve),
                "error": curve.error,
                "reading": _reading(curve),
                "note": _lost(curve, rows),
            }
            for curve in curves
        ],
        "heats": {
            along: [
                {
                    "at": [values[n].index(heat.key[n]) if n in heat.key else None for n in names],
                    "choices": [values[along].index(value) for value in heat.values],
                    "values": heat.values,
                    "bonds": heat.bonds,
                    "median": heat.median,
                }
                for heat in heat_maps_of(curves, along)
            ]
            for along in ("n_train", "noise")
        },
        "extra": _others(curves),
        "columns": [*columns, "run"],
        "rows": table,
        "names": [_run_name(run) for run in study.runs],
        "histories": [_history(run.history) for run in study.runs],
        "thinned": _thinned(study.runs),
        "commands": "\n".join(_commands(place)),
        "settings": _indented(study.study.record()),
        "failed": list(study.failed.items()),
    }


def _others(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """The figures besides errors and gap, known ones first; train and test of one number share a figure."""
    columns = {column for curve in curves for column in curve.spreads}.difference(ERRORS)
    ordered = [*(name for name in MEASURED if name in columns), *sorted(columns.difference(MEASURED))]
    figures = []
    for name in dict.fromkeys(re.sub("^(train|test)_", "", column) for column in ordered):
        title = _TITLES.get(name, name.replace("_", " "))
        lines = [(f"train_{name}", "train"), (f"test_{name}", "test"), (name, title)]
        drawn = [line for line in lines if line[0] in columns]
        figures.append({"name": name, "title": title, "lines": drawn})
    return figures


def _facts(study: StoredStudy, curves: Sequence[Curve]) -> str:
    seeds = {json.dumps(run.row["seed"]) for run in study.runs if "seed" in run.row}
    bonds = sorted({bond for curve in curves for bond in curve.bonds})
    parts = [f"{_runs(len(study.runs))} finished"]
    if seeds:
        parts.append(f"{len(seeds)} seed{'s' * (len(seeds) > 1)}")
    if bonds:
        parts.append(f"bond dimensions {bonds[0]} to {bonds[-1]}")
    single = {name: curves[0].key[name] for name in KEYS if curves and name in curves[0].key}
    for name, value in single.items():
        if len(_distinct(curve.key[name] for curve in curves)) == 1 and value is not None:
            parts.append(f"{LABELS[name]}: {value}")
    return "; ".join(parts) + "."


def _warning(study: StoredStudy, curves: Sequence[Curve]) -> str:
    parts = []
    if study.failed:
        parts.append(f"{_runs(len(study.failed))} failed (see the end of the page).")
    if study.waiting:
        parts.append(f"{_runs(study.waiting)} not done yet: the figures show what there is.")
    unseen = len(study.runs) - sum(len(some) for curve in curves for some in curve.runs)
    if unseen:
        parts.append(f"{_runs(unseen)} without a bond dimension: in the table only.")
    return " ".join(parts)


def _reading(curve: Curve) -> str:
    """What the curve of the test error does, in words."""
    if "test_error" not in curve.spreads:
        return ""
    median = curve.spreads["test_error"].median
    seen = [(b, v) for b, v in zip(curve.bonds, median, strict=True) if math.isfinite(v)]
    best = min(seen, key=lambda point: point[1])
    text = f"The median test error is smallest at bond dimension {best[0]} ({best[1]:.3g})"
    later = [point for point in seen if point[0] > best[0]]
    peak = max(later, key=lambda point: point[1], default=best)
    if peak[1] > 1.1 * best[1]:
        rise, last = f"rises to {peak[1]:.3g} at {peak[0]}", later[-1]
        if last[0] > peak[0] and last[1] < 0.9 * peak[1]:
            text += f", {rise} and is {last[1]:.3g} at {last[0]}, the largest tried"
        else:
            text += f" and {rise}"
    elif best[0] == seen[-1][0]:
        text += ", the largest tried"
    return text + "."


def _lost(curve: Curve, rows: Mapping[str, Mapping[str, Any]]) -> str:
    some = [rows[identity] for identities in curve.runs for identity in identities]
    lost = sum(1 for row in some if not is_finite(row.get("test_error")))
    return f"{lost} of {_runs(len(some))} ended without a finite test error: not drawn." if lost else ""


def _runs(number: int) -> str:
    return f"{number} run{'s' * (number != 1)}"


def _best(curve: Curve) -> int:
    """The bond dimension of the smallest test error, or the first."""
    median = curve.spreads["test_error"].median if "test_error" in curve.spreads else []
    ranked = [(value, bond) for bond, value in zip(curve.bonds, median, strict=False) if math.isfinite(value)]
    return min(ranked, default=(0.0, curve.bonds[0]))[1]


def _gap_scale(curve: Curve) -> float:
    """Below this the axis of the gap is linear: a power of ten near the smallest test error."""
    test = [v for part in curve.spreads.get("test_error", ()) for v in part if v > 0]
    return float(10.0 ** math.floor(math.log10(min(test, default=1.0))))


def _columns(runs: Sequence[Run]) -> list[str]:
    """The table's columns: the usual ones first, then the others by name; lists stay out."""
    known = {name for run in runs for name, value in run.row.items() if not isinstance(value, list)}
    first = [name for name in dict.fromkeys((*_FIRST, *MEASURED)) if name in known]
    return [*first, *sorted(known.difference(first))]


def _single(value: object) -> object:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _run_name(run: Run) -> str:
    return f"seed {run.row['seed']}" if "seed" in run.row else f"run {run.identity}"


def _history(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """The columns of a history that are numbers, first and last row kept."""
    kept = [rows[i] for i in _spaced(len(rows))]
    names = dict.fromkeys(name for row in kept for name, value in row.items() if is_finite(value))
    return {name: [row[name] if is_finite(row.get(name)) else None for row in kept] for name in names}


def _spaced(length: int) -> list[int]:
    if length <= _MOST:
        return list(range(length))
    return [round(i * (length - 1) / (_MOST - 1)) for i in range(_MOST)]


def _thinned(runs: Sequence[Run]) -> str:
    longest = max(len(run.history) for run in runs)
    return f" Of longer histories {_MOST} rows are drawn, evenly spaced." if longest > _MOST else ""


def _commands(place: str) -> list[str]:
    """Commands that run the stored study again in a folder of its own, and that make this page again."""
    again = f"tnml study run {shlex.quote(place + '/study.json')} --folder {shlex.quote(place + '-again')}"
    return [again, f"tnml study report {shlex.quote(place)}"]


def _indented(value: Any, indent: str = "") -> str:
    """JSON with a line for each name; lists stay on one line."""
    if not isinstance(value, Mapping) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = indent + "  "
    lines = [f"{inner}{json.dumps(str(n))}: {_indented(entry, inner)}" for n, entry in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _distinct(values: Any) -> list[Any]:
    """Each value once, in the order of the curves; 1 and True are two values."""
    return list({json.dumps(value): value for value in values}.values())


def _clean(value: Any) -> Any:
    """The same for strict JSON: no NaN, no infinity, and numbers to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _clean(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(entry) for entry in value]
    return value
