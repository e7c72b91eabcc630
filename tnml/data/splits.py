"""Which samples to hold out: by class, reproducibly."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tnml.checks import whole
from tnml.errors import InputError

Indices = npt.NDArray[np.int64]

QUARTER = 0.25
QUARTER_SEED = 0


def stratified_split(y: npt.ArrayLike, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """The indices to keep and the indices held out, each ascending, with every class in both.

    Of a class with m members, m * fraction rounded to the nearest whole number (halves up) are held
    out, but at least one and at most m - 1. The draw is by NumPy's `RandomState`, whose numbers are
    frozen for all versions, so a split named in a paper stays the same.

    Args:
        y: `[n]` labels of any type that can be sorted.
        fraction: the share to hold out, in (0, 1).
        seed: 0 to 2**32 - 1.

    Raises:
        InputError: a class has one member, or an argument is out of range.

    Example:
        >>> train, held = stratified_split(["a"] * 4 + ["b"] * 8, fraction=0.25, seed=0)
        >>> len(train), len(held), int((held < 4).sum())
        (9, 3, 1)
    """
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.size == 0:
        raise InputError(f"a split needs labels of shape [n], got {list(labels.shape)}")
    if not 0 < fraction < 1:
        raise InputError(
            f"the fraction to hold out must lie between 0 and 1, got {fraction}; 0.25 is a usual choice"
        )
    random = _random(seed)
    classes, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        lone = classes[counts.argmin()]
        raise InputError(
            f"class {lone!s} has one member, so it cannot be both kept and held out; "
            "remove it, add samples, or use your own split (real-valued targets have no classes)"
        )
    held_by_class = []
    for index, count in enumerate(counts):
        take = int(np.clip(np.floor(count * fraction + 0.5), 1, count - 1))
        held_by_class.append(random.permutation(np.flatnonzero(place == index))[:take])
    return _complement(np.concatenate(held_by_class), len(labels))


def held_out_quarter(y: npt.NDArray[Any]) -> tuple[Indices, Indices]:
    """The fixed train and test indices of a set that comes without a test part.

    A stratified quarter is held out; of real-valued targets, a plain random quarter.

    Raises:
        InputError: a class has one member, or there are fewer than two samples.

    Example:
        >>> [len(part) for part in held_out_quarter(np.arange(40) % 2)]
        [30, 10]
    """
    if y.dtype.kind != "f":
        return stratified_split(y, QUARTER, QUARTER_SEED)
    if len(y) < 2:
        raise InputError("a quarter cannot be held out of one sample; give at least two")
    return _complement(_random(QUARTER_SEED).permutation(len(y))[: max(1, round(len(y) * QUARTER))], len(y))


def _random(seed: int) -> np.random.RandomState:
    return np.random.RandomState(whole("the seed", seed, 0, 2**32 - 1))


def _complement(held: Indices, total: int) -> tuple[Indices, Indices]:
    mask = np.zeros(total, dtype=bool)
    mask[held] = True
    return np.flatnonzero(~mask).astype(np.int64), np.flatnonzero(mask).astype(np.int64)
