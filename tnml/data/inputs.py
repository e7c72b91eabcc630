"""Distributions of synthetic inputs: how to draw them, and the exact moments of features under them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from tnml.checks import keep_number, keep_whole
from tnml.data import random_table
from tnml.errors import choose
from tnml.features import FeatureMap
from tnml.quadrature import gauss_legendre

SPREAD = 12**-0.5  # standard deviation of the uniform distribution on [0, 1]; normal inputs have it as well

_NODES = 24  # of a Gauss rule on each piece
_REACH = 12  # standard deviations of the normal distribution that the pieces cover
_PIECES = 64  # of that range


class Emissions(NamedTuple):
    """Inputs as a chain of hidden states and the moments of the features in each of them.

    Independent inputs have one state. A Markov chain has one for every level.

    Attributes:
        start: `[k]` probabilities of the first state.
        step: `[k, k]` probabilities to go from one to another.
        first: `[k, d]` means of the features.
        second: `[k, d, d]` means of their products.
    """

    start: Tensor
    step: Tensor
    first: Tensor
    second: Tensor


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A distribution of inputs `[n, n_sites]`, meant for features on [0, 1].

    Args:
        name: "uniform" (independent, on [0, 1]), "normal" (independent, with mean and variance of the
            uniform ones, so some lie outside [0, 1]), "one-hot" (independent, each of `levels` equally
            spaced levels from 0 to 1 equally likely) or "markov" (a chain along the sites over these levels).
        levels: for "one-hot" and "markov".
        correlation: of neighbouring sites for "markov": with this probability a site repeats the one before,
            else a fresh one is drawn.

    Raises:
        InputError: unknown name, or a value out of range.

    Example:
        >>> Inputs(name="one-hot", levels=3).draw(4, 5, seed=0).unique().tolist()
        [0.0, 0.5, 1.0]
    """

    name: str = "uniform"
    levels: int = 2
    correlation: float = 0.5

    def __post_init__(self) -> None:
        choose("inputs", self.name, _DRAWS)
        keep_whole(self, "levels", least=2)
        keep_number(self, "correlation", least=0.0, below=1.0)

    def draw(self, n: int, n_sites: int, *, seed: int, first: int = 0) -> Float64[Tensor, "n s"]:
        """Samples `first` to `first + n - 1`; each depends on the seed and its index only.

        Raises:
            InputError: a count or the seed is negative.

        Example:
            >>> whole = Inputs().draw(9, 3, seed=1)
            >>> torch.equal(Inputs().draw(4, 3, seed=1, first=5), whole[5:])
            True
        """
        return torch.from_numpy(np.ascontiguousarray(_DRAWS[self.name](self, n, n_sites, seed, first)))

    def emissions(self, features: FeatureMap) -> Emissions:
        """The moments of `features` under this distribution, exact to rounding.

        On levels they are sums. On an interval they are integrals by a Gauss rule on each of many pieces, the
        features being smooth within a piece.

        Example:
            >>> from tnml.features import feature_map
            >>> Inputs().emissions(feature_map("legendre")).second.round(decimals=9).abs()
            tensor([[[1., 0.],
                     [0., 1.]]], dtype=torch.float64)
        """
        if self.name in ("one-hot", "markov"):
            values = features(torch.linspace(0, 1, self.levels, dtype=torch.float64))
            products = torch.einsum("kd,ke->kde", values, values)
            share = torch.full((self.levels,), 1 / self.levels, dtype=torch.float64)
            if self.name == "markov":
                stay = torch.eye(self.levels, dtype=torch.float64) * self.correlation
                return Emissions(share, stay + (1 - self.correlation) * share, values, products)
            weights = share
        else:
            nodes, weights = _quadrature(self.name, features)
            values = features(nodes)
            products = torch.einsum("qd,qe->qde", values, values)
        one = torch.ones(1, dtype=torch.float64)
        means = torch.tensordot(weights, values, 1)[None]
        return Emissions(one, one[None], means, torch.tensordot(weights, products, 1)[None])


def _quadrature(name: str, features: FeatureMap) -> tuple[Tensor, Tensor]:
    """Nodes and weights, the weights adding up to 1."""
    low, high = (0.0, 1.0) if name == "uniform" else (0.5 - _REACH * SPREAD, 0.5 + _REACH * SPREAD)
    edges = {low, high}
    if features.name == "one-hot":  # it jumps half way between its levels
        edges.update((k + 0.5) / (features.dim - 1) for k in range(features.dim - 1))
    pieces = 4 * features.dim if name == "uniform" else _PIECES
    edges.update(np.linspace(low, high, pieces + 1).tolist())
    ends = np.array(sorted(edges))
    t, w = gauss_legendre(_NODES)
    half = np.diff(ends) / 2
    nodes = ((ends[:-1] + half)[:, None] + half[:, None] * t).ravel()
    weights = (half[:, None] * w).ravel()
    if name == "normal":
        weights = weights * np.exp(-0.5 * ((nodes - 0.5) / SPREAD) ** 2)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def _uniform(inputs: Inputs, n: int, n_sites: int, seed: int, first: int) -> random_table.Numbers:
    return random_table.uniform(n, n_sites, seed=seed, stream=random_table.INPUTS, first=first)


def _normal(inputs: Inputs, n: int, n_sites: int, seed: int, first: int) -> random_table.Numbers:
    return 0.5 + SPREAD * random_table.normal(n, n_sites, seed=seed, stream=random_table.INPUTS, first=first)


def _one_hot(inputs: Inputs, n: int, n_sites: int, seed: int, first: int) -> random_table.Numbers:
    drawn = random_table.uniform(n, n_sites, seed=seed, stream=random_table.INPUTS, first=first)
    return np.linspace(0, 1, inputs.levels)[np.floor(drawn * inputs.levels).astype(np.int64)]


def _markov(inputs: Inputs, n: int, n_sites: int, seed: int, first: int) -> random_table.Numbers:
    drawn = random_table.uniform(n, 2 * n_sites, seed=seed, stream=random_table.INPUTS, first=first)
    fresh = np.floor(drawn[:, n_sites:] * inputs.levels).astype(np.int64)
    chosen = fresh.copy()
    for site in range(1, n_sites):
        repeats = drawn[:, site] < inputs.correlation
        chosen[:, site] = np.where(repeats, chosen[:, site - 1], fresh[:, site])
    return np.linspace(0, 1, inputs.levels)[chosen]


_DRAWS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"uniform": _uniform, "normal": _normal, "one-hot": _one_hot, "markov": _markov}
)
INPUT_NAMES = tuple(_DRAWS)
"""The distributions known by name."""
