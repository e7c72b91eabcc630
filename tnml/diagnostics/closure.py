"""Means and covariances through a network, layer by layer, as if every layer's inputs were normal.

Source: Fischer et al., Decomposing neural networks as mappings of correlation functions, arXiv 2202.04925.
For a matrix product state no such assumption is needed, see `tnml.explain`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from tnml.errors import InputError
from tnml.nn.tt.linear import TTLinear
from tnml.nn.tt.network import Elementwise, Sine
from tnml.quadrature import gauss_legendre

_NODES = 64
_WIDEST = 9.0  # deviations, beyond which a normal law has no weight in double precision
_ENTRYWISE = (
    *(nn.ReLU, nn.Tanh, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.LeakyReLU, nn.Sigmoid, nn.Identity),
    *(Sine, Elementwise),
)


class Moments(NamedTuple):
    """Mean and covariance of a vector.

    Attributes:
        mean: `[n]`.
        covariance: `[n, n]`.
    """

    mean: Tensor
    covariance: Tensor


def class_moments(x: Float[Tensor, "n d"], y: Int64[Tensor, " n"]) -> list[Moments]:
    """Mean and covariance of the inputs of each class, in double precision.

    Raises:
        InputError: a class has no sample.

    Example:
        >>> class_moments(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]))[0].covariance.item()
        1.0
    """
    found = []
    for label in range(int(y.max()) + 1):
        chosen = x[y == label].double()
        if not len(chosen):
            raise InputError(f"class {label} has no sample; labels must be 0 to classes - 1")
        mean = chosen.mean(0)
        found.append(Moments(mean, (chosen - mean).T @ (chosen - mean) / len(chosen)))
    return found


def gaussian_moments(
    model: nn.Sequential, mean: Float[Tensor, " n"], covariance: Float[Tensor, "n n"]
) -> list[Moments]:
    """Mean and covariance behind every layer, from those of the inputs.

    Linear layers map them exactly. Behind a function of every entry they are those that normally distributed
    inputs would have: exact for the first such layer if the inputs are normal.

    Args:
        model: of `nn.Linear`, `TTLinear` and functions of every entry (`nn.ReLU`, `nn.Tanh`, `Sine`,
            `Elementwise(torch.erf)` and the like).
        mean: of the inputs.
        covariance: of the inputs.

    Returns:
        One pair for each layer, in double precision.

    Raises:
        InputError: a layer is of another kind, or the shapes do not fit.

    Cost: O(n^2) times some sixty values of the function for each such layer.

    Source: arXiv 2202.04925, section III.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
        >>> _ = nn.init.ones_(net[0].weight), nn.init.zeros_(net[0].bias)
        >>> found = gaussian_moments(net, torch.zeros(1), torch.ones(1, 1))[-1]
        >>> round(found.mean.item(), 4), round(found.covariance.item(), 4)
        (0.3989, 0.3408)
    """
    now = Moments(mean.detach().double(), covariance.detach().double())
    if now.covariance.shape != (len(mean), len(mean)):
        raise InputError(
            f"a covariance of {len(mean)} inputs is [{len(mean)}, {len(mean)}], got {list(covariance.shape)}"
        )
    found = []
    for place, layer in enumerate(model):
        if isinstance(layer, nn.Linear | TTLinear):
            now = _linear(layer, now, place)
        elif isinstance(layer, _ENTRYWISE):
            now = _entrywise(layer, now)
        else:
            raise InputError(
                f"layer {place} is {type(layer).__name__}; expected nn.Linear, TTLinear or a function of "
                "every entry"
            )
        found.append(now)
    return found


@torch.no_grad()
def _linear(layer: nn.Linear | TTLinear, given: Moments, place: int) -> Moments:
    weight = layer.weight.detach().double()
    if weight.shape[1] != len(given.mean):
        raise InputError(f"layer {place} takes {weight.shape[1]} inputs, it would get {len(given.mean)}")
    mean = weight @ given.mean
    if layer.bias is not None:
        mean = mean + layer.bias.detach().double()
    return Moments(mean, weight @ given.covariance @ weight.T)


@torch.no_grad()
def _entrywise(function: Callable[[Tensor], Tensor], given: Moments) -> Moments:
    """By quadrature: over one entry, and over the other one given the first.

    The line is parted at zero, where many functions have a kink.
    """
    deviation = given.covariance.diagonal().clamp_min(0.0).sqrt()
    z, weight = _normal_nodes(given.mean, deviation)  # [n, q]
    value = function(z)
    mean = (weight * value).sum(1)
    second = torch.empty_like(given.covariance)
    for i in range(len(mean)):
        # entry j given entry i: normal, of this mean and deviation at every node of i
        slope = given.covariance[i] / deviation[i].square().clamp_min(torch.finfo(mean.dtype).tiny)
        left = (deviation.square() - slope * given.covariance[i]).clamp_min(0.0).sqrt()
        moved = given.mean.unsqueeze(1) + slope.unsqueeze(1) * (z[i] - given.mean[i])  # [n, q]
        inner, share = _normal_nodes(moved.reshape(-1), left.repeat_interleave(z.shape[1]))
        expected = (share * function(inner)).sum(1).view_as(moved)
        second[i] = expected @ (weight[i] * value[i])
        second[i, i] = (weight[i] * value[i].square()).sum()
    return Moments(mean, (second + second.T) / 2 - torch.outer(mean, mean))


def _normal_nodes(mean: Shaped[Tensor, " n"], deviation: Shaped[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Nodes `[n, q]` and weights of expectations over normal numbers, on both sides of zero."""
    points, shares = (torch.from_numpy(np.asarray(part)) for part in gauss_legendre(_NODES))
    low, high = mean - _WIDEST * deviation, mean + _WIDEST * deviation
    middle = torch.zeros_like(mean).maximum(low).minimum(high)
    nodes, weights = [], []
    scale = deviation.clamp_min(1e-300).unsqueeze(1)
    for start, end in ((low, middle), (middle, high)):
        half = ((end - start) / 2).unsqueeze(1)
        place = start.unsqueeze(1) + half * (points + 1)
        density = torch.exp(-((place - mean.unsqueeze(1)) / scale).square() / 2) / math.sqrt(2 * math.pi)
        nodes.append(place)
        weights.append(half / scale * shares * density)
    found = torch.cat(weights, 1)
    total = found.sum(1, keepdim=True)
    certain = total <= 0  # no deviation: one node carries everything
    even = torch.full_like(found, 1.0 / found.shape[1])
    return torch.cat(nodes, 1), torch.where(certain, even, found / total.clamp_min(1e-300))
