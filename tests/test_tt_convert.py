"""TT-SVD and truncation against dense matrices and numpy's singular values; norms without the padding."""

import numpy as np
import pytest
import torch
import tt_oracles
from bounds import gamma

from tnml.contraction import TTShape
from tnml.errors import InputError
from tnml.nn.tt.convert import cores_of_matrix, matrix_norm, relative_error, truncated_cores
from tnml.nn.tt.factors import matrix_shape

SIZES = [(12, 8, 2), (13, 7, 2), (24, 30, 3), (23, 29, 3), (30, 17, 4), (9, 5, 1)]


def random_cores(shape, generator, dtype=torch.float64):
    sizes = zip(shape.ranks, shape.outs, shape.ins, shape.ranks[1:], strict=False)
    return [torch.randn(size, generator=generator, dtype=dtype) for size in sizes]


def smooth(rows, columns):
    """A matrix whose singular values fall off fast over every cut."""
    return 1 / (1 + np.arange(rows)[:, None] / 3 + np.arange(columns)[None, :] / 2)


def change(cores, dense):
    """|W - W'| / |W| by the definition of the cores."""
    found = tt_oracles.matrix([core.double().numpy() for core in cores])
    found = found[: dense.shape[0], : dense.shape[1]]
    return np.linalg.norm(found - dense) / np.linalg.norm(dense)


@pytest.mark.parametrize("limits", [{"rank": 3}, {"max_error": 0.02}, {"max_error": 0.3}, {"max_error": 0.0}])
@pytest.mark.parametrize(("columns", "rows", "count"), SIZES)
@pytest.mark.parametrize("kind", ["random", "smooth"])
def test_error_of_a_fit_is_the_measured_one(kind, columns, rows, count, limits):
    random = np.random.default_rng(count)
    dense = random.normal(size=(rows, columns)) if kind == "random" else smooth(rows, columns)
    shape = matrix_shape(columns, rows, 1, count)
    cores, error = cores_of_matrix(torch.from_numpy(dense), shape, **limits)
    assert abs(error - change(cores, dense)) <= 1e-10
    assert error <= limits.get("max_error", 1.0) + 1e-12
    found = TTShape.of_cores(cores)
    assert (found.ins, found.outs) == (shape.ins, shape.outs)
    assert max(found.ranks) <= limits.get("rank", 10**6)


@pytest.mark.parametrize(("columns", "rows", "count"), SIZES)
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_fit_is_as_good_as_singular_values_allow(columns, rows, count, rank):
    """Two cores: the best of that rank. More: at most the root of the sum of squares over the cuts."""
    dense = smooth(rows, columns)
    shape = matrix_shape(columns, rows, 1, count)
    _, error = cores_of_matrix(torch.from_numpy(dense), shape, rank)
    wide = tt_oracles.padded(dense, shape.out_size, shape.in_size)
    cuts = tt_oracles.unfoldings(wide, shape.outs, shape.ins)
    tails = [np.linalg.norm(np.linalg.svd(cut, compute_uv=False)[rank:]) for cut in cuts]
    assert error <= np.linalg.norm(tails) / np.linalg.norm(dense) + 1e-12
    if wide.shape == dense.shape:  # what lands in the padding is no error
        assert error >= max(tails, default=0) / np.linalg.norm(dense) - 1e-12


def test_ranks_found_by_error_are_the_smallest_for_two_cores():
    dense = smooth(24, 24)
    shape = matrix_shape(24, 24, 1, 2)
    values = np.linalg.svd(*tt_oracles.unfoldings(dense, shape.outs, shape.ins), compute_uv=False)
    for bar in (0.2, 1e-2, 1e-5):
        lost = [np.linalg.norm(values[k:]) / np.linalg.norm(values) for k in range(len(values))]
        cores, _ = cores_of_matrix(torch.from_numpy(dense), shape, max_error=bar)
        assert cores[0].shape[3] == next(k for k, part in enumerate(lost) if part <= bar)


def test_both_limits():
    dense = torch.from_numpy(smooth(24, 24))
    shape = matrix_shape(24, 24, 1, 3)
    cores, error = cores_of_matrix(dense, shape, rank=2, max_error=1e-6)
    assert TTShape.of_cores(cores).ranks == (1, 2, 2, 1)
    assert error > 1e-6
    loose, _ = cores_of_matrix(dense, shape, rank=50, max_error=0.3)
    assert max(TTShape.of_cores(loose).ranks) < 5


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_full_rank_is_exact(count, dtype, bar, generator):
    dense = torch.randn(40, 64, generator=generator, dtype=dtype)
    cores, error = cores_of_matrix(dense, matrix_shape(64, 40, 1, count), rank=10_000)
    assert cores[0].dtype == dtype
    assert error <= bar
    assert change(cores, dense.double().numpy()) <= bar


def test_widely_spread_singular_values_stay_exact():
    """Values from 1 to 1e-14 on every cut: the gauge that shares their roots must not lose digits."""
    dense = 10.0 ** -np.add.outer(np.arange(27) / 4, np.arange(27) / 4)
    dense = dense * np.random.default_rng(0).normal(size=(27, 27))
    cores, error = cores_of_matrix(torch.from_numpy(dense), matrix_shape(27, 27, 1, 3), rank=1000)
    bound = 2 * gamma(81)  # of two singular value decompositions of 81 by at most 27 numbers
    assert error <= bound
    assert change(cores, dense) <= bound
    assert all(bool(torch.isfinite(core).all()) for core in cores)


def test_complex_matrices(generator):
    dense = torch.randn(12, 8, generator=generator, dtype=torch.complex128)
    cores, error = cores_of_matrix(dense, matrix_shape(8, 12, 1, 2), rank=3)
    found = tt_oracles.matrix([core.numpy() for core in cores])
    assert abs(error - np.linalg.norm(found - dense.numpy()) / np.linalg.norm(dense.numpy())) <= 1e-12
    assert 0.1 < error < 1


def test_cores_come_balanced(generator):
    """Equal mean squares, and at a cut between two cores the same weight of each index on either side."""
    dense = torch.randn(36, 24, generator=generator, dtype=torch.float64)
    for count in (2, 3):
        cores, _ = cores_of_matrix(dense, matrix_shape(24, 36, 1, count), rank=5)
        squares = [float(core.square().mean()) for core in cores]
        assert squares == pytest.approx([squares[0]] * count, rel=1e-10)
    first, last = cores_of_matrix(dense, matrix_shape(24, 36, 1, 2), rank=5)[0]
    left, right = (
        np.einsum("loir,lois->rs", first, first),
        np.einsum("loir,moir->lm", last, last),
    )
    assert np.allclose(left / np.trace(left), right / np.trace(right), atol=1e-12)
    assert np.allclose(left, np.diag(np.diag(left)), atol=1e-12 * np.trace(left))


def test_zero_matrix_can_be_trained():
    cores, error = cores_of_matrix(torch.zeros(6, 6), matrix_shape(6, 6, 1, 2), rank=3)
    assert error == 0
    assert not tt_oracles.matrix([core.numpy() for core in cores]).any()
    assert any(bool(core.any()) for core in cores), "from all zeros no gradient gets anywhere"
    smaller, error = truncated_cores([torch.zeros(1, 2, 2, 3), torch.zeros(3, 2, 2, 1)], 4, 4, max_error=0.1)
    assert (error, smaller[0].shape[3]) == (0, 1)


USED = [(12, 12), (11, 12), (12, 7), (5, 3), (1, 1), (7, 12), (8, 9)]


@pytest.mark.parametrize(("rows", "columns"), USED)
@pytest.mark.parametrize("factors", [((12,), (12,)), ((3, 4), (4, 3)), ((2, 3, 2), (3, 2, 2))])
def test_norm_leaves_the_padding_out(rows, columns, factors, generator):
    shape = matrix_shape(12, 12, 3, in_factors=factors[0], out_factors=factors[1])
    cores = random_cores(shape, generator)
    dense = tt_oracles.matrix([core.numpy() for core in cores])[:rows, :columns]
    assert matrix_norm(cores, rows, columns) == pytest.approx(np.linalg.norm(dense), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.complex128, torch.float32])
def test_norm_of_every_used_size(dtype, generator):
    """All numbers of rows and columns that three cores of 2 x 3 x 2 and 2 x 2 x 3 can be cut to."""
    cores = random_cores(TTShape((2, 2, 3), (2, 3, 2), (1, 3, 4, 1)), generator, dtype)
    dense = tt_oracles.matrix([core.to(torch.promote_types(dtype, torch.float64)).numpy() for core in cores])
    for rows, columns in np.ndindex(*dense.shape):
        expected = np.linalg.norm(dense[: rows + 1, : columns + 1])
        assert matrix_norm(cores, rows + 1, columns + 1) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("used", [(12, 12), (11, 7)])
def test_norm_of_very_large_and_small_cores(used, generator):
    """Squares of their entries, 10^400 and 10^-400, are no numbers in double precision."""
    cores = random_cores(matrix_shape(12, 12, 3, 3), generator)
    expected = matrix_norm(cores, *used)
    scales = (1e200, 1e-200, 1e-120)
    scaled = [core * scale for core, scale in zip(cores, scales, strict=True)]
    assert matrix_norm(scaled, *used) == pytest.approx(expected * 1e-120, rel=1e-12)
    assert matrix_norm([cores[0], 0 * cores[1], cores[2]], *used) == 0


@pytest.mark.parametrize("limits", [{"rank": 2}, {"rank": (1, 3)}, {"max_error": 0.4}, {"max_error": 1e-9}])
@pytest.mark.parametrize(("rows", "columns"), USED)
def test_error_of_a_truncation_is_the_measured_one(rows, columns, limits, generator):
    shape = matrix_shape(12, 12, 6, in_factors=(2, 3, 2), out_factors=(3, 2, 2))
    cores = random_cores(shape, generator)
    dense = tt_oracles.matrix([core.numpy() for core in cores])[:rows, :columns]
    smaller, error = truncated_cores(cores, rows, columns, **limits)
    assert abs(error - change(smaller, dense)) <= 1e-10
    assert error <= limits.get("max_error", 10.0)
    if "rank" in limits:
        most = limits["rank"] if isinstance(limits["rank"], tuple) else (2, 2)
        assert all(r <= limit for r, limit in zip(TTShape.of_cores(smaller).ranks[1:-1], most, strict=True))


def test_large_padding_takes_no_part_of_the_error(generator):
    """Rows beyond the used ones that are 10^4 times as large: the used ones keep to the limit."""
    shape = matrix_shape(16, 16, 16, 2)
    cores = random_cores(shape, generator)
    cores[0][:, 3] *= 1e4
    dense = tt_oracles.matrix([core.numpy() for core in cores])[:12]
    smaller, error = truncated_cores(cores, 12, 16, max_error=0.1)
    assert change(smaller, dense) <= 0.1
    assert abs(error - change(smaller, dense)) <= 1e-10


def test_redundant_ranks_go(generator):
    small = random_cores(TTShape((4, 4), (4, 4), (1, 3, 1)), generator)
    doubled = [torch.cat([small[0]] * 2, 3), torch.cat([small[1]] * 2, 0)]
    for max_error in (0.0, 1e-8):
        cores, error = truncated_cores(doubled, 16, 16, max_error=max_error)
        assert cores[0].shape[3] == 3
        assert error <= 1e-12


def test_float32_cores_lose_rounding_only(generator):
    cores = random_cores(TTShape((8, 8), (8, 8), (1, 6, 1)), generator, torch.float32)
    smaller, error = truncated_cores(cores, 64, 64, rank=6)
    assert smaller[0].dtype == torch.float32
    assert 0 < error <= 1e-6


def test_relative_error_of_zero():
    assert relative_error(torch.ones(2, 2), torch.zeros(2, 2)) == 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "a limit is needed: give rank, max_error or both"),
        ({"rank": 0}, "rank must be a whole number, at least 1, got 0"),
        ({"rank": (2, 2)}, "2 cores have 1 ranks between them"),
        ({"max_error": 1.0}, r"max_error \(a relative error\) must be .* got 1\.0"),
        ({"max_error": -0.1}, r"max_error \(a relative error\) must be"),
        ({"max_error": float("nan")}, r"max_error \(a relative error\) must be"),
        ({"max_error": True}, r"max_error \(a relative error\) must be"),
        ({"max_error": "0.1"}, r"max_error \(a relative error\) must be"),
    ],
)
def test_bad_limits(limits, message):
    shape = TTShape((2, 2), (2, 2), (1, 1, 1))
    with pytest.raises(InputError, match=message):
        cores_of_matrix(torch.eye(4), shape, **limits)
    with pytest.raises(InputError, match=message):
        truncated_cores([torch.ones(1, 2, 2, 2), torch.ones(2, 2, 2, 1)], 4, 4, **limits)


def test_numbers_that_are_not_finite():
    with pytest.raises(InputError, match="core 1 holds NaN or infinite"):
        matrix_norm([torch.ones(1, 2, 2, 1), torch.full((1, 2, 2, 1), float("nan"))], 3, 4)
    shape = TTShape((2, 2), (2, 2), (1, 1, 1))
    with pytest.raises(InputError, match="NaN or infinite"):
        cores_of_matrix(torch.full((4, 4), float("nan")), shape, rank=1)
    with pytest.raises(InputError, match="NaN or infinite"):
        truncated_cores([torch.full((1, 2, 2, 1), float("inf")), torch.ones(1, 2, 2, 1)], 4, 4, rank=1)
