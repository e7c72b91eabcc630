"""Features of columns for which none are named, chosen by what each column holds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from tnml.checks import keep_whole, one_of
from tnml.errors import InputError, choose
from tnml.estimators.encoders import Levels, Scaled, levels_of, quantiles_of
from tnml.estimators.tables import Column
from tnml.features import FeatureMap, feature_map

LEVELS = 16  # the most categories that have a feature of their own; the rarest ones share one
_PER_LEVEL = 10  # samples, at least, for each distinct number of a column that counts as categories


@dataclass(frozen=True, kw_only=True)
class Automatic:
    """What becomes of a column without features of its own: `features={"name": "auto", ...}`.

    Categories are always one-hot.

    Args:
        map: for numbers, "legendre" functions of quantiles, or "hat" functions (B-splines of degree 1).
        dim: how many; None follows the numbers of samples and columns.
        levels: a column with at most this many distinct numbers gets one function for each: a category, or
            a hat with its knot there. None takes 16, but at most one for every ten samples.
        scale: knots of hats are at equal steps of the "quantile", or equally spaced over the "range".

    Raises:
        InputError: an option is out of range.

    Example:
        >>> column = Column("age", np.arange(40.0), categorical=False)
        >>> encoder, fmap = Automatic(map="hat", dim=3, scale="range").fitted(column, 1, None)
        >>> encoder.knots, fmap.spec
        ((0.0, 39.0), {'name': 'hat', 'dim': 3})
    """

    map: str = "legendre"
    dim: int | None = None
    levels: int | None = None
    scale: str = "quantile"

    def __post_init__(self) -> None:
        one_of("map of features 'auto'", self.map, ("legendre", "hat"))
        one_of("scale of features 'auto'", self.scale, ("quantile", "range"))
        if self.dim is not None:
            keep_whole(self, "dim", least=2)
        if self.levels is not None:
            keep_whole(self, "levels", least=0)
        if self.scale == "range" and self.map != "hat":
            raise InputError("scale='range' is for map='hat' only; Legendre functions are of quantiles")

    def fitted(
        self, column: Column, columns: int, weight: Float64[ndarray, " b"] | None
    ) -> tuple[Scaled | Levels, FeatureMap]:
        """How a column is encoded, and its feature map.

        Args:
            column: its values in the training samples.
            columns: of the table.
            weight: of the samples; None if all count alike.
        """
        rows, distinct = len(column.values), np.unique(column.values[~column.missing])
        few = len(distinct) <= (_most_levels(rows) if self.levels is None else self.levels)
        if column.categorical or (few and self.map == "legendre"):
            levels = levels_of(column, LEVELS, weight)
            return levels, feature_map("one-hot", dim=levels.count)
        dim = self.dim or _usual_dim(rows, columns)
        scaled = quantiles_of(column, weight)
        if self.map == "legendre":
            return scaled, feature_map("legendre", dim=dim)
        if not few and self.scale == "range":
            ends = Scaled(knots=(scaled.knots[0], scaled.knots[-1]), places=(0.0, 1.0))
            return ends if len(scaled.knots) > 1 else scaled, feature_map("hat", dim=dim)
        knots = distinct if few else np.interp(np.linspace(0, 1, dim), scaled.places, scaled.knots)
        knots = np.unique(knots)
        if len(knots) > 1:
            scaled = Scaled(knots=tuple(knots.tolist()), places=tuple(np.linspace(0, 1, len(knots)).tolist()))
        return scaled, feature_map("hat", dim=max(2, len(knots)))


def usual_features(column: Column, rows: int, columns: int) -> Any:
    """What "auto" without options stands for.

    Example:
        >>> usual_features(Column("age", np.arange(40.0), categorical=False), 40, 1)
        {'name': 'legendre', 'dim': 2}
    """
    distinct = len(np.unique(column.values[~column.missing]))
    if column.categorical or distinct <= _most_levels(rows):
        return "one-hot"
    return {"name": "legendre", "dim": _usual_dim(rows, columns)}


def _most_levels(rows: int) -> int:
    """Distinct numbers, at most, of a column that counts as categories."""
    return min(LEVELS, max(2, rows // _PER_LEVEL))


def _usual_dim(rows: int, columns: int) -> int:
    """How many functions of a number there are."""
    highest = 8 if columns < 30 else 4 if columns < 200 else 2
    return int(np.clip(round(2 * math.log10(rows)) - 1, 2, highest))


def automatic(features: Any) -> Automatic | None:
    """The choice that "auto" or {"name": "auto", ...} stands for; None for everything else.

    Raises:
        InputError: an option is unknown or out of range.

    Example:
        >>> automatic({"name": "auto", "levels": 16}).levels, automatic("linear")
        (16, None)
    """
    if isinstance(features, str):
        return Automatic() if features == "auto" else None
    if not (isinstance(features, Mapping) and features.get("name") == "auto"):
        return None
    options = {name: value for name, value in features.items() if name != "name"}
    for option in options:
        choose("option of features 'auto'", option, Automatic.__dataclass_fields__)
    return Automatic(**options)
