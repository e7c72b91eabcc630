"""Inputs with a length scale: a non-linear Gaussian process, and a Gaussian one of the same covariance."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from tnml.checks import number, whole
from tnml.data import random_table
from tnml.errors import InputError

_JITTER = 1e-3
_LARGEST = 4096  # sites; the root of the covariance needs their cube


class Mixture(NamedTuple):
    """Inputs `x [n, length^dim]` of two classes and their labels `[n]`, int64.

    Example:
        >>> nlgp_mixture(4, 10, (1.0, 3.0), 3.0, seed=0).x.shape
        torch.Size([4, 10])
    """

    x: Tensor
    labels: Tensor


def nlgp(
    n: int,
    length: int,
    xi: float,
    gain: float,
    seed: int,
    dim: int = 1,
    periodic: bool = True,
    *,
    first: int = 0,
) -> Float64[Tensor, "n s"]:
    """Samples erf(gain z / √2) / √gamma of a Gaussian field z whose correlation length is `xi` sites.

    The covariance of z is exp(-|i-j|² / xi²) + 0.001 on the diagonal, |i-j| wrapping where `periodic`; in
    more dimensions it is the Kronecker product. Negative eigenvalues, which the periodic one has for large
    xi, are set to 0. gamma = (2/π) asin(gain² / (1 + gain²)) makes the variance 1 but for these two changes
    of the diagonal. The values lie in ±1/√gamma, not in [0, 1]. A sample depends on the seed and its index
    only.

    Args:
        n: samples.
        length: sites along each axis.
        xi: correlation length in sites.
        gain: the larger, the closer to a sign.
        seed: not negative.
        dim: number of axes.
        periodic: whether the ends meet.
        first: index of the first sample.

    Raises:
        InputError: a number is out of its range, or there are more than 4096 sites along an axis.

    Cost: length^3 once, n dim length^(dim + 1) for the samples.

    Source: Ingrosso and Goldt, PNAS 119 (40), 2022, arXiv 2202.00565.

    Example:
        >>> nlgp(3, 12, 2.0, 3.0, seed=0).shape
        torch.Size([3, 12])
    """
    field = _field(n, _root(_covariance_1d(length, xi, periodic)), dim, seed, first)
    return torch.erf(gain / math.sqrt(2) * field) / math.sqrt(_gamma(gain))


def gp_match(
    n: int,
    length: int,
    xi: float,
    gain: float,
    seed: int,
    dim: int = 1,
    periodic: bool = True,
    *,
    first: int = 0,
) -> Float64[Tensor, "n s"]:
    """Gaussian samples of mean zero with the covariance of `nlgp`: the control without higher cumulants.

    Args:
        n: samples.
        length: sites along each axis.
        xi: as in `nlgp`.
        gain: as in `nlgp`.
        seed: not negative; the samples are unrelated to those of `nlgp`.
        dim: number of axes.
        periodic: whether the ends meet.
        first: index of the first sample.

    Raises:
        InputError: as `nlgp`; here 4096 sites altogether.

    Cost: length^(3 dim) once, n length^(2 dim) for the samples.

    Source: as `nlgp`.

    Example:
        >>> gp_match(3, 12, 2.0, 3.0, seed=0).shape
        torch.Size([3, 12])
    """
    root = _root(nlgp_covariance(length, xi, gain, dim, periodic))
    numbers = random_table.normal(n, len(root), seed=seed, stream=random_table.NOISE, first=first)
    return torch.from_numpy(np.ascontiguousarray(numbers)) @ root


def nlgp_covariance(
    length: int, xi: float, gain: float, dim: int = 1, periodic: bool = True
) -> Float64[Tensor, "s s"]:
    """The covariance of `nlgp`, exactly: 2/(π gamma) asin(g² G_ij / √((1 + g² G_ii)(1 + g² G_jj))).

    G is the covariance of the Gaussian field behind it and g the gain.

    Args:
        length: sites along each axis.
        xi: as in `nlgp`.
        gain: as in `nlgp`.
        dim: number of axes.
        periodic: whether the ends meet.

    Raises:
        InputError: as `nlgp`; here 4096 sites altogether.

    Source: Williams, Neural Computation 10 (1998) 1203, for the mean of two error functions.

    Example:
        >>> round(float(nlgp_covariance(8, 2.0, 3.0)[0, 0]), 3)
        1.0
    """
    gamma = _gamma(gain)
    root = _root(_covariance_1d(length, xi, periodic))
    dim = whole("dim", dim, 1)
    if length**dim > _LARGEST:
        raise InputError(f"a covariance of {length}^{dim} sites is more than {_LARGEST}; take fewer")
    line = root @ root
    covariance = line
    for _ in range(dim - 1):
        covariance = torch.kron(covariance, line)
    size = 1 + gain**2 * covariance.diagonal()
    angle = gain**2 * covariance / torch.outer(size, size).sqrt()
    return torch.asin(angle) * (2 / math.pi / gamma)


def nlgp_mixture(
    n: int,
    length: int,
    xis: tuple[float, float],
    gain: float,
    seed: int,
    dim: int = 1,
    periodic: bool = True,
    *,
    gaussian: bool = False,
    first: int = 0,
) -> Mixture:
    """Samples of two correlation lengths and the label, 0 or 1, that says which; both equally likely.

    Args:
        n: samples.
        length: sites along each axis.
        xis: the two correlation lengths in sites.
        gain: as in `nlgp`.
        seed: not negative.
        dim: number of axes.
        periodic: whether the ends meet.
        gaussian: take `gp_match` instead of `nlgp`.
        first: index of the first sample.

    Raises:
        InputError: as `nlgp`.

    Source: as `nlgp`.

    Example:
        >>> nlgp_mixture(6, 10, (1.0, 4.0), 3.0, seed=0).labels.dtype
        torch.int64
    """
    coin = random_table.uniform(n, 1, seed=seed, stream=random_table.CLASSES, first=first)[:, 0]
    labels = torch.from_numpy((coin < 0.5).astype(np.int64))
    make = gp_match if gaussian else nlgp
    short, long = (make(n, length, xi, gain, seed, dim, periodic, first=first) for xi in xis)
    return Mixture(torch.where(labels[:, None] == 0, short, long), labels)


def _gamma(gain: float) -> float:
    number("gain", gain, above=0.0)
    return 2 / math.pi * math.asin(gain**2 / (1 + gain**2))


def _covariance_1d(length: int, xi: float, periodic: bool) -> Tensor:
    length = whole("length", length, 1, _LARGEST)
    number("xi", xi, above=0.0)
    sites = torch.arange(length, dtype=torch.float64)
    distance = (sites[:, None] - sites).abs()
    if periodic:
        distance = torch.minimum(distance, length - distance)
    return torch.exp(-((distance / xi) ** 2)) + _JITTER * torch.eye(length, dtype=torch.float64)


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root, negative eigenvalues taken as 0."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def _field(n: int, root: Tensor, dim: int, seed: int, first: int) -> Tensor:
    """Gaussian samples `[n, length^dim]`, the root applied along every axis."""
    dim = whole("dim", dim, 1)
    length = len(root)
    numbers = random_table.normal(n, length**dim, seed=seed, stream=random_table.INPUTS, first=first)
    field = torch.from_numpy(np.ascontiguousarray(numbers)).reshape(n, *[length] * dim)
    for axis in range(1, dim + 1):
        field = torch.tensordot(field, root, ([axis], [0])).movedim(-1, axis)
    return field.reshape(n, -1)
