"""Pooling, resizing and random shifts of flattened grey images."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from tnml.checks import entries, is_whole, whole
from tnml.errors import InputError

Pixels = npt.NDArray[np.float32]
CHUNK = 4096  # images at a time, which bounds the memory of pooling and resizing


def pool_images(x: Pixels, shape: tuple[int, int], factor: int) -> Pixels:
    """Images whose pixels are the means of `factor` x `factor` blocks, `[n, (h / factor) * (w / factor)]`.

    The mean is taken in float64 and rounded once.

    Args:
        x: `[n, h * w]`.
        shape: (h, w).
        factor: divides h and w.

    Raises:
        InputError: the factor is not positive or does not divide both sides.

    Example:
        >>> pool_images(np.array([[0.0, 0.5, 0.5, 1.0]], np.float32), (2, 2), 2)
        array([[0.5]], dtype=float32)
    """
    height, width = _sides(x, shape)
    factor = int(factor) if is_whole(factor) else factor
    if factor < 1 or height % factor or width % factor:
        raise InputError(f"pool must divide {height} and {width}, got {factor}; use resize for other sizes")
    pooled = np.empty((len(x), height // factor, width // factor), np.float32)
    for start in range(0, len(x), CHUNK):
        images = x[start : start + CHUNK].reshape(-1, height, width)
        total = np.zeros((len(images), *pooled.shape[1:]))
        for row in range(factor):
            for column in range(factor):
                total += images[:, row::factor, column::factor]
        pooled[start : start + CHUNK] = total / factor**2
    return pooled.reshape(len(x), -1)


def resize_images(x: Pixels, shape: tuple[int, int], size: tuple[int, int]) -> Pixels:
    """Images brought to `size` by `torch.nn.functional.interpolate`, `[n, new_h * new_w]`, values in [0, 1].

    Where no side grows the mode is "area" (each new pixel is the mean of the old pixels it touches; the
    same as pooling where the sides divide); otherwise "bilinear" with `align_corners=False`.

    Args:
        x: `[n, h * w]` in [0, 1].
        shape: (h, w).
        size: (new_h, new_w), both at least 1.

    Raises:
        InputError: a side of `size` is below 1.

    Example:
        >>> resize_images(np.array([[0.0, 1.0]], np.float32), (1, 2), (1, 4))
        array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    height, width = _sides(x, shape)
    new_height, new_width = _pair(size, "resize")
    mode: dict[str, Any] = {"mode": "area"}
    if new_height > height or new_width > width:
        mode = {"mode": "bilinear", "align_corners": False}
    resized = np.empty((len(x), new_height * new_width), np.float32)
    for start in range(0, len(x), CHUNK):
        images = torch.tensor(x[start : start + CHUNK]).view(-1, 1, height, width)
        resized[start : start + CHUNK] = (
            interpolate(images, size=(new_height, new_width), **mode).clamp(0, 1).flatten(1).numpy()
        )
    return resized


def shift_images(images: Tensor, shape: tuple[int, int], offsets: Tensor, fill: float = 0.0) -> Tensor:
    """Images moved down and right by whole pixels, `[b, h * w]`; what enters has the value `fill`.

    One padding and one copy of windows: no loop over samples, differentiable, on the device of `images`.

    Args:
        images: `[b, h * w]`.
        shape: (h, w).
        offsets: `[b, 2]` whole numbers (down, right), negative for up and left.
        fill: value of the pixels that enter.

    Raises:
        InputError: shapes do not fit, or an offset reaches a whole side.

    Example:
        >>> shift_images(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), (2, 2), torch.tensor([[0, 1]]))
        tensor([[0., 1., 0., 3.]])
    """
    if offsets.shape != (len(images), 2) or offsets.is_floating_point() or offsets.is_complex():
        raise InputError(
            f"offsets must be [{len(images)}, 2] whole numbers, got {offsets.dtype} {list(offsets.shape)}"
        )
    margin = int(offsets.abs().max()) if offsets.numel() else 0
    return _moved(images, shape, offsets, margin, fill)


def random_shift(
    images: Tensor, shape: tuple[int, int], max_shift: int, generator: torch.Generator, fill: float = 0.0
) -> Tensor:
    """Images each moved by its own random whole number of pixels, `[b, h * w]`; augmentation for training.

    Both coordinates of the move are uniform on -max_shift..max_shift. About 0.1 ms for 100 images of 28 x 28.

    Args:
        images: `[b, h * w]`, any device.
        shape: (h, w).
        max_shift: 0 (nothing is drawn, the images come back as they are) to the smaller side - 1.
        generator: source of the moves; may live on another device than the images.
        fill: value of the pixels that enter.

    Raises:
        InputError: the width is not h * w, or `max_shift` is out of range.

    Example:
        >>> moved = random_shift(torch.eye(4).reshape(1, 16), (4, 4), 1, torch.Generator().manual_seed(0))
        >>> moved.shape, bool(moved.sum() >= 2)
        (torch.Size([1, 16]), True)
    """
    smaller = min(_sides(images, shape))
    max_shift = whole(f"max_shift of images of {shape}", max_shift, 0, smaller - 1)
    if max_shift == 0:
        return images
    offsets = torch.randint(
        -max_shift, max_shift + 1, (len(images), 2), generator=generator, device=generator.device
    )
    return _moved(images, shape, offsets.to(images.device), max_shift, fill)


def _moved(images: Tensor, shape: tuple[int, int], offsets: Tensor, margin: int, fill: float) -> Tensor:
    """Cuts for each image the window at (margin - down, margin - right) out of its padded self.

    The windows at ALL flat positions are a view with strides (1, padded width, 1), so one `index_select`
    copies row by row what a gather would copy number by number (0.05 against 0.14 ms at b=100, 28 x 28).
    """
    height, width = _sides(images, shape)
    if margin >= min(height, width):
        raise InputError(
            f"a shift by {margin} empties images of {height}x{width}; stay below the smaller side"
        )
    count, rows, columns = len(images), height + 2 * margin, width + 2 * margin
    if count == 0:
        return images
    padded = pad(images.reshape(count, height, width), (margin,) * 4, value=fill)
    positions = count * rows * columns - (height - 1) * columns - width + 1
    windows = padded.reshape(-1).as_strided((positions, height, width), (1, columns, 1))
    first = torch.arange(count, device=images.device) * (rows * columns)
    first = first + (margin - offsets[:, 0]) * columns + (margin - offsets[:, 1])
    return windows.index_select(0, first).reshape(count, height * width)


def _sides(x: Pixels | Tensor, shape: tuple[int, int]) -> tuple[int, int]:
    height, width = _pair(shape, "the image shape")
    if x.ndim != 2 or x.shape[1] != height * width:
        raise InputError(
            f"images of {height}x{width} are rows of {height * width} values, got shape {list(x.shape)}"
        )
    return height, width


def _pair(value: Any, what: str) -> tuple[int, int]:
    """Two positive whole numbers, whatever a caller without a type checker gave."""
    sides = entries(value) or []
    if len(sides) != 2 or not all(is_whole(side, 1) for side in sides):
        raise InputError(f"{what} must be (height, width), whole numbers of at least 1, got {value!r}")
    return int(sides[0]), int(sides[1])
