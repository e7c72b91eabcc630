"""Site orders are permutations, and step from pixel to neighbouring pixel where they say so."""

import inspect
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from tnml.errors import InputError
from tnml.features import site_order
from tnml.features.orders import ORDER_NAMES, mutual_information, mutual_information_order

RECTANGLES = [
    *product(range(1, 23), range(1, 23)),
    (28, 28),
    (27, 28),
    (29, 28),
    (1, 784),
    (7, 101),
    (101, 6),
]
unchecked_site_order: Any = inspect.unwrap(site_order)  # as a user has it, without the tests' type checker


def places(order: str, shape: tuple[int, int]) -> np.ndarray:
    """The (row, column) of every step of the chain, (n, 2)."""
    sites = site_order(order, shape, shape[0] * shape[1]).numpy()
    return np.stack(np.divmod(sites, shape[1]), 1)


def step_lengths(path: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(path, axis=0)).sum(1)


def stretch(path: np.ndarray) -> float:
    """The largest (distance in the image)² / (distance along the chain), within the width of the image."""
    near = min(path.max(0) + 1) ** 2
    apart = range(1, min(near, len(path) - 1) + 1)
    return max(float(((path[k:] - path[:-k]) ** 2).sum(1).max() / k) for k in apart) if apart else 0.0


@pytest.mark.parametrize("order", ORDER_NAMES)
def test_every_order_visits_every_pixel_once(order: str) -> None:
    for shape in RECTANGLES:
        sites = site_order(order, shape, shape[0] * shape[1])
        assert sites.dtype == torch.int64
        assert sites.is_contiguous()
        assert torch.equal(sites.sort().values, torch.arange(shape[0] * shape[1])), shape


@pytest.mark.parametrize("order", ["snake", "spiral", "hilbert"])
def test_every_step_goes_to_an_adjacent_pixel(order: str) -> None:
    """Odd sizes included: the Hilbert curve ends elsewhere where parity forbids the usual end."""
    for shape in RECTANGLES:
        path = places(order, shape)
        assert path[0].tolist() == [0, 0]
        assert (step_lengths(path) == 1).all(), shape


def test_raster_is_the_identity_and_snake_turns_every_second_row() -> None:
    assert site_order("raster", (3, 4), 12).tolist() == list(range(12))
    assert site_order("snake", (3, 4), 12).tolist() == [0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11]


def test_spiral_goes_inwards_ring_by_ring() -> None:
    assert site_order("spiral", (3, 4), 12).tolist() == [0, 1, 2, 3, 7, 11, 10, 9, 8, 4, 5, 6]
    for shape in RECTANGLES:
        path = places("spiral", shape)
        ring = np.minimum(path, np.array(shape) - 1 - path).min(1)
        assert (np.diff(ring) >= 0).all(), shape


def hilbert_curve(level: int) -> np.ndarray:
    """Hilbert's curve on a square of side 2^level by its substitution rule: four copies, two turned."""
    path = np.zeros((1, 2), dtype=int)
    for k in range(level):
        side = 2**k
        corners = np.array([[0, 0], [0, side], [side, side], [side, 0]])[:, None]
        path = (np.stack([path[:, ::-1], path, path, side - 1 - path[:, ::-1]]) + corners).reshape(-1, 2)
    return path


def test_hilbert_is_hilberts_curve_on_squares_of_side_2_to_the_k() -> None:
    for level in range(6):
        path = places("hilbert", (2**level, 2**level))
        known = hilbert_curve(level)
        assert (step_lengths(known) == 1).all()
        assert any(np.array_equal(path, turned) for turned in (known, known[:, ::-1])), level


def test_hilbert_keeps_what_is_near_on_the_chain_near_in_the_image() -> None:
    """Hilbert's own curve stays below 6 (Bauman 2006, dilation factor); a snake grows with its width."""
    assert stretch(places("hilbert", (32, 32))) < 6
    assert max(stretch(places("hilbert", shape)) for shape in RECTANGLES) < 7
    assert stretch(places("snake", (32, 32))) > 30


def test_hilbert_is_quick_on_large_images() -> None:
    assert (step_lengths(places("hilbert", (511, 512))) == 1).all()
    assert (step_lengths(places("hilbert", (513, 300))) == 1).all()


def test_without_a_shape_a_square_is_assumed_where_there_is_one() -> None:
    assert torch.equal(site_order("snake", None, 16), site_order("snake", (4, 4), 16))
    assert torch.equal(site_order("spiral", None, 15), torch.arange(15))
    assert torch.equal(site_order("hilbert", None, 15), torch.arange(15))


def test_chain_order_of_a_batch_and_back(generator: torch.Generator) -> None:
    x = torch.rand(5, 12, generator=generator)
    sites = site_order("spiral", (3, 4), 12)
    assert torch.equal(x[:, sites][:, torch.argsort(sites)], x)


@pytest.mark.parametrize(
    "given",
    [
        [2, 0, 1],
        (2, 0, 1),
        np.array([2, 0, 1]),
        torch.tensor([2, 0, 1]),
        torch.tensor([2, 0, 1], dtype=torch.int32),
    ],
    ids=["list", "tuple", "numpy", "tensor", "int32"],
)
def test_own_permutation(given: Any) -> None:
    sites = site_order(given, None, 3)
    assert sites.dtype == torch.int64
    assert sites.tolist() == [2, 0, 1]


def test_own_permutation_is_copied() -> None:
    given = torch.tensor([1, 0])
    sites = site_order(given, None, 2)
    given[0] = 7
    assert sites.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("order", "shape", "n_sites", "says"),
    [
        ("hilbrt", None, 4, "did you mean 'hilbert'"),
        ("snake", (3, 3), 8, r"3 x 3 has 9 pixels, but there are 8 sites"),
        ("snake", (2, 2, 2), 8, "two positive integers"),
        ("snake", (0, 8), 8, "two positive integers"),
        ("snake", (2.0, 4.0), 8, "two positive integers"),
        ("snake", 8, 8, "two positive integers"),
        ("snake", None, 0, "n_sites must be a whole number, at least 1, got 0"),
        ("snake", None, 4.0, "n_sites must be a whole number, at least 1"),
        ("snake", None, True, "n_sites must be a whole number, at least 1"),
        ([0, 1], None, 3, r"got shape \(2,\), expected \(3,\)"),
        ([[0, 1, 2]], None, 3, r"got shape \(1, 3\)"),
        ([0, 1, 3], None, 3, "each of 0..2 once; got 3"),
        ([0, -1, 2], None, 3, "got -1"),
        ([0, 0, 2], None, 3, "1 is missing"),
        ([0.0, 1.0, 2.0], None, 3, "in integers; got dtype torch.float32"),
        ([True, False], None, 2, "in integers; got dtype torch.bool"),
        (["a", "b"], None, 2, "holds no integers"),
        (None, None, 2, "holds no integers"),
        ([0, 1, 2, 3], (2, 3), 4, "6 pixels"),
    ],
)
def test_bad_orders_are_refused(order: Any, shape: Any, n_sites: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        unchecked_site_order(order, shape, n_sites)


def information(a: np.ndarray, b: np.ndarray) -> float:
    """By scikit-learn, in nats."""
    return float(mutual_info_score(a, b))


def test_mutual_information_is_scikit_learns_also_with_weights() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, [2, 3, 5, 1], size=(60, 4))
    codes[:, 2] += codes[:, 1]
    expected = [[information(a, b) for b in codes.T] for a in codes.T]
    np.testing.assert_allclose(mutual_information(codes), expected, rtol=1e-10, atol=1e-12)
    times = rng.integers(1, 4, size=60)
    repeated = np.repeat(codes, times, axis=0)
    np.testing.assert_allclose(
        mutual_information(codes, times.astype(float)), mutual_information(repeated), rtol=1e-10, atol=1e-12
    )


def test_columns_that_depend_on_each_other_come_side_by_side() -> None:
    """A Markov chain of columns, shuffled, is found again, from either end."""
    rng = np.random.default_rng(0)
    codes = np.zeros((4000, 9), dtype=np.int64)
    codes[:, 0] = rng.integers(0, 4, 4000)
    for column in range(1, 9):
        keep = rng.random(4000) < 0.8
        codes[:, column] = np.where(keep, codes[:, column - 1], rng.integers(0, 4, 4000))
    shuffled = rng.permutation(9)
    order = mutual_information_order(codes[:, shuffled], (codes[:, 4] > 1).astype(np.int64))
    found = shuffled[order.numpy()].tolist()
    assert found in (list(range(9)), list(range(9))[::-1])


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (3, 0)])
def test_an_order_of_nothing_is_refused(rows: int, columns: int) -> None:
    with pytest.raises(InputError, match=r"expected codes \[b, n\]"):
        mutual_information_order(np.zeros((rows, columns), dtype=np.int64), np.zeros(rows, dtype=np.int64))
