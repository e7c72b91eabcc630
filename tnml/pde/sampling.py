"""Means of random numbers with their error bars, in chunks of bounded memory."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.errors import InputError

_CHUNK = 2**22  # normal numbers drawn at once: 32 MB


class Mean(NamedTuple):
    """A sampled mean and its standard error."""

    mean: float
    error: float


def antithetic_mean(
    value: Callable[[Tensor], Tensor], shape: tuple[int, ...], samples: int, seed: int
) -> Mean:
    """The mean of `value(noise)` over standard normal noise, each draw used with both signs.

    The two values of a pair are averaged first, so the error bar counts independent numbers only.

    Args:
        value: takes noise `[m, *shape]` (float64), returns `[m]`.
        shape: of the noise of one sample.
        samples: how many, both signs counted; at least 4.
        seed: of the noise.

    Raises:
        InputError: fewer than 4 samples.

    Example:
        >>> mean, error = antithetic_mean(lambda noise: noise[:, 0].square(), (1,), 10_000, seed=0)
        >>> abs(mean - 1) < 4 * error
        True
    """
    pairs = samples // 2
    if pairs < 2:
        raise InputError(f"samples must be at least 4, for an error bar of pairs; got {samples}")
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, _CHUNK // math.prod(shape))
    found = []
    for first in range(0, pairs, chunk):
        noise = torch.randn(min(chunk, pairs - first), *shape, dtype=torch.float64, generator=generator)
        found.append((value(noise) + value(-noise)) / 2)
    values = torch.cat(found)
    return Mean(float(values.mean()), float(values.std()) / math.sqrt(pairs))
