"""Samples of a density, site after site, with any columns given: exact, and independent of each other."""

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.nn.born.state import BornState, advanced


@torch.no_grad()
def drawn(
    state: BornState, given: Float[Tensor, "b n"], generator: torch.Generator, *, shared: bool = False
) -> Float[Tensor, "b n"]:
    """`given` with every NaN replaced by a draw from the density given the other columns of its row.

    The chain right of a site is summed over, but for what is given there; the draw then decides the site,
    and the next one sees it.

    Args:
        state: the density.
        given: the values that are known.
        generator: of the random numbers, on the CPU.
        shared: whether all rows know the same values: what is right of a site is then contracted once.

    Cost: b n d chi^3; b n d chi² where `shared`.

    Source: Ferris and Vidal, arXiv 1201.3974.

    Example:
        >>> from tnml.nn.born.basis import levels
        >>> core = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 2, 1, 1)
        >>> drawn(BornState([core], [levels(2, 2)], [0]), torch.tensor([[torch.nan]]), torch.Generator())
        tensor([[1.]], dtype=torch.float64)
    """
    given = given.double()
    n = len(state.cores)
    uniform = torch.rand(len(given), n, 2, generator=generator, dtype=torch.float64)
    each = state.widest * (4 * max(c.shape[1] * c.shape[2] for c in state.cores))
    if not shared:
        each = state.widest**2 * (n + 4)
    parts = [_drawn(state, given[rows], uniform[rows], shared) for rows in state.chunks(len(given), each)]
    return torch.cat(parts) if parts else given


def _drawn(state: BornState, given: Tensor, uniform: Tensor, shared: bool) -> Tensor:
    rights = state.right_ends(given[:1] if shared else given)
    found = given.clone()
    vector = state.cores[0].new_ones(len(given), 1, 1)
    for place, core in enumerate(state.cores):
        values, known = state.vectors(given, place)
        if not bool(known.all()):
            column, basis = state.columns[place], state.bases[place]
            b, hidden, l = vector.shape
            half = (vector.reshape(b * hidden, l) @ core.reshape(l, -1)).view(b, hidden, *core.shape[1:])
            beyond = half.transpose(1, 2).flatten(2, 3) @ _by_row(rights[place])
            rho = beyond.flatten(2) @ half.transpose(1, 2).flatten(2).mH
            draws = basis.draw(rho, uniform[:, place])
            found[:, column] = torch.where(known, given[:, column], draws)
            values = basis.at(found[:, column]).to(values)
        vector = advanced(vector, core, values)
        if vector.shape[1] > vector.shape[2]:  # only V^H V counts: as many rows as columns are enough
            vector = torch.linalg.qr(vector, mode="r").R
        size = vector.abs().square().sum((1, 2))
        vector = vector / torch.where(size > 0, size, 1.0).sqrt().view(-1, 1, 1)
    return found


def _by_row(right: Tensor) -> Tensor:
    """`[b, 1, r, t]`, to be multiplied with `[b, d, k, r]`."""
    return right.unsqueeze(1) if right.dim() == 3 else right
