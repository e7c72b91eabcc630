"""Tables given to an estimator: columns of numbers or text, with gaps, from arrays and data frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_array, check_X_y
from sklearn.utils.validation import validate_data

from tnml.errors import InputError


@dataclass(frozen=True, eq=False)
class Column:
    """One column.

    Attributes:
        name: its name, or its number if it has none.
        values: `[b]` float64, NaN if a value is missing; or text as objects, None if it is missing.
        categorical: whether its values are categories, even if they are numbers.
    """

    name: str
    values: npt.NDArray[Any]
    categorical: bool

    @property
    def is_text(self) -> bool:
        """Whether it holds text."""
        return self.values.dtype == object

    @property
    def missing(self) -> npt.NDArray[np.bool_]:
        """Where there is no value, `[b]`."""
        gaps: npt.NDArray[np.bool_]
        if self.is_text:
            gaps = np.array([value is None for value in self.values], dtype=bool)
        else:
            gaps = np.isnan(self.values)
        return gaps


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length; `table[rows]` selects rows, as with an array.

    Example:
        >>> table = Table([Column("a", np.array([1.0, 2.0]), False)])
        >>> table.shape, table[np.array([False, True])].columns[0].values.tolist()
        ((2, 1), [2.0])
    """

    columns: Sequence[Column]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.columns[0].values), len(self.columns)

    def __len__(self) -> int:
        """The number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: Any) -> "Table":
        """Some of the rows."""
        return Table([Column(c.name, c.values[rows], c.categorical) for c in self.columns])


def checked_table(estimator: Any, X: Any, *, reset: bool) -> Table:
    """The columns of `X`; their names and number are set in the estimator, or compared with it.

    Args:
        estimator: `n_features_in_` and `feature_names_in_` are set or compared.
        X: an array of numbers or objects, or a pandas data frame, or one that works like it.
        reset: whether the estimator takes names and number of columns from `X`.

    Raises:
        InputError: a column holds neither numbers nor text, or an infinite number; scikit-learn's ValueError
            for what is not a table.
    """
    if hasattr(X, "dtypes") and hasattr(X, "iloc") and X.ndim == 2:
        validate_data(estimator, X, skip_check_array=True, reset=reset)
        names = [str(name) for name in X.columns]
        check_array(np.zeros((len(X), len(names))), estimator=estimator)  # enough rows and columns
        columns = [_column(name, X.iloc[:, place]) for place, name in enumerate(names)]
    else:
        array = validate_data(estimator, X, dtype=None, ensure_all_finite=False, reset=reset)
        known = getattr(estimator, "feature_names_in_", range(array.shape[1]))
        columns = [_column(str(name), array[:, place]) for place, name in enumerate(known)]
    for column in columns:
        if not column.is_text and np.isinf(column.values).any():
            raise InputError(
                f"Input X contains infinity in column {column.name}; replace it by a number, or by NaN if "
                "the value is missing"
            )
    return Table(columns)


def checked_targets(estimator: Any, rows: int, y: Any, **how: Any) -> Any:
    """Targets, checked as scikit-learn checks them together with samples.

    Args:
        estimator: named in errors.
        rows: number of samples.
        y: one target for each sample.
        how: `multi_output` and `y_numeric` of `sklearn.utils.check_X_y`.
    """
    return check_X_y(np.zeros((rows, 1)), y, estimator=estimator, **how)[1]


def _column(name: str, series: Any) -> Column:
    """A column, from a column of an array or a data frame."""
    dtype = series.dtype
    categorical = type(dtype).__name__.startswith("Categorical")
    if getattr(dtype, "kind", "O") in "biuf" and isinstance(dtype, np.dtype):
        return Column(name, np.asarray(series, dtype=np.float64), bool(dtype.kind == "b"))
    if getattr(dtype, "kind", "O") in "mMcV":
        raise InputError(
            f"column {name} holds {dtype}, expected numbers, truth values or text; convert it, for example "
            "to a number of days"
        )
    values = [None if _is_missing(value) else value for value in np.asarray(series, dtype=object)]
    present = [value for value in values if value is not None]
    truth = bool(present) and all(isinstance(value, bool | np.bool_) for value in present)
    if all(isinstance(value, int | float | bool | np.number | np.bool_) for value in present):
        numbers = np.array([np.nan if value is None else float(value) for value in values])
        return Column(name, numbers, categorical or truth)
    for value in present:
        if not isinstance(value, str | bytes | int | float | bool | np.number | np.bool_):
            raise InputError(
                f"column {name} holds {value!r}; the argument must be a string or a number in every cell"
            )
    text = np.empty(len(values), dtype=object)
    text[:] = [None if value is None else _text(value) for value in values]
    return Column(name, text, categorical=True)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _is_missing(value: Any) -> bool:
    """None, NaN of any kind, and pandas' NA and NaT, which need not compare as True or False."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"
