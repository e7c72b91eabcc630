"""How outputs follow one feature: an output is linear in its local features, so one derivative is enough."""

from collections.abc import Sequence

import torch
from jaxtyping import Float64, Inexact
from torch import Tensor

from tnml.checks import whole
from tnml.diagnostics import undisturbed
from tnml.errors import InputError
from tnml.explain.background import background_features, combinations
from tnml.explain.slopes import derivatives
from tnml.nn import TensorNetworkLayer


def partial_dependence(
    layer: TensorNetworkLayer,
    feature: int,
    grid: Tensor,
    background: Tensor,
    target: int | Sequence[int] | Tensor | None = None,
    *,
    weight: Tensor | None = None,
    joint: bool = True,
) -> Inexact[Tensor, "g k"]:
    """Outputs averaged over a background in which one feature takes each value of a grid.

    Args:
        layer: any network of `tnml.nn.NETWORKS`.
        feature: its column in the inputs.
        grid: `[g]` values in [0, 1].
        background: `[k, n]` inputs or `[k, n, d]` features.
        target: an output, several, a matrix `[c, k]` of combinations, or None for all outputs.
        weight: `[k]`, at least 0: how often each row counts; None counts all equally.
        joint: True averages over the rows (Friedman's definition); False over all combinations of the
            columns' values, as `shapley` does by default, at the cost of one row.

    Raises:
        InputError: a shape, target or number does not fit.

    Cost: one forward and backward pass of `k c` rows, whatever the grid.

    Source: Friedman, Greedy function approximation, Annals of Statistics 29 (2001) 1189.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> layer, x = MPSLayer(3, 2, dtype="float64"), torch.rand(5, 3).double()
        >>> found = partial_dependence(layer, 1, torch.tensor([0.5]), x)
        >>> x[:, 1] = 0.5
        >>> torch.allclose(found[0], layer(x).mean(0))
        True
    """
    device = layer.order.device
    with undisturbed(layer):
        rows, share = background_features(layer, background.to(device), weight, joint=joint)
        each = _along_one(layer, feature, grid, rows, combinations(target, layer.out_features, device))
    return torch.einsum("b,bgk->gk", share.to(each.dtype), each)


def individual_dependence(
    layer: TensorNetworkLayer,
    x: Tensor,
    feature: int,
    grid: Tensor,
    target: int | Sequence[int] | Tensor | None = None,
) -> Inexact[Tensor, "b g k"]:
    """Outputs of each sample with one of its features at each value of a grid (ICE curves).

    The arguments are those of `partial_dependence`.

    Raises:
        InputError: a shape, target or number does not fit.

    Source: Goldstein et al., arXiv 1309.6392.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> individual_dependence(MPSLayer(3, 2), torch.rand(5, 3), 1, torch.linspace(0, 1, 11)).shape
        torch.Size([5, 11, 2])
    """
    device = layer.order.device
    with undisturbed(layer):
        rows = layer.local_features(x.detach().to(device))
        return _along_one(layer, feature, grid, rows, combinations(target, layer.out_features, device))


def accumulated_effects(
    layer: TensorNetworkLayer,
    x: Tensor,
    feature: int,
    grid: Tensor,
    target: int | Sequence[int] | Tensor | None = None,
) -> Float64[Tensor, "g k"]:
    """Accumulated local effects (ALE): mean changes between neighbours of a grid, over the samples there.

    Unlike in `partial_dependence`, no sample is moved far from where it is, which matters where columns
    depend on each other. Intervals without samples add nothing. The curve's mean over the samples is zero.

    Args:
        layer: any network of `tnml.nn.NETWORKS`.
        x: `[b, n]` inputs.
        feature: its column in the inputs.
        grid: `[g]` ascending values that enclose the column, g at least 2; quantiles of it, as a rule.
        target: as for `partial_dependence`.

    Returns:
        At each value of the grid.

    Raises:
        InputError: the grid does not ascend or does not enclose the column, or a shape or target does not
            fit.

    Source: Apley and Zhu, arXiv 1612.08468.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> accumulated_effects(MPSLayer(3, 2), torch.rand(50, 3), 0, torch.linspace(0, 1, 6)).shape
        torch.Size([6, 2])
    """
    grid, column = (
        grid.detach().double().cpu(),
        x[:, _place(layer, feature)].detach().double().cpu().contiguous(),
    )
    if grid.dim() != 1 or len(grid) < 2 or not bool((grid.diff() > 0).all()):
        raise InputError(f"expected an ascending grid [g] of at least two values, got {list(grid.shape)}")
    if column.min() < grid[0] or column.max() > grid[-1]:
        raise InputError(
            f"the grid goes from {grid[0]:.6g} to {grid[-1]:.6g} and column {feature} from "
            f"{column.min():.6g} to {column.max():.6g}; the grid must enclose it"
        )
    curves = individual_dependence(layer, x, feature, grid, target).cpu()
    interval = (torch.searchsorted(grid, column, right=False) - 1).clamp_min(0)
    change = curves.diff(dim=1)[torch.arange(len(x)), interval]
    counts = torch.bincount(interval, minlength=len(grid) - 1)
    sums = torch.zeros(len(counts), change.shape[1], dtype=change.dtype).index_add(0, interval, change)
    steps = sums / counts.clamp_min(1).unsqueeze(1)
    curve = torch.cat([torch.zeros_like(steps[:1]), steps.cumsum(0)])
    middle = (curve[1:] + curve[:-1]) / 2
    return curve - (middle * counts.unsqueeze(1)).sum(0) / len(x)


def _along_one(
    layer: TensorNetworkLayer, feature: int, grid: Tensor, rows: Inexact[Tensor, "b n d"], columns: Tensor
) -> Inexact[Tensor, "b g k"]:
    """Outputs of features `[b, n, d]` with one feature at each value of the grid."""
    if grid.dim() != 1 or not len(grid):
        raise InputError(f"expected a grid [g] of values for the feature, got {list(grid.shape)}")
    place = _place(layer, feature)
    site = int((layer.order == place).nonzero())
    _, slope = derivatives(layer, rows, columns)
    values = grid.detach().to(layer.order.device, rows.real.dtype).unsqueeze(1).expand(-1, layer.n_sites)
    there = layer.local_features(values)[:, site].to(slope.dtype)
    return torch.einsum("bkd,gd->bgk", slope[:, :, site], there)


def _place(layer: TensorNetworkLayer, feature: int) -> int:
    return whole("feature", feature, 0, layer.n_sites - 1)
