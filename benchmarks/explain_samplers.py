"""Shapley values by sampling coalitions, in numpy and by the package shap; and by gradients in pixel space.

All play the same game: pixels outside of a coalition have the mean of the background. The features of the
networks measured here are linear in each pixel, so this is the average over independent columns.
"""

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tnml.nn import MPSLayer

Array = np.ndarray[Any, np.dtype[Any]]
Game = Callable[[Array], Array]
ROWS = 2048  # coalitions that are evaluated at a time
SEED = 0


class Image:
    """One image as a game: the output of coalitions of its pixels, and what the samplers need.

    Args:
        layer: with features that are linear in each pixel.
        x: `[n]` the image.
        mean: `[n]` the mean of the background.
        column: `[c]` the combination of outputs that is explained.
    """

    def __init__(self, layer: MPSLayer, x: Tensor, mean: Tensor, column: Tensor) -> None:
        self.layer, self.x, self.mean = layer.eval(), x.to(layer.dtype), mean.to(layer.dtype)
        self.column = column.to(layer.dtype)
        self.evaluations = 0

    @property
    def pixels(self) -> int:
        return len(self.x)

    @torch.no_grad()
    def outputs(self, images: Array | Tensor) -> Array:
        """The output of images `[m, n]`."""
        given = torch.as_tensor(images).to(self.layer.dtype)
        self.evaluations += len(given)
        return torch.cat([self.layer(some) @ self.column for some in given.split(ROWS)]).double().numpy()

    def __call__(self, coalitions: Array) -> Array:
        """The output of coalitions `[m, n]` of bool."""
        parts = [coalitions[start : start + ROWS] for start in range(0, len(coalitions), ROWS)]
        return np.concatenate(
            [self.outputs(torch.where(torch.from_numpy(part), self.x, self.mean)) for part in parts]
        )


def enumerated(game: Game, pixels: int) -> Array:
    """The Shapley values from all coalitions, by their definition."""
    members = (np.arange(2**pixels)[:, None] >> np.arange(pixels)) & 1 > 0
    values, sizes = game(members), members.sum(1)
    found = np.zeros(pixels)
    for pixel in range(pixels):
        without = np.flatnonzero(~members[:, pixel])
        share = [
            math.factorial(s) * math.factorial(pixels - s - 1) / math.factorial(pixels)
            for s in sizes[without].tolist()
        ]
        found[pixel] = np.dot(share, values[without + 2**pixel] - values[without])
    return found


def paired_coalitions(pixels: int, count: int, rng: np.random.Generator) -> Array:
    """Coalitions by the Shapley kernel, each followed by its complement."""
    sizes = np.arange(1, pixels)
    share = 1 / (sizes * (pixels - sizes))
    drawn = rng.choice(sizes, size=-(-count // 2), p=share / share.sum())
    ranks = rng.random((len(drawn), pixels)).argsort(1).argsort(1)
    some = ranks < drawn[:, None]
    return np.stack([some, ~some], 1).reshape(-1, pixels)[:count]


class KernelRegression:
    """KernelSHAP for coalitions that are drawn once: least squares, with the sum of the values given.

    Source: Lundberg and Lee, arXiv 1705.07874; the constraint as in Covert and Lee, arXiv 2012.01536.

    Args:
        coalitions: `[m, n]` drawn by the kernel; more than n of them.
    """

    def __init__(self, coalitions: Array) -> None:
        self.coalitions = coalitions
        square = np.zeros((coalitions.shape[1],) * 2)
        for start in range(0, len(coalitions), ROWS):
            some = coalitions[start : start + ROWS].astype(np.float64)
            square += some.T @ some
        self._factor = np.linalg.cholesky(square / len(coalitions) + 1e-12 * np.eye(len(square)))
        self._of_ones = self._solved(np.ones(len(square)))

    def _solved(self, right: Array) -> Array:
        return np.linalg.solve(self._factor.T, np.linalg.solve(self._factor, right))

    def values(self, of_coalitions: Array, none: float, all_of_them: float) -> Array:
        """The values from the outputs of the coalitions, of no pixel and of all."""
        target = np.zeros(self.coalitions.shape[1])
        for start in range(0, len(self.coalitions), ROWS):
            some = slice(start, start + ROWS)
            target += (of_coalitions[some] - none) @ self.coalitions[some]
        free = self._solved(target / len(self.coalitions))
        excess = (free.sum() - (all_of_them - none)) / self._of_ones.sum()
        return free - excess * self._of_ones


def kernel_shap(image: Image, evaluations: int) -> Array:
    """KernelSHAP with paired coalitions."""
    rng = np.random.default_rng(SEED)
    regression = KernelRegression(paired_coalitions(image.pixels, evaluations - 2, rng))
    none, every = image(np.stack([np.zeros(image.pixels, bool), np.ones(image.pixels, bool)]))
    return regression.values(image(regression.coalitions), float(none), float(every))


def permutation_shap(image: Image, evaluations: int) -> Array:
    """The mean change that a pixel makes where it comes in random orders, each taken from both ends."""
    rng, n = np.random.default_rng(SEED), image.pixels
    none, every = image(np.stack([np.zeros(n, bool), np.ones(n, bool)]))
    pairs = rng.random((max(1, evaluations // (2 * (n - 1))), n)).argsort(1)
    orders = np.concatenate([pairs, pairs[:, ::-1]])
    total, group = np.zeros(n), max(1, ROWS // (n - 1))
    for some in (orders[start : start + group] for start in range(0, len(orders), group)):
        members = some.argsort(1)[:, None, :] < np.arange(1, n)[:, None]
        inner = image(members.reshape(-1, n)).reshape(len(some), n - 1)
        ends = np.full(len(some), none), np.full(len(some), every)
        np.add.at(total, some, np.diff(np.column_stack([ends[0], inner, ends[1]]), axis=1))
    return total / len(orders)


def integrated_gradients(image: Image, baseline: Tensor, points: int = 50) -> Array:
    """Gradients by the pixels, integrated from a baseline by Gauss-Legendre, as Captum does by default.

    Source: Sundararajan, Taly and Yan, arXiv 1703.01365.
    """
    at, share = np.polynomial.legendre.leggauss(points)
    start, change = baseline.to(image.x), image.x - baseline.to(image.x)
    rows = (start + torch.from_numpy((at + 1) / 2).to(change).unsqueeze(1) * change).requires_grad_()
    (slope,) = torch.autograd.grad((image.layer(rows) @ image.column).sum(), rows)
    return (torch.from_numpy(share / 2) @ slope.double() * change.double()).numpy()


def of_package(image: Image, evaluations: int) -> dict[str, Callable[[], Array]]:
    """The explainers of the package shap, where it is installed."""
    if find_spec("shap") is None:
        return {}
    import shap

    x, mean = (tensor.double().numpy()[None] for tensor in (image.x, image.mean))

    def kernel() -> Array:
        explainer = shap.KernelExplainer(image.outputs, mean)
        return np.asarray(explainer.shap_values(x, nsamples=evaluations, l1_reg=False, silent=True))[0]

    def permutation() -> Array:
        explainer = shap.PermutationExplainer(image.outputs, shap.maskers.Independent(mean), seed=SEED)
        return np.asarray(explainer(x, max_evals=evaluations, silent=True).values)[0]

    return {"shap.KernelExplainer": kernel, "shap.PermutationExplainer": permutation}
