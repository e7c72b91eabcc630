"""Factorisations: values, gradients against finite differences, and drivers that do not converge."""

import numpy as np
import pytest
import scipy.linalg
import torch

from tnml import InputError
from tnml.mps import MatrixProductState, qr_positive, robust_svd
from tnml.mps.linalg import truncated_split, truncation_rank

DTYPES = [torch.float64, torch.complex128]
SHAPES = [(4, 4), (6, 3), (3, 6), (1, 5), (5, 1), (1, 1)]


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def with_values(m, n, values, dtype, seed=0):
    """A random matrix with these singular values, the rest zero."""
    u, _ = torch.linalg.qr(random(m, min(m, n), dtype=dtype, seed=seed))
    v, _ = torch.linalg.qr(random(n, min(m, n), dtype=dtype, seed=seed + 1))
    s = torch.zeros(min(m, n), dtype=dtype)
    s[: len(values)] = torch.tensor(values, dtype=dtype)
    return u @ torch.diag(s) @ v.mH


def check_svd(matrix, factors, tolerance=1e-13):
    u, s, vh = factors
    assert u.dtype == matrix.dtype
    assert not s.is_complex()
    assert torch.all(s[:-1] >= s[1:])
    largest = float(matrix.abs().max()) + 1e-300
    assert torch.allclose(u @ (s.unsqueeze(1) * vh), matrix, atol=tolerance * largest)
    eye = torch.eye(len(s), dtype=matrix.dtype)
    assert torch.allclose(u.mH @ u, eye, atol=tolerance)
    assert torch.allclose(vh @ vh.mH, eye, atol=tolerance)
    expected = np.linalg.svd(matrix.numpy(), compute_uv=False)
    assert np.allclose(s.numpy(), expected, rtol=1e-12, atol=tolerance * max(expected[0], 1e-300))


def fails(*_args, **_kwargs):
    raise torch.linalg.LinAlgError("linalg.svd: the algorithm failed to converge")


def fails_in_scipy(*_args, **_kwargs):
    raise np.linalg.LinAlgError("SVD did not converge")


def gives_nan(matrix, full_matrices=True):
    k = min(matrix.shape)
    nan = torch.full((k,), torch.nan, dtype=matrix.real.dtype)
    return matrix[:, :k] * torch.nan, nan, matrix[:k] * torch.nan


BAD_DRIVERS = {
    "fails": (fails, scipy.linalg.svd),
    "nan": (gives_nan, scipy.linalg.svd),
    "both": (fails, fails_in_scipy),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_svd_of_random_matrices(shape, dtype):
    matrix = random(*shape, dtype=dtype)
    check_svd(matrix, robust_svd(matrix))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("driver", BAD_DRIVERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_driver_that_does_not_converge_is_replaced(shape, driver, dtype, monkeypatch):
    usual, lapack = BAD_DRIVERS[driver]
    monkeypatch.setattr(torch.linalg, "svd", usual)
    monkeypatch.setattr(scipy.linalg, "svd", lapack)
    for matrix in (
        random(*shape, dtype=dtype),
        with_values(*shape, [1.0, 1.0, 1e-9][: min(shape)], dtype),
        torch.zeros(shape, dtype=dtype),
        1e-200 * random(*shape, dtype=dtype),
    ):
        check_svd(matrix, robust_svd(matrix))


def test_fallback_keeps_dtype_and_gradient(monkeypatch):
    monkeypatch.setattr(torch.linalg, "svd", fails)
    matrix = random(5, 3, dtype=torch.complex64).requires_grad_()
    u, s, vh = robust_svd(matrix)
    assert (u.dtype, s.dtype, vh.dtype) == (torch.complex64, torch.float32, torch.complex64)
    s.sum().backward()
    assert torch.allclose(matrix.grad, (u @ vh).detach(), atol=1e-6)


@pytest.mark.parametrize("lapack", [scipy.linalg.svd, fails_in_scipy])
def test_truncation_survives_a_driver_that_does_not_converge(lapack, monkeypatch):
    state = MatrixProductState.random(8, 6, seed=1)
    expected = state.truncate(max_bond=3)
    monkeypatch.setattr(torch.linalg, "svd", fails)
    monkeypatch.setattr(scipy.linalg, "svd", lapack)
    found = state.truncate(max_bond=3)
    assert found.error == pytest.approx(expected.error, abs=1e-12)
    assert torch.allclose(found.state.to_dense(), expected.state.to_dense(), atol=1e-12)


def test_when_no_driver_converges_the_error_says_so(monkeypatch):
    state = MatrixProductState.random(3, 2)
    before = state.to_dense()
    monkeypatch.setattr(torch.linalg, "svd", fails)
    monkeypatch.setattr(scipy.linalg, "svd", fails_in_scipy)
    monkeypatch.setattr(torch.linalg, "eigh", fails)
    with pytest.raises(InputError, match="did not converge with any driver"):
        state.truncate(max_bond=1)
    assert torch.equal(state.to_dense(), before)


@pytest.mark.parametrize("factorise", [robust_svd, qr_positive, truncated_split])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_non_finite_matrices_are_refused(factorise, value):
    matrix = torch.eye(3)
    matrix[1, 2] = value
    with pytest.raises(InputError, match=r"shape \[3, 3\] holds NaN or infinite values"):
        factorise(matrix)


# Functions that do not depend on the choice of the singular vectors.


def polar(matrix):
    u, _, vh = robust_svd(matrix)
    return u @ vh


def spectral(matrix):
    s = robust_svd(matrix)[1]
    return (s**3).sum() + s.cos().sum()


def product(matrix):
    u, s, vh = robust_svd(matrix)
    return u @ (s.unsqueeze(1) * vh)


def projected(matrix, k=2):
    u = robust_svd(matrix)[0][:, :k]
    return u @ (u.mH @ matrix)


def right_projected(matrix, k=2):
    vh = robust_svd(matrix)[2][:k]
    return (matrix @ vh.mH) @ vh


def split(matrix, k=2):
    q, rest, _, _ = truncated_split(matrix, k)
    return q @ rest


def entries_and_phases(matrix):
    """Depends on the vectors, but not on their common phase."""
    u, s, vh = robust_svd(matrix)
    return torch.einsum("ik,k,kj->ijk", u, s**2, vh) if s.numel() else u


GAUGE_INVARIANT = [polar, spectral, product, projected, right_projected, split, entries_and_phases]


EQUAL_OR_ZERO = [[2.0, 2.0, 1.0, 1.0], [2.0, 2.0, 1.0], [2.0, 2.0], [2.0, 1.0], [3.0, 2.0, 2.0, 0.0]]


def agrees_with_finite_differences(function, matrix):
    return torch.autograd.gradcheck(function, matrix.clone().requires_grad_(), eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("function", GAUGE_INVARIANT)
def test_svd_gradients(function, shape, dtype):
    assert agrees_with_finite_differences(function, random(*shape, dtype=dtype, seed=3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (3, 4)])
def test_second_derivatives(shape, dtype):
    matrix = random(*shape, dtype=dtype, seed=3).requires_grad_()
    for function in (projected, polar, qr_positive):
        assert torch.autograd.gradgradcheck(function, matrix)
    leaf = split(matrix).abs().sum()
    (first,) = torch.autograd.grad(leaf, matrix, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.abs().sum().backward()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (4, 6)])
@pytest.mark.parametrize("values", EQUAL_OR_ZERO)
def test_truncated_svd_gradients_at_equal_and_zero_values(values, shape, dtype):
    matrix = with_values(*shape, values, dtype)
    k = 1 if values[0] == 3.0 else 2
    for function in (projected, right_projected, split):
        assert agrees_with_finite_differences(lambda m, f=function: f(m, k), matrix)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (3, 5)])
def test_full_gradients_at_equal_values(shape, dtype):
    """An identity matrix and its like: every pair of singular values is equal."""
    matrix = with_values(*shape, [1.5, 1.5, 1.5], dtype)
    assert agrees_with_finite_differences(polar, matrix)
    assert agrees_with_finite_differences(lambda m: robust_svd(m)[1].square().sum(), matrix)
    assert agrees_with_finite_differences(lambda m: split(m, 3), matrix)


@pytest.mark.parametrize("dtype", [torch.float32, *DTYPES])
@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (4, 6)])
@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.0], [1.0] * 4, [1e-30], [1e30, 1e30]])
def test_gradients_of_anything_are_finite(values, shape, dtype):
    matrix = with_values(*shape, values, dtype)
    for factorise in (robust_svd, qr_positive, lambda m: truncated_split(m, 2)[:2]):
        leaf = matrix.clone().requires_grad_()
        loss = sum(
            (part * random(*part.shape, dtype=part.dtype, seed=5)).sum().abs() for part in factorise(leaf)
        )
        loss.backward()
        assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_qr_is_positive_and_differentiable(shape, dtype):
    matrix = random(*shape, dtype=dtype, seed=2)
    q, r = qr_positive(matrix)
    assert torch.allclose(q @ r, matrix)
    assert torch.allclose(q.mH @ q, torch.eye(min(shape), dtype=dtype))
    assert torch.all(r.diagonal().real > 0)
    assert torch.equal(r, r.triu())
    if dtype.is_complex:
        assert r.diagonal().imag.abs().max() <= 1e-14
    assert agrees_with_finite_differences(qr_positive, matrix)


def qr_product(matrix):
    q, r = qr_positive(matrix)
    return q @ r


@pytest.mark.parametrize("dtype", DTYPES)
def test_qr_of_rank_deficient_matrices(dtype):
    """Q R is the matrix; so is its gradient wherever the columns of q are determined."""
    square = with_values(4, 4, [2.0, 1.0], dtype)
    assert agrees_with_finite_differences(qr_product, square)
    wide = torch.cat([square[:, :2], square], dim=1)
    assert agrees_with_finite_differences(qr_product, wide)


def test_truncation_rank_is_the_smallest_that_keeps_to_the_limits():
    s = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    assert truncation_rank(s) == (4, 0.0)
    assert truncation_rank(s, 2) == (2, 1.25)
    assert truncation_rank(s, None, 1.25) == (2, 1.25)
    assert truncation_rank(s, None, 1.2) == (3, 0.25)
    assert truncation_rank(s, 1, 0.25) == (1, 5.25)
    assert truncation_rank(s, None, 100.0) == (1, 5.25)
    assert truncation_rank(torch.zeros(3)) == (1, 0.0)
