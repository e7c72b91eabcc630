"""A Born machine's chain in double precision, and the log-probabilities of complete or partial samples.

A place of the chain is a core `(l, d, k, r)`: d is the leg of a column, k a hidden one that is summed.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from tnml.nn.born.basis import Basis, basis_of, levels, maps_of
from tnml.nn.mps.layer import MPSLayer

_NUMBERS = 2**24  # of an intermediate: 128 MB
_MOST_HIDDEN = 64  # values of all hidden legs together, for which amplitudes are kept one by one


@dataclass(frozen=True, eq=False)
class BornState:
    """A density p(x) = sum_k |psi_k(x)|² / Z, as cores and the columns they belong to.

    Attributes:
        cores: `(l, d, k, r)` in double precision, in the order of the chain.
        bases: of every place.
        columns: of every place the number of its column; None where it has none (d is 1 there).

    Example:
        >>> core = torch.tensor([3.0, 4.0], dtype=torch.float64).view(1, 2, 1, 1)
        >>> state = BornState([core], [levels(2, 2)], [0])
        >>> state.log_prob(torch.tensor([[0.0], [1.0], [torch.nan]])).exp()
        tensor([0.3600, 0.6400, 1.0000], dtype=torch.float64)
    """

    cores: Sequence[Inexact[Tensor, "_l _d _k _r"]]
    bases: Sequence[Basis]
    columns: Sequence[int | None]

    @classmethod
    @torch.no_grad()
    def of(cls, psi: MPSLayer, classes: int | None, hidden: int) -> "BornState":
        """The state of a layer whose outputs are the classes times the hidden values."""
        wide = torch.complex128 if psi.dtype.is_complex else torch.float64
        cores = [core.detach().cpu().to(wide).unsqueeze(2) for core in psi.cores]
        known: dict[int, Basis] = {}
        maps = maps_of(psi)
        for fmap in maps:
            known.setdefault(id(fmap), basis_of(fmap, psi.features.dim))
        bases = [known[id(fmap)] for fmap in maps]
        columns: list[int | None] = list(psi.order.tolist())
        label = psi.label.detach().cpu().to(wide)
        place, l, r = psi.label_site, label.shape[0], label.shape[2]
        cores.insert(place, label.reshape(l, classes or 1, hidden, r))
        bases.insert(place, levels(classes or 1, classes or 1, step=1.0))
        columns.insert(place, None if classes is None else psi.n_sites)
        return cls([_scaled(core) for core in cores], bases, columns)

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return sum(column is not None for column in self.columns)

    @property
    def widest(self) -> int:
        """The largest bond."""
        return max(core.shape[3] for core in self.cores)

    @property
    def basis_of_column(self) -> list[Basis]:
        """The bases in the order of the columns."""
        found = dict(zip(self.columns, self.bases, strict=True))
        return [found[column] for column in range(self.n_columns)]

    def chunks(self, rows: int, numbers: int) -> Iterator[slice]:
        """Rows at a time, where each takes this many numbers of memory."""
        size = max(1, _NUMBERS // max(1, numbers))
        for start in range(0, rows, size):
            yield slice(start, start + size)

    def vectors(self, x: Float[Tensor, "b n"], place: int) -> tuple[Tensor, Tensor]:
        """The functions `[b, d]` of a place at the values of its column, and whether each value is given."""
        column, basis = self.columns[place], self.bases[place]
        if column is None:
            return basis.vectors.expand(len(x), -1).to(self.cores[place]), x.new_ones(
                len(x), dtype=torch.bool
            )
        values = x[:, column]
        return basis.at(values).to(self.cores[place]), ~torch.isnan(values)

    @functools.cached_property
    def log_total(self) -> float:
        """The logarithm of Z of these cores."""
        env, log = self.cores[0].new_ones(1, 1, 1), torch.zeros(1, dtype=torch.float64)
        for core in self.cores:
            env, log = normalised(left_summed(env, core), log)
        return float(log)

    @torch.no_grad()
    def log_prob(self, x: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
        """The logarithm of p `[b]` of what is given; a column that is NaN is summed over.

        Cost: b n d chi² where all are given, else b n d chi^3.
        """
        x = x.double()
        hidden = math.prod(core.shape[2] for core in self.cores)
        whole = ~torch.isnan(x).any(1) if hidden <= _MOST_HIDDEN else torch.zeros(len(x), dtype=torch.bool)
        found = x.new_empty(len(x))
        most = self.widest * max(core.shape[1] * core.shape[2] for core in self.cores)
        for wanted, function, numbers in (
            (whole, self._of_complete, most * hidden),
            (~whole, self._of_partial, most * self.widest),
        ):
            rows = wanted.nonzero().squeeze(1)
            for part in self.chunks(len(rows), numbers):
                found[rows[part]] = function(x[rows[part]])
        return found - self.log_total

    def _of_complete(self, x: Tensor) -> Tensor:
        """The logarithm of sum_k |psi_k|² by vectors `[b, K, l]`, K all hidden values so far."""
        vector, log = self.cores[0].new_ones(len(x), 1, 1), x.new_zeros(len(x))
        for place in range(len(self.cores)):
            vector = advanced(vector, self.cores[place], self.vectors(x, place)[0])
            size = vector.abs().square().sum((1, 2))
            scale = torch.where(size > 0, size, 1.0).sqrt()
            vector, log = vector / scale.view(-1, 1, 1), log + 2 * scale.log()
        return log + vector.abs().square().sum((1, 2)).log()

    def _of_partial(self, x: Tensor) -> Tensor:
        """The same by the double layer `[b, l, m]`."""
        env, log = self.cores[0].new_ones(len(x), 1, 1), x.new_zeros(len(x))
        for place, core in enumerate(self.cores):
            env, log = normalised(left_step(env, core, *self.vectors(x, place)), log)
        return log + env.real.squeeze((1, 2)).log()

    def right_ends(self, x: Float[Tensor, "b n"]) -> list[Inexact[Tensor, "_b _r _t"]]:
        """What the places right of each place make of its right bond, index of the ket first, of trace 1."""
        env, found = self.cores[0].new_ones(len(x), 1, 1), []
        for place in range(len(self.cores) - 1, -1, -1):
            found.append(env)
            mirrored = self.cores[place].permute(3, 1, 2, 0)
            env = normalised(left_step(env, mirrored, *self.vectors(x, place)))[0]
        return found[::-1]

    @torch.no_grad()
    def densities(self, x: Float[Tensor, "b n"]) -> list[Inexact[Tensor, "b _d _e"]]:
        """Of every column the density matrix given all other columns that are given, of trace 1.

            d ─┐
               A ═ right       index of the ket first; where the given values are impossible, NaN
        left ═ A*
            e ─┘

        Cost: b n d chi^3.
        """
        x = x.double()
        each = self.widest**2 * (len(self.cores) + 2 * max(c.shape[1] * c.shape[2] for c in self.cores))
        parts = [self._densities(x[rows]) for rows in self.chunks(len(x), each)]
        return [torch.cat(column) for column in zip(*parts, strict=True)]

    def _densities(self, x: Tensor) -> list[Tensor]:
        rights = self.right_ends(x)
        left = self.cores[0].new_ones(len(x), 1, 1)
        found: dict[int, Tensor] = {}
        for place, core in enumerate(self.cores):
            column = self.columns[place]
            if column is not None:
                half = torch.einsum("blm,ldkr->bmdkr", left, core)
                half = torch.einsum("bmdkr,brt->bmdkt", half, rights[place])
                rho = torch.einsum("bmdkt,mekt->bde", half, core.conj())
                found[column] = rho / rho.diagonal(dim1=1, dim2=2).sum(1).real.view(-1, 1, 1)
            left = normalised(left_step(left, core, *self.vectors(x, place)))[0]
        return [found[column] for column in range(self.n_columns)]


def advanced(vector: Tensor, core: Tensor, values: Tensor) -> Inexact[Tensor, "b k r"]:
    """Amplitudes `[b, K, l]` taken through a core at given values `[b, d]`; hidden values multiply up.

    Example:
        >>> advanced(torch.ones(1, 1, 1), torch.ones(1, 2, 3, 4), torch.ones(1, 2)).shape
        torch.Size([1, 3, 4])
    """
    b, hidden, l = vector.shape
    _, d, k, r = core.shape
    spread = (vector.reshape(b * hidden, l) @ core.reshape(l, -1)).view(b, hidden, d, k * r)
    return (spread * values.view(b, 1, d, 1)).sum(2).view(b, hidden * k, r)


def left_summed(env: Tensor, core: Tensor) -> Inexact[Tensor, "b r t"]:
    """The double layer `[b, l, m]`, the ket first, taken through a core whose column is summed over.

    Example:
        >>> left_summed(torch.ones(1, 1, 1), torch.ones(1, 2, 3, 1))
        tensor([[[6.]]])
    """
    b, l, m = env.shape
    r = core.shape[3]
    half = (env.reshape(b * l, m) @ core.reshape(m, -1).conj()).view(b, -1, r)  # [b, l d k, t]
    return core.reshape(-1, r).T.expand(b, -1, -1) @ half


def left_given(env: Tensor, core: Tensor, values: Tensor) -> Inexact[Tensor, "b r t"]:
    """The double layer taken through a core whose column has the values `[b, d]`.

    Example:
        >>> left_given(torch.ones(1, 1, 1), torch.ones(1, 2, 1, 1), torch.tensor([[1.0, 0.0]]))
        tensor([[[1.]]])
    """
    l, d, k, r = core.shape
    b = len(env)
    at = (values @ core.permute(1, 0, 2, 3).reshape(d, -1)).view(b, l, k * r)
    half = (env @ at.conj()).view(b, l * k, r)
    return at.reshape(b, l * k, r).transpose(1, 2) @ half


def left_step(env: Tensor, core: Tensor, values: Tensor, given: Tensor) -> Inexact[Tensor, "b r t"]:
    """The double layer taken through a core whose column is given in some samples."""
    if bool(given.all()):
        return left_given(env, core, values)
    if not bool(given.any()):
        return left_summed(env, core)
    found = env.new_empty(len(env), core.shape[3], core.shape[3])
    found[given] = left_given(env[given], core, values[given])
    found[~given] = left_summed(env[~given], core)
    return found


def normalised(env: Tensor, log: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A double layer of trace 1, and `log` plus the logarithm of what its trace was; zeros stay zeros.

    Example:
        >>> normalised(torch.full((1, 1, 1), 1.0), torch.zeros(1))
        (tensor([[[1.]]]), tensor([0.]))
    """
    trace = env.diagonal(dim1=1, dim2=2).sum(1).real
    scale = torch.where(trace > 0, trace, 1.0)
    return env / scale.view(-1, 1, 1), scale.log() if log is None else log + scale.log()


def _scaled(core: Tensor) -> Tensor:
    """A core of norm 1: what it is multiplied by does not change the density."""
    size = core.norm()
    return core / size if size > 0 else core
