"""The batched ring: a chain whose ends are joined, as a chain for every index of the joined bond.

       +--------------------- a ---------------------+
       +- A - A - .. - A -  label  - A - .. - A - A -+
          |   |        |      |      |        |   |
          f   f        f      c      f        f   f

For a fixed index a of the joined bond this is a chain with the unit vectors of a at both ends. A few sites
before and after the ring make these vectors out of features that write a in digits, so one call of the
chain's engines serves all samples and all indices.
"""

from functools import lru_cache

import torch
from torch import Tensor

from tnml.contraction.chain.outputs import many_chains
from tnml.contraction.chain.reference import power_of_two
from tnml.contraction.chain.shape import ChainShape
from tnml.errors import InputError


def digits(physical: int, bond: int) -> int:
    """How many digits, each less than `physical`, write every index of a bond.

    Raises:
        InputError: there is only one digit, and more than one index.

    Example:
        >>> digits(2, 5), digits(3, 3), digits(2, 1)
        (3, 1, 0)
    """
    count = 0
    while physical**count < bond:
        if physical == 1:
            raise InputError("a ring of bond dimension above 1 needs features of dimension 2 or more, got 1")
        count += 1
    return count


@lru_cache(maxsize=64)
def ring_shape(physical: int, bond: int, n_sites: int, label_site: int) -> ChainShape:
    """The chain that runs a ring: its sites, and those that make the unit vectors at both ends.

    Example:
        >>> ring_shape(2, 3, 4, 2).left, ring_shape(2, 1, 4, 2).right
        ((1, 2, 3, 3, 3), (1, 1, 1))
    """
    count = digits(physical, bond)
    growing = [min(physical**place, bond) for place in range(count + 1)]
    left = (*growing, *[bond] * label_site)
    right = (*[bond] * (n_sites - label_site), *reversed(growing))
    return ChainShape(physical, left, right)


def ring_ends(physical: int, bond: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """What is constant at the ends: flat cores before the ring, those after it, and features `[a, k, d]`.

    The features hold the k digits of the index a, the first digit first.

    Example:
        >>> before, after, address = ring_ends(2, 3, torch.float32)
        >>> before.shape, address[2].tolist()
        (torch.Size([16]), [[0.0, 1.0], [1.0, 0.0]])
    """
    count = digits(physical, bond)
    index = torch.arange(bond)
    before, address = [], torch.zeros(bond, count, physical, dtype=dtype)
    for place in range(count):
        rows, columns = min(physical**place, bond), min(physical ** (place + 1), bond)
        core = torch.zeros(physical, rows, columns, dtype=dtype)
        lost = physical ** (count - 1 - place)  # a prefix of digits, as a number
        for column in range(columns):
            row, digit = divmod(column, physical)
            core[digit, row, column] = 1
        before.append(core)
        address[index, place, (index // lost) % physical] = 1
    after = [core.mT for core in reversed(before)]
    empty = torch.zeros(0, dtype=dtype)
    return (
        torch.cat([empty, *(core.reshape(-1) for core in before)]),
        torch.cat([empty, *(core.reshape(-1) for core in after)]),
        address,
    )


def ring(
    features: Tensor,
    weight: Tensor,
    label: Tensor,
    ends: tuple[Tensor, Tensor, Tensor],
    label_site: int,
    engine: str = "auto",
) -> tuple[Tensor, Tensor]:
    """`value [b, c]` and `exponent [b]` of a ring; the outputs are `value * 2^exponent`.

        value[b, c] = sum_a  e_a  A_1[f_b1] .. A_p[f_bp]  label_c  A_{p+1}[..] .. A_n[f_bn]  e_a

    Args:
        features: `[b, n, d]`.
        weight: cores `[n, d, l, r]`, both bonds chi.
        label: `(l, c, r)`.
        ends: what `ring_ends` gives.
        label_site: number of cores before the label core.
        engine: see `chain`.

    Raises:
        InputError: shapes, dtypes or devices disagree, or the engine cannot take them.

    Cost: that of a chain of the same size for chi b samples: n d chi^3 multiply-adds a sample.

    Example:
        >>> value, exponent = ring(
        ...     torch.ones(3, 4, 2),
        ...     torch.eye(2).expand(4, 2, 2, 2),
        ...     torch.eye(2).view(2, 1, 2),
        ...     ring_ends(2, 2, torch.float32),
        ...     label_site=2,
        ... )
        >>> value[0] * torch.exp2(exponent[0])  # the trace of 16 times the identity
        tensor([32.])
    """
    before, after, address = ends
    n_sites, physical, bond, _ = weight.shape
    shape = ring_shape(physical, bond, n_sites, label_site)
    flat = torch.cat([before, weight.reshape(-1), after])
    batch, count = features.shape[0], address.shape[1]
    first = address.unsqueeze(1).expand(bond, batch, count, physical)
    middle = features.unsqueeze(0).expand(bond, -1, -1, -1)
    rows = torch.cat([first, middle, first.flip(2)], 2).flatten(0, 1)
    value, exponent = many_chains(rows, flat, label, shape, engine)
    return added(value.view(bond, batch, label.shape[1]), exponent.view(bond, batch))


def added(value: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over the first axis of `value [a, b, c]` times two to the power of `exponent [a, b]`.

    Returns:
        `value [b, c]` and `exponent [b]`. What is a hundred powers of two below the largest term is lost, as
        in any sum.

    Example:
        >>> added(torch.tensor([[[1.0]], [[2.0]]]), torch.tensor([[300.0], [301.0]]))
        (tensor([[1.2500]]), tensor([302.]))
    """
    own = power_of_two(value)
    there = value.detach().abs().amax(-1) > 0
    total = torch.where(there, exponent + own, -torch.inf)
    top = total.amax(0)
    top = torch.where(torch.isfinite(top), top, torch.zeros_like(top))
    factor = torch.exp2(-own) * torch.exp2(total - top)
    return (value * factor.unsqueeze(-1).to(value.dtype)).sum(0), top
