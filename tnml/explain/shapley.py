"""Shapley and Banzhaf values of the features, exactly: by one integral along a line of local features.

With local features mixed as phi_i(t) = t phi(x_i) + (1 - t) m_i an output is a polynomial of degree n in t.
In the game in which the features outside of a coalition are averaged over the background, the Shapley value
of feature i is the integral over [0, 1] of the output's derivative by phi_i along phi(x_i) - m_i.

Sources: Owen, Multilinear extensions of games, Management Science 18 (1972) P64; Lundberg and Lee, arXiv
1705.07874 (the game); Sundararajan, Dhamdhere and Agarwal, arXiv 1902.05622 (interactions).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Inexact
from torch import Tensor

from tnml.checks import whole
from tnml.diagnostics import undisturbed
from tnml.explain.background import Comparison, compared
from tnml.explain.explanation import Explanation, gap_of
from tnml.explain.slopes import slopes
from tnml.nn import TensorNetworkLayer
from tnml.quadrature import gauss_legendre

FIRST_NODES = 8  # leave a gap of 1e-11 at 784 sites; twice as many follow if that is not enough
ROWS = 2048  # of features at a time, which bounds the memory


def shapley(
    layer: TensorNetworkLayer,
    x: Tensor,
    background: Tensor,
    target: int | Sequence[int] | Tensor | None = None,
    *,
    weight: Tensor | None = None,
    joint: bool = False,
    nodes: int | str = "auto",
) -> Explanation:
    """The Shapley values of all features for the outputs of a network, before any softmax.

    They are those of the game in which features outside of a coalition are averaged over the background. The
    outputs are multilinear in the local features, so there is nothing to sample: a Gauss-Legendre sum of
    `ceil(n / 2)` nodes is exact, and far fewer are exact to rounding. Probabilities are not multilinear:
    explain outputs, or the difference of two.

    Args:
        layer: any network of `tnml.nn.NETWORKS`; its mode and gradients stay as they are.
        x: `[b, n]` inputs in [0, 1] or `[b, n, d]` features.
        background: `[k, n]` or `[k, n, d]`, some hundred training samples.
        target: an output, several, a matrix `[c, k]` of combinations of outputs, or None for all of them.
        weight: `[k]`, at least 0: how often each row of the background counts; None counts all equally.
        joint: whether the rows of the background are kept as they are (interventional values of dependent
            columns, k times the cost); otherwise its columns are independent, and their means are enough.
        nodes: of the quadrature, at least 1; "auto" doubles them until the sum of the contributions is right,
            as far as their size allows, or the quadrature is exact.

    Raises:
        InputError: a shape, target or number does not fit.

    Cost: forward and backward passes of `b * nodes * c` rows, times k with `joint`.

    Source: Owen (1972); Lundberg and Lee, arXiv 1705.07874.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> found = shapley(MPSLayer(4, 2), torch.rand(3, 4), torch.rand(9, 4), target=1)
        >>> found.values.shape
        torch.Size([3, 4, 1])
    """
    enough = max(1, math.ceil(layer.n_sites / 2))
    if nodes == "auto":
        count, most = min(FIRST_NODES, enough), enough
    else:
        count = most = whole("nodes", nodes, 1)
    tolerance = 1000 * torch.finfo(layer.dtype).eps
    with undisturbed(layer):
        compare = compared(layer, x, background, target, weight, joint=joint)
        while True:
            points, shares = gauss_legendre(count)
            found = _along_the_line(layer, compare, (points + 1) / 2, shares / 2)
            off = found.values.sum(1) - (found.outputs - found.base)
            size = found.values.abs().sum(1)  # which rounding is proportional to, not the output
            if not float(off.abs().max()) > tolerance * float(size.max()) or count >= most:
                return found
            count = min(2 * count, most)


def banzhaf(
    layer: TensorNetworkLayer,
    x: Tensor,
    background: Tensor,
    target: int | Sequence[int] | Tensor | None = None,
    *,
    weight: Tensor | None = None,
    joint: bool = False,
) -> Explanation:
    """The Banzhaf values of all features: what each adds on average to a random coalition of the others.

    Every coalition has the same weight here, so one derivative in the middle of the line is enough. The
    values do not add up to the output. The arguments, and what they raise, are those of `shapley`.

    Cost: forward and backward passes of `b * c` rows, times k with `joint`.

    Source: Owen, Multilinear extensions and the Banzhaf value, Naval Research Logistics Quarterly 22 (1975).

    Example:
        >>> from tnml.nn import MPSLayer
        >>> layer, x, others = MPSLayer(2, 2, dtype="float64"), torch.rand(3, 2), torch.rand(9, 2)
        >>> a, b = banzhaf(layer, x, others), shapley(layer, x, others)
        >>> torch.allclose(a.values, b.values)  # the same for two features
        True
    """
    with undisturbed(layer):
        compare = compared(layer, x, background, target, weight, joint=joint)
        found = _along_the_line(layer, compare, np.array([0.5]), np.array([1.0]))
    return Explanation(values=found.values, base=found.base, outputs=found.outputs, gap=None, nodes=1)


def _along_the_line(
    layer: TensorNetworkLayer, compare: Comparison, points: np.ndarray, shares: np.ndarray
) -> Explanation:
    """The weighted sum over points on the line of the derivatives along it, in the order of the inputs."""
    given, columns = compare.given, compare.columns
    of_rows = _outputs(layer, compare.others, columns)
    base = compare.share.to(of_rows.dtype) @ of_rows
    outputs = _outputs(layer, given, columns)
    each = compare.mean(lambda row: _of_one_background(layer, given, row, columns, points, shares))
    values = torch.empty_like(each)
    values[:, layer.order] = each
    gap = gap_of(values, base, outputs)
    return Explanation(values=values, base=base, outputs=outputs, gap=gap, nodes=len(points))


def _of_one_background(
    layer: TensorNetworkLayer,
    given: Inexact[Tensor, "b n d"],
    other: Inexact[Tensor, "n d"],
    columns: Tensor,
    points: np.ndarray,
    shares: np.ndarray,
) -> Inexact[Tensor, "b n k"]:
    """For features `[b, n, d]` and one row `[n, d]` that stands in for what is left out."""
    at = torch.as_tensor(points, dtype=torch.float64, device=given.device)
    part = torch.as_tensor(shares, dtype=torch.float64, device=given.device)
    samples = max(1, ROWS // (len(points) * columns.shape[1]))
    found = []
    for some in given.split(samples):
        change = some - other
        mixed = other + at.to(some.real.dtype)[:, None, None, None] * change  # [q, b, n, d]
        along = change.expand_as(mixed)
        _, slope = slopes(layer, mixed.flatten(0, 1), along.flatten(0, 1), columns)
        found.append(torch.einsum("q,qbnk->bnk", part.to(slope.dtype), slope.unflatten(0, (len(at), -1))))
    return torch.cat(found)


def _outputs(layer: TensorNetworkLayer, features: Tensor, columns: Tensor) -> Inexact[Tensor, "b k"]:
    """Outputs in double precision, times the combinations."""
    with torch.no_grad():
        value, exponent = layer.contract(features)
    wide = torch.complex128 if value.is_complex() else torch.float64
    scaled = value.to(wide) * torch.exp2(exponent.double()).unsqueeze(1)
    return scaled @ columns.to(wide)
