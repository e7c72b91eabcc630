"""Means of random numbers with their error bars, in chunks of bounded memory."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.checks import whole
from tnml.randomness import seeded

_CHUNK = 2**22  # normal numbers made at once: 32 MB


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
    pairs = torch.cat([(value(noise) + value(-noise)) / 2 for noise in _normal_chunks(shape, samples, seed)])
    return Mean(float(pairs.mean()), float(pairs.std()) / math.sqrt(len(pairs)))


def controlled_mean(
    values: Callable[[Tensor], tuple[Tensor, Tensor]],
    known: float,
    shape: tuple[int, ...],
    samples: int,
    seed: int,
) -> Mean:
    """The mean of the first of two values of standard normal noise, the second of which has the mean `known`.

    The second, times the slope of a regression, is subtracted from the first; both signs of each draw are
    used.

    Args:
        values: takes noise `[m, *shape]` (float64), returns two tensors `[m]`.
        known: the mean of the second.
        shape: of the noise of one sample.
        samples: how many, both signs counted; at least 4.
        seed: of the noise.

    Raises:
        InputError: fewer than 4 samples.

    Example:
        >>> def both(noise):
        ...     return noise[:, 0].exp(), noise[:, 0].square()
        >>> mean, error = controlled_mean(both, 1.0, (1,), 10_000, seed=0)
        >>> abs(mean - math.exp(0.5)) < 4 * error
        True
    """
    pairs = []
    for noise in _normal_chunks(shape, samples, seed):
        plus, minus = values(noise), values(-noise)
        pairs.append(torch.stack([(a + b) / 2 for a, b in zip(plus, minus, strict=True)]))
    value, control = torch.cat(pairs, 1)
    away = control - control.mean()
    slope = float((away * value).sum() / away.square().sum().clamp(min=1e-300))
    left = value - slope * (control - known)
    return Mean(float(left.mean()), float(left.std()) / math.sqrt(left.numel()))


def _normal_chunks(shape: tuple[int, ...], samples: int, seed: int) -> Iterator[Tensor]:
    """Standard normal noise `[m, *shape]` of half the samples: with both signs it makes all of them."""
    pairs = whole("samples", samples, 4) // 2
    generator = seeded(seed)
    chunk = max(1, _CHUNK // math.prod(shape))
    for first in range(0, pairs, chunk):
        yield torch.randn(min(chunk, pairs - first), *shape, dtype=torch.float64, generator=generator)
