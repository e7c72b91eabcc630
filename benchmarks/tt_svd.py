"""Two thin dense layers instead of one, by truncated SVD: the baseline for tensor trains."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

HALVINGS = 50  # of the interval of errors


class Factors(NamedTuple):
    """Singular values and vectors of a weight `[o, i]`, float64."""

    left: Tensor
    values: Tensor
    right: Tensor

    def rank(self, error: float) -> int:
        """The smallest rank, at least 1, with at most this relative error."""
        squares = self.values.square()
        tails = squares.flip(0).cumsum(0).flip(0)  # of all values from here on
        return max(1, int((tails > error**2 * squares.sum()).sum()))

    def size(self, rank: int) -> int:
        """Weights of the two thin layers."""
        return rank * (len(self.left) + self.right.shape[1])


def svd_like(model: nn.Sequential, places: Sequence[int], size: int) -> tuple[nn.Sequential, list[int]]:
    """A copy with two thin layers at these places, and their ranks.

    One relative error holds for all places: the largest with which the whole copy has at least `size`
    parameters, so that rounding gives the thin layers the advantage.

    Args:
        model: its layers at `places` are `nn.Linear`.
        places: numbers of layers.
        size: least parameters of the copy.
    """
    dense = {place: model[place] for place in places}
    factors = [_factors(layer) for layer in dense.values()]
    kept = sum(p.numel() for p in model.parameters()) - sum(layer.weight.numel() for layer in dense.values())
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = kept + sum(f.size(f.rank(middle)) for f in factors) >= size
        low, high = (middle, high) if enough else (low, middle)
    ranks = [f.rank(low) for f in factors]
    thin = dict(zip(places, map(_thin, dense.values(), factors, ranks), strict=True))
    layers = [thin.get(number) or copy.deepcopy(layer) for number, layer in enumerate(model)]
    return nn.Sequential(*layers), ranks


def _factors(layer: nn.Linear) -> Factors:
    return Factors(*torch.linalg.svd(layer.weight.detach().double(), full_matrices=False))


@torch.no_grad()
def _thin(layer: nn.Linear, factors: Factors, rank: int) -> nn.Sequential:
    """The nearest pair of layers with `rank` numbers between them; both get the roots of the values."""
    roots = factors.values[:rank].sqrt()
    first = nn.Linear(layer.in_features, rank, bias=False)
    second = nn.Linear(rank, layer.out_features)
    first.weight.copy_(roots[:, None] * factors.right[:rank])
    second.weight.copy_(factors.left[:, :rank] * roots)
    second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)
