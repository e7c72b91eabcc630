"""Variances of outputs over independent inputs, and the share of each feature in them, from two copies."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from tnml.diagnostics import undisturbed
from tnml.errors import InputError
from tnml.explain.background import background_features, combinations
from tnml.explain.slopes import derivatives
from tnml.mps import MatrixProductState
from tnml.nn import TensorNetworkLayer
from tnml.nn.layer import Chain


@dataclass(frozen=True, kw_only=True, eq=False)
class Sobol:
    """How outputs vary over a background with independent columns.

    Attributes:
        mean: `[c]`.
        covariance: `[c, c]` of the outputs.
        first: `[n, c]` share of the variance that a feature explains alone.
        total: `[n, c]` share that is lost when a feature is no longer known: its own part and that of all
            its interactions.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> found = sobol(MPSLayer(4, 2, noise=0.5), torch.rand(50, 4))
        >>> bool((found.first <= found.total + 1e-12).all()), bool((found.first.sum(0) <= 1 + 1e-12).all())
        (True, True)
    """

    mean: Float64[Tensor, " c"]
    covariance: Float64[Tensor, "c c"]
    first: Float64[Tensor, "n c"]
    total: Float64[Tensor, "n c"]


def sobol(layer: TensorNetworkLayer, background: Tensor, weight: Tensor | None = None) -> Sobol:
    """Mean, covariance and Sobol indices of the outputs over all combinations of a background's columns.

        E[f_a f_b] =  two copies of the chain,       --o--o--[a]--o--
                      E[phi phi^T] between them:       |  |       |
                                                     --o--o--[b]--o--

    Args:
        layer: a real network that is a chain, such as an `MPSLayer`.
        background: `[k, n]` inputs or `[k, n, d]` features; its columns are taken as independent.
        weight: `[k]`, at least 0: how often each row counts; None counts all equally.

    Raises:
        InputError: the layer is not a chain or is complex, or a shape does not fit.

    Cost: O(c n d chi^3), in double precision. Nothing is sampled.

    Source: Sobol', Mathematics and Computers in Simulation 55 (2001) 271, for the indices; the method is our
    own design.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> sobol(MPSLayer(4, 2), torch.rand(50, 4)).first.shape
        torch.Size([4, 2])
    """
    if not isinstance(layer, Chain):
        raise InputError(
            f"Sobol indices need a network that is a chain, got {type(layer).__name__}; "
            "estimate them from samples of the background"
        )
    if layer.dtype.is_complex:
        raise InputError("Sobol indices are of real outputs, got a complex network")
    device = layer.order.device
    with undisturbed(layer), torch.no_grad():
        rows, share = background_features(layer, background.to(device), weight, joint=True)
        rows = rows.double()
        mean = torch.einsum("k,knd->nd", share, rows)
        second = torch.einsum("k,knd,kne->nde", share, rows, rows)
        state = layer.to_state().detach().to("float64")
        expected, slope = derivatives(
            layer, mean.unsqueeze(0).to(layer.dtype), combinations(None, layer.out_features, device)
        )
        both, without = _two_copies(state, layer.label_site, second, mean.unsqueeze(2) * mean.unsqueeze(1))
    variance = both.diagonal() - expected[0].square()
    own = torch.einsum("knd,nde,kne->nk", slope[0], second, slope[0])
    own = own - torch.einsum("knd,nd->nk", slope[0], mean).square()
    varies = variance.clamp_min(1e-300)
    first, total = torch.empty_like(own), torch.empty_like(own)
    first[layer.order], total[layer.order] = own / varies, (both.diagonal() - without) / varies
    covariance = both - torch.outer(expected[0], expected[0])
    return Sobol(mean=expected[0], covariance=covariance, first=first, total=total)


def _two_copies(
    state: MatrixProductState,
    place: int,
    second: Float64[Tensor, "n d d"],
    apart: Float64[Tensor, "n d d"],
) -> tuple[Float64[Tensor, "c c"], Float64[Tensor, "n c"]]:
    """E[f_a f_b] `[c, c]`, and E[E[f_c | all but i]²] `[n, c]` with `apart` between the copies at site i."""
    cores = state.cores
    label = cores.pop(place)
    lefts, rights = [label.new_ones(1, 1)], [label.new_ones(1, 1)]
    for core, between in zip(cores[:place], second[:place], strict=True):
        lefts.append(torch.einsum("lm,ldr,mes,de->rs", lefts[-1], core, core, between))
    for core, between in zip(reversed(cores[place:]), reversed(second[place:]), strict=True):
        rights.append(torch.einsum("rs,ldr,mes,de->lm", rights[-1], core, core, between))
    both = torch.einsum("lm,lar,mbs,rs->ab", lefts[-1], label, label, rights[-1])
    from_right = torch.einsum("lcr,mcs,rs->clm", label, label, rights[-1])
    from_left = torch.einsum("lcr,mcs,lm->crs", label, label, lefts[-1])
    without = []
    for site in reversed(range(place)):
        core = cores[site]
        sides = (lefts[site], core, core, apart[site], from_right)
        without.append(torch.einsum("lm,ldr,mes,de,crs->c", *sides))
        from_right = torch.einsum("crs,ldr,mes,de->clm", from_right, core, core, second[site])
    without.reverse()
    for site in range(place, len(cores)):
        core = cores[site]
        sides = (from_left, core, core, apart[site], rights[len(cores) - 1 - site])
        without.append(torch.einsum("clm,ldr,mes,de,rs->c", *sides))
        from_left = torch.einsum("clm,ldr,mes,de->crs", from_left, core, core, second[site])
    return both, torch.stack(without)
