"""Alternating least squares for a tensor train on samples, with ranks that grow and shrink.

One site is solved at a time, in coordinates in which the samples look white from both sides, so that a ridge
and a singular value mean the same everywhere. The ridge is that of largest evidence. On the way right every
bond gets the directions in which the residual has most to say; on the way left it loses those that samples
of this number and noise cannot tell from nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.mps.algebra import add
from tnml.mps.linalg import robust_svd
from tnml.pde.backward_tt.additive import additive, ridged
from tnml.pde.backward_tt.equations import Dual, Rows, values_only
from tnml.randomness import seeded

_DAMPING = 1e-8  # of the mean second moment of a bond's vectors, for those that vanish
_LOOKS = 4  # random directions to the right for each direction of the residual


class Fit(NamedTuple):
    """A fitted tensor train.

    Args:
        cores: `(l, d, r)` for every site.
        residual: root mean square of what is left of the targets.
        noise: that of the last local problem by its evidence.

    Example:
        >>> Fit([], 0.5, 0.4).residual
        0.5
    """

    cores: list[Tensor]
    residual: float
    noise: float


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What can be chosen about a fit.

    Args:
        max_rank: largest rank.
        cutoff: share of the root mean square below which a direction is dropped.
        sweeps: to the right and back; in all but the last, bonds gain a direction.
        observations: how many independent equations there are; None: all.
        seed: of the directions in which the residual is looked at.

    Example:
        >>> FitOptions().max_rank
        8
    """

    max_rank: int = 8
    cutoff: float = 1e-3
    sweeps: int = 2
    observations: float | None = None
    seed: int = 0


def fit(
    cores: Sequence[Tensor],
    features: Float[Tensor, "n d b"],
    wanted: Float[Tensor, " e"],
    options: FitOptions,
    *,
    slopes: Float[Tensor, "n d b"] | None = None,
    rows: Rows = values_only,
    plain: tuple[Rows, Float[Tensor, " e"]] | None = None,
) -> Fit:
    """The tensor train with the least squared error, from given cores.

    Args:
        cores: to begin with.
        features: of every site, in double precision; those of the first may carry a factor of the whole, the
            first one of every other is 1.
        wanted: the right sides of the equations.
        options: see there.
        slopes: derivatives of the features along a direction of each point; None is zero.
        rows: the left sides.
        plain: other equations, left and right sides, to which the first core is fitted in the end.

    Cost: for each site and sweep b l d r + e (l d r)^2, and (l d r)^3.

    Source: Holtz, Rohwedder, Schneider, SIAM J. Sci. Comput. 34 (2012), for the solution of a site;
    Dolgov, Savostyanov, SIAM J. Sci. Comput. 36 (2014), for the directions of the residual.

    Example:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)
        >>> features = torch.stack([torch.stack([x**0, x]), torch.stack([x**0, x.cos()])])
        >>> found = fit([torch.zeros(1, 2, 1).double()] * 2, features, 1 + x * x.cos(), FitOptions())
        >>> found.residual < 1e-5
        True
    """
    slopes = torch.zeros_like(features) if slopes is None else slopes
    sites = [Dual(*pair) for pair in zip(features, slopes, strict=True)]
    task = _Task(cores, sites, wanted, rows, options)
    task.begin()
    for sweep in range(options.sweeps):
        task.to_the_right(grows=sweep < options.sweeps - 1 or options.sweeps == 1)
        task.to_the_left()
    if plain is not None:
        task.rows, task.wanted = plain
        task.solve(0)
    return Fit(task.cores, float(task.left_over.square().mean().sqrt()), task.noise)


class _Task:
    """The cores with a center, and the samples contracted up to every site from either side."""

    def __init__(
        self, cores: Sequence[Tensor], sites: list[Dual], wanted: Tensor, rows: Rows, options: FitOptions
    ) -> None:
        self.sites, self.wanted, self.rows, self.options = sites, wanted, rows, options
        self.generator = seeded(options.seed)
        self.cores = [core.double() for core in cores]
        b, n = sites[0].value.shape[1], len(sites)
        nothing = Dual(wanted.new_ones(1, b), wanted.new_zeros(1, b))
        self.left, self.right = [nothing] * (n + 1), [nothing] * (n + 1)
        self.left_over = wanted
        self.noise = 0.0

    def begin(self) -> None:
        """Adds the best sum of functions of one coordinate, and cuts what the samples do not show."""
        self._gauge()
        _, design = self._problem(0)
        left = self.wanted - design @ self.cores[0].flatten()
        zero = torch.zeros((), dtype=left.dtype)
        more = additive(self.sites, left, self.rows, self.options.observations)
        self.cores, scale = add(self.cores, zero, more, zero)
        self.cores[0] = self.cores[0] * scale.exp()
        self._gauge()
        for site in range(len(self.cores) - 1):
            self._pass_right(site, self.left[site].times(self.sites[site]))
        for site in range(len(self.cores) - 1, 0, -1):
            self._pass_left(site)

    def to_the_right(self, *, grows: bool) -> None:
        """Solves every site but the last, which is the first of the way back."""
        for site in range(len(self.cores) - 1):
            beside = self.solve(site)
            self._pass_right(site, beside, grows=grows)

    def to_the_left(self) -> None:
        """Solves every site from the last to the first, which is then the center."""
        for site in range(len(self.cores) - 1, 0, -1):
            self.solve(site)
            self._pass_left(site)
        self.solve(0)

    def _problem(self, site: int) -> tuple[Dual, Tensor]:
        """The vectors `[l d, b]` left of a site with its own, and the matrix of its linear problem."""
        beside = self.left[site].times(self.sites[site])
        return beside, self.rows(*beside.times(self.right[site + 1])).T

    def solve(self, site: int) -> Dual:
        """Improves the center: what the residual shows, with a ridge of its own, is added to it."""
        beside, design = self._problem(site)
        core = self.cores[site]
        left = self.wanted - design @ core.flatten()
        found = ridged(design, left, self.options.observations)
        self.noise, self.left_over = found.noise, left - design @ found.mean
        self.cores[site] = core + found.mean.view_as(core)
        return beside

    def _pass_right(self, site: int, beside: Dual, *, grows: bool = False) -> None:
        """Leaves a basis of the center's columns behind; the rest goes into the next core."""
        l, d, r = self.cores[site].shape
        matrix = self.cores[site].reshape(l * d, r)
        basis = self._cut(matrix)
        if grows and basis.shape[1] < min(self.options.max_rank, l * d):
            basis = torch.linalg.qr(torch.cat([basis, self._towards(site, beside)], 1))[0]
        white, on = _whitened(basis, basis.T @ beside.value, matrix)
        self.cores[site] = white.view(l, d, -1)
        self.cores[site + 1] = torch.einsum("kr,rds->kds", on, self.cores[site + 1])
        self.left[site + 1] = beside.through(white)

    def _pass_left(self, site: int, *, cut: bool = True) -> None:
        """Leaves a basis of the center's rows behind; the rest goes into the core before it."""
        l, d, r = self.cores[site].shape
        matrix = self.cores[site].reshape(l, d * r).T
        basis = self._cut(matrix) if cut else torch.linalg.qr(matrix)[0]
        beside = self.sites[site].times(self.right[site + 1])
        white, on = _whitened(basis, basis.T @ beside.value, matrix)
        self.cores[site] = white.T.reshape(-1, d, r)
        self.cores[site - 1] = torch.einsum("adl,kl->adk", self.cores[site - 1], on)
        self.right[site] = beside.through(white)

    def _gauge(self) -> None:
        """Makes the vectors of every site but the first white, and changes nothing else."""
        for site in range(len(self.cores) - 1, 0, -1):
            self._pass_left(site, cut=False)

    def _cut(self, matrix: Tensor) -> Tensor:
        """An orthonormal basis of the columns that matter; in white coordinates sizes are those of values."""
        u, s, _ = robust_svd(matrix)
        rank = int((s > self.options.cutoff * s.norm()).sum())
        return u[:, : min(self.options.max_rank, max(1, rank))]

    def _towards(self, site: int, beside: Dual) -> Tensor:
        """The direction left of a bond in which the residual varies most with what is right of it."""
        joint = self.sites[site + 1].times(self.right[site + 2])
        shape = len(joint.value), _LOOKS
        seen = joint.through(torch.randn(shape, generator=self.generator, dtype=self.wanted.dtype))
        columns = [
            self.rows(*beside.times(Dual(value[None], slope[None]))) @ self.left_over
            for value, slope in zip(*seen, strict=True)
        ]
        u, _, _ = robust_svd(torch.stack(columns, 1))
        return u[:, :1]


def _whitened(basis: Tensor, vectors: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A basis `[m, k]` in coordinates in which its vectors `[k, b]` are white, and the matrix `[m, r]` in it.

    White vectors have the unit matrix as second moment. The product of the two is `basis basis' matrix`.
    """
    moment, inside = vectors @ vectors.T / vectors.shape[1], basis.T @ matrix
    size = float(moment.diagonal().mean())
    if not size > 0:
        return basis, inside
    moment = moment + _DAMPING * size * torch.eye(len(moment), dtype=moment.dtype)
    factor = torch.linalg.cholesky(moment)
    return torch.linalg.solve_triangular(factor, basis.T, upper=False).T, factor.T @ inside
