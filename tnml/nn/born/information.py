"""How much columns say about each other: entropies and mutual informations of a density, exactly."""

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from tnml.nn.born.state import BornState, left_summed, normalised


@torch.no_grad()
def column_entropies(state: BornState) -> Float[Tensor, " n"]:
    """The entropy `[n]` of every column by itself, in nats; of numbers in [0, 1] differential, at most 0.

    Cost: n d chi^3.
    """
    nothing = torch.full((1, state.n_columns), torch.nan, dtype=torch.float64)
    pairs = zip(state.densities(nothing), state.basis_of_column, strict=True)
    return torch.stack([-_mean_log(basis.density(rho)[0], basis.weights) for rho, basis in pairs])


@torch.no_grad()
def mutual_information(state: BornState) -> Float[Tensor, "n n"]:
    """The mutual information of every two columns in nats; the entropy of a column on the diagonal.

    Numbers are seen at the nodes of a quadrature; their diagonal is the differential entropy.

    Cost: n² q d chi^3 / 2 for columns of q points.
    """
    n, places = state.n_columns, len(state.cores)
    nothing = torch.full((1, n), torch.nan, dtype=torch.float64)
    rights = state.right_ends(nothing)
    found = torch.diag(column_entropies(state))
    left = state.cores[0].new_ones(1, 1, 1)
    for first in range(places):
        i, core = state.columns[first], state.cores[first]
        if i is not None:
            open_ = _at_points(left, core, state.bases[first].vectors)
            for second in range(first + 1, places):
                j = state.columns[second]
                if j is not None:
                    joint = _joint(open_, state.cores[second], rights[second], state.bases[second].vectors)
                    value = _information(joint, state.bases[first].weights, state.bases[second].weights)
                    found[i, j] = found[j, i] = value
                open_ = left_summed(open_, state.cores[second])
                open_ = open_ / open_.diagonal(dim1=1, dim2=2).sum().real
        left = normalised(left_summed(left, core))[0]
    return found


def _at_points(left: Tensor, core: Tensor, vectors: Tensor) -> Inexact[Tensor, "q r t"]:
    """The double layer beyond a site, for every value of its column."""
    at = torch.einsum("qd,ldkr->qlkr", vectors.to(core), core)
    return torch.einsum("lm,qlkr,qmkt->qrt", left[0], at, at.conj())


def _joint(open_: Tensor, core: Tensor, right: Tensor, vectors: Tensor) -> Float[Tensor, "q p"]:
    """The density at all pairs of values, up to a factor."""
    at = torch.einsum("pd,ldkr->plkr", vectors.to(core), core)
    closed = torch.einsum("plkr,rt,pmkt->plm", at, right[0], at.conj())
    return torch.einsum("qlm,plm->qp", open_, closed).real.clamp_min(0)


def _information(joint: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Of a density at pairs of points, with the weights of both quadratures."""
    mass = joint * first.unsqueeze(1) * second
    mass = mass / mass.sum()
    apart = mass.sum(1, keepdim=True) * mass.sum(0)
    return (torch.xlogy(mass, mass) - torch.xlogy(mass, torch.where(mass > 0, apart, 1.0))).sum()


def _mean_log(density: Tensor, weights: Tensor) -> Tensor:
    density = density.clamp_min(0)
    density = density / (density * weights).sum()
    return (torch.xlogy(density, density) * weights).sum()
