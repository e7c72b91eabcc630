"""Data sets in tables with named columns, one of which is the target."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64
from numpy import ndarray

from tnml.data.dataset import Dataset, real_numbers
from tnml.data.scaling import clipping, column_range, limits_of, to_unit
from tnml.data.splits import held_out_quarter
from tnml.data.table_files import READERS, Column, read_columns
from tnml.errors import InputError, choose
from tnml.files import user_path

_SHOWN = 12  # names in an error message


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether the ending of the name is that of a table.

    Example:
        >>> is_table("flats.csv"), is_table("images.npz")
        (True, False)
    """
    return user_path(path).suffix.lower() in READERS


def from_table(
    path: str | os.PathLike[str],
    split: str = "train",
    *,
    target: str,
    drop: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    scale: str | Any = "auto",
    real_targets: bool = False,
) -> Dataset:
    r"""A `Dataset` from a table whose columns have names: a .csv or a .parquet file.

    Columns of numbers and truth values are features, in the order of the file, and one column is the target.
    "train" and "test" are a fixed split with a quarter held out, as of `from_npz`; "all" is every row in
    the file's order. Parquet files need the package pyarrow.

    Args:
        path: the file. A CSV file has the names in its first line.
        split: "train", "test" or "all".
        target: the name of the column to predict: text, whole numbers and truth values are labels, other
            numbers real targets.
        drop: columns to leave out.
        columns: the features by name, in this order; None takes all columns but `target` and `drop`.
        scale: what becomes 0 and 1. "auto" is the range that each column has in the training part; also a
            pair (low, high) for all columns, or the ends `[2, n]` for each, such as the `feature_range` of
            another table. Values beyond are cut off, with a warning where they are many.
        real_targets: whether whole numbers and truth values in the target are real targets, too.

    Raises:
        InputError: no such file or column; a feature that is text, missing or not finite; a target that is
            missing, or text where numbers are expected.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "flats.csv"
        ...     _ = path.write_text("rooms,city,price\n" + "1,Bern,90.5\n3,Basel,200\n" * 4)
        ...     flats = from_table(path, target="price", drop=["city"])
        >>> flats.feature_names, flats.feature_range.tolist(), len(flats)
        (('rooms',), [[1.0], [3.0]], 6)
    """
    return read_table(path).dataset(
        split, target=target, drop=drop, columns=columns, scale=scale, real_targets=real_targets
    )


def read_table(path: str | os.PathLike[str]) -> "Table":
    """The columns of a .csv or .parquet file.

    Raises:
        InputError: no such file, one of another kind, or one that cannot be read.

    Example:
        >>> read_table("nowhere.csv")
        Traceback (most recent call last):
        tnml.errors.InputError: no table at nowhere.csv; check the path
    """
    source = user_path(path)
    if not is_table(source):
        raise InputError(f"{source} is no table; expected a file whose name ends in {' or '.join(READERS)}")
    return Table(source=source, columns=read_columns(source))


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A table in memory.

    Args:
        source: its file.
        columns: by name, in the order of the file.

    Example:
        >>> table = Table(source=Path("a.csv"), columns={"a": Column("numbers", np.arange(3))})
        >>> table.names, table.numbers(["a"]).shape
        (['a'], (3, 1))
    """

    source: Path
    columns: Mapping[str, Column]

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.columns)

    def dataset(
        self,
        split: str = "train",
        *,
        target: str | None,
        drop: Sequence[str] = (),
        columns: Sequence[str] | None = None,
        scale: str | Any = "auto",
        real_targets: bool = False,
    ) -> Dataset:
        """As `from_table`, whose arguments these are.

        Raises:
            InputError: as `from_table`; also where no target is named.
        """
        choose("split", split, dict.fromkeys(("train", "test", "all")))
        if target is None:
            raise InputError(
                f"{self.source} is a table, so its target has to be named; choose one of its columns: "
                f"{shortened(self.names)}"
            )
        features = self.features(target, drop) if columns is None else list(columns)
        y = self.target(target, real=real_targets)
        if target in features:
            raise InputError(f"column {target!r} of {self.source} cannot be both feature and target")
        x = self.numbers(features)
        train, test = held_out_quarter(y)
        limits = self._limits(scale, x[train])
        rows = {"train": train, "test": test, "all": np.arange(len(y))}[split]
        told = clipping(x[rows], limits)
        if told is not None:
            warnings.warn(f"{self.source}: {told}", UserWarning, stacklevel=2)
        held_out = "a quarter" if y.dtype.kind == "f" else "a stratified quarter"
        how = "columns scaled by their range in the training part" if isinstance(scale, str) else "scaled"
        return Dataset(
            to_unit(x[rows], limits),
            y[rows],
            self.source.stem,
            split,
            None,
            f"table {self.source}, column {target}; {held_out} held out; {how}",
            tuple(features),
            limits,
        )

    def features(self, target: str, drop: Sequence[str] = ()) -> list[str]:
        """The names of all columns but the target and those to leave out.

        Raises:
            InputError: one of these is no column, or nothing is left.
        """
        for name in (target, *drop):
            choose(f"column of {self.source}", name, self.columns)
        found = [name for name in self.columns if name != target and name not in drop]
        if not found:
            raise InputError(f"{self.source} has no column left as a feature; drop fewer")
        return found

    def target(self, name: str, *, real: bool = False) -> npt.NDArray[Any]:
        """The values of a column as labels, or as real targets.

        Raises:
            InputError: it is no column, holds dates or the like, a value is missing, or it should be real
                and is text.
        """
        column = choose(f"column of {self.source}", name, self.columns)
        if column.kind not in ("numbers", "text"):
            raise InputError(
                f"the target {name!r} of {self.source} holds {column.kind}; write it as numbers or text"
            )
        self._whole(name, column)
        if column.values.dtype.kind == "f" and not np.isfinite(column.values).all():
            row = int(np.flatnonzero(~np.isfinite(column.values))[0]) + 1
            raise InputError(f"row {row} of {self.source} is infinite in column {name!r}; remove the row")
        return real_numbers(column.values, f"{self.source}, column {name!r}") if real else column.values

    def numbers(self, names: Sequence[str]) -> Float64[ndarray, "b n"]:
        """The values of these columns.

        Raises:
            InputError: one is no column, holds no numbers, or a value is missing or infinite.
        """
        absent = [name for name in names if name not in self.columns]
        if absent:
            raise InputError(f"{self.source} has no {_column(absent)}; it has {shortened(self.names)}")
        strange = [name for name in names if self.columns[name].kind != "numbers"]
        if strange:
            kinds = " and ".join(dict.fromkeys(self.columns[name].kind for name in strange))
            raise InputError(
                f"{self.source} holds {kinds} in {_column(strange)}, and a feature has to be a number; drop "
                f"{'it or encode it' if len(strange) == 1 else 'them or encode them'} as numbers"
            )
        for name in names:
            self._whole(name, self.columns[name])
        x = np.stack([self.columns[name].values.astype(np.float64) for name in names], 1)
        if not np.isfinite(x).all():
            row, place = np.argwhere(~np.isfinite(x))[0].tolist()
            raise InputError(
                f"row {row + 1} of {self.source} is infinite in column {names[place]!r}; remove the row"
            )
        return x

    def _whole(self, name: str, column: Column) -> None:
        if column.missing is not None:
            raise InputError(
                f"row {column.missing} of {self.source} has no value in column {name!r}; fill the gaps, or "
                "remove those rows or the column"
            )

    def _limits(self, scale: str | Any, train: Float64[ndarray, "b n"]) -> Float64[ndarray, "2 n"]:
        """The two values of each column that become 0 and 1."""
        if isinstance(scale, str) and scale == "auto":
            return column_range(train)
        return limits_of("scale of a table, unless it is 'auto',", scale, train.shape[1])


def shortened(names: Sequence[str]) -> str:
    """The names in one line, the first of them where there are many.

    Example:
        >>> shortened(["a", "b"])
        'a, b'
    """
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _column(names: Sequence[str]) -> str:
    """One column in words, or several."""
    return f"column{'s' if len(names) > 1 else ''} {shortened([repr(name) for name in names])}"
