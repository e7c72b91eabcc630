"""Reads the columns of CSV and Parquet files, each as numbers, truth values or text."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tnml.errors import InputError

GAPS = frozenset({"", "na", "n/a", "nan", "null", "none"})
TRUTH = {"true": True, "false": False}
_INDEX = "__index_level_"  # what pandas calls the column of an index without a name


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        kind: "numbers" (and truth values), "text", or what else the file calls it.
        values: `[n]` of bool, int64, float64 or text; of no use where something is missing or the kind is
            another.
        missing: the first row without a value, counted from 1; None where there is none.
    """

    kind: str
    values: npt.NDArray[Any]
    missing: int | None = None


def read_columns(source: Path) -> dict[str, Column]:
    r"""The columns of a .csv or .parquet file by name, in the order of the file.

    Raises:
        InputError: no such file, or one that cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "rooms.csv"
        ...     _ = path.write_text("area,city\n70,Bern\n55.5,Basel\n")
        ...     read_columns(path)["area"]
        Column(kind='numbers', values=array([70. , 55.5]), missing=None)
    """
    _check_there(source)
    return READERS[source.suffix.lower()](source)


def read_cells(source: Path) -> dict[str, list[Any]]:
    r"""The cells of every column of a .csv or .parquet file by name, for readers that know what a column is.

    Empty cells are None. Those of a .csv are text.

    Raises:
        InputError: no such file, or one that cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "rooms.csv"
        ...     _ = path.write_text("area,city\n70,Bern\n,Basel\n")
        ...     read_cells(path)["area"]
        ['70', None]
    """
    _check_there(source)
    if source.suffix.lower() == ".csv":
        columns = _csv_columns(source)
        return {name: [cell.strip() or None for cell in cells] for name, cells in columns.items()}
    found = {name: column.to_pylist() for name, column in _arrow_columns(source).items()}
    return {name: [None if cell != cell else cell for cell in cells] for name, cells in found.items()}


def column_of(cells: Sequence[str]) -> Column:
    """A column from the cells of a text file.

    Cells that are empty or say NA, NaN, null or None are missing; in a column of text only empty ones are.

    Example:
        >>> column_of(["1", "2"]).values.dtype, column_of(["no", "none"]), column_of(["1", "NA"]).missing
        (dtype('int64'), Column(kind='text', values=array(['no', 'none'], dtype='<U4'), missing=None), 2)
    """
    stripped = [cell.strip() for cell in cells]
    gaps = [row for row, cell in enumerate(stripped, 1) if cell.lower() in GAPS]
    present = [cell for cell in stripped if cell.lower() not in GAPS] if gaps else stripped
    for parse in (_truths, _whole_numbers, _numbers):
        values = parse(present)
        if values is not None:
            return Column("numbers", values, gaps[0]) if gaps else Column("numbers", values)
    return Column("text", np.array(stripped), stripped.index("") + 1 if "" in stripped else None)


def _truths(cells: Sequence[str]) -> npt.NDArray[np.bool_] | None:
    if not cells or any(cell.lower() not in TRUTH for cell in cells):
        return None
    return np.array([TRUTH[cell.lower()] for cell in cells])


def _whole_numbers(cells: Sequence[str]) -> npt.NDArray[np.int64] | None:
    try:
        return np.array([_parsed(cell, int) for cell in cells], np.int64)
    except (ValueError, OverflowError):
        return None


def _numbers(cells: Sequence[str]) -> npt.NDArray[np.float64] | None:
    try:
        return np.array([_parsed(cell, float) for cell in cells], np.float64)
    except ValueError:
        return None


def _parsed(cell: str, kind: Callable[[str], float]) -> float:
    if "_" in cell:  # Python reads 1_000 as a number, other programs do not
        raise ValueError(cell)
    return kind(cell)


def _read_csv(source: Path) -> dict[str, Column]:
    return {name: column_of(cells) for name, cells in _csv_columns(source).items()}


def _csv_columns(source: Path) -> dict[str, list[str]]:
    """A file with the names in its first line and commas between the cells."""
    rows: list[list[str]] = []
    try:
        with open(source, newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            for cells in reader:
                if rows and cells and len(cells) != len(rows[0]):
                    raise InputError(
                        f"{source}, line {reader.line_num}: expected {len(rows[0])} cells as in the first "
                        f"line, got {len(cells)}; complete the line"
                    )
                if cells:
                    rows.append(cells)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source} is not a readable CSV file ({error}); save it as text, UTF-8") from error
    if len(rows) < 2:
        raise InputError(f"{source} holds no sample; expected names in the first line, then a row for each")
    names = _names([name.strip() for name in rows[0]], source)
    return dict(zip(names, _transposed(rows), strict=True))


def _transposed(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The cells below the first row, column by column."""
    return [[row[place] for row in rows[1:]] for place in range(len(rows[0]))]


def _names(names: list[str], source: Path) -> list[str]:
    """The names of the columns, if each has one of its own."""
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise InputError(f"{source} has one column, {names[0]!r}; separate the columns by commas")
    if "" in names:
        raise InputError(
            f"column {names.index('') + 1} of {source} has no name; name it, or save the table without its "
            "index"
        )
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise InputError(f"{source} has two columns called {twice!r}; rename one of them")
    return names


def _read_parquet(source: Path) -> dict[str, Column]:
    return {name: _arrow_column(column) for name, column in _arrow_columns(source).items()}


def _arrow_columns(source: Path) -> dict[str, Any]:
    """The columns of a Parquet file without the index that pandas may have written along."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"reading {source} needs the package pyarrow, which is not installed; run "
            "`python -m pip install pyarrow`, or save the table as CSV"
        ) from error
    try:
        with parquet.ParquetFile(source) as stored:
            table = stored.read()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise InputError(f"{source} is not a readable Parquet file ({error}); save it again") from error
    if not table.num_rows:
        raise InputError(f"{source} holds no sample; expected a row for each")
    names = _names(list(table.column_names), source)
    named = zip(names, table.columns, strict=True)
    return {name: column for name, column in named if not name.startswith(_INDEX)}


def _arrow_column(column: Any) -> Column:
    """A column from one of Arrow's."""
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind, is_float = column.type, types.is_floating(column.type) or types.is_decimal(column.type)
    is_text = types.is_string(kind) or types.is_large_string(kind)
    if not (is_float or is_text or types.is_boolean(kind) or types.is_integer(kind) or types.is_null(kind)):
        return Column(str(kind), np.empty(0))
    if is_float:
        column = column.cast(pyarrow.float64())
    gaps = column.is_null(nan_is_null=is_float)
    first = gaps.index(True).as_py()
    if first >= 0:
        return Column("text" if is_text else "numbers", np.empty(0), first + 1)
    values = np.array(column.to_pylist(), np.str_) if is_text else column.to_numpy()
    if types.is_integer(kind):
        values = values.astype(np.int64 if not len(values) or values.max() < 2**63 else np.float64)
    return Column("text" if is_text else "numbers", values)


READERS: Mapping[str, Callable[[Path], dict[str, Column]]] = {".csv": _read_csv, ".parquet": _read_parquet}
"""By the ending of the file's name."""


def _check_there(source: Path) -> None:
    if not source.is_file():
        raise InputError(f"no table at {source}; check the path")
