"""Central moments of local features: of samples, from moments about zero, along what varies."""

from collections.abc import Sequence
from itertools import product

import torch
from jaxtyping import Float64
from torch import Tensor

_AT_ONCE = 2**24  # products of features at a time, which bounds the memory


def mean_products(rows: Float64[Tensor, "k n d"], share: Float64[Tensor, " k"], power: int) -> Tensor:
    """The weighted mean of the products of `power` components, `[n, d, .., d]`."""
    _, n, d = rows.shape
    total = rows.new_zeros(n, d ** (power - 1), d)
    for some, part in zip(
        *(v.split(max(1, _AT_ONCE // (n * d ** (power - 1)))) for v in (rows, share)), strict=True
    ):
        products = some
        for _ in range(power - 2):
            products = (products.unsqueeze(3) * some.unsqueeze(2)).flatten(2)
        total += torch.einsum("k,kni,knd->nid", part, products, some)
    return total.reshape(n, *(d,) * power)


def about_the_mean(raw: Sequence[Tensor], power: int) -> Tensor:
    """E[(phi - mean)^power] `[n, d, .., d]` from the moments about zero, the zeroth one first."""
    n, d = raw[1].shape
    total = raw[1].new_zeros(n, *(d,) * power)
    for kept in product((True, False), repeat=power):  # which factors are phi, the others are -mean
        inside = [place for place in range(power) if kept[place]]
        term = raw[len(inside)].reshape([n, *(d if kept[place] else 1 for place in range(power))])
        for place in range(power):
            if not kept[place]:
                term = term * -raw[1].reshape([n, *(d if place == other else 1 for other in range(power))])
        total = total + term
    return total


def varying(central: Sequence[Tensor], dim: int) -> tuple[Tensor, list[Tensor]]:
    """The directions `[d, e]` in which features vary, and their central moments along these.

    (1 - x, x) varies in one direction, and a pixel that is always black in none; fewer directions make
    copies of a chain cheaper.
    """
    if not central:
        return torch.zeros(dim, 0, dtype=torch.float64), []
    variances, basis = torch.linalg.eigh(central[0])
    rounding = 4 * dim * torch.finfo(torch.float64).eps
    kept = torch.zeros(dim, dtype=torch.bool, device=basis.device)
    for power, moment in enumerate(central, 2):
        sizes = _rotated(moment, basis).abs().reshape(dim, -1).amax(1)
        kept |= sizes > rounding * torch.maximum(sizes.max(), variances[-1].clamp_min(0) ** (power / 2))
    basis = basis[:, kept]
    return basis, [_rotated(moment, basis) for moment in central]


def _rotated(moment: Tensor, basis: Tensor) -> Tensor:
    for _ in range(moment.dim()):
        moment = torch.tensordot(moment, basis, ([0], [0]))
    return moment


def with_ones(central: Sequence[Tensor], directions: int, order: int) -> Tensor:
    """Moments `[e + 1, .., e + 1]` of (1, deviations) from the central moments of the deviations."""
    found = torch.zeros(*(directions + 1,) * order, dtype=torch.float64)
    found[(0,) * order] = 1.0
    for chosen in product((False, True), repeat=order):
        if sum(chosen) > 1:
            found[tuple(slice(1, None) if here else 0 for here in chosen)] = central[sum(chosen) - 2]
    return found
