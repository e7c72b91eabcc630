"""The runs of a study as curves over the bond dimension and as heat maps. Nothing here draws."""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tnml.report.study_rows import Run, is_finite

KEYS = ("target", "solver", "n_train", "noise")  # one picture for each combination of these
LABELS = {"n_train": "training samples", "noise": "noise", "target": "target", "solver": "solver"}
ERRORS = ("train_error", "test_error", "gap")
MEASURED = (*ERRORS, "memorised", "zeta", "geometric_complexity")  # these come first, then all other numbers
COUNTED = ("gauge_free_parameters", "n_parameters", "largest_core")
_PLACES = {*KEYS, *COUNTED, "bond_dim", "teacher_bond"}  # say where a run belongs, not how it ended
_ERROR_NAMES = {"mse": "mean squared error"}
_SWEEPS = ("als", "dmrg", "sweep")  # solvers of these names fit one core at a time
_LOWEST = 1e-3  # below this share of the smallest test error nothing is drawn to scale


class Spread(NamedTuple):
    """Median, smallest and largest value over the seeds at each bond dimension; NaN where there is none."""

    median: list[float]
    low: list[float]
    high: list[float]


class Curve(NamedTuple):
    """The runs that differ in bond dimension and seed only.

    Attributes:
        key: the options that all of them share and in which other runs differ.
        bonds: the bond dimensions, rising.
        runs: identities at each bond dimension.
        spreads: by column, see `measures_of`; the gap is the test error minus the train error of each run.
        counts: parameters at each bond dimension, by column.
        teacher: the bond dimension of the target itself.
        thresholds: what equals the number of samples, and the bond dimension at which it does.
        error: what kind of error was measured.
    """

    key: dict[str, Any]
    bonds: list[int]
    runs: list[list[str]]
    spreads: dict[str, Spread]
    counts: dict[str, list[float]]
    teacher: float | None
    thresholds: list[tuple[str, float]]
    error: str = "error"


class HeatMap(NamedTuple):
    """Median test errors over bond dimension and one other option.

    Attributes:
        along: that option.
        key: the options that all its runs share.
        values: of the option, one row each.
        bonds: one column each.
        median: `[values, bonds]`, NaN where nothing was run.
    """

    along: str
    key: dict[str, Any]
    values: list[Any]
    bonds: list[int]
    median: list[list[float]]


def curves_of(runs: Sequence[Run]) -> list[Curve]:
    """The runs grouped into curves; those without a bond dimension are left out.

    Runs are told apart by `target`, `solver`, `n_train`, `noise` and by every other option in which two runs
    of equal bond dimension differ, except for seeds.

    Example:
        >>> rows = [{"bond_dim": 2, "seed": s, "test_error": e} for s, e in enumerate([0.1, 0.4, 0.2])]
        >>> (curve,) = curves_of([Run(str(i), {}, row, []) for i, row in enumerate(rows)])
        >>> curve.bonds, curve.spreads["test_error"]
        ([2], Spread(median=[0.2], low=[0.1], high=[0.4]))
    """
    usable = [run for run in runs if _number(run.row.get("bond_dim")) >= 1]
    names, columns = _telling(usable), measures_of(usable)
    gathered: dict[str, list[Run]] = {}
    for run in usable:
        gathered.setdefault(json.dumps([run.row.get(name) for name in names]), []).append(run)
    keyed = [({name: some[0].row.get(name) for name in names}, some) for some in gathered.values()]
    curves = [_curve(key, some, columns) for key, some in keyed]
    return sorted(curves, key=lambda curve: [_order(value) for value in curve.key.values()])


def measures_of(runs: Sequence[Run]) -> list[str]:
    """The numbers to draw: `MEASURED`, then by name every other number of the results that differs.

    Options, seeds and counts of parameters are not among them.

    Example:
        >>> rows = [{"bond_dim": 2, "kept": 1, "toy": toy, "test_error": 0.5} for toy in (3, 4)]
        >>> measures_of([Run(str(i), {}, row, []) for i, row in enumerate(rows)])[len(MEASURED):]
        ['toy']
    """
    values: dict[str, set[float]] = {}
    for run in runs:
        for name in run.row.keys() - run.options.keys() - _PLACES - set(MEASURED):
            if is_finite(run.row[name]) and not _is_seed(name):
                values.setdefault(name, set()).add(run.row[name])
    return [*MEASURED, *sorted(name for name, some in values.items() if len(some) > 1)]


def heat_maps_of(curves: Sequence[Curve], along: str) -> list[HeatMap]:
    """Median test errors over bond dimension and the option `along`, if it has two values or more.

    Example:
        >>> rows = [{"bond_dim": b, "n_train": n, "test_error": b / n} for b in (2, 4) for n in (10, 20)]
        >>> curves = curves_of([Run(str(i), {}, row, []) for i, row in enumerate(rows)])
        >>> heat_maps_of(curves, "n_train")[0].median
        [[0.2, 0.4], [0.1, 0.2]]
    """
    gathered: dict[str, list[Curve]] = {}
    for curve in curves:
        if along in curve.key and "test_error" in curve.spreads:
            rest = [value for name, value in curve.key.items() if name != along]
            gathered.setdefault(json.dumps(rest), []).append(curve)
    maps = []
    for some in gathered.values():
        values = [curve.key[along] for curve in some]
        bonds = sorted({bond for curve in some for bond in curve.bonds})
        if len(values) > 1 and len(bonds) > 1:
            known = [dict(zip(c.bonds, c.spreads["test_error"].median, strict=True)) for c in some]
            median = [[line.get(bond, math.nan) for bond in bonds] for line in known]
            key = {name: value for name, value in some[0].key.items() if name != along}
            maps.append(HeatMap(along, key, values, bonds, median))
    return maps


def lower_edge(curve: Curve) -> float:
    """The lower end of a logarithmic axis of errors; smaller errors, 0 included, are drawn there.

    Example:
        >>> spread = Spread([0.5, 0.2], [0.4, 0.0], [0.6, 0.3])
        >>> lower_edge(Curve({}, [1, 2], [[], []], {"test_error": spread}, {}, None, []))
        0.1
    """
    drawn = [column for column in ("train_error", "test_error") if column in curve.spreads]
    values = [v for column in drawn for part in curve.spreads[column] for v in part if v > 0]
    test = [v for part in curve.spreads.get("test_error", Spread([], [], [])) for v in part if v > 0]
    if not values:
        return 1e-3
    return max(min(values), _LOWEST * min(test, default=0.0)) / 2


def ticks_of(bonds: Iterable[int], *, share: float = 0.045) -> list[int]:
    """The bond dimensions that can be written along a logarithmic axis without touching.

    Args:
        bonds: all of them.
        share: the room that one needs, as a part of the axis.

    Example:
        >>> ticks_of([1, 2, 4, 8, 15, 16])
        [1, 2, 4, 8, 16]
    """
    rising = sorted(set(bonds))
    room = share * math.log(rising[-1] / rising[0]) if rising else 0.0
    shown = rising[-1:]
    for bond in reversed(rising[:-1]):  # the largest is always written
        if math.log(shown[-1] / bond) >= room:
            shown.append(bond)
    return shown[::-1]


def _telling(runs: Sequence[Run]) -> list[str]:
    """The options that distinguish one curve from another; one that follows from the others does not."""
    names = [name for name in KEYS if any(name in run.row for run in runs)]
    for name in sorted({name for run in runs for name in run.options}):
        if name in names or name == "bond_dim" or _is_seed(name):
            continue
        seen: dict[str, set[str]] = {}
        for run in runs:
            place = json.dumps([run.row.get(other) for other in (*names, "bond_dim")])
            seen.setdefault(place, set()).add(json.dumps(run.options.get(name)))
        if any(len(values) > 1 for values in seen.values()):
            names.append(name)
    return names


def _is_seed(name: str) -> bool:
    return name.rpartition(".")[2].endswith("seed")


def _curve(key: dict[str, Any], runs: Sequence[Run], columns: Sequence[str]) -> Curve:
    at: dict[int, list[Run]] = {}
    for run in runs:
        at.setdefault(int(run.row["bond_dim"]), []).append(run)
    bonds = sorted(at)

    def over_seeds(column: str, what: Callable[[list[float]], Any]) -> list[float]:
        values = [[_value(run, column) for run in at[bond]] for bond in bonds]
        finite = [[v for v in some if math.isfinite(v)] for some in values]
        return [float(what(some)) if some else math.nan for some in finite]

    spreads = {
        column: Spread(over_seeds(column, np.median), over_seeds(column, min), over_seeds(column, max))
        for column in columns
    }
    counts = {column: over_seeds(column, np.median) for column in COUNTED}
    teachers = {_number(run.row.get("teacher_bond")) for run in runs}
    teacher = teachers.pop() if len(teachers) == 1 else math.nan
    return Curve(
        key,
        bonds,
        [[run.identity for run in at[bond]] for bond in bonds],
        {column: spread for column, spread in spreads.items() if _any_finite(spread.median)},
        {column: count for column, count in counts.items() if _any_finite(count)},
        teacher if math.isfinite(teacher) else None,
        _thresholds(runs[0].row, bonds, counts),
        _error_name(runs[0].row),
    )


def _error_name(row: Mapping[str, Any]) -> str:
    name = str(row.get("error_name") or "error")
    return _ERROR_NAMES.get(name.lower().replace(" ", "_"), name.replace("_", " "))


def _thresholds(
    row: Mapping[str, Any], bonds: Sequence[int], counts: Mapping[str, Sequence[float]]
) -> list[tuple[str, float]]:
    """Where a solver can fit every sample: sweeps by their largest core, gradients by all cores together."""
    solver = str(row.get("solver", "")).lower()
    if any(name in solver for name in _SWEEPS):
        name, column = "largest core", "largest_core"
    else:
        name, column = "free parameters", "gauge_free_parameters"
    where = _crossing(bonds, counts[column], _number(row.get("n_train")))
    return [] if where is None else [(f"{name} = samples", where)]


def _crossing(bonds: Sequence[int], counts: Sequence[float], level: float) -> float | None:
    """Where counts reach the level, on a straight line between neighbours in logarithms."""
    points = [(b, c) for b, c in zip(bonds, counts, strict=True) if c > 0]
    for (bond, count), (next_bond, next_count) in itertools.pairwise(points):
        if count <= level < next_count:
            part = math.log(level / count) / math.log(next_count / count)
            return float(bond * (next_bond / bond) ** part)
    return None


def _value(run: Run, column: str) -> float:
    if column == "gap":
        return _number(run.row.get("test_error")) - _number(run.row.get("train_error"))
    return _number(run.row.get(column))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _any_finite(values: Iterable[float]) -> bool:
    return any(map(math.isfinite, values))


def _order(value: object) -> tuple[bool, float, str]:
    """Numbers before words."""
    number = _number(value)
    return (math.isnan(number), 0.0 if math.isnan(number) else number, str(value))
