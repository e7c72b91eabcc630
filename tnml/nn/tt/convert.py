"""Between a matrix and the cores of a tensor train: TT-SVD, truncation, norms and errors.

A core `(l, o, i, r)` is the core `(l, o i, r)` of a matrix product state; rows and columns beyond the used
ones (padding) count neither in norms nor in errors. All of it is done in double precision.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Inexact
from torch import Tensor

from tnml.checks import number
from tnml.contraction import TTShape, tt_matrix
from tnml.errors import InputError
from tnml.mps import MatrixProductState
from tnml.nn.tt.factors import fitting_ranks

Layer = TypeVar("Layer")
Cores = list[Tensor]


class TTFit(NamedTuple, Generic[Layer]):
    """A layer made from another one, and how far it is from it.

    Attributes:
        layer: the new layer.
        error: relative error |W - W'| / |W| that was really made, in the Frobenius norm.

    Example:
        >>> from tnml.nn import TTLinear
        >>> fit = TTLinear.from_linear(torch.nn.Linear(16, 16), rank=16)
        >>> fit.layer.rank, fit.error < 1e-6
        (16, True)
    """

    layer: Layer
    error: float


def cores_of_matrix(
    matrix: Inexact[Tensor, "o i"],
    shape: TTShape,
    rank: int | Sequence[int] | None = None,
    max_error: float | None = None,
) -> tuple[Cores, float]:
    """Cores of a matrix by TT-SVD, in its dtype, and the relative error really made.

        o1     o2     o3
         │      │      │          the legs (o1 o2 o3, i1 i2 i3) of the matrix are brought into the order
        G1 ─── G2 ─── G3          (o1 i1) (o2 i2) (o3 i3), in which it is a state of three sites
         │      │      │
        i1     i2     i3

    Args:
        matrix: padded with zeros to the sizes of `shape`.
        shape: the factors; its ranks do not count.
        rank: largest rank, or one for each place between two cores.
        max_error: largest relative error. With both, `rank` holds whatever the error. What rounding to the
            dtype of the matrix cannot tell from zero is dropped in any case.

    Raises:
        InputError: neither limit is given, one is out of range, or the matrix is not finite.

    Cost: n_cores - 1 singular value decompositions, the first of `(o1 i1) x (rest)`.

    Source: Oseledets, SIAM J. Sci. Comput. 33 (2011) 2295, algorithm 1; Novikov et al., arXiv 1509.06569.

    Example:
        >>> shape = TTShape((2, 2), (2, 2), (1, 1, 1))
        >>> cores, error = cores_of_matrix(torch.eye(4), shape, max_error=0.0)
        >>> [tuple(core.shape) for core in cores], error < 1e-6
        ([(1, 2, 2, 1), (1, 2, 2, 1)], True)
    """
    limits, max_error = _limits(shape, rank, max_error, matrix.dtype)
    wide = _wide(matrix)
    rows, columns = matrix.shape
    padded = torch.nn.functional.pad(wide, (0, shape.in_size - columns, 0, shape.out_size - rows))
    count = shape.n_cores
    legs = padded.reshape(*shape.outs, *shape.ins)
    legs = legs.permute([axis for k in range(count) for axis in (k, count + k)])
    state = MatrixProductState.from_dense(
        legs.reshape([o * i for o, i in zip(shape.outs, shape.ins, strict=True)]),
        max_bond=limits,
        max_error=max_error,
    )
    cores = [core.to(matrix.dtype) for core in _balanced(state, shape)]
    return cores, relative_error(tt_matrix([_wide(core) for core in cores])[:rows, :columns], matrix)


def truncated_cores(
    cores: Sequence[Tensor],
    rows: int,
    columns: int,
    rank: int | Sequence[int] | None = None,
    max_error: float | None = None,
) -> tuple[Cores, float]:
    """Cores of smaller rank, and the relative error really made in the used rows and columns.

    The matrix itself is never made.

    Args:
        cores: `(l, o, i, r)`.
        rows: used rows of the matrix; the others are padding.
        columns: used columns.
        rank: see `cores_of_matrix`.
        max_error: see `cores_of_matrix`.

    Raises:
        InputError: neither limit is given, one is out of range, or a core is not finite.

    Cost: O(o i r^3) for every core. Where rows are padded, the error is that of cores with twice the ranks,
        and the same for columns: up to 64 times as much where both are; about 30 times as long for
        4001 x 4003 as for 4096 x 4096 at rank 64 in three cores.

    Source: Oseledets, SIAM J. Sci. Comput. 33 (2011) 2295, algorithm 2.

    Example:
        >>> twice = [torch.ones(1, 2, 2, 2), torch.ones(2, 2, 2, 1)]
        >>> cores, error = truncated_cores(twice, 4, 4, max_error=1e-6)
        >>> [tuple(core.shape) for core in cores], error < 1e-6
        ([(1, 2, 2, 1), (1, 2, 2, 1)], True)
    """
    shape = TTShape.of_cores(cores)
    limits, max_error = _limits(shape, rank, max_error, cores[0].dtype)
    wide = [_wide(core) for core in cores]
    state, used = _state(wide), _state(_used(wide, rows, columns))
    norm = _norm(used)
    share = min(1.0, _ratio(norm, _norm(state)))  # the error is one of the used entries, not of the padding
    found = state.truncate(max_bond=limits, max_error=max_error * share).state
    smaller = [core.to(cores[0].dtype) for core in _balanced(found, shape)]
    change = used - _state(_used([_wide(core) for core in smaller], rows, columns))
    return smaller, _ratio(_norm(change), norm)


def relative_error(found: Inexact[Tensor, "o i"], expected: Inexact[Tensor, "o i"]) -> float:
    """|found - expected| / |expected| in the Frobenius norm; 0 where `expected` is zero.

    Example:
        >>> relative_error(torch.tensor([[3.0, 3.0]]), torch.tensor([[3.0, 4.0]]))
        0.2
    """
    found, expected = _wide(found), _wide(expected)
    change, whole = torch.linalg.vector_norm(found - expected), torch.linalg.vector_norm(expected)
    return _ratio(float(change), float(whole))


def matrix_norm(cores: Sequence[Tensor], rows: int, columns: int) -> float:
    """Frobenius norm of the first `rows` and `columns` of the matrix, which is not made.

          ┌─ l ── core ─── r
        pairs    o│ │i
          └─ m ── core* ── s

    The cores meet their conjugates from left to right, apart for indices whose digits so far are those of
    the last used one and for indices that are below it; the padding takes part in no sum. Squares are
    summed: where products of cores cancel, twice as many digits are lost as cancel.

    Raises:
        InputError: a core is not finite.

    Cost: O(o i r^3) for every core; at most four times that of a matrix without padding.

    Example:
        >>> round(matrix_norm([torch.ones(1, 2, 2, 1), torch.ones(1, 2, 2, 1)], 3, 3), 6)
        3.0
    """
    shape = TTShape.of_cores(cores)
    norm, (row, row_steps), (column, column_steps) = 1.0, _steps(rows, shape.outs), _steps(columns, shape.ins)
    reached = {(row, column): _wide(cores[0]).new_ones(1, 1)}
    for place, (core, of_rows, of_columns) in enumerate(zip(cores, row_steps, column_steps, strict=True)):
        wide = _wide(core)
        largest = float(wide.abs().max())
        if not math.isfinite(largest):
            raise InputError(f"core {place} holds NaN or infinite values; a norm needs finite numbers")
        wide = wide / (largest or 1.0)
        following: dict[tuple[int, int], Tensor] = {}
        for (row, column), pairs in reached.items():
            half = torch.einsum("lm,loir->moir", pairs, wide)
            for (below, outs), (left, ins) in itertools.product(of_rows[row], of_columns[column]):
                part, other = half[:, outs, ins], wide[:, outs, ins].conj()
                found = torch.einsum("moir,mois->rs", part, other)
                following[below, left] = following.get((below, left), 0) + found
        whole = sum(float(pairs.diagonal().sum().real) for pairs in following.values())
        if not whole > 0:
            return 0.0
        reached = {key: pairs / whole for key, pairs in following.items()}
        norm *= largest * math.sqrt(whole)
    return norm


def _limits(
    shape: TTShape, rank: int | Sequence[int] | None, max_error: float | None, dtype: torch.dtype
) -> tuple[list[int] | None, float]:
    """The largest rank at each place between two cores, and the error that is allowed at least: rounding."""
    if rank is None and max_error is None:
        raise InputError("a limit is needed: give rank, max_error or both")
    allowed = 0.0
    if max_error is not None:
        allowed = number("max_error (a relative error)", max_error, least=0.0, below=1.0)
    error = max(allowed, torch.finfo(dtype).eps)
    if rank is None:
        return None, error
    return list(fitting_ranks(rank, [o * i for o, i in zip(shape.outs, shape.ins, strict=True)])[1:-1]), error


def _wide(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64)


def _state(cores: Sequence[Tensor]) -> MatrixProductState:
    return MatrixProductState([core.flatten(1, 2) for core in cores])


def _norm(state: MatrixProductState) -> float:
    """The norm to full precision, also of a difference of nearly equal states."""
    return float(state.canonical(0).norm())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _balanced(state: MatrixProductState, shape: TTShape) -> Cores:
    """Cores `(l, o, i, r)` of a state that training moves alike.

    The root of every Schmidt value goes to either side of its bond, and entries of all cores have the same
    mean square: a step of training then changes all cores, and all indices of a bond, by comparable parts.
    """
    cores, norm = state.cores, _norm(state)
    if norm > 0:
        cores, values = state.vidal()
        roots = [torch.ones_like(cores[0][0, 0, :1].real), *(v.sqrt() for v in values)]
        roots.append(roots[0])
        cores = [
            before[:, None, None] * core * after
            for before, core, after in zip(roots[:-1], cores, roots[1:], strict=True)
        ]
        sizes = [float(core.abs().square().mean().sqrt()) for core in cores]
        mean = math.exp((math.log(norm) + sum(map(math.log, sizes))) / len(cores))
        cores = [core * (mean / size) for core, size in zip(cores, sizes, strict=True)]
    return [
        core.reshape(core.shape[0], o, i, core.shape[2])
        for core, o, i in zip(cores, shape.outs, shape.ins, strict=True)
    ]


def _used(cores: Sequence[Tensor], rows: int, columns: int) -> Cores:
    """The cores of the matrix with its padding set to zero: exact, each rank at most four times as large."""
    shape = TTShape.of_cores(cores)
    below_rows, below_columns = _below(rows, shape.outs), _below(columns, shape.ins)
    result = []
    for core, row, column in zip(cores, below_rows, below_columns, strict=True):
        wide = torch.einsum("loir,aob,cid->lacoirbd", core, row.to(core), column.to(core))
        left, right = math.prod(wide.shape[:3]), math.prod(wide.shape[5:])
        result.append(wide.reshape(left, *core.shape[1:3], right))
    return result


_LAST, _FREE = 0, 1  # digits so far are those of the last used index; they are smaller, so the next are free
_Steps = list[tuple[int, slice]]  # to which of the two, by which digits


def _steps(count: int, factors: Sequence[int]) -> tuple[int, list[tuple[_Steps, _Steps]]]:
    """How the digits of indices below `count` are read, from the most significant one.

    Returns where to start, and for every digit the steps from `_LAST` and from `_FREE`. Without padding all
    digits are free.
    """
    if count == math.prod(factors):
        return _FREE, [([], [(_FREE, slice(None))]) for _ in factors]
    last, result, stride = count - 1, [], math.prod(factors)
    for factor in factors:
        stride //= factor
        digit = last // stride % factor
        smaller = [(_FREE, slice(0, digit))] if digit else []
        result.append(([(_LAST, slice(digit, digit + 1)), *smaller], [(_FREE, slice(None))]))
    return _LAST, result


def _below(count: int, factors: Sequence[int]) -> list[Tensor]:
    """A tensor train `(l, digit, r)` that is 1 on indices below `count` and 0 on the others.

    Its bond index says which of `_LAST` and `_FREE` the digits so far are; without padding it has one.
    """
    start, steps = _steps(count, factors)
    if start == _FREE:
        return [torch.ones(1, factor, 1) for factor in factors]
    result = []
    for factor, both in zip(factors, steps, strict=True):
        core = torch.zeros(2, factor, 2)
        for before, options in enumerate(both):
            for after, digits in options:
                core[before, digits, after] = 1
        result.append(core)
    result[0] = result[0][:1]
    result[-1] = result[-1].sum(2, keepdim=True)
    return result
