"""What a column's values are, and the functions a density of it is made of: levels, or numbers in [0, 1]."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from tnml.features import FeatureMap
from tnml.features.columns import ColumnMap, map_of_columns, padded
from tnml.features.orthonormal import orthonormal, quadrature
from tnml.nn.mps.layer import MPSLayer

_CELLS = 512  # of [0, 1], where a number is drawn: the mass of each is exact, within it p is taken as linear


@dataclass(frozen=True, eq=False)
class Basis:
    """The values of a column and its orthonormal functions at them.

    Attributes:
        points: ascending values `[q]`: all levels of a discrete column, else nodes of a quadrature.
        weights: `[q]`, which make sums over the points integrals; 1 for levels.
        vectors: `[q, d]`, the functions at the points.
        discrete: whether there are no values but the points.
        features: the map of the column, `[..]` to `[.., k]` with k <= d; None: levels themselves.
        edges: `[m]` ascending ends of the cells that numbers are drawn from.
        edge_vectors: `[m, d]`, the functions there.
        masses: `[m - 1, d, d]`, integrals of the products of two functions over each cell.

    Example:
        >>> levels(3, 4).vectors
        tensor([[1., 0., 0., 0.],
                [0., 1., 0., 0.],
                [0., 0., 1., 0.]], dtype=torch.float64)
    """

    points: Tensor
    weights: Tensor
    vectors: Tensor
    discrete: bool
    features: FeatureMap | None = None
    edges: Tensor | None = None
    edge_vectors: Tensor | None = None
    masses: Tensor | None = None

    def at(self, x: Float[Tensor, " b"]) -> Inexact[Tensor, "b d"]:
        """The functions at any values; zero at NaN."""
        gaps = torch.isnan(x)
        known = torch.where(gaps, self.points[0], x)
        if self.discrete:
            place = (known.unsqueeze(1) - self.points).abs().argmin(1)
            found = self.vectors[place]
        else:
            found = _padded(self.features(known), self.vectors.shape[1])  # type: ignore[misc]
        return torch.where(gaps.unsqueeze(1), torch.zeros_like(found), found)

    def density(self, rho: Inexact[Tensor, "b d e"]) -> Float[Tensor, "b q"]:
        """The density at the points, of density matrices with index of the ket first."""
        return quadratic(rho, self.vectors)

    def draw(self, rho: Inexact[Tensor, "b d e"], uniform: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
        """One value of each density matrix, from two uniform random numbers.

        Levels are exact. Of a number the cell is: cells have their exact masses, and within one the density
        is taken as linear, which no sample of less than some 10^9 can tell.
        """
        if self.discrete:
            return self.points[_chosen(self.density(rho), uniform[:, 0])]
        mass = torch.einsum("bde,mde->bm", rho, self.masses.to(rho)).real  # type: ignore[union-attr]
        cell = _chosen(mass, uniform[:, 0])
        edges: Tensor = self.edges  # type: ignore[assignment]
        ends = quadratic(rho, self.edge_vectors).clamp_min(0)  # type: ignore[arg-type]
        rows = torch.arange(len(rho), device=rho.device)
        low, high = ends[rows, cell], ends[rows, cell + 1]
        u = uniform[:, 1]
        # u = (low t + (high - low) t²/2) / ((low + high) / 2), solved without cancellation
        root = (low.square() + u * (high.square() - low.square())).clamp_min(0).sqrt()
        t = torch.where(low + root > 0, u * (low + high) / (low + root).clamp_min(1e-300), u)
        return edges[cell] + t.clamp(0, 1) * (edges[cell + 1] - edges[cell])


def quadratic(rho: Inexact[Tensor, "b d e"], vectors: Inexact[Tensor, "q d"]) -> Float[Tensor, "b q"]:
    """sum_de v_d rho_de v_e* of every vector.

    Example:
        >>> quadratic(torch.eye(2)[None], torch.tensor([[3.0, 4.0]]))
        tensor([[25.]])
    """
    return (torch.einsum("qd,bde->bqe", vectors.to(rho), rho) * vectors.to(rho).conj()).sum(2).real


def _chosen(mass: Tensor, uniform: Tensor) -> Tensor:
    """An index of each row of `mass`, with probabilities in proportion to it; never one of mass zero."""
    mass = mass.clamp_min(0)
    total = mass.cumsum(1)
    found = torch.searchsorted(total, (uniform * total[:, -1]).unsqueeze(1), right=True).squeeze(1)
    last = (mass > 0).long().mul(torch.arange(1, mass.shape[1] + 1, device=mass.device)).amax(1) - 1
    return torch.minimum(found, last.clamp_min(0))


def levels(count: int, dim: int, step: float | None = None) -> Basis:
    """The basis of a discrete column with this many levels, padded to `dim` functions.

    Args:
        count: of the levels.
        dim: d.
        step: from one level to the next; None: the levels run from 0 to 1.

    Example:
        >>> levels(3, 3).points, levels(3, 3, step=1.0).points
        (tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64), tensor([0., 1., 2.], dtype=torch.float64))
    """
    step = 1 / max(1, count - 1) if step is None else step
    points = torch.arange(count, dtype=torch.float64) * step
    return Basis(points, torch.ones_like(points), torch.eye(count, dim, dtype=torch.float64), True)


def basis_of(features: FeatureMap, dim: int) -> Basis:
    """The basis of a column that has these features, padded to `dim` functions.

    Example:
        >>> from tnml.features import feature_map
        >>> basis = basis_of(feature_map("legendre", dim=2), 3)
        >>> rho = torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))[None]
        >>> float((basis.density(rho) * basis.weights).sum().round(decimals=10))
        1.0
    """
    if features.name == "one-hot":
        return levels(features.dim, dim)
    points, weights = quadrature(8, 8)
    edges = torch.linspace(0, 1, _CELLS + 1, dtype=torch.float64)
    fine, shares = quadrature(4, _CELLS)
    values = _padded(features(fine), dim).unflatten(0, (_CELLS, 4))
    masses = torch.einsum("mq,mqd,mqe->mde", shares.view(_CELLS, 4).to(values), values, values.conj())
    return Basis(
        points,
        weights,
        _padded(features(points), dim),
        False,
        features,
        edges,
        _padded(features(edges), dim),
        masses,
    )


def density_map(features: FeatureMap) -> FeatureMap:
    """The map that a density uses in place of `features`: "one-hot" as it is, all others orthonormal.

    Example:
        >>> from tnml.features import feature_map
        >>> density_map(feature_map("linear")).normalisation
        'orthonormal'
    """
    if isinstance(features, ColumnMap):
        return map_of_columns([density_map(column) for column in features.columns])
    return features if features.name == "one-hot" else orthonormal(features)


def maps_of(psi: MPSLayer) -> list[FeatureMap]:
    """The feature map of every site, in the order of the chain.

    Example:
        >>> [fmap.name for fmap in maps_of(MPSLayer(2, 1, features="one-hot"))]
        ['one-hot', 'one-hot']
    """
    if isinstance(psi.features, ColumnMap):
        return [psi.features.columns[column] for column in psi.order.tolist()]
    return [psi.features] * psi.n_sites


def live(psi: MPSLayer) -> Float[Tensor, "n d"]:
    """1 at the functions that a site has, 0 where its core is padded.

    Example:
        >>> live(MPSLayer(2, 1, features="one-hot"))
        tensor([[1., 1.],
                [1., 1.]], dtype=torch.float64)
    """
    dims = torch.tensor([fmap.dim for fmap in maps_of(psi)])
    return (torch.arange(psi.features.dim) < dims.unsqueeze(1)).double()


def identity_path(psi: MPSLayer) -> Float[Tensor, "n d"]:
    """The amplitudes of the uniform density, up to a factor, site by site; ones where a map has no constant.

    Example:
        >>> identity_path(MPSLayer(1, 1, features="legendre"))
        tensor([[1., 0.]], dtype=torch.float64)
    """
    rows = [fmap.identity or (1.0,) * fmap.dim for fmap in maps_of(psi)]
    return torch.tensor([padded(row, psi.features.dim) for row in rows], dtype=torch.float64)


def _padded(values: Tensor, dim: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, dim - values.shape[-1]))
