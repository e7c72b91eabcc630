"""Site orders: in which sequence the chain visits the pixels of an image.

A chain carries correlations best between sites that follow each other, so an order that keeps neighbouring
pixels close needs a smaller bond dimension. Image axes are (row, column); pixel (i, j) of a `(rows, columns)`
image is entry `i * columns + j` of the flat sample.

    raster     snake      spiral     hilbert
    0 1 2 3    0 1 2 3    0 1 2 3    0 1 E F
    4 5 6 7    7 6 5 4    B C D 4    3 2 D C
    8 9 A B    8 9 A B    A F E 5    4 7 8 B
    C D E F    F E D C    9 8 7 6    5 6 9 A

Each entry is the place in the chain. Snake, spiral and Hilbert step to an adjacent pixel every time.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray
from torch import Tensor

from tnml.checks import entries, is_whole, whole
from tnml.errors import InputError, choose

Permutation = Sequence[int] | npt.NDArray[np.integer[Any]] | Tensor
_Grid = npt.NDArray[np.int64]
_Paths = dict[tuple[int, int], _Grid]


def site_order(order: str | Permutation, shape: Sequence[int] | None, n_sites: int) -> Int64[Tensor, " n"]:
    """The permutation `p` that brings pixels into chain order, `x_chain = x[:, p]`; int64, on the CPU.

    Its inverse is `torch.argsort(p)`. Cost: O(n) for the named orders; meant to be called once per model.

    Args:
        order: "raster" (row by row), "snake" (every second row backwards), "spiral" (from outside in),
            "hilbert" (a Hilbert-like curve for any rectangle), or a permutation of `0..n_sites-1`.
        shape: (rows, columns) of the image. None takes a square where `n_sites` is one, else one row.
        n_sites: number of pixels.

    Raises:
        InputError: unknown name, a shape that does not hold `n_sites` pixels, or not a permutation.

    Example:
        >>> site_order("snake", (2, 3), 6).tolist()
        [0, 1, 2, 5, 4, 3]
    """
    n_sites = whole("n_sites", n_sites, 1)
    rows, columns = _checked_shape(shape, n_sites)
    if isinstance(order, str):
        pixels = np.arange(n_sites, dtype=np.int64).reshape(rows, columns)
        return torch.from_numpy(np.ascontiguousarray(choose("order", order, _ORDERS)(pixels)))
    return _checked_permutation(order, n_sites)


def _raster(pixels: _Grid) -> _Grid:
    return pixels.ravel()


def _snake(pixels: _Grid) -> _Grid:
    turned = pixels.copy()
    turned[1::2] = pixels[1::2, ::-1]
    return turned.ravel()


def _spiral(pixels: _Grid) -> _Grid:
    """Takes the top row off and turns the rest a quarter to the left, until nothing is left."""
    edges = []
    while pixels.size:
        edges.append(pixels[0])
        pixels = np.rot90(pixels[1:])
    return np.concatenate(edges)


def _hilbert(pixels: _Grid) -> _Grid:
    """A Hilbert-like curve without a single jump on any rectangle, square ones of side 2^k being Hilbert's.

    The curve of `_walk` needs a length that is even or a width that is odd. A block of odd length and even
    width is walked across instead, if it is long only its last width x (width + 1) pixels:

        +---------------+-----+
        |               |  ^  |
        | ------------> |  |  |
        +---------------+-----+
    """
    long = pixels if pixels.shape[1] >= pixels.shape[0] else pixels.T
    width, length = long.shape
    paths: _Paths = {}
    if length % 2 == 0 or width % 2 == 1:
        path = _walk(length, width, paths)
    elif 2 * length > 3 * width:
        straight = length - width - 1
        across = np.add(_walk(width, width + 1, paths)[:, ::-1], (straight, 0))
        path = np.concatenate([_walk(straight, width, paths), across])
    else:
        path = _walk(width, length, paths)[:, ::-1]
    return long[path[:, 1], path[:, 0]]


def _walk(length: int, width: int, paths: _Paths) -> _Grid:
    """The `(length * width, 2)` steps (along, across) of a curve from (0, 0) to (length - 1, 0).

    Neighbouring steps are adjacent if `length` is even or `width` odd; colouring the pixels like a chess
    board shows that no such curve exists otherwise. A long block is cut in two; any other one becomes
    a walk up, a walk along the top and a walk down, as in Hilbert's own curve:

        +-------------+      `up` and `down` get an even height (1 in a block of 2 x 2) and a long block
        |    over     |      of even width is cut into even lengths: every part can be walked itself.
        +------+------+
        |  up  | down |      `paths` keeps the blocks already made, of which there are few sizes.
        +------+------+
    """
    if (length, width) in paths:
        return paths[length, width]
    half = length // 2
    if width == 1:
        path = np.stack([np.arange(length), np.zeros(length, dtype=np.int64)], axis=1)
    elif 2 * length > 3 * width:
        half += half % 2
        second = np.add(_walk(length - half, width, paths), (half, 0))
        path = np.concatenate([_walk(half, width, paths), second])
    else:
        rise = 1 if width == 2 else width // 2 + width // 2 % 2
        up = _walk(rise, half, paths)[:, ::-1]
        over = np.add(_walk(length, width - rise, paths), (0, rise))
        down = np.subtract((length - 1, rise - 1), _walk(rise, length - half, paths)[:, ::-1])
        path = np.concatenate([up, over, down])
    paths[length, width] = path
    return path


_ORDERS: Mapping[str, Callable[[_Grid], _Grid]] = MappingProxyType(
    {"raster": _raster, "snake": _snake, "hilbert": _hilbert, "spiral": _spiral}
)
ORDER_NAMES = tuple(_ORDERS)
"""The orders known by name."""


def _checked_shape(shape: Any, n_sites: int) -> tuple[int, int]:
    if shape is None:
        side = math.isqrt(n_sites)
        return (side, side) if side * side == n_sites else (1, n_sites)
    sides = entries(shape) or []
    if len(sides) != 2 or not all(is_whole(side, 1) for side in sides):
        raise InputError(f"the image shape must be two positive integers (rows, columns), got {shape!r}")
    rows, columns = map(int, sides)
    if rows * columns != n_sites:
        raise InputError(
            f"an image of {rows} x {columns} has {rows * columns} pixels, but there are {n_sites} sites; "
            "give the shape of one sample as (rows, columns)"
        )
    return rows, columns


def _checked_permutation(order: Any, n_sites: int) -> Tensor:
    rule = f"a site order must name each of 0..{n_sites - 1} once"
    try:
        sites = torch.as_tensor(order).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{rule}; got {type(order).__name__} that holds no integers ({error})") from error
    if sites.dtype == torch.bool or sites.is_floating_point() or sites.is_complex():
        raise InputError(f"{rule}, in integers; got dtype {sites.dtype}")
    if sites.shape != (n_sites,):
        raise InputError(f"{rule}; got shape {tuple(sites.shape)}, expected ({n_sites},)")
    sites = sites.to(torch.int64, copy=True).contiguous()
    wrong = sites[(sites < 0) | (sites >= n_sites)]
    if wrong.numel():
        raise InputError(f"{rule}; got {int(wrong[0])}")
    missing = torch.nonzero(torch.bincount(sites, minlength=n_sites) == 0)
    if missing.numel():
        raise InputError(f"{rule}; {int(missing[0])} is missing, so another one comes twice")
    return sites


def mutual_information_order(
    codes: Int64[ndarray, "b n"],
    labels: Int64[ndarray, " b"],
    weight: Float64[ndarray, " b"] | None = None,
) -> Int64[Tensor, " n"]:
    """An order of columns in which those that depend on each other are close; int64, on the CPU.

    It begins with the column that tells most about the labels, and goes on with the column that has the
    largest mutual information with the one at either end, which comes next to it. Greedy: cheap, not optimal.

    Args:
        codes: every column as numbers from 0 up, few different ones each, such as deciles.
        labels: the target as such numbers.
        weight: of the samples, positive; None where all count alike.

    Raises:
        InputError: there is no sample or no column, or a code is negative.

    Cost: b k², with k the different codes of all columns together, and n² after that.

    Source: the greedy heuristic for tree approximations of Chow and Liu, IEEE Trans. Inf. Theory 14 (1968),
        with a path for the tree.

    Example:
        >>> pair, other = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
        >>> mutual_information_order(np.stack([pair, other, pair], 1), other).tolist()
        [1, 0, 2]
    """
    if codes.ndim != 2 or not codes.size or codes.min() < 0 or labels.min() < 0:
        raise InputError(f"expected codes [b, n] and labels [b] of at least 0, got shape {codes.shape}")
    both = mutual_information(np.concatenate([codes, labels[:, None]], axis=1), weight)
    relevance, between = both[-1, :-1], both[:-1, :-1]
    chain = [int(relevance.argmax())]
    free = np.ones(codes.shape[1], dtype=bool)
    free[chain[0]] = False
    while free.any():
        ends = np.where(free, between[[chain[-1], chain[0]]], -1.0)
        at_the_start, following = np.unravel_index(ends.argmax(), ends.shape)
        free[following] = False
        chain.insert(0 if at_the_start else len(chain), int(following))
    return torch.tensor(chain)


def mutual_information(
    codes: Int64[ndarray, "b n"], weight: Float64[ndarray, " b"] | None = None
) -> Float64[ndarray, "n n"]:
    """The mutual information of every pair of columns, in nats, as their shares in the samples have it.

        I(i, j) = sum_kl p_ij(k, l) log(p_ij(k, l) / p_i(k) p_j(l))

    Args:
        codes: every column as numbers from 0 up.
        weight: of the samples, positive; None where all count alike.

    Cost: b k², with k the different codes of all columns together; k² numbers in memory.

    Example:
        >>> mutual_information(np.array([[0, 1, 0], [1, 0, 0]])).round(3)
        array([[0.693, 0.693, 0.   ],
               [0.693, 0.693, 0.   ],
               [0.   , 0.   , 0.   ]])
    """
    places, owners = [], []
    for column in range(codes.shape[1]):
        values = np.unique(codes[:, column])
        places.append(np.float64(codes[:, column, None] == values))
        owners += [column] * len(values)
    indicator = np.concatenate(places, axis=1)
    share = np.ones(len(codes)) if weight is None else weight
    joint = indicator.T @ (indicator * share[:, None]) / share.sum()
    single = joint.diagonal()
    terms = joint * np.log(np.where(joint > 0, joint / np.outer(single, single), 1.0))
    starts = np.flatnonzero(np.r_[True, np.diff(owners) > 0])
    found: npt.NDArray[np.float64] = np.add.reduceat(np.add.reduceat(terms, starts, 0), starts, 1)
    return found
