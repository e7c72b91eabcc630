"""What in a weight matrix is more than noise: tests of random-matrix theory, and a filter made of them.

Source: Staats, Thamm and Rosenow, Boundary between noise and information applied to filtering neural network
weight matrices, arXiv 2206.03927. Where that letter's procedure is not known to us in detail, what we do is
said: the shrinkage is the theorem of Benaych-Georges and Nadakuditi, the estimate of the noise and the other
shrinkage are those of Gavish and Donoho.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tnml.checks import is_number, is_whole, whole
from tnml.errors import InputError, choose
from tnml.quadrature import gauss_legendre

SIDES = ("left", "right")
_NODES = 64  # of integrals over the law of the bulk
SHRINKAGES = ("level_repulsion", "frobenius", "none")


@dataclass(frozen=True, kw_only=True)
class PorterThomas:
    """How well singular vectors agree with random directions.

    Attributes:
        p: `[r]` p-values of a Kolmogorov-Smirnov test of each vector's entries against a normal law.
        smooth: `[r]` their running means.
        boundary: vectors before the first whose running mean is as large as that of random ones.
    """

    p: Tensor
    smooth: Tensor
    boundary: int


@dataclass(frozen=True, kw_only=True)
class Bulk:
    """The singular values that noise alone would have.

    Attributes:
        sigma: deviation of the entries of the noise.
        edge: largest singular value of noise.
        outliers: singular values above it.
        distance: largest difference between the distribution of the others and the Marchenko-Pastur law.
    """

    sigma: float
    edge: float
    outliers: int
    distance: float


def porter_thomas(matrix: Tensor, side: str = "right", *, window: int = 15) -> PorterThomas:
    """Which singular vectors a random matrix could have: those whose entries look normally distributed.

    The entries of a random direction in n dimensions, times sqrt(n), are standard normal. Structure that is
    sparse or localised is seen; a direction that is itself normally distributed is not, so look at
    `marchenko_pastur`, too.

    Args:
        matrix: `[rows, columns]`, real and finite.
        side: "right" or "left" singular vectors.
        window: vectors in a running mean.

    Returns:
        The p-values from the largest singular value on. Under pure noise they are spread evenly, or a little
        towards 1, since the vectors have unit length.

    Raises:
        InputError: the matrix is too small or not finite.

    Cost: one singular value decomposition.

    Source: arXiv 2206.03927; the statistic's law is that of Stephens (1970).

    Example:
        >>> spike = torch.zeros(60, 60)
        >>> spike[0, 0] = 100.0
        >>> found = porter_thomas(spike + torch.randn(60, 60, generator=torch.Generator().manual_seed(0)))
        >>> bool(found.p[0] < 1e-6), bool(found.p[1:].mean() > 0.3)
        (True, True)
    """
    choose("side", side, dict.fromkeys(SIDES))
    left, _, right = torch.linalg.svd(_checked(matrix), full_matrices=False)
    vectors = left.T if side == "left" else right
    n = vectors.shape[1]
    scaled = (math.sqrt(n) * vectors).sort(1).values
    law = torch.special.ndtr(scaled)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    off = torch.maximum((steps[1:] - law).amax(1), (law - steps[:-1]).amax(1))
    p = _tail((math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * off)
    smooth = _running_mean(p, whole("window", window, 1))
    error = math.sqrt(1 / 12 / min(window, len(p)))  # of a mean of evenly spread numbers
    passed = (smooth >= 0.5 - 2 * error).nonzero()
    return PorterThomas(p=p, smooth=smooth, boundary=int(passed[0]) if len(passed) else len(p))


def marchenko_pastur(matrix: Tensor) -> Bulk:
    """The bulk of singular values, with the noise estimated from their median.

    Args:
        matrix: `[rows, columns]`, real and finite.

    Returns:
        See `Bulk`; the distance is small where the rest of the matrix is noise of independent entries, which
        that of trained weights usually is not.

    Raises:
        InputError: the matrix is too small, not finite, or zero.

    Cost: its singular values.

    Source: Marchenko and Pastur (1967); Gavish and Donoho, The optimal hard threshold for singular values is
    4/sqrt(3), arXiv 1305.5870, section III E, for the noise.

    Example:
        >>> noise = torch.randn(80, 160, generator=torch.Generator().manual_seed(0))
        >>> found = marchenko_pastur(noise)
        >>> 0.95 < found.sigma < 1.05, found.outliers
        (True, 0)
    """
    values = torch.linalg.svdvals(_checked(matrix))
    rows, columns = sorted(matrix.shape)
    ratio = rows / columns
    sigma = float(values.median()) / math.sqrt(columns * _median(ratio))
    if sigma == 0.0:
        raise InputError("half of the singular values are zero: there is no noise to compare with")
    edge = sigma * (math.sqrt(columns) + math.sqrt(rows))
    below = values[values <= edge].flip(0)
    outliers = len(values) - len(below)
    squares = (below / (sigma * math.sqrt(columns))).square()
    law = _law(squares, ratio)
    steps = torch.arange(len(below) + 1, dtype=torch.float64) / max(1, len(below))
    off = torch.maximum(steps[1:] - law, law - steps[:-1]).amax() if len(below) else torch.ones(())
    return Bulk(sigma=sigma, edge=edge, outliers=outliers, distance=float(off))


def rmt_filter(
    matrix: Tensor, keep: str | int | float = "edge", *, shrink: str = "level_repulsion"
) -> Tensor:
    """The matrix without the singular values of noise, and the others as they would be without it.

    Noise of deviation sigma pushes a singular value theta up to nu:

        nu^2 = (theta^2 + m sigma^2) (theta^2 + n sigma^2) / theta^2

    Args:
        matrix: `[m, n]`, real and finite.
        keep: "edge": those above the bulk; a number of singular values; or a share of them, below 1.
        shrink: "level_repulsion": nu becomes theta; "frobenius": what has the least expected squared error;
            "none": they stay. Values inside the bulk, which have no theta, become 0 but for "none".

    Returns:
        `[m, n]` in the dtype and on the device of the matrix.

    Raises:
        InputError: the matrix is too small, not finite or zero, or `keep` is out of range.

    Cost: one singular value decomposition.

    Source: arXiv 2206.03927; Benaych-Georges and Nadakuditi, arXiv 1103.2221, theorem 2.8; Gavish and Donoho,
    Optimal shrinkage of singular values, arXiv 1405.7511, eq. 7.

    Example:
        >>> noise = torch.randn(50, 80, generator=torch.Generator().manual_seed(0))
        >>> signal = torch.outer(torch.ones(50), torch.ones(80))
        >>> found = rmt_filter(signal + noise)
        >>> bool((found - signal).norm() < 0.3 * noise.norm())
        True
    """
    choose("shrink", shrink, dict.fromkeys(SHRINKAGES))
    left, values, right = torch.linalg.svd(_checked(matrix), full_matrices=False)
    bulk = marchenko_pastur(matrix)
    count = _count(keep, bulk.outliers, len(values))
    kept = _shrunk(values[:count], bulk.sigma, matrix.shape[0], matrix.shape[1], shrink)
    found: Tensor = (left[:, :count] * kept) @ right[:count]
    return found.to(matrix)


def _count(keep: str | int | float, outliers: int, values: int) -> int:
    if isinstance(keep, str):
        return int(choose("keep", keep, {"edge": outliers}))
    if is_number(keep) and not is_whole(keep):
        if not 0.0 <= keep < 1.0:
            raise InputError(f"a share to keep is at least 0 and below 1, got {keep}; give a number as int")
        return math.ceil(float(keep) * values)
    return whole("keep", keep, 0, values)


def _shrunk(values: Tensor, sigma: float, rows: int, columns: int, shrink: str) -> Tensor:
    """Singular values without the noise of deviation `sigma`."""
    if shrink == "none":
        return values
    middle = values.square() - (rows + columns) * sigma**2
    root = (middle.square() - 4 * rows * columns * sigma**4).clamp_min(0.0).sqrt()
    outside = values > sigma * (math.sqrt(rows) + math.sqrt(columns))
    found = root / values if shrink == "frobenius" else ((middle + root) / 2).clamp_min(0.0).sqrt()
    return torch.where(outside, found, 0.0)


def _tail(statistic: Tensor) -> Tensor:
    """The probability of a larger Kolmogorov-Smirnov statistic, for many samples."""
    k = torch.arange(1, 101, dtype=torch.float64)
    terms = (-1.0) ** (k - 1) * torch.exp(-2 * (k * statistic.unsqueeze(1)).square())
    found = (2 * terms.sum(1)).clamp(0.0, 1.0)
    return torch.where(statistic < 0.2, 1.0, found)  # where the sum converges slowly, it is 1 to ten digits


def _running_mean(values: Tensor, window: int) -> Tensor:
    """Means over the window around each place, which is shorter at the ends."""
    half = window // 2
    sums = torch.cat([values.new_zeros(1), values.cumsum(0)])
    places = torch.arange(len(values))
    first, last = (places - half).clamp_min(0), (places + half + 1).clamp_max(len(values))
    return (sums[last] - sums[first]) / (last - first)


def _checked(matrix: Tensor) -> Tensor:
    """A matrix of two rows and columns or more, in double precision on the CPU."""
    if matrix.dim() != 2 or min(matrix.shape) < 2 or matrix.is_complex():
        raise InputError(
            f"expected a real matrix, two rows and columns or more, got {matrix.dtype} {list(matrix.shape)}"
        )
    found = matrix.detach().double().cpu()
    if not bool(torch.isfinite(found).all()):
        raise InputError("the matrix holds NaN or infinite values")
    return found


def _law(x: Tensor, ratio: float) -> Tensor:
    """The share of eigenvalues up to each x, of noise of deviation 1 with `ratio` rows for a column.

    With x = 1 + ratio + 2 sqrt(ratio) cos(t) the density is smooth in t at both ends.
    """
    centre, radius = 1 + ratio, 2 * math.sqrt(ratio)
    end = torch.acos(((x - centre) / radius).clamp(-1.0, 1.0)).unsqueeze(-1)
    points, weights = map(torch.from_numpy, gauss_legendre(_NODES))
    t = end + (math.pi - end) * (points + 1) / 2
    place = (centre + radius * torch.cos(t)).clamp_min(
        torch.finfo(t.dtype).tiny
    )  # 0 is an end of square ones
    density = (radius * torch.sin(t)).square() / (2 * math.pi * ratio * place)
    return ((math.pi - end) / 2 * weights * density).sum(-1)


@functools.lru_cache(maxsize=64)
def _median(ratio: float) -> float:
    """The median of that law, by bisection."""
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    for _ in range(60):
        middle = (low + high) / 2
        below = float(_law(torch.tensor(middle, dtype=torch.float64), ratio)) < 0.5
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2
