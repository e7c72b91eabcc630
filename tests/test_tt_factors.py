"""How sizes factor over the cores of a tensor train, against a search through all factors; ranks; errors."""

import itertools
import math

import numpy as np
import pytest
import tt_oracles

from tnml.errors import InputError
from tnml.nn.tt.factors import equal_factors, factors_text, fitting_ranks, matrix_shape


def searched(size, count):
    """The first number from `size` on with factors whose sum is at most 1.25 that of equal ones; the best."""
    for padded in itertools.count(size):
        ways = [
            way
            for way in itertools.combinations_with_replacement(range(1, padded + 1), count)
            if math.prod(way) == padded
        ]
        best = min(map(sum, ways))
        if best <= 1.25 * count * padded ** (1 / count):
            return padded, best
    raise AssertionError


@pytest.mark.parametrize(("count", "most"), [(1, 40), (2, 70), (3, 40), (4, 18)])
def test_factors_are_the_best_of_the_smallest_padding(count, most):
    for size in range(1, most + 1):
        factors = equal_factors(size, count)
        assert (math.prod(factors), sum(factors)) == searched(size, count)
        assert list(factors) == sorted(factors)


@pytest.mark.parametrize(
    ("size", "count", "factors"),
    [
        (784, 2, (28, 28)),
        (4096, 3, (16, 16, 16)),
        (10, 2, (2, 5)),
        (101, 2, (6, 17)),
        (1021, 2, (31, 33)),
        (2**20, 6, (8, 8, 8, 8, 16, 16)),
        (1, 3, (1, 1, 1)),
    ],
)
def test_known_sizes(size, count, factors):
    assert equal_factors(size, count) == factors


@pytest.mark.parametrize("size", [50_257, 1_000_003, 2**31 - 1])
@pytest.mark.parametrize("count", [3, 6])
def test_large_primes_get_little_padding(size, count):
    factors = equal_factors(size, count)
    assert size < math.prod(factors) <= 1.02 * size
    assert sum(factors) <= 1.25 * count * math.prod(factors) ** (1 / count)


def test_large_input_factors_meet_small_output_factors():
    shape = matrix_shape(2 * 3 * 16, 512, 1, 2)
    orders = itertools.permutations(shape.ins)
    fewest = min(sum(o * i for o, i in zip(shape.outs, ins, strict=True)) for ins in orders)
    assert shape.n_weights == fewest


@pytest.mark.parametrize(
    ("sizes", "cores"),
    [((1024, 1024), 2), ((1025, 10), 3), ((10, 1025), 3), ((1, 1), 2)],
)
def test_number_of_cores(sizes, cores):
    assert matrix_shape(*sizes, 4).n_cores == cores
    assert matrix_shape(*sizes, 4, 5).n_cores == 5
    assert matrix_shape(*sizes, 4, out_factors=(33, 32, 2)).n_cores == 3


@pytest.mark.parametrize(
    ("rank", "sizes"),
    [
        (100, (4, 9, 2)),
        (3, (4, 9, 2)),
        ((7, 1), (4, 9, 2)),
        ((1, 50, 1), (4, 9, 2, 25)),
        ((50, 1, 50), (1, 4, 9, 4)),
        (8, (6,)),
    ],
)
def test_ranks_are_those_of_the_matrix(rank, sizes):
    """Random cores of ranks that are too large make matrices whose unfoldings have the cut ranks."""
    inner = [rank] * (len(sizes) - 1) if isinstance(rank, int) else list(rank)
    wide, random = [1, *inner, 1], np.random.default_rng(0)
    ends = zip(wide, sizes, wide[1:], strict=False)
    dense = tt_oracles.matrix([random.normal(size=(left, size, 1, right)) for left, size, right in ends])
    cuts = tt_oracles.unfoldings(dense, sizes, [1] * len(sizes))
    assert fitting_ranks(rank, sizes) == (1, *(int(np.linalg.matrix_rank(cut)) for cut in cuts), 1)


def test_ranks_with_and_without_the_outer_ones():
    assert fitting_ranks((1, 2, 3, 1), (4, 9, 4)) == fitting_ranks([2, 3], (4, 9, 4)) == (1, 2, 3, 1)
    assert fitting_ranks((), (5,)) == fitting_ranks((1, 1), (5,)) == (1, 1)


def test_numbers_of_numpy_become_those_of_python():
    sizes = {"in_features": np.int64(12), "out_features": np.int32(8), "n_cores": np.int8(3)}
    for rank in ((2, 3), np.array([2, 3]), [np.int64(2), np.int16(3)], np.array([1, 2, 3, 1])):
        found = matrix_shape(**sizes, rank=rank)
        assert found == matrix_shape(12, 8, (2, 3), 3)
        assert {type(n) for n in (*found.ins, *found.outs, *found.ranks)} == {int}
    assert {type(n) for n in fitting_ranks(np.array(3), (4, 9, 4))} == {int}
    factors = {"in_factors": np.array([3, 4]), "out_factors": [np.int64(4), 2]}
    assert matrix_shape(12, 8, 2, **factors) == matrix_shape(12, 8, 2, in_factors=(3, 4), out_factors=(4, 2))


def test_text_tells_padding():
    assert factors_text(12, (3, 4)) == "12 = 3 x 4"
    assert factors_text(11, (3, 4)) == "11 -> 12 = 3 x 4 (padded)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 0}, "in_features must be a whole number, at least 1, got 0"),
        ({"out_features": 2.0}, r"out_features must be a whole number, at least 1, got 2\.0"),
        ({"in_features": True}, "in_features must be a whole number, at least 1, got True"),
        ({"rank": 0}, "rank must be a whole number, at least 1, got 0"),
        ({"rank": True}, "rank must be a whole number, at least 1, got True"),
        ({"rank": None}, "rank must be a whole number, at least 1, got None"),
        ({"rank": 2.5}, r"rank must be a whole number, at least 1, got 2\.5"),
        ({"rank": (2, 0)}, "every rank must be a whole number, at least 1, got 0"),
        ({"rank": (2, 2)}, "2 cores have 1 ranks between them, got 2; give one number or 1"),
        ({"rank": np.array([2.0])}, r"every rank must be a whole number, at least 1, got 2\.0"),
        ({"rank": np.int64(0)}, "rank must be a whole number, at least 1, got"),
        ({"in_features": np.float64(12)}, "in_features must be a whole number, at least 1, got"),
        ({"n_cores": 7}, "n_cores must be a whole number, from 1 to 6, got 7"),
        ({"n_cores": 0}, "n_cores must be a whole number, from 1 to 6, got 0"),
        ({"n_cores": "2"}, "n_cores must be a whole number, from 1 to 6, got '2'"),
        ({"in_factors": (2, 5)}, "in_factors must be at least 12, got 2 x 5 = 10"),
        ({"in_factors": ()}, "in_factors must be 1 to 6 integers"),
        ({"in_factors": (12, 1, 1, 1, 1, 1, 1)}, "in_factors must be 1 to 6 integers"),
        ({"out_factors": (2, -4)}, "out_factors must be 1 to 6 integers of at least 1"),
        ({"out_factors": 8}, "out_factors must be 1 to 6 integers of at least 1, got 8"),
        ({"in_factors": (3, 4), "n_cores": 3}, "must agree on the number of cores"),
        ({"in_factors": (3, 4), "out_factors": (2, 2, 2)}, "must agree on the number of cores"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        matrix_shape(**{"in_features": 12, "out_features": 8, "rank": 2, **arguments})
