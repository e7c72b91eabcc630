"""Matrix factorisations that survive bad matrices: their values, and their gradients.

A singular value decomposition has gradients 1 / (s_j - s_i), 1 / (s_j + s_i) and 1 / s_j. They are replaced
here by x / (x² + ε²) with ε = machine epsilon to the power 0.75 times the largest singular value, which is
finite everywhere and equals 1 / x to rounding wherever x is not tiny. Functions that do not depend on the
choice of the singular vectors have vanishing numerators at equal singular values, so they lose nothing.

Source: Seeger et al., arXiv 1710.08717 (real); Wan and Zhang, arXiv 1909.02659 (the complex phase);
Liao et al., arXiv 1903.09650 (the Lorentzian).
"""

import math
from typing import Any

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Inexact
from torch import Tensor
from torch.autograd.function import once_differentiable

from tnml.errors import InputError

Factors = tuple[Tensor, Tensor, Tensor]


def robust_svd(matrix: Inexact[Tensor, "m n"]) -> Factors:
    """Decomposes `matrix` into `u [m, k]`, descending `s [k]` and `vh [k, n]`, k = min(m, n).

    Where the usual driver does not converge, or gives numbers that are not finite, slower ones take over.
    Gradients are finite for equal and for zero singular values. At equal ones, write a product of kept
    parts as `u @ (u.mH @ matrix)` rather than `u * s @ vh`: only the first has the right gradient there.

    Raises:
        InputError: `matrix` holds NaN or infinite values, or no driver converges.

    Cost: O(m n min(m, n)), gradient included.

    Example:
        >>> u, s, vh = robust_svd(torch.eye(3, 2))
        >>> s
        tensor([1., 1.])
    """
    return _Svd.apply(matrix)  # type: ignore[no-any-return, no-untyped-call]


def truncated_split(
    matrix: Inexact[Tensor, "m n"], max_bond: int | None = None, max_weight: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Splits `matrix` into an isometry `q [m, k]` and `rest [k, n]`; q @ rest is the best of its rank.

    Gradients are those of functions of q and rest in which a unitary between the two drops out, and for
    these they hold also when kept singular values are equal.

    Returns:
        q, rest, all singular values (no gradient), and the discarded weight, the sum of their squares.

    Raises:
        InputError: as `robust_svd`.

    Example:
        >>> q, rest, s, weight = truncated_split(torch.diag(torch.tensor([3.0, 2.0, 1.0])), max_bond=2)
        >>> q.shape, rest.shape, weight
        (torch.Size([3, 2]), torch.Size([2, 3]), 1.0)
    """
    u, s, vh = _factorise(matrix.detach())
    rank, weight = truncation_rank(s, max_bond, max_weight)
    q: Tensor = _LeadingVectors.apply(matrix, u, s, vh, rank)  # type: ignore[no-untyped-call]
    return q, q.mH @ matrix, s, weight


def truncation_rank(
    s: Inexact[Tensor, " k"], max_bond: int | None = None, max_weight: float = 0.0
) -> tuple[int, float]:
    """How many of the descending `s` to keep, at least one, and the sum of squares of the others.

    Last values that rounding cannot tell from zero next to the largest one are never kept.

    Args:
        s: singular values.
        max_bond: how many to keep at most; None sets no limit.
        max_weight: the largest sum of squares that may be thrown away for being small.

    Example:
        >>> truncation_rank(torch.tensor([2.0, 1.0, 0.5, 0.0]))
        (3, 0.0)
        >>> truncation_rank(torch.tensor([2.0, 1.0, 0.5, 0.0]), max_weight=0.3)
        (2, 0.25)
        >>> truncation_rank(torch.tensor([2.0, 1.0, 0.5, 0.0]), max_bond=1)
        (1, 1.25)
    """
    values = s.detach().to("cpu", torch.float64)
    tails = values.square().flip(0).cumsum(0).flip(0)  # tails[k]: what is lost when k values are kept
    noise = (2 * torch.finfo(s.dtype).eps * float(values[0])) ** 2 * len(values)
    keep = int((tails > max(max_weight, noise)).sum())
    keep = max(1, keep if max_bond is None else min(keep, max_bond))
    return keep, float(tails[keep]) if keep < len(values) else 0.0


def qr_positive(matrix: Inexact[Tensor, "m n"]) -> tuple[Tensor, Tensor]:
    """Factors `matrix` into an isometry `q [m, k]` and `r [k, n]` with a diagonal that is not negative.

    Gradients are exact for tall, square and wide matrices of full rank. For rank-deficient ones they are
    finite, and those of functions in which a unitary between q and r drops out.

    Raises:
        InputError: `matrix` holds NaN or infinite values.

    Cost: O(m n min(m, n)).

    Example:
        >>> q, r = qr_positive(torch.tensor([[-3.0], [4.0]]))
        >>> r
        tensor([[5.]])
    """
    return _Qr.apply(matrix)  # type: ignore[no-any-return, no-untyped-call]


def rescaled(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The tensor divided by its 2-norm, and the logarithm of that (float64, a constant to autograd).

    A zero tensor stays as it is.

    Example:
        >>> rescaled(torch.tensor([3e30, 4e30], dtype=torch.float64))
        (tensor([0.6000, 0.8000], dtype=torch.float64), tensor(70.6870, dtype=torch.float64))
    """
    with torch.no_grad():
        largest = tensor.abs().amax()
        largest = torch.where(largest > 0, largest, torch.ones_like(largest))
        norm = torch.linalg.vector_norm(tensor / largest)
        norm = torch.where(norm > 0, norm, torch.ones_like(norm))
        log = largest.double().log() + norm.double().log()
    return tensor / largest / norm, log


class _Svd(torch.autograd.Function):
    """The decomposition with its safe gradient."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Factors:
        u, s, vh = _factorise(matrix)
        ctx.save_for_backward(u, s, vh)
        return u, s, vh

    @staticmethod
    def backward(ctx: Any, gu: Tensor, gs: Tensor, gvh: Tensor) -> Tensor:
        u, s, vh = ctx.saved_tensors
        gradient: Tensor
        v, gv = vh.mH, gvh.mH
        a, b = u.mH @ gu, v.mH @ gv
        both, between = (a + b) / 2, (a - b) / 2
        inner = _inverse(s - s.unsqueeze(1), s) * (both - both.mH)
        inner = inner + _inverse(s + s.unsqueeze(1), s) * (between - between.mH)  # diagonal: the phase
        inner = inner + torch.diag(gs).to(inner.dtype)
        inverse = _inverse(s, s)
        gradient = u @ inner @ vh
        if u.shape[0] > u.shape[1]:
            gradient = gradient + ((gu - u @ a) * inverse) @ vh
        if v.shape[0] > v.shape[1]:
            gradient = gradient + (u * inverse) @ (gv - v @ b).mH
        return gradient


class _LeadingVectors(torch.autograd.Function):
    """The first left singular vectors; their gradient along the directions that leave their span."""

    @staticmethod
    def forward(ctx: Any, _matrix: Tensor, u: Tensor, s: Tensor, vh: Tensor, rank: int) -> Tensor:
        ctx.save_for_backward(u, s, vh)
        ctx.rank = rank
        return u[:, :rank].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gq: Tensor) -> tuple[Tensor | None, ...]:
        (u, s, vh), rank = ctx.saved_tensors, ctx.rank
        gradient: Tensor
        a = u[:, rank:].mH @ gq  # [k - rank, rank]: from kept to discarded
        kept, lost = s[:rank].unsqueeze(0), s[rank:].unsqueeze(1)
        minus, plus = _inverse(kept - lost, s) / 2, _inverse(kept + lost, s) / 2
        gradient = u[:, rank:] @ (a * (minus + plus)) @ vh[:rank]
        gradient = gradient + u[:, :rank] @ (a * (minus - plus)).mH @ vh[rank:]
        if u.shape[0] > u.shape[1]:
            gradient = gradient + ((gq - u @ (u.mH @ gq)) * _inverse(s[:rank], s)) @ vh[:rank]
        return gradient, None, None, None, None


class _Qr(torch.autograd.Function):
    """QR with a real non-negative diagonal."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> tuple[Tensor, Tensor]:
        _check_finite(matrix)
        q, r = torch.linalg.qr(matrix)
        diagonal = r.diagonal()
        phase = torch.where(diagonal == 0, torch.ones_like(diagonal), torch.sgn(diagonal))
        q, r = q * phase, r * phase.conj().unsqueeze(1)
        ctx.save_for_backward(q, r)
        return q, r

    @staticmethod
    def backward(ctx: Any, gq: Tensor, gr: Tensor) -> Tensor:
        # With X = q^H dA r^-1 = Ω + T (Ω anti-Hermitian, T triangular with a real diagonal), dq = q Ω + the
        # part outside the span, dr = T r. The square block of a wide matrix determines q.
        q, r = ctx.saved_tensors
        gradient: Tensor
        rank = q.shape[1]
        square = r[:, :rank]
        diagonal = square.diagonal().real.abs()
        eps = torch.finfo(diagonal.dtype).eps
        lift = gq - q @ (q.mH @ gq) if q.shape[0] > rank else torch.zeros_like(gq)
        full_rank = bool(diagonal.min() > math.sqrt(eps) * diagonal.max())
        if full_rank:
            w = q.mH @ gq - gr @ r.mH
            if r.shape[1] > rank:
                w = w + r[:, rank:] @ gr[:, rank:].mH
                w = w + gr[:, rank:] @ r[:, rank:].mH
            turn = torch.tril(w - w.mH, -1)
            if w.is_complex():
                turn = turn + torch.diag(1j * w.diagonal().imag)
            lift = lift + q @ turn
            lift = torch.linalg.solve_triangular(square.mH, lift, upper=False, left=False)
        elif q.shape[0] > rank:
            lift = lift @ torch.linalg.pinv(square, rtol=eps**0.75).mH
        gradient = q @ gr
        gradient[:, :rank] += lift
        return gradient


def _inverse(x: Tensor, s: Tensor) -> Tensor:
    """1 / x, without its pole: x / (x² + ε²)."""
    info = torch.finfo(s.dtype)
    largest = torch.clamp(s[0], min=info.tiny / info.eps)
    x = x / largest
    inverse: Tensor = x / (x * x + info.eps**1.5) / largest
    return inverse


def _check_finite(matrix: Tensor) -> None:
    if not bool(torch.isfinite(matrix).all()):
        raise InputError(
            f"a matrix of shape {list(matrix.shape)} holds NaN or infinite values and cannot be factorised; "
            "look for an overflow in what made it"
        )


@torch.no_grad()
def _factorise(matrix: Tensor) -> Factors:
    """The decomposition by the first driver whose result is finite."""
    _check_finite(matrix)
    routes = [_usual_driver, _lapack_gesvd, _by_eigenvectors]
    if matrix.is_cuda:
        routes.insert(1, _cuda_gesvd)
    for route in routes:
        try:
            found = route(matrix)
        except (torch.linalg.LinAlgError, np.linalg.LinAlgError):  # type: ignore[attr-defined]
            continue
        if all(bool(torch.isfinite(part).all()) for part in found):
            return found
    raise InputError(
        f"the singular value decomposition of a matrix of shape {list(matrix.shape)} did not converge "
        "with any driver; its entries may differ too much in size, try float64"
    )


def _usual_driver(matrix: Tensor) -> Factors:
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u, s, vh


def _cuda_gesvd(matrix: Tensor) -> Factors:
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False, driver="gesvd")
    return u, s, vh


def _lapack_gesvd(matrix: Tensor) -> Factors:
    """The QR iteration of LAPACK in double precision: slower than divide and conquer, and safer."""
    parts = scipy.linalg.svd(
        _in_double(matrix).numpy(), full_matrices=False, lapack_driver="gesvd", check_finite=False
    )
    u, s, vh = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
    return u.to(matrix), s.to(matrix.device, matrix.real.dtype), vh.to(matrix)


def _by_eigenvectors(matrix: Tensor) -> Factors:
    """Right vectors of the Hermitian matrix [[0, A], [A^H, 0]] with eigenvalues ±s; the rest by QR."""
    if matrix.shape[0] < matrix.shape[1]:
        u, s, vh = _by_eigenvectors(matrix.mH)
        return vh.mH, s, u.mH
    rows, columns = matrix.shape
    scale = torch.clamp(matrix.abs().max().double().cpu(), min=torch.finfo(torch.float64).tiny)
    wide = _in_double(matrix) / scale
    both = torch.cat(
        [torch.cat([wide.new_zeros(rows, rows), wide], 1), wide.new_zeros(columns, rows + columns)]
    )
    top = torch.linalg.eigh(both, UPLO="U").eigenvectors.flip(1)[rows:, :columns]
    v, _ = torch.linalg.qr(top)  # where s is zero its columns are anything: QR makes them orthonormal
    u, r = torch.linalg.qr(wide @ v)  # r is diagonal to rounding
    diagonal = r.diagonal()
    u = u * torch.where(diagonal == 0, torch.ones_like(diagonal), torch.sgn(diagonal))
    s, order = diagonal.abs().sort(descending=True)
    u, vh = u[:, order], v[:, order].mH
    return u.to(matrix), (s * scale).to(matrix.device, matrix.real.dtype), vh.to(matrix)


def _in_double(matrix: Tensor) -> Tensor:
    return matrix.cpu().to(torch.complex128 if matrix.is_complex() else torch.float64).resolve_conj()
