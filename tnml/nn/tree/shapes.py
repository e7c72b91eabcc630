"""Trees over images and columns, as nested tuples of site numbers."""

from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from tnml.checks import entries, is_whole
from tnml.errors import InputError
from tnml.features.orders import mutual_information
from tnml.nn.patch.geometry import Pair

NAMED = ("binary", "quad", "chain")


def image_tree(shape: Pair, kind: str = "binary") -> Any:
    """A tree over the pixels of an image, in raster order: halves of halves, down to single pixels.

    Args:
        shape: `(height, width)` of the image.
        kind: "binary" halves the longer side, "quad" both; "chain" is a caterpillar, a chain from one end.

    Example:
        >>> image_tree((2, 2)), image_tree((2, 2), "quad"), image_tree((1, 4), "chain")
        (((0, 2), (1, 3)), (0, 1, 2, 3), (((0, 1), 2), 3))
    """
    height, width = shape
    if kind == "chain":
        found: Any = 0
        for pixel in range(1, height * width):
            found = (found, pixel)
        return found

    def part(top: int, left: int, rows: int, columns: int) -> Any:
        if rows * columns == 1:
            return top * width + left
        down = rows > 1 and (kind == "quad" or rows > columns)
        across = columns > 1 and (kind == "quad" or not down)
        tops = [(top, (rows + 1) // 2), (top + (rows + 1) // 2, rows // 2)] if down else [(top, rows)]
        lefts = (
            [(left, (columns + 1) // 2), (left + (columns + 1) // 2, columns // 2)]
            if across
            else [(left, columns)]
        )
        return tuple(part(t, l, r, c) for t, r in tops for l, c in lefts)

    return part(0, 0, height, width)


def information_tree(codes: Int64[ndarray, "b n"]) -> Any:
    """A binary tree that joins first what depends on each other most, greedily.

    The two clusters of columns with the largest mean mutual information between their columns are joined,
    among the smaller half of the clusters, so that the tree stays low.

    Args:
        codes: every column as numbers from 0 up, few different ones each, such as quantiles.

    Raises:
        InputError: there is no sample or no column, or a code is negative.

    Cost: that of `tnml.features.orders.mutual_information`, and n^3 comparisons after that.

    Source: the greedy joining of clusters by their mean similarity (average linkage); Chow and Liu, IEEE
    Trans. Inf. Theory 14 (1968), for mutual information as the weight.

    Example:
        >>> pair, other = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
        >>> information_tree(np.stack([pair, other, pair, other], 1))
        ((0, 2), (1, 3))
    """
    if codes.ndim != 2 or not codes.size or codes.min() < 0:
        raise InputError(f"expected codes [b, n] of at least 0, got shape {codes.shape}")
    between = mutual_information(codes)
    trees: list[Any] = list(range(codes.shape[1]))
    sizes = np.ones(len(trees))
    totals = between.copy()
    while len(trees) > 1:
        allowed = sizes <= np.sort(sizes)[max(1, (len(sizes) - 1) // 2)]
        mean = totals / np.outer(sizes, sizes)
        mean[~allowed] = mean[:, ~allowed] = -1.0
        np.fill_diagonal(mean, -2.0)
        one, other = sorted(int(each) for each in np.unravel_index(mean.argmax(), mean.shape))
        totals[one] += totals[other]
        totals[:, one] += totals[:, other]
        trees[one], sizes[one] = (trees[one], trees[other]), sizes[one] + sizes[other]
        totals = np.delete(np.delete(totals, other, 0), other, 1)
        sizes = np.delete(sizes, other)
        del trees[other]
    return trees[0]


def checked_tree(tree: Any) -> Any:
    """A nested tuple of Python's whole numbers, of whatever nested sequences a user gives.

    Raises:
        InputError: a part is neither a whole number nor a sequence.

    Example:
        >>> checked_tree([[0, 1], 2])
        ((0, 1), 2)
    """
    if is_whole(tree):
        return int(tree)
    own = entries(tree)
    if own is None:
        raise InputError(
            f"a tree is {', '.join(NAMED)}, or nested sequences of site numbers, got {tree!r} in it"
        )
    return tuple(checked_tree(part) for part in own)
