"""A separate feature map for every column of a table, and what a site sees if a value is missing.

    x [.., n]  ->  phi [.., n, d],     phi_c = (f_c(x_c), 0, .., 0),     d the largest dimension

A missing value is NaN, and the site then sees the mean of the column's features over the training data. The
outputs of a network are linear in the features of each site, so this is the mean of the outputs over the
column's values as they were distributed there: exact marginalisation, without training again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from tnml.errors import InputError
from tnml.features.maps import FeatureMap
from tnml.features.named import BUILDERS

Groups = tuple[tuple[FeatureMap, tuple[int, ...]], ...]
Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False)
class ColumnMap(FeatureMap):
    """The `FeatureMap` of `map_of_columns`: column c of `x [.., n]` goes through the map c.

    Attributes:
        columns: a map for each column.

    Example:
        >>> from tnml.features import feature_map
        >>> mixed = map_of_columns([feature_map("linear"), feature_map("one-hot", dim=3)])
        >>> mixed(torch.tensor([[0.25, 0.5]])).tolist()
        [[[0.75, 0.25, 0.0], [0.0, 1.0, 0.0]]]
    """

    columns: tuple[FeatureMap, ...] = ()

    @property
    def n_columns(self) -> int | None:
        """The number of columns, which is the number of sites."""
        return len(self.columns)

    def reordered(self, order: Sequence[int]) -> "ColumnMap":
        """The map of the same columns in another order."""
        missing = self.options.get("missing")
        rows = None if missing is None else [missing[place] for place in order]
        return map_of_columns([self.columns[place] for place in order], rows)

    def path(self, n_sites: int) -> Float[Tensor, "n d"] | None:
        """Identity weights of every column, zero where it has no component; None where a column has none."""
        del n_sites
        if any(column.identity is None for column in self.columns):
            return None
        return torch.tensor([padded(column.identity or (), self.dim) for column in self.columns])

    def square_norms(self, n_sites: int) -> Float[Tensor, " n"]:
        """The mean of |phi|² over values between 0 and 1, column by column."""
        del n_sites
        known = {id(column): float(column.square_norms(1)) for column in self.columns}
        return torch.tensor([known[id(column)] for column in self.columns])


def map_of_columns(
    columns: Sequence[FeatureMap], missing: Sequence[Sequence[float]] | None = None
) -> ColumnMap:
    """The map of a table whose column c goes through `columns[c]`.

    Shorter vectors are padded with zeros to the largest dimension; the cores are read as far as that.

    Args:
        columns: one map for each column.
        missing: for each column the features of a missing value, its mean over the training data; None
            leaves a missing value NaN.

    Raises:
        InputError: there is no column, a map is itself a map of columns, or `missing` does not fit.

    Cost: one pass for each of the maps that differ, not for each column.

    Example:
        >>> from tnml.features import feature_map
        >>> linear = feature_map("linear")
        >>> known = map_of_columns([linear, linear], [[0.5, 0.5], [0.2, 0.8]])
        >>> known(torch.tensor([[0.25, float("nan")]]))
        tensor([[[0.7500, 0.2500],
                 [0.2000, 0.8000]]])
    """
    if not columns:
        raise InputError("a map of columns needs at least one column, got none")
    if any(column.n_columns is not None for column in columns):
        raise InputError("a column of a map of columns cannot be one itself; give its name or a function")
    dim = max(column.dim for column in columns)
    rows = None if missing is None else _checked_missing(missing, columns, dim)
    shared, groups = _grouped(columns)
    names = {column.name for column in columns}
    options: dict[str, Any] = {"columns": [column.spec for column in columns]}
    if rows is not None:
        options["missing"] = [list(row[: c.dim]) for row, c in zip(rows, columns, strict=True)]
    common = {column.identity for column in columns}
    kinds = {column.normalisation for column in columns}
    return ColumnMap(
        name="columns" if names <= {*BUILDERS, "orthonormal"} else "callable",
        dim=dim,
        function=partial(_values, groups=groups, dim=dim, missing=rows, slope=False),
        derivative=partial(_values, groups=groups, dim=dim, missing=rows, slope=True),
        normalisation=kinds.pop() if len(kinds) == 1 else "none",
        identity=common.pop() if len(common) == 1 and len({c.dim for c in columns}) == 1 else None,
        options=options,
        columns=shared,
    )


def padded(values: Sequence[float], dim: int) -> tuple[float, ...]:
    """The numbers, and zeros after them.

    Example:
        >>> padded([1.0], 3)
        (1.0, 0.0, 0.0)
    """
    return (*map(float, values), *[0.0] * (dim - len(values)))


def _checked_missing(missing: Any, columns: Sequence[FeatureMap], dim: int) -> Rows:
    """A row of `dim` numbers for each column."""
    try:
        rows = [[float(value) for value in row] for row in missing]
    except (TypeError, ValueError) as error:
        raise InputError(f"missing must be a list of numbers for each column ({error})") from error
    if [len(row) for row in rows] != [column.dim for column in columns]:
        raise InputError(
            f"missing must have as many numbers as each column has components, "
            f"{[column.dim for column in columns]}, got {[len(row) for row in rows]}"
        )
    return tuple(padded(row, dim) for row in rows)


def _grouped(columns: Sequence[FeatureMap]) -> tuple[tuple[FeatureMap, ...], Groups]:
    """Equal maps as one object, and with each of them the columns it is for."""
    first: dict[str, FeatureMap] = {}
    places: dict[int, list[int]] = {}
    shared = []
    for place, column in enumerate(columns):
        key = str(id(column)) if column.name not in BUILDERS else repr(sorted(column.spec.items()))
        shared.append(first.setdefault(key, column))
        places.setdefault(id(shared[-1]), []).append(place)
    groups = tuple((column, tuple(places[id(column)])) for column in first.values())
    return tuple(shared), groups


def _values(
    x: Float[Tensor, "*rows n"], groups: Groups, dim: int, missing: Rows | None, slope: bool
) -> Inexact[Tensor, "*rows n d"]:
    """The features of all columns, or their derivatives."""
    n = sum(len(places) for _, places in groups)
    if x.shape[-1:] != (n,):
        raise InputError(f"expected inputs of {n} columns in the last axis, got {list(x.shape)}")
    gaps = None
    if missing is not None:
        gaps = torch.isnan(x)
        x = torch.where(gaps, 0.5, x)  # any value: no gradient goes through it
    parts = []
    for column, places in groups:
        one = x if len(groups) == 1 else x[..., list(places)]
        found = column.derivative(one) if slope else column.function(one)
        parts.append(torch.nn.functional.pad(found, (0, dim - column.dim)))
    features = parts[0] if len(parts) == 1 else _in_place(parts, groups)
    if gaps is None or missing is None:
        return features
    known = features.new_tensor(missing)
    return torch.where(gaps.unsqueeze(-1), torch.zeros_like(known) if slope else known, features)


def _in_place(parts: Sequence[Tensor], groups: Groups) -> Tensor:
    """The columns of all groups in the order of the table."""
    together = torch.cat([part.to(torch.promote_types(part.dtype, parts[0].dtype)) for part in parts], -2)
    order = [place for _, places in groups for place in places]
    back = sorted(range(len(order)), key=order.__getitem__)
    return together[..., back, :]


def columns_of_spec(spec: Mapping[str, Any], build: Any) -> ColumnMap:
    """The map that `ColumnMap.spec` describes.

    Args:
        spec: "columns", a list of descriptions, and perhaps "missing" and "dim", which is only checked.
        build: `tnml.features.feature_map`.

    Raises:
        InputError: it is not such a description.

    Example:
        >>> from tnml.features import feature_map
        >>> columns_of_spec({"columns": ["linear", {"name": "legendre", "dim": 3}]}, feature_map).dim
        3
    """
    columns = spec.get("columns")
    if isinstance(columns, str) or not isinstance(columns, Sequence):
        raise InputError(f"features 'columns' need a list of maps as `columns`, got {columns!r}")
    made = map_of_columns([build(column) for column in columns], spec.get("missing"))
    if spec.get("dim", made.dim) != made.dim:
        raise InputError(f"dim={spec['dim']} was asked for, but the columns have {made.dim}; leave dim out")
    return made
