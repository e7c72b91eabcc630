"""How the values of one column of a table become numbers between 0 and 1: categories and scaled numbers."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64
from numpy import ndarray

from tnml.data.scaling import distance_beyond
from tnml.errors import InputError
from tnml.estimators.tables import Column

KNOTS = 65  # the number of quantiles that a column of numbers is scaled by


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A column of numbers, mapped to [0, 1] by a piecewise linear function.

    Args:
        knots: ascending values.
        places: what they are mapped to; linear in between, constant beyond the ends.
    """

    knots: tuple[float, ...]
    places: tuple[float, ...]

    @property
    def is_text(self) -> bool:
        """Whether the column held text in training."""
        return False

    def encode(self, column: Column) -> Float64[ndarray, " b"]:
        """Its values in [0, 1]; NaN stays NaN."""
        if column.is_text:
            raise InputError(
                f"column {column.name} held numbers in training and holds text now; convert it to numbers"
            )
        found: npt.NDArray[np.float64] = np.interp(column.values, self.knots, self.places)
        return np.where(column.missing, np.nan, found)

    def beyond(self, column: Column) -> Float64[ndarray, " b"]:
        """How far values are outside of the range of training, in units of it; 0 if missing."""
        self.encode(column)  # refuses text
        return np.where(column.missing, 0.0, distance_beyond(column.values, self.knots[0], self.knots[-1]))


@dataclass(frozen=True, kw_only=True)
class Levels:
    """A column of categories, mapped to equally spaced numbers from 0 to 1.

    Args:
        values: the categories, numbers or text.
        rest: whether all other values share one more place at the end; if not, they count as missing.

    Numbers that are equal in single precision count as equal, unless both are categories.
    """

    values: tuple[Any, ...]
    rest: bool

    @property
    def is_text(self) -> bool:
        """Whether the column held text in training."""
        return bool(self.values) and isinstance(self.values[0], str)

    @property
    def count(self) -> int:
        """The number of places, at least 2."""
        return max(2, len(self.values) + self.rest)

    def encode(self, column: Column) -> Float64[ndarray, " b"]:
        """The place of each value divided by the last place; NaN if it is missing or unknown."""
        is_text = self.is_text
        if is_text != column.is_text and not column.missing.all():
            told = ("text", "numbers") if is_text else ("numbers", "text")
            raise InputError(
                f"column {column.name} held {told[0]} in training and holds {told[1]} now; convert it"
            )
        places = {value: place for place, value in enumerate(self.values)}
        other = float(len(self.values)) if self.rest else math.nan
        distinct, inverse = np.unique(column.values[~column.missing], return_inverse=True)
        codes = np.full(len(column.values), math.nan)
        rounded = {} if is_text else dict(zip(_single(list(places)), places.values(), strict=True))
        kept = distinct.tolist() if is_text or column.is_text else _single(distinct)
        found = [
            places.get(value, rounded.get(single, other))
            for value, single in zip(distinct.tolist(), kept, strict=True)
        ]
        known = np.array(found, dtype=np.float64)
        codes[~column.missing] = known[inverse]
        return codes / (self.count - 1)

    def beyond(self, column: Column) -> Float64[ndarray, " b"]:
        """1 for unknown categories that count as missing, else 0."""
        unknown: npt.NDArray[np.bool_] = np.isnan(self.encode(column)) & ~column.missing
        return unknown.astype(np.float64)


def _single(values: Any) -> list[float]:
    """Numbers, rounded to single precision; what is beyond its range stays as it is."""
    given = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore", under="ignore"):
        rounded = given.astype(np.float32).astype(np.float64)
    found: list[float] = np.where(np.isinf(rounded) | (rounded == 0), given, rounded).tolist()
    return found


def levels_of(column: Column, most: int, weight: Float64[ndarray, " b"] | None) -> Levels:
    """The categories of a column, the rarest ones together if there are more than `most`.

    Example:
        >>> levels_of(Column("a", np.array([3.0, 5.0, 5.0, 7.0, 7.0]), True), 2, None).values
        (5.0,)
    """
    there = ~column.missing
    values, inverse = np.unique(column.values[there], return_inverse=True)
    if len(values) <= most:
        return Levels(values=tuple(values.tolist()), rest=False)
    totals = np.bincount(inverse, weights=None if weight is None else weight[there])
    kept = np.sort(np.argsort(-totals, kind="stable")[: most - 1])
    return Levels(values=tuple(values[kept].tolist()), rest=True)


def quantiles_of(column: Column, weight: Float64[ndarray, " b"] | None) -> Scaled:
    """The quantiles of a column: the middle of each value's share of the samples, from 0 to 1.

    Example:
        >>> quantiles_of(Column("a", np.array([3.0, 5.0, 9.0]), False), None).places
        (0.0, 0.5, 1.0)
    """
    there = ~column.missing
    values, inverse = np.unique(column.values[there], return_inverse=True)
    if len(values) < 2:
        return Scaled(knots=tuple(values.tolist()) or (0.0,), places=(0.5,))
    totals = np.bincount(inverse, weights=None if weight is None else weight[there])
    middle = np.cumsum(totals) - totals / 2
    places = (middle - middle[0]) / (middle[-1] - middle[0])
    if len(values) > KNOTS:
        wanted = np.linspace(0, 1, KNOTS)
        values, places = np.interp(wanted, places, values), wanted
        distinct = np.concatenate([[True], np.diff(values) > 0])
        values, places = values[distinct], places[distinct]
    return Scaled(knots=tuple(values.tolist()), places=tuple(places.tolist()))
