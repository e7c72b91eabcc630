"""Features that suit the columns of a table: what each column is, and how its values reach the network.

    table  --encode-->  x [b, n] in [0, 1], NaN where a value is missing  --map of columns-->  phi [b, n, d]

A category becomes its index among the categories seen in training; a number becomes its quantile among the
training values. The features of "auto" columns are chosen here, column by column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, Float64, Inexact, Int64
from numpy import ndarray

from tnml.checks import whole
from tnml.errors import InputError, choose
from tnml.estimators.automatic import LEVELS, Automatic, automatic
from tnml.estimators.encoders import Levels, Scaled, levels_of, quantiles_of
from tnml.estimators.tables import Column, Table
from tnml.features import FeatureMap, feature_map
from tnml.features.columns import ColumnMap, map_of_columns
from tnml.features.orders import mutual_information_order

_MOST_ROWS = 5000  # about how many samples are used to measure how columns depend on each other
_MOST_CODES = 2000  # quantiles of all columns together, for the same


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a table, as a fit found them.

    Attributes:
        encoders: one for each column, in the order of the table.
        features: their feature map.
    """

    encoders: tuple[Scaled | Levels, ...]
    features: ColumnMap

    def encode(self, table: Table) -> Float32[ndarray, "b n"]:
        """Values in [0, 1], NaN if missing."""
        pairs = zip(self.encoders, table.columns, strict=True)
        columns = [encoder.encode(column).astype(np.float32) for encoder, column in pairs]
        return np.stack(columns, axis=1)

    def vectors(self, table: Table, dtype: torch.dtype) -> Inexact[ndarray, "b n d"]:
        """The features."""
        found: npt.NDArray[Any] = self.features(torch.from_numpy(self.encode(table)).to(dtype)).numpy()
        return found

    def to_json(self) -> list[dict[str, Any]]:
        """The encoders, for a file; the layer keeps the features."""
        return [asdict(encoder) for encoder in self.encoders]


def from_json(kept: Sequence[Mapping[str, Any]], features: FeatureMap) -> Columns:
    """The columns that `Columns.to_json` wrote.

    Raises:
        InputError: they do not match the features.
    """
    encoders: list[Scaled | Levels] = []
    for column in kept:
        if "knots" in column:
            encoders.append(Scaled(knots=tuple(column["knots"]), places=tuple(column["places"])))
        else:
            encoders.append(Levels(values=tuple(column["values"]), rest=bool(column["rest"])))
    if not isinstance(features, ColumnMap) or features.n_columns != len(encoders):
        raise InputError(f"{len(encoders)} columns and features of {features.n_columns}")
    return Columns(tuple(encoders), features)


def is_by_column(features: Any) -> bool:
    """Whether the parameter `features` asks for features of each column: "auto", or a mapping of columns.

    Example:
        >>> is_by_column("auto"), is_by_column({"age": "legendre"}), is_by_column({"name": "rbf", "dim": 4})
        (True, True, False)
    """
    return automatic(features) is not None or (isinstance(features, Mapping) and "name" not in features)


def fit_columns(table: Table, features: Any, weight: Float64[ndarray, " b"] | None = None) -> Columns:
    """The columns of a training table.

    Args:
        table: the samples with a weight above 0.
        features: "auto", or a mapping from names or numbers of columns to "auto", "one-hot", a name or a
            description of a feature map; columns that it does not name are "auto". Options of "auto", as in
            {"name": "auto", "levels": 16}, are those of `Automatic`.
        weight: of the samples; None if all count alike.

    Raises:
        InputError: a column does not exist, or its features do not suit it.
    """
    rest = automatic(features)
    told = {} if rest is not None else _told(features, table)
    encoders: list[Scaled | Levels] = []
    maps: list[FeatureMap] = []
    missing: list[list[float]] = []
    for place, column in enumerate(table.columns):
        encoder, fmap = _fitted(column, told.get(place, rest or "auto"), len(table.columns), weight)
        encoders.append(encoder)
        maps.append(fmap)
        missing.append(_mean_features(encoder.encode(column), fmap, weight))
    return Columns(tuple(encoders), map_of_columns(maps, missing))


def _told(features: Any, table: Table) -> dict[int, Any]:
    """The features that were asked for, by the number of the column."""
    names = {column.name: place for place, column in enumerate(table.columns)}
    told: dict[int, Any] = {}
    for key, value in features.items():
        if isinstance(key, str):
            place = choose("column in features", key, names)
        elif isinstance(key, int | np.integer) and -len(names) <= key < len(table.columns):
            place = int(key) % len(table.columns)
        else:
            raise InputError(
                f"features name column {key!r}, expected a name or a number below {len(table.columns)}"
            )
        if place in told:
            raise InputError(f"features name column {table.columns[place].name} twice; name it once")
        told[place] = value
    return told


def _fitted(
    column: Column, told: Any, columns: int, weight: Float64[ndarray, " b"] | None
) -> tuple[Scaled | Levels, FeatureMap]:
    """How a column is encoded, and its feature map."""
    choice = told if isinstance(told, Automatic) else automatic(told)
    if choice is not None:
        return choice.fitted(column, columns, weight)
    spec = {"name": told} if isinstance(told, str) else told
    if isinstance(spec, Mapping) and spec.get("name") == "one-hot":
        for option in spec:
            choose("option of 'one-hot' categories", option, dict.fromkeys(("name", "dim")))
        levels = levels_of(column, whole("dim of 'one-hot' categories", spec.get("dim", LEVELS), 2), weight)
        return levels, feature_map("one-hot", dim=levels.count)
    if column.is_text:
        raise InputError(f"column {column.name} holds text, which {told!r} cannot take; choose 'one-hot'")
    fmap = feature_map(spec)
    if isinstance(fmap, ColumnMap):
        raise InputError(f"column {column.name} was given features for many columns; give one map")
    return quantiles_of(column, weight), fmap


def _mean_features(x: Float64[ndarray, " b"], fmap: FeatureMap, weight: Any) -> list[float]:
    """The mean of a column's features over the samples that have a value; over [0, 1] if none has."""
    there = ~np.isnan(x)
    given = torch.from_numpy(x[there] if there.any() else np.linspace(0, 1, 257))
    vectors = fmap(given).numpy()
    shares = None if weight is None or not there.any() else weight[there]
    found: list[float] = np.average(vectors, axis=0, weights=shares).tolist()
    return found


def order_of_columns(
    x: Float64[ndarray, "b n"],
    targets: npt.NDArray[Any],
    weight: Float64[ndarray, " b"] | None,
    *,
    ranked: bool,
) -> list[int]:
    """The order by mutual information of columns of numbers, with their quantiles for codes.

    Args:
        x: the columns, NaN if a value is missing.
        targets: labels `[b]`, or real targets `[b, c]`.
        weight: of the samples; None if all count alike.
        ranked: whether the columns are already categories and quantiles in [0, 1].
    """
    step = max(1, len(x) // _MOST_ROWS) if weight is None else 1
    x, targets = x[::step], targets[::step]
    bins = int(np.clip(_MOST_CODES // x.shape[1], 2, 10))
    codes = np.stack([_codes(column, weight, bins, ranked=ranked) for column in x.T], axis=1)
    labels = targets
    if labels.dtype.kind == "f":
        labels = _codes(labels.reshape(len(labels), -1).mean(1), weight, bins, ranked=False)
    order: list[int] = mutual_information_order(codes, labels, weight).tolist()
    return order


def _codes(
    x: Float64[ndarray, " b"], weight: Float64[ndarray, " b"] | None, bins: int, *, ranked: bool
) -> Int64[ndarray, " b"]:
    """Whole numbers below `bins`, in the order of the values; `bins` if a value is missing."""
    if not ranked:
        x = quantiles_of(Column("", x, categorical=False), weight).encode(Column("", x, categorical=False))
    there = ~np.isnan(x)
    codes = np.full(len(x), bins, dtype=np.int64)
    codes[there] = np.minimum(np.floor(x[there] * bins + 1e-9), bins - 1)
    return codes
