"""One row per finished run, as CSV and Parquet, always rebuilt from the folders of the runs."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tnml.errors import InputError
from tnml.files import atomic_path, no_space, write_text
from tnml.study.plain_values import flat, run_id
from tnml.study.store import Store

CSV, PARQUET = "table.csv", "table.parquet"
HISTORY = "history"  # rows along the training: in the run's result, not in the table


@dataclass(frozen=True)
class Table:
    r"""The finished runs of a study.

    Attributes:
        columns: "run", the options in the order of the study, then what the runs returned.
        rows: one dictionary per run, in the order of the study; a column may be missing from it.
        failed: the last line of the error of each run that failed, by its name.
        waiting: how many runs are neither done nor failed.

    Example:
        >>> Table(["run", "error"], [{"run": "a", "error": 0.5}]).text()
        'run,error\na,0.5\n'
    """

    columns: list[str]
    rows: list[dict[str, Any]]
    failed: dict[str, str] = field(default_factory=dict)
    waiting: int = 0

    def column(self, name: str) -> list[Any]:
        """The values of one column; None where a run has none.

        Raises:
            InputError: there is no such column.

        Example:
            >>> Table(["run", "error"], [{"run": "a", "error": 0.5}]).column("error")
            [0.5]
        """
        if name not in self.columns:
            raise InputError(f"the table has no column {name!r}; it has {', '.join(self.columns)}")
        return [row.get(name) for row in self.rows]

    def text(self) -> str:
        """The table as CSV; numbers as Python writes them, lists as JSON, nothing where there is none."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(row.get(name)) for name in self.columns] for row in self.rows)
        return stream.getvalue()

    def frame(self) -> Any:
        """The table as a `pandas.DataFrame`.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise InputError("a data frame needs pandas: pip install 'tnml[study]'") from error
        return pandas.DataFrame(self.rows, columns=self.columns)

    def write(self, folder: Path) -> list[Path]:
        """Writes `table.csv`, and `table.parquet` where pyarrow is installed.

        Returns:
            The files.

        Raises:
            InputError: they cannot be written.
        """
        write_text(folder / CSV, self.text())
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            return [folder / CSV]
        names = [name for name in self.columns if self.rows]
        made = pyarrow.table([_array(pyarrow, self.column(name)) for name in names], names=names)
        with atomic_path(folder / PARQUET) as temporary, no_space(folder / PARQUET):
            parquet.write_table(made, temporary)
        return [folder / CSV, folder / PARQUET]


def read_table(store: Store) -> Table:
    """The table of a study.

    A number that a run returned under the name of one of its options is left out where it is the same, and
    called `result.NAME` where it is not. Histories are left out.

    Raises:
        InputError: there is no study in the folder.

    Cost: reads the result of every run.

    Example:
        >>> read_table(Store("nowhere"))
        Traceback (most recent call last):
        tnml.errors.InputError: there is no study in nowhere: it holds no study.json; check the path
    """
    study = store.study()
    rows: list[tuple[dict[str, Any], dict[str, Any]]] = []
    failed: dict[str, str] = {}
    waiting = 0
    for options in study.options():
        identity = run_id(options)
        result = store.result(identity)
        if result is None:
            error = store.error(identity).strip()
            failed |= {identity: error.splitlines()[-1]} if error else {}
            waiting += not error
            continue
        found = flat({name: value for name, value in result.items() if name != HISTORY})
        asked = flat(options)
        kept = {
            f"result.{name}" if name in asked else name: value
            for name, value in found.items()
            if asked.get(name, _NOTHING) != value
        }
        rows.append(({"run": identity, **asked}, kept))
    columns = _in_order(["run"], _option_columns(study.option_names(), [asked for asked, _ in rows]))
    columns = _in_order(columns, [name for _, kept in rows for name in kept])
    return Table(columns, [{**asked, **kept} for asked, kept in rows], failed, waiting)


_NOTHING = object()


def _option_columns(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns of the options: in the order of the study, nested ones where their outer name is."""
    present = list(dict.fromkeys(column for row in rows for column in row))
    found = [c for name in names for c in present if c == name or c.startswith(f"{name}.")]
    return list(dict.fromkeys(found))


def _in_order(first: Sequence[str], then: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*first, *then]))


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return repr(value) if isinstance(value, float) else value


def _array(pyarrow: Any, values: list[Any]) -> Any:
    """A column of one type; values of several types, and lists, as texts."""
    if not any(isinstance(value, list) for value in values):
        try:
            return pyarrow.array(values)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
            pass
    return pyarrow.array(
        [
            None if v is None else v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)
            for v in values
        ]
    )
