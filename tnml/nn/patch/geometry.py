"""Where the patches of an image lie: their pixels, position by position, and images from flat samples."""

import math

import torch
from jaxtyping import Int64
from torch import Tensor

from tnml.checks import entries, whole
from tnml.errors import InputError

Pair = tuple[int, int]


def image_shape(n_sites: int, shape: Pair | None) -> Pair:
    """`(height, width)` of the image behind the sites: `shape`, else a square where that fits, else one row.

    Example:
        >>> image_shape(6, (2, 3)), image_shape(9, None), image_shape(5, None)
        ((2, 3), (3, 3), (1, 5))
    """
    if shape is not None:
        return int(shape[0]), int(shape[1])
    side = math.isqrt(n_sites)
    return (side, side) if side * side == n_sites else (1, n_sites)


def pair(name: str, value: object) -> Pair:
    """Two whole numbers of at least one: the height and width that one number or two give.

    Raises:
        InputError: they are neither.

    Example:
        >>> pair("kernel", 3), pair("kernel", (2, 3))
        ((3, 3), (2, 3))
    """
    given = entries(value)
    if given is None:
        return (whole(name, value, 1),) * 2
    if len(given) != 2:
        raise InputError(f"{name} must be a whole number or two, (height, width), got {value!r}")
    return whole(name, given[0], 1), whole(name, given[1], 1)


def starts(size: int, kernel: int, stride: int) -> list[int]:
    """The first pixel of every patch along one axis; the last patch is moved back so that it ends at the end.

    Example:
        >>> starts(6, 2, 2), starts(5, 2, 2), starts(3, 5, 1)
        ([0, 2, 4], [0, 2, 3], [0])
    """
    last = max(size - kernel, 0)
    return [*range(0, last, stride), last]


def patch_pixels(shape: Pair, kernel: Pair, stride: Pair) -> Int64[Tensor, "p k"]:
    """The pixels `[p, k]` of every patch, in raster order, of patches in raster order.

    Args:
        shape: of the image; a kernel that is larger is cut.
        kernel: of a patch.
        stride: from one patch to the next.

    Example:
        >>> patch_pixels((2, 3), (2, 2), (1, 1)).tolist()
        [[0, 1, 3, 4], [1, 2, 4, 5]]
    """
    height, width = (min(k, s) for k, s in zip(kernel, shape, strict=True))
    top = torch.tensor(starts(shape[0], height, stride[0]))
    left = torch.tensor(starts(shape[1], width, stride[1]))
    corners = (top[:, None] * shape[1] + left).reshape(-1, 1)
    inside = (torch.arange(height)[:, None] * shape[1] + torch.arange(width)).reshape(1, -1)
    return corners + inside


def grid_of(shape: Pair, kernel: Pair, stride: Pair) -> Pair:
    """How many patches there are, `(down, across)`.

    Example:
        >>> grid_of((28, 28), (4, 4), (2, 2))
        (13, 13)
    """
    down, across = (len(starts(s, k, t)) for s, k, t in zip(shape, kernel, stride, strict=True))
    return down, across
