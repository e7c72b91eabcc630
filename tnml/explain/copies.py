"""Several copies of a chain with the moments of the features between them: what moments of outputs are.

A chain minus its value at mean features is again a chain, whose bonds are larger by one: index 0 says that
no site so far deviates from its mean. With a_j the core of site j contracted with mean features, v the
product of those before it and da_j its deviation,

    (1, dv)  ->  (1, dv) [ 1   v da_j     ]       f - f(means) = sum over both sides of the label core
                         [ 0   a_j + da_j ]

So central moments come without the cancellation that E[f²] - E[f]² has. An entry 0 stands for a copy that
is not there: the tensor of k copies holds those of fewer ones.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from tnml.explain.laws import Law
from tnml.mps import MatrixProductState
from tnml.mps.linalg import rescaled


class Side(NamedTuple):
    """One side of the label core.

    Attributes:
        mean: `[l]`, the product of the cores at mean features.
        copies: `[s, l + 1, .., l + 1]`, the mean product of k copies of (1, deviation) in each state of the
            inputs.
        log: logarithm of a factor of `mean`, and of the deviations.
        log_copies: logarithm of a factor of `copies` alone.
    """

    mean: Float64[Tensor, " l"]
    copies: Tensor
    log: Tensor
    log_copies: Tensor


def left_side(state: MatrixProductState, place: int, law: Law, copies: int) -> Side:
    """What is left of the label core at `place`.

    Cost: per site `k (e + 1)^(k - 1) chi^(k + 1)` for k copies, or `k s chi^(k + 1)` with s states.
    """
    return _side(state.cores[:place], list(range(place)), law, copies, backwards=False)


def right_side(state: MatrixProductState, place: int, law: Law, copies: int) -> Side:
    """What is right of the label core at `place`; see `left_side`."""
    cores = [core.permute(2, 1, 0) for core in reversed(state.cores[place + 1 :])]
    sites = list(reversed(range(place, state.n_sites - 1)))
    return _side(cores, sites, law, copies, backwards=True)


def joint_moments(
    label: Float64[Tensor, "l c r"], left: Side, right: Side, copies: int
) -> tuple[Float64[Tensor, " c"], list[Tensor]]:
    """Mean `[c]` and central moments `[c, c]`, `[c, c, c]`, .. of the outputs, without the sides' scale.

    They are to be multiplied by exp(k (left.log + right.log)) for the k-th.

    Args:
        label: the label core.
        left: the side before it.
        right: the side after it.
        copies: number of copies.
    """
    middle = torch.einsum("l,lcr,r->c", left.mean, label, right.mean)
    full = torch.zeros(label.shape[0] + 1, label.shape[1], label.shape[2] + 1).to(label)
    full[1:, :, 0] = torch.einsum("lcr,r->lc", label, right.mean)
    full[0, :, 1:] = torch.einsum("l,lcr->cr", left.mean, label)
    full[1:, :, 1:] = label
    scale = (left.log_copies + right.log_copies).exp()
    one, other = (_first(side.copies, copies - 1) for side in (left, right))
    shift = scale * torch.einsum("sl,lcr,sr->c", one, full, other)
    full[0, :, 0] = -shift
    found = []
    for power in range(2, copies + 1):
        before, after = (_first(side.copies, copies - power) for side in (left, right))
        moment = _over_outputs(full, before, after, power)
        found.append(moment * scale)
    return middle + shift, found


def _first(copies: Tensor, left_out: int) -> Tensor:
    """The tensor of fewer copies: index 0 of the last ones, which is where they do not deviate."""
    for _ in range(left_out):
        copies = copies[..., 0]
    return copies


def _side(cores: Sequence[Tensor], sites: Sequence[int], law: Law, copies: int, *, backwards: bool) -> Side:
    mean, log = torch.ones_like(law.start[:1]), torch.zeros_like(law.start[0])
    log_copies = log
    if law.steps is None or not (cores or backwards):
        states = torch.ones_like(law.start[:1])
    else:
        states = torch.ones_like(law.start) if backwards else law.start
    entry = torch.zeros(*(2,) * copies).to(mean)
    entry[(0,) * copies] = 1.0
    carried = states.reshape(-1, *[1] * copies) * entry
    for core, site in zip(cores, sites, strict=True):
        if law.steps is not None and not backwards and site > 0:
            carried = torch.tensordot(law.steps[site - 1].T, carried, 1)
        slots, mean, up = _slots(core, law.mean[site], law.bases[site], mean)
        log = log + up
        step = _by_moments if law.steps is None else _by_states
        carried, up = rescaled(step(carried, slots, law.emitted[site]))
        log_copies = log_copies + up
        if law.steps is not None and backwards:
            before = law.steps[site - 1] if site > 0 else law.start.unsqueeze(0)
            carried = torch.tensordot(before, carried, 1)
    return Side(mean, carried, log, log_copies)


def _slots(
    core: Float64[Tensor, "l d r"], mean: Tensor, basis: Float64[Tensor, "d e"], vector: Float64[Tensor, " l"]
) -> tuple[Float64[Tensor, "e+1 l+1 r+1"], Tensor, Tensor]:
    """The core of a site with deviations, its first slot for none; the next mean vector and its logarithm."""
    at_mean = torch.einsum("ldr,d->lr", core, mean)
    along, up = rescaled(vector @ at_mean)
    scaled = torch.exp(-up)
    slots = core.new_zeros(basis.shape[1] + 1, core.shape[0] + 1, core.shape[2] + 1)
    slots[0, 0, 0] = 1.0
    slots[0, 1:, 1:] = at_mean * scaled
    varying = torch.einsum("ldr,de->elr", core, basis) * scaled
    slots[1:, 1:, 1:] = varying
    slots[1:, 0, 1:] = torch.einsum("l,elr->er", vector, varying)
    return slots, along, up


def _by_moments(carried: Tensor, slots: Float64[Tensor, "e l r"], moments: Tensor) -> Tensor:
    """`[1, r, .., r]`: a site with the moments `[e, .., e]` between all copies, one copy after the other."""
    copies = moments.dim()
    first = torch.tensordot(moments, slots, ([0], [0]))  # [e2, .., l, r]
    found: Tensor = torch.tensordot(carried[0], first, ([0], [copies - 1]))  # [l2, .., e2, .., r1]
    for left in range(copies - 1, 0, -1):
        found = torch.tensordot(found, slots, ([0, left], [1, 0]))
    return found.unsqueeze(0)


def _by_states(carried: Tensor, slots: Float64[Tensor, "e l r"], values: Float64[Tensor, "s e"]) -> Tensor:
    """`[s, r, .., r]`: a site whose features are known in each state."""
    matrices = torch.einsum("se,elr->slr", values, slots)
    for _ in range(carried.dim() - 1):
        states, first, *rest = carried.shape
        each = carried.reshape(states, first, -1).transpose(1, 2)
        carried = torch.bmm(each, matrices).reshape(states, *rest, -1)
    return carried


def _over_outputs(label: Float64[Tensor, "l c r"], left: Tensor, right: Tensor, copies: int) -> Tensor:
    """`[c, .., c]`, symmetric: the label core in every copy; each set of outputs is computed only once."""
    outputs = label.shape[1]
    found = torch.zeros(*(outputs,) * copies).to(label)

    def fill(carried: Tensor, chosen: tuple[int, ...]) -> None:
        if len(chosen) == copies - 1:
            last = [carried.flatten(2), right.flatten(1, -2)]  # [s, l, others], [s, others, r]
            between = torch.bmm(*last).sum(0)
            found[chosen] = torch.einsum("lr,lcr->c", between, label)
            return
        for output in range(outputs):
            if not chosen or output <= chosen[-1]:
                fill(torch.tensordot(carried, label[:, output], ([1], [0])), (*chosen, output))

    fill(left, ())
    every = torch.cartesian_prod(*[torch.arange(outputs, device=found.device)] * copies)
    return found[every.sort(1, descending=True).values.unbind(1)].reshape(found.shape)
