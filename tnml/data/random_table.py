"""Random numbers that depend on seed and index only, however many processes draw them."""

import numpy as np
import numpy.typing as npt

from tnml.checks import whole
from tnml.errors import InputError
from tnml.randomness import TableStream

Numbers = npt.NDArray[np.float64]

REFERENCE_SEED = 2**63  # of the samples behind medians and the moments of networks; beyond what users take
_BLOCK = 256  # samples drawn from one generator
INPUTS, NOISE, WEIGHTS, PERMUTATION, FLIPS, STEPS, CLASSES = TableStream


def source(seed: int, stream: int, block: int = 0) -> np.random.RandomState:
    """A generator whose numbers NumPy promises to keep for all its versions.

    Args:
        seed: 0 to 2**32 - 1; beyond, its words would be those of another stream.
        stream: separates uses that need numbers of their own at one seed.
        block: separates parts of one use.

    Raises:
        InputError: the seed is not a whole number of that range.

    Example:
        >>> bool(source(0, INPUTS).random_sample() == source(0, NOISE).random_sample())
        False
    """
    seed = whole("seed", seed)
    if seed >= 2**32 and seed != REFERENCE_SEED:
        raise InputError(f"seed must be below 2**32, got {seed}")
    words = np.random.SeedSequence((seed, int(stream), block))
    return np.random.RandomState(np.random.Philox(words))


def uniform(n: int, width: int, *, seed: int, stream: int, first: int = 0) -> Numbers:
    """Uniform numbers in [0, 1), `[n, width]`: rows `first` to `first + n - 1` of an endless table.

    Raises:
        InputError: a count or the seed is negative.

    Example:
        >>> table = uniform(600, 2, seed=3, stream=INPUTS)
        >>> bool((uniform(10, 2, seed=3, stream=INPUTS, first=300) == table[300:310]).all())
        True
    """
    return _table(n, width, seed, stream, first, normal=False)


def normal(n: int, width: int, *, seed: int, stream: int, first: int = 0) -> Numbers:
    """Standard normal numbers, as `uniform`.

    Raises:
        InputError: a count or the seed is negative.

    Example:
        >>> normal(3, 2, seed=0, stream=NOISE).shape
        (3, 2)
    """
    return _table(n, width, seed, stream, first, normal=True)


def _table(n: int, width: int, seed: int, stream: int, first: int, *, normal: bool) -> Numbers:
    n, first, seed = whole("n", n), whole("first", first), whole("seed", seed)
    blocks = range(first // _BLOCK, -(-(first + n) // _BLOCK))
    drawn = np.empty((len(blocks) * _BLOCK, width))
    for place, block in enumerate(blocks):
        numbers = source(seed, stream, block)
        draw = numbers.standard_normal if normal else numbers.random_sample
        drawn[place * _BLOCK : (place + 1) * _BLOCK] = draw((_BLOCK, width))
    start = first - (blocks[0] * _BLOCK if blocks else first)
    return drawn[start : start + n]
