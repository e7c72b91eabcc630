"""Columns of a table for a density: numbers by a smooth transform to [0, 1] that has an inverse, and levels.

    numbers   u = F(x), F piecewise linear between quantiles and exponential beyond them
    levels    the categories seen, and one place more for all others

The density of a row is that of its transforms times the slopes F'(x) of its numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64
from numpy import ndarray

from tnml.errors import InputError
from tnml.estimators.automatic import usual_features
from tnml.estimators.columns import is_by_column
from tnml.estimators.encoders import Levels, levels_of
from tnml.estimators.tables import Column, Table
from tnml.features import FeatureMap, feature_map
from tnml.features.columns import ColumnMap, map_of_columns

_MOST_KNOTS = 65
_MOST_LEVELS = 16


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A column of numbers and its distribution function F, which takes all of them into (0, 1).

    Args:
        knots: ascending values.
        places: F there, from `tail` to 1 - `tail`; linear in between.
        scale: of the exponential tails beyond the knots.

    Example:
        >>> column = Numbers(knots=(0.0, 1.0), places=(0.1, 0.9), scale=1.0)
        >>> u, log_slope = column.encode(np.array([0.5, -1.0]))
        >>> u.round(3), log_slope.round(3), column.decode(u)
        (array([0.5  , 0.037]), array([-0.223, -3.303]), array([ 0.5, -1. ]))
    """

    knots: tuple[float, ...]
    places: tuple[float, ...]
    scale: float

    def encode(self, x: Float64[ndarray, " b"]) -> tuple[Float64[ndarray, " b"], Float64[ndarray, " b"]]:
        """F(x) and log F'(x); NaN stays NaN, with a slope of 1."""
        knots, places = np.array(self.knots), np.array(self.places)
        inside = np.interp(x, knots, places)
        slopes = np.diff(places) / np.diff(knots)
        cell = np.clip(
            np.searchsorted(knots, np.nan_to_num(x, nan=knots[0]), side="right") - 1, 0, len(slopes) - 1
        )
        log_slope = np.log(slopes[cell])
        tail = places[0]
        for beyond, far in ((x < knots[0], knots[0] - x), (x > knots[-1], x - knots[-1])):
            log_slope = np.where(beyond, math.log(tail / self.scale) - far / self.scale, log_slope)
        low, high = np.minimum(x - knots[0], 0) / self.scale, np.minimum(knots[-1] - x, 0) / self.scale
        u = np.where(
            x < knots[0], tail * np.exp(low), np.where(x > knots[-1], 1 - tail * np.exp(high), inside)
        )
        gaps = np.isnan(x)
        return np.where(gaps, np.nan, u), np.where(gaps, 0.0, log_slope)

    def decode(self, u: Float64[ndarray, " b"]) -> Float64[ndarray, " b"]:
        """The values of which F is u."""
        knots, places = np.array(self.knots), np.array(self.places)
        tail, tiny = places[0], 1e-300
        inside = np.interp(u, places, knots)
        below = knots[0] + self.scale * np.log(np.maximum(u, tiny) / tail)
        above = knots[-1] - self.scale * np.log(np.maximum(1 - u, tiny) / tail)
        found: npt.NDArray[np.float64] = np.where(u < tail, below, np.where(u > places[-1], above, inside))
        return np.where(np.isnan(u), np.nan, found)


@dataclass(frozen=True, eq=False)
class DensityColumns:
    """The columns of a table, as a fit found them.

    Attributes:
        encoders: one for each column.
        features: their feature map.
        is_text: whether samples hold text.
    """

    encoders: tuple[Numbers | Levels, ...]
    features: ColumnMap

    @property
    def is_text(self) -> bool:
        """Whether some column holds text."""
        return any(
            isinstance(e, Levels) and isinstance(e.values[0], str) for e in self.encoders if _has_levels(e)
        )

    def encode(self, table: Table) -> tuple[Float64[ndarray, "b n"], Float64[ndarray, " b"]]:
        """Values in [0, 1], NaN where there is none, and the logarithm of the product of all slopes."""
        codes, slopes = [], np.zeros(len(table))
        for encoder, column in zip(self.encoders, table.columns, strict=True):
            if isinstance(encoder, Numbers):
                _refuse_text(column)
                found, log_slope = encoder.encode(column.values.astype(np.float64))
                slopes += log_slope
            else:
                found = encoder.encode(column)
            codes.append(found)
        return np.stack(codes, 1), slopes

    def decode(self, codes: Float64[ndarray, "b n"]) -> npt.NDArray[Any]:
        """Rows of a table: numbers, or objects where a column holds text; an unseen category is missing."""
        columns = []
        for encoder, column in zip(self.encoders, codes.T, strict=True):
            if isinstance(encoder, Numbers):
                columns.append(encoder.decode(column))
            else:
                columns.append(_decoded(encoder, column))
        if not self.is_text:
            return np.stack([column.astype(np.float64) for column in columns], 1)
        return np.stack([column.astype(object) for column in columns], 1)

    def to_json(self) -> list[dict[str, Any]]:
        """The encoders, for a file."""
        return [asdict(encoder) for encoder in self.encoders]


def density_columns_of(kept: Sequence[Mapping[str, Any]], features: FeatureMap) -> DensityColumns:
    """The columns that `DensityColumns.to_json` wrote.

    Raises:
        InputError: they do not match the features.
    """
    encoders: list[Numbers | Levels] = []
    for column in kept:
        if "knots" in column:
            knots, places = tuple(column["knots"]), tuple(column["places"])
            encoders.append(Numbers(knots=knots, places=places, scale=float(column["scale"])))
        else:
            encoders.append(Levels(values=tuple(column["values"]), rest=bool(column["rest"])))
    if not isinstance(features, ColumnMap) or features.n_columns != len(encoders):
        raise InputError(f"{len(encoders)} columns and features of {features.n_columns}")
    return DensityColumns(tuple(encoders), features)


def _has_levels(encoder: Numbers | Levels) -> bool:
    return isinstance(encoder, Levels) and bool(encoder.values)


def _refuse_text(column: Column) -> None:
    if column.is_text and not column.missing.all():
        raise InputError(
            f"column {column.name} held numbers in training and holds text now; convert it to numbers"
        )


def _decoded(encoder: Levels, codes: Float64[ndarray, " b"]) -> npt.NDArray[Any]:
    """The categories of codes from 0 to 1."""
    text = bool(encoder.values) and isinstance(encoder.values[0], str)
    gap = None if text else np.nan
    known = np.array([*encoder.values, gap], dtype=object if text else np.float64)
    places = np.where(
        np.isnan(codes), len(encoder.values), np.rint(np.nan_to_num(codes) * (encoder.count - 1))
    )
    return known[np.minimum(places, len(encoder.values)).astype(np.int64)]


def fit_density_columns(table: Table, features: Any) -> DensityColumns:
    """The columns of a training table.

    Args:
        table: the samples.
        features: "auto", a map for all columns of numbers, or a mapping of names or numbers of columns, as of
            `tnml.MPSClassifier`.
    """
    encoders: list[Numbers | Levels] = []
    maps: list[FeatureMap] = []
    rows, width = table.shape
    for place, column in enumerate(table.columns):
        told = _told(features, column, place)
        if told == "auto":
            told = usual_features(column, rows, width)
        if told == "one-hot" or column.is_text:
            levels = levels_of(column, _MOST_LEVELS, None)
            encoders.append(Levels(values=levels.values, rest=True))
            maps.append(feature_map("one-hot", dim=encoders[-1].count))  # type: ignore[union-attr]
        else:
            encoders.append(_numbers(column))
            maps.append(feature_map(told))
    return DensityColumns(tuple(encoders), map_of_columns(maps))


def _told(features: Any, column: Column, place: int) -> Any:
    if isinstance(features, Mapping) and is_by_column(features):
        return features.get(column.name, features.get(place, "auto"))
    return features


def _numbers(column: Column) -> Numbers:
    """F with about n^0.4 pieces of equal mass, and tails as wide as the spread of the values."""
    x = np.sort(column.values[~column.missing].astype(np.float64))
    spread = float(x.std()) if len(x) else 0.0
    size = max(1.0, float(np.abs(x).max())) if len(x) else 1.0
    scale = spread if spread > 1e-9 * size else 1e-3 * size
    if len(x) == 0 or x[-1] - x[0] <= 1e-9 * size:
        middle = float(x[0]) if len(x) else 0.0
        return Numbers(knots=(middle - scale / 2, middle + scale / 2), places=(0.1, 0.9), scale=scale)
    count = int(np.clip(round(len(x) ** 0.4) + 1, 2, _MOST_KNOTS))
    wanted = np.linspace(0, 1, count)
    values = np.quantile(x, wanted)
    keep = np.concatenate([[True], np.diff(values) > 1e-6 * spread])
    values, wanted = values[keep], wanted[keep]
    values[-1], wanted[-1] = x[-1], 1.0
    tail = 0.5 / (len(x) + 1)
    places = tail + (1 - 2 * tail) * wanted
    return Numbers(knots=tuple(values.tolist()), places=tuple(places.tolist()), scale=scale)
