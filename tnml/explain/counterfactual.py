"""The smallest changes that make a network choose another output: along one feature every output is known."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tnml.checks import whole
from tnml.diagnostics import undisturbed
from tnml.errors import InputError
from tnml.explain.background import combinations
from tnml.explain.slopes import derivatives
from tnml.nn import TensorNetworkLayer

GRID = 1025  # values of a feature that are tried; a change of sign between two of them is then solved for
HALVINGS = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class Counterfactual:
    """A changed sample.

    Attributes:
        inputs: `[n]` the changed sample.
        changed: the features that were changed, in the order in which they were.
        found: whether the target is now the largest output; otherwise `inputs` is the closest sample found.
        margin: the target's output minus the largest other one.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> found = counterfactual(MPSLayer(4, 2, noise=1.0), torch.rand(4), target=0, max_changes=4)
        >>> found.inputs.shape, found.found == (found.margin > 0)
        (torch.Size([4]), True)
    """

    inputs: Float[Tensor, " n"]
    changed: tuple[int, ...]
    found: bool
    margin: float


def counterfactual(
    layer: TensorNetworkLayer, x: Tensor, target: int, *, max_changes: int = 1, keep: Tensor | None = None
) -> Counterfactual:
    """A sample near `x` whose largest output is `target`, with the fewest changed features that were found.

    An output is linear in the features of one site, so with all others fixed it is known as a function of
    that site's input, for all sites from one derivative. If one change is enough, the smallest is taken. If
    not, the change that brings the target nearest is made, and the search continues from there.

    Args:
        layer: any real network of `tnml.nn.NETWORKS` with inputs in [0, 1].
        x: `[n]` one sample.
        target: the output that is to become the largest.
        max_changes: the largest number of features to change.
        keep: `[n]` of bool, the features that must stay as they are; None for none.

    Returns:
        The changed sample; look at `found`: it is possible that none exists with that few changes.

    Raises:
        InputError: a shape or number does not fit, or the network is complex or has one output only.

    Cost: for each change a forward and backward pass of c rows and `n c` times 1025 values. The smallest
    change is exact to rounding unless the target wins only within an interval shorter than 1/1024.

    Source: own design.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> layer, x = MPSLayer(4, 2, noise=1.0), torch.rand(4)
        >>> counterfactual(layer, x, target=int(layer(x.unsqueeze(0)).argmax())).changed
        ()
    """
    target = whole("target", target, 0, layer.out_features - 1)
    max_changes = whole("max_changes", max_changes, 1)
    if layer.dtype.is_complex or layer.out_features < 2:
        raise InputError("counterfactuals compare real outputs: expected a real network of at least two")
    if x.shape != (layer.n_sites,):
        raise InputError(f"expected one sample [{layer.n_sites}], got {list(x.shape)}")
    if keep is not None and (keep.shape != x.shape or keep.dtype != torch.bool):
        raise InputError(f"keep must be [{layer.n_sites}] of bool, got {keep.dtype} {list(keep.shape)}")
    free = torch.ones(layer.n_sites, dtype=torch.bool) if keep is None else ~keep.cpu()
    now = x.detach().to(layer.order.device, torch.float64)
    changed: list[int] = []
    with undisturbed(layer):
        margin = _margin(layer, now, target)
        while margin <= 0 and len(changed) < max_changes and bool(free.any()):
            feature, value = _best_change(layer, now, target, free)
            now = now.clone()
            now[feature] = value
            changed.append(feature)
            free[feature] = False
            margin = _margin(layer, now, target)
    return Counterfactual(inputs=now.to(x.dtype), changed=tuple(changed), found=margin > 0, margin=margin)


def _rows(layer: TensorNetworkLayer, now: Tensor) -> Tensor:
    return now.unsqueeze(0).to(layer.dtype)


def _margin(layer: TensorNetworkLayer, now: Float64[Tensor, " n"], target: int) -> float:
    with torch.no_grad():
        outputs = layer(_rows(layer, now))[0].double()
    others = outputs.clone()
    others[target] = -torch.inf
    return float(outputs[target] - others.max())


def _best_change(
    layer: TensorNetworkLayer, now: Float64[Tensor, " n"], target: int, free: Tensor
) -> tuple[int, float]:
    """The smallest change of a free feature after which the target wins, or else the one that helps most."""
    device = layer.order.device
    columns = combinations(None, layer.out_features, device)
    ahead = columns[:, [target]] - torch.cat([columns[:, :target], columns[:, target + 1 :]], 1)
    outputs, slope = derivatives(layer, layer.local_features(_rows(layer, now)), ahead)
    enough = 1000 * torch.finfo(layer.dtype).eps * float(outputs.abs().max())  # more than rounding

    def margins(values: Float64[Tensor, "g n"]) -> Float64[Tensor, "g n"]:
        """The margins when only this feature is changed, for every feature, in the order of the inputs."""
        phi = layer.local_features(values.to(layer.dtype)).double()
        found = torch.empty_like(values)
        found[:, layer.order] = torch.einsum("knd,gnd->kgn", slope[0], phi).amin(0) - enough
        return found

    grid = torch.linspace(0, 1, GRID, dtype=torch.float64, device=device).unsqueeze(1)
    grid = grid.expand(-1, layer.n_sites).contiguous()
    reached = margins(grid)
    reached[:, ~free.to(device)] = -torch.inf
    if not bool((reached > 0).any()):
        best = int(reached.argmax())
        return best % layer.n_sites, float(grid.flatten()[best])
    far = torch.where(reached > 0, (grid - now).abs(), torch.inf)
    nearest = far.amin(0)
    good = torch.where(nearest.isfinite(), grid.gather(0, far.argmin(0, keepdim=True))[0], now)
    bad = torch.where((good - now).abs() < 1 / (GRID - 1), now, good - (good - now).sign() / (GRID - 1))
    for _ in range(HALVINGS):
        middle = (good + bad) / 2
        wins = margins(middle.unsqueeze(0))[0] > 0
        good, bad = torch.where(wins, middle, good), torch.where(wins, bad, middle)
    change = torch.where(nearest.isfinite(), (good - now).abs(), torch.inf)
    best = int(change.argmin())
    return best, float(good[best])
