"""Overlaps, sums and products of matrix product states, on lists of cores `(l, d, r)`."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Inexact
from torch import Tensor

from tnml.checks import entries, whole
from tnml.errors import InputError, choose
from tnml.mps.linalg import qr_positive, rescaled
from tnml.randomness import seeded

Cores = list[Tensor]
LARGEST_DENSE = 2**28  # entries


def overlap(bra: Sequence[Tensor], ket: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The inner product of two chains as `(value, log)`: value * exp(log), the bra conjugated.

         ┌─ l ── ket ─── r
        env       │ d             env [l', l] and ket make half [l', d, r]; half and bra* make env [r', r]
         └─ l' ─ bra* ── r'

    Cost: n d chi^3.

    Example:
        >>> value, log = overlap([torch.ones(1, 2, 1)], [torch.tensor([[[3.0], [4.0]]])])
        >>> round(float(value * log.exp()), 4)
        7.0
    """
    env = ket[0].new_ones(1, 1)
    log = torch.zeros((), dtype=torch.float64, device=env.device)
    for a, b in zip(bra, ket, strict=True):
        half, up = rescaled(torch.tensordot(env, b, 1))  # [l', d, r]
        env, more = rescaled(torch.tensordot(a.conj(), half, ([0, 1], [0, 1])))
        log = log + up + more
    return env.reshape(()), log


def to_dense(cores: Sequence[Tensor], log_scale: Tensor) -> Inexact[Tensor, "..."]:
    """The tensor `[d_0, .., d_{n-1}]` that the cores represent.

    Raises:
        InputError: it would have more than 2^28 entries.

    Example:
        >>> to_dense([torch.ones(1, 2, 3), torch.ones(3, 2, 1)], torch.tensor(0.0))
        tensor([[3., 3.],
                [3., 3.]])
    """
    shape = [core.shape[1] for core in cores]
    if math.prod(shape) > LARGEST_DENSE:
        raise InputError(
            f"the dense tensor of {len(cores)} sites would have {math.prod(shape):.1e} entries, more than "
            "2^28; ask for single amplitudes, samples or reduced density matrices instead"
        )
    tensor, log = cores[0].new_ones(1, 1), log_scale
    for core in cores:
        tensor, up = rescaled(torch.tensordot(tensor, core, 1).reshape(-1, core.shape[2]))
        log = log + up
    return (tensor * log.exp().to(tensor.dtype)).reshape(shape)


def add(
    first: Sequence[Tensor], first_log: Tensor, second: Sequence[Tensor], second_log: Tensor
) -> tuple[Cores, Tensor]:
    """The sum of two chains, bonds added up, and its log scale.

    Example:
        >>> one = [torch.ones(1, 2, 1)] * 2
        >>> cores, log = add(one, torch.tensor(0.0), one, torch.tensor(0.0))
        >>> [tuple(core.shape) for core in cores]
        [(1, 2, 2), (2, 2, 1)]
    """
    n = len(first)
    log = torch.maximum(first_log, second_log)
    cores = []
    # Scales far apart are spread over all sites, where none of the factors overflows or vanishes.
    factors = [torch.exp((scale - log) / n).to(first[0].dtype) for scale in (first_log, second_log)]
    for site in range(n):
        a, b = first[site] * factors[0], second[site] * factors[1]
        if n == 1:
            cores.append(a + b)
        elif site == 0:
            cores.append(torch.cat([a, b], dim=2))
        elif site == n - 1:
            cores.append(torch.cat([a, b], dim=0))
        else:
            upper = torch.cat([a, a.new_zeros(a.shape[0], a.shape[1], b.shape[2])], dim=2)
            lower = torch.cat([b.new_zeros(b.shape[0], b.shape[1], a.shape[2]), b], dim=2)
            cores.append(torch.cat([upper, lower], dim=0))
    return cores, log


def scale(cores: Sequence[Tensor], factor: complex | Tensor) -> tuple[Cores, float]:
    """A chain times a number, and the part of the number that goes into the log scale.

    A tensor without axes, which may ask for a gradient, goes into the first core.

    Raises:
        InputError: `factor` is not a finite number, or is complex where the chain is real.

    Example:
        >>> scale([torch.ones(1, 1, 1)], -math.exp(200))
        ([tensor([[[-1.]]])], 200.0)
    """
    factor = _checked_factor(cores, factor, "multiplied")
    if isinstance(factor, Tensor):
        return [cores[0] * factor.to(cores[0]), *cores[1:]], 0.0
    size = abs(factor)
    return [cores[0] * (factor / size if size else 0.0), *cores[1:]], math.log(size) if size else 0.0


def divide(cores: Sequence[Tensor], divisor: complex | Tensor) -> tuple[Cores, float]:
    """A chain divided by a number, and what goes into the log scale; see `scale`.

    Raises:
        InputError: as `scale`, and the number is zero.

    Example:
        >>> divide([torch.ones(1, 1, 1)], -math.exp(200))
        ([tensor([[[-1.]]])], -200.0)
    """
    divisor = _checked_factor(cores, divisor, "divided")
    if not divisor:
        raise InputError("a state cannot be divided by zero")
    if isinstance(divisor, Tensor):
        return [cores[0] / divisor.to(cores[0]), *cores[1:]], 0.0
    size = abs(divisor)
    return [cores[0] / (divisor / size), *cores[1:]], -math.log(size)


def _checked_factor(cores: Sequence[Tensor], factor: Any, what: str) -> Any:
    """`factor`, if a chain can be multiplied or divided by it."""
    if not isinstance(factor, Tensor) and getattr(factor, "ndim", None) == 0:
        factor = factor.item()  # of NumPy
    if not isinstance(factor, numbers.Number | Tensor) or (isinstance(factor, Tensor) and factor.dim()):
        raise InputError(
            f"a state can be {what} by a number, got {type(factor).__name__}; the entrywise product of "
            "two states is `hadamard`"
        )
    is_complex = factor.is_complex() if isinstance(factor, Tensor) else not isinstance(factor, numbers.Real)
    if is_complex and not cores[0].is_complex():
        raise InputError(
            f"a state of {cores[0].dtype} cannot be {what} by a complex number; use .to('complex128') first"
        )
    size: Any = 0.0 if isinstance(factor, Tensor) else factor
    if not math.isfinite(abs(size)):
        raise InputError(f"a state can be {what} by a finite number, got {factor}")
    return factor


def hadamard(first: Sequence[Tensor], second: Sequence[Tensor]) -> tuple[Cores, Tensor]:
    """The entrywise product of two chains, bonds multiplied, and the log of what was divided out.

        l ── first ─── r
               │
               ├─── a             (l m), a, (r s): the physical leg is shared, not summed
               │
        m ── second ── s

    Example:
        >>> cores, _ = hadamard([torch.ones(1, 2, 3), torch.ones(3, 2, 1)], [torch.ones(1, 2, 1)] * 2)
        >>> [tuple(core.shape) for core in cores]
        [(1, 2, 3), (3, 2, 1)]
    """
    log = torch.zeros((), dtype=torch.float64, device=first[0].device)
    cores = []
    for one, other in zip(first, second, strict=True):
        (a, up_a), (b, up_b) = rescaled(one), rescaled(other)
        log = log + up_a + up_b
        product = torch.einsum("lar,mas->lmars", a, b)
        cores.append(product.reshape(a.shape[0] * b.shape[0], a.shape[1], -1))
    return cores, log


def apply(cores: Sequence[Tensor], mpo: Sequence[Tensor]) -> Cores:
    """A matrix product operator applied to a chain, bonds multiplied.

               │ o
        a ── operator ── b
               │ i                (a l), o, (b r)
        l ─── core ───── r

    Args:
        cores: `(l, d, r)`.
        mpo: `(l, o, i, r)`, output leg before input leg, outer bonds 1; i is the d of the chain.

    Raises:
        InputError: the operator does not fit the chain.

    Example:
        >>> flip = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).reshape(1, 2, 2, 1)
        >>> apply([torch.tensor([[[3.0], [4.0]]])], [flip])
        [tensor([[[4.],
                  [3.]]])]
    """
    check_mpo(cores, mpo)
    found = []
    for core, operator in zip(cores, mpo, strict=True):
        product = torch.einsum("aoib,lir->alobr", operator, core)
        left, right = operator.shape[0] * core.shape[0], operator.shape[3] * core.shape[2]
        found.append(product.reshape(left, operator.shape[1], right))
    return found


def check_mpo(cores: Sequence[Tensor], mpo: Sequence[Tensor]) -> None:
    """Raises unless `mpo` is a matrix product operator that fits the chain.

    Raises:
        InputError: says which core breaks the rule.

    Example:
        >>> check_mpo([torch.ones(1, 2, 1)], [torch.ones(1, 2, 2, 1)])
    """
    if len(mpo) != len(cores):
        raise InputError(f"the operator has {len(mpo)} cores, expected {len(cores)}, one for each site")
    for site, (core, operator) in enumerate(zip(cores, mpo, strict=True)):
        if not isinstance(operator, Tensor) or operator.dim() != 4:
            came = tuple(operator.shape) if isinstance(operator, Tensor) else type(operator).__name__
            raise InputError(f"operator core {site} must be a tensor of shape (l, o, i, r), got {came}")
        if operator.shape[2] != core.shape[1]:
            raise InputError(
                f"operator core {site} has input dimension {operator.shape[2]}, expected {core.shape[1]}, "
                "the physical dimension of the state there"
            )
        if operator.dtype != core.dtype:
            raise InputError(
                f"operator core {site} has dtype {operator.dtype}, expected {core.dtype} as the state; "
                "convert one of them"
            )
        expected = mpo[site - 1].shape[3] if site else 1
        if operator.shape[0] != expected:
            raise InputError(f"operator core {site} has left bond {operator.shape[0]}, expected {expected}")
    if mpo[-1].shape[3] != 1:
        raise InputError(f"the last operator core has right bond {mpo[-1].shape[3]}, expected 1")


def random_cores(
    n_sites: int, bond_dim: int, physical: int | Sequence[int], kind: str, dtype: torch.dtype, seed: int
) -> Cores:
    """Random cores on the CPU, drawn in double precision: see `MatrixProductState.random`.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> [tuple(core.shape) for core in random_cores(2, 5, [2, 3], "gaussian", torch.float32, 0)]
        [(1, 2, 2), (2, 3, 1)]
    """
    n_sites, bond_dim = whole("n_sites", n_sites, 1), whole("bond_dim", bond_dim, 1)
    given = entries(physical)
    dims = [whole("physical", dim, 1) for dim in ([physical] * n_sites if given is None else given)]
    if len(dims) != n_sites:
        raise InputError(f"physical must name the dimension of {n_sites} sites, got {len(dims)}")
    choose("kind", kind, dict.fromkeys(("gaussian", "isometric")))
    left, right = [1], [1]
    for dim, last in zip(dims, reversed(dims), strict=True):
        left.append(min(bond_dim, left[-1] * dim))
        right.append(min(bond_dim, right[-1] * last))
    bonds = [min(pair) for pair in zip(left, reversed(right), strict=True)]
    generator = seeded(seed)
    double = torch.complex128 if dtype.is_complex else torch.float64
    cores = []
    for l, d, r in zip(bonds[:-1], dims, bonds[1:], strict=True):
        core = torch.randn(l, d, r, dtype=double, generator=generator)
        if kind == "isometric":
            core = qr_positive(core.reshape(-1, r))[0].reshape(l, d, r)
        else:
            core = core / math.sqrt(d * r)  # E|psi|² is the product over sites of d r var
        cores.append(core.to(dtype))
    return cores
