"""How two features act together: second derivatives of the outputs by their local features."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Inexact
from torch import Tensor

from tnml.checks import whole
from tnml.diagnostics import undisturbed
from tnml.errors import choose
from tnml.explain.background import compared
from tnml.explain.slopes import slopes
from tnml.nn import TensorNetworkLayer
from tnml.quadrature import gauss_legendre

KINDS = ("shapley-taylor", "shapley", "banzhaf")
SITES = 64  # exchanged at a time, which bounds the memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Interactions:
    """What pairs of features contribute beyond what each contributes alone.

    Attributes:
        values: `[b, n, n, k]`, symmetric, in the order of the inputs. The diagonal is zero; for
            "shapley-taylor" it holds what each feature contributes where all others are left out, so that
            the sum over all pairs i <= j is the output minus the base.
        kind: the index, as `interactions` takes it.
        nodes: points of the quadrature.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> found = interactions(MPSLayer(4, 2), torch.rand(3, 4), torch.rand(9, 4), target=0)
        >>> found.values.shape, found.kind
        (torch.Size([3, 4, 4, 1]), 'shapley-taylor')
    """

    values: Inexact[Tensor, "b n n k"]
    kind: str
    nodes: int


def interactions(
    layer: TensorNetworkLayer,
    x: Tensor,
    background: Tensor,
    target: int | Sequence[int] | Tensor | None = None,
    *,
    kind: str = "shapley-taylor",
    weight: Tensor | None = None,
    joint: bool = False,
    nodes: int | None = None,
) -> Interactions:
    """The interaction of every pair of features, exactly.

    Each is an integral over the line of `shapley` of the second derivative by the features of two sites, with
    the weight 2 (1 - t) for "shapley-taylor", 1 for "shapley"; "banzhaf" takes the derivative in the middle
    of the line.

    Args:
        layer: any network of `tnml.nn.NETWORKS`.
        x: `[b, n]` inputs in [0, 1] or `[b, n, d]` features.
        background: `[k, n]` or `[k, n, d]`, some hundred training samples.
        target: as for `shapley`.
        kind: "shapley-taylor" (pairs and single features add up to the output), "shapley" (Grabisch and
            Roubens) or "banzhaf".
        weight: `[k]` weights of the rows of the background.
        joint: as for `shapley`.
        nodes: of the quadrature; None takes as many as make it exact.

    Raises:
        InputError: a shape, name, target or number does not fit.

    Cost: forward and backward passes of `b * n * nodes * c` rows, times k with `joint`.

    Source: Sundararajan, Dhamdhere and Agarwal, arXiv 1902.05622; Grabisch and Roubens, International Journal
    of Game Theory 28 (1999) 547.

    Example:
        >>> from tnml.explain import shapley
        >>> from tnml.nn import MPSLayer
        >>> layer, x, others = MPSLayer(4, 2, dtype="float64"), torch.rand(1, 4), torch.rand(9, 4)
        >>> pairs = interactions(layer, x, others).values[0].permute(2, 0, 1).triu().sum((1, 2))
        >>> alone = shapley(layer, x, others)
        >>> torch.allclose(pairs, alone.outputs[0] - alone.base)
        True
    """
    choose("kind", kind, dict.fromkeys(KINDS))
    exact = max(1, math.ceil(layer.n_sites / 2))
    count = exact if nodes is None else whole("nodes", nodes, 1)
    points, shares = gauss_legendre(count)
    points, shares = (points + 1) / 2, shares / 2
    if kind == "banzhaf":
        points, shares = np.array([0.5]), np.array([1.0])
    elif kind == "shapley-taylor":
        shares = shares * 2 * (1 - points)
    with undisturbed(layer):
        compare = compared(layer, x, background, target, weight, joint=joint)
        given, columns = compare.given, compare.columns
        each = compare.mean(lambda row: _second(layer, given, row, columns, points, shares))
        if kind == "shapley-taylor":
            alone = compare.mean(lambda row: slopes(layer, row.expand_as(given), given - row, columns)[1])
            each.diagonal(dim1=1, dim2=2).copy_(alone.transpose(1, 2))
    values = torch.empty_like(each)
    values[:, layer.order.unsqueeze(1), layer.order] = each
    return Interactions(values=values, kind=kind, nodes=len(points))


def _second(
    layer: TensorNetworkLayer,
    given: Inexact[Tensor, "b n d"],
    other: Inexact[Tensor, "n d"],
    columns: Tensor,
    points: np.ndarray,
    shares: np.ndarray,
) -> Inexact[Tensor, "b n n k"]:
    """Second derivatives `[b, i, j, k]`: first ones by j of the network whose site i has its direction."""
    change = given - other
    rows = []
    for some in torch.arange(layer.n_sites, device=given.device).split(SITES):
        total = torch.zeros((), dtype=torch.float64, device=given.device)
        for point, part in zip(points, shares, strict=True):
            mixed = (other + float(point) * change).unsqueeze(1).repeat(1, len(some), 1, 1)  # [b, i, n, d]
            mixed[:, torch.arange(len(some)), some] = change[:, some]
            along = change.unsqueeze(1).expand_as(mixed)
            _, slope = slopes(layer, mixed.flatten(0, 1), along.flatten(0, 1), columns)
            total = total + float(part) * slope.unflatten(0, (len(given), -1))
        rows.append(total)
    found = torch.cat(rows, 1)
    found.diagonal(dim1=1, dim2=2).zero_()
    return found
