"""Label noise: transition matrices, labels corrupted by them, and labels redrawn at every step."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from tnml.checks import probability, whole
from tnml.data import random_table
from tnml.errors import InputError, choose

_ROUNDING = 1e-9  # rows of a transition matrix add up to 1 within this

# The classes of CIFAR-100 by super-class, in the order of their names.
_CIFAR_100 = (
    *((4, 30, 55, 72, 95), (1, 32, 67, 73, 91), (54, 62, 70, 82, 92), (9, 10, 16, 28, 61)),
    *((0, 51, 53, 57, 83), (22, 39, 40, 86, 87), (5, 20, 25, 84, 94), (6, 7, 14, 18, 24)),
    *((3, 42, 43, 88, 97), (12, 17, 37, 68, 76), (23, 33, 49, 60, 71), (15, 19, 21, 31, 38)),
    *((34, 63, 64, 66, 75), (26, 45, 77, 79, 99), (2, 11, 35, 46, 98), (27, 29, 44, 78, 93)),
    *((36, 50, 65, 74, 80), (47, 52, 56, 59, 96), (8, 13, 48, 58, 90), (41, 69, 81, 85, 89)),
)
# Number of classes, and what each class that is hit turns into.
_MISTAKES: Mapping[str, tuple[int, Mapping[int, int]]] = MappingProxyType(
    {
        "mnist": (10, {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}),
        "cifar-10": (10, {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}),
        "cifar-100": (100, {g[k]: g[(k + 1) % len(g)] for g in _CIFAR_100 for k in range(len(g))}),
    }
)


class Corrupted(NamedTuple):
    """Noisy labels and where they differ from the true ones.

    Attributes:
        labels: `[n]`, int64.
        flipped: `[n]`, bool.

    Example:
        >>> corrupt(torch.tensor([0, 1]), pair(2, 1.0), seed=0).labels.tolist()
        [1, 0]
    """

    labels: Tensor
    flipped: Tensor


def symmetric(classes: int, rho: float, exclude_true: bool = True) -> Float64[Tensor, "c c"]:
    """Each label is replaced with probability `rho`, all new labels being equally likely.

    Args:
        classes: number of classes, at least 2.
        rho: probability of a replacement.
        exclude_true: whether the new label always differs from the old. False draws from all classes, so the
            rate of wrong labels is rho (1 - 1 / classes).

    Returns:
        T, `T[i, j]` being the probability that i becomes j; rows add up to 1.

    Raises:
        InputError: a value is out of its range.

    Example:
        >>> symmetric(3, 0.5).tolist()
        [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]
    """
    count, share = whole("classes", classes, 2), probability("rho", rho, one=True)
    eye = torch.eye(count, dtype=torch.float64)
    other = (1 - eye) / (count - 1) if exclude_true else torch.full_like(eye, 1 / count)
    return (1 - share) * eye + share * other


def pair(classes: int, rho: float) -> Float64[Tensor, "c c"]:
    """Each label i becomes i + 1 with probability `rho`, the last one 0.

    Args:
        classes: number of classes, at least 2.
        rho: probability of a replacement.

    Returns:
        The transition matrix, as in `symmetric`.

    Raises:
        InputError: a value is out of its range.

    Example:
        >>> pair(3, 0.25)[2].tolist()
        [0.25, 0.0, 0.75]
    """
    count, share = whole("classes", classes, 2), probability("rho", rho, one=True)
    eye = torch.eye(count, dtype=torch.float64)
    return (1 - share) * eye + share * eye.roll(1, 1)


def asymmetric(name: str, rho: float) -> Float64[Tensor, "c c"]:
    """Mistakes between classes that look alike, each with probability `rho`.

    Args:
        name: "mnist" (7 to 1, 2 to 7, 5 and 6 to each other, 3 to 8), "cifar-10" (truck to automobile, bird
            to airplane, cat and dog to each other, deer to horse) or "cifar-100" (to the next class of the
            super-class).
        rho: probability of a replacement; the other classes keep their labels.

    Returns:
        The transition matrix, as in `symmetric`.

    Raises:
        InputError: an unknown name, or a value out of its range.

    Source: Patrini et al., CVPR 2017, arXiv 1609.03683.

    Example:
        >>> asymmetric("mnist", 0.25)[7, :2].tolist()
        [0.0, 0.25]
    """
    count, mistakes = choose("data set with known mistakes", name, _MISTAKES)
    share = probability("rho", rho, one=True)
    matrix = torch.eye(count, dtype=torch.float64)
    for true, wrong in mistakes.items():
        matrix[true, true], matrix[true, wrong] = 1 - share, share
    return matrix


def corrupt(y: Int64[Tensor, " n"], T: Float64[Tensor, "c c"], *, seed: int, first: int = 0) -> Corrupted:
    """Labels drawn from the rows of `T` that the true labels choose.

    A label depends on the seed, its index and its true value only.

    Args:
        y: labels 0 to c - 1.
        T: transition matrix, see `symmetric`.
        seed: not negative.
        first: index of the first sample, for processes that each take a part.

    Raises:
        InputError: a label is out of range or not a whole number, or `T` is not a matrix of probabilities.

    Example:
        >>> y = torch.zeros(1000, dtype=torch.int64)
        >>> labels, flipped = corrupt(y, symmetric(4, 0.3), seed=0)
        >>> 250 < int(flipped.sum()) < 350
        True
    """
    checked_transition(T)
    classes = len(T)
    true = _checked_labels(y, classes)
    numbers = torch.from_numpy(
        random_table.uniform(len(y), 1, seed=seed, stream=random_table.FLIPS, first=first)
    )
    limits = T.cpu().double().cumsum(1)
    limits = limits / limits[:, -1:]  # so that no number lies beyond the last one
    drawn = (numbers >= limits[true]).sum(1)
    return Corrupted(drawn.to(y.device), (drawn != true).to(y.device))


class LabelResampler:
    """Replaces every label by a uniformly random one with probability `p`, with fresh draws at every step.

    Unlike with `corrupt` there is no fixed wrong label to be learned. The true class is among those drawn.
    The draw depends on the seed and the step only, so a resumed run repeats it.

    Args:
        p: probability of a replacement.
        classes: number of classes, at least 2.
        seed: not negative.

    Raises:
        InputError: a value is out of its range.

    Source: Cornacchia, Hazla, Nachum and Yehudayoff, arXiv 2111.02154.

    Example:
        >>> resample = LabelResampler(0.5, 10, seed=0)
        >>> labels = torch.arange(10)
        >>> torch.equal(resample(labels, 3), resample(labels, 3)), resample(labels, 4).shape
        (True, torch.Size([10]))
    """

    def __init__(self, p: float, classes: int, seed: int = 0) -> None:
        self.p = probability("p", p, one=True)
        self.classes = whole("classes", classes, 2)
        self.seed = whole("seed", seed, 0)

    def __call__(self, labels: Int64[Tensor, " n"], step: int) -> Int64[Tensor, " n"]:
        """The labels of this step; `labels` stays as it is.

        Raises:
            InputError: a label is out of range, or the step is negative.
        """
        true = _checked_labels(labels, self.classes)
        random = random_table.source(self.seed, random_table.STEPS, whole("step", step, 0))
        chance, fresh = (torch.from_numpy(random.random_sample(len(true))) for _ in range(2))
        drawn = (fresh * self.classes).floor().to(torch.int64)
        return torch.where(chance < self.p, drawn, true).to(labels.device)

    def __repr__(self) -> str:
        return f"LabelResampler(p={self.p}, classes={self.classes}, seed={self.seed})"


def _checked_labels(y: Tensor, classes: int) -> Tensor:
    if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.dim() != 1:
        came = f"{y.dtype} {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise InputError(f"labels must be an int64 tensor [n], got {came}; use torch.as_tensor(y).long()")
    wrong = y[(y < 0) | (y >= classes)]
    if wrong.numel():
        raise InputError(f"labels must be 0 to {classes - 1}, got {int(wrong[0])}")
    return y.cpu()


def checked_transition(matrix: Tensor) -> Tensor:
    """A transition matrix as it came.

    Raises:
        InputError: it is no square tensor, or its rows are no probabilities that add up to 1.

    Example:
        >>> checked_transition(torch.eye(2)).shape
        torch.Size([2, 2])
    """
    if not isinstance(matrix, Tensor) or matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        came = list(matrix.shape) if isinstance(matrix, Tensor) else type(matrix).__name__
        raise InputError(f"a transition matrix is a tensor [classes, classes], got {came}")
    if not bool((matrix >= 0).all()) or not bool(((matrix.sum(1) - 1).abs() < _ROUNDING).all()):
        raise InputError(
            "the rows of a transition matrix are probabilities that add up to 1, got "
            f"sums from {float(matrix.sum(1).min()):.6g} to {float(matrix.sum(1).max()):.6g} "
            f"and a smallest entry of {float(matrix.min()):.6g}"
        )
    return matrix
