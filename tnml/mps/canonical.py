"""Canonical forms, Schmidt values and truncation, on lists of cores `(l, d, r)` with outer bonds 1.

Every function rescales as it goes and hands the logarithm of the norm back, so chains of thousands of sites
neither overflow nor vanish.

Source: Schollwöck, arXiv 1008.3477, sections 4.4 to 4.6; Oseledets, SIAM J. Sci. Comput. 33 (2011) 2295.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Inexact
from torch import Tensor

from tnml.checks import is_number
from tnml.errors import InputError
from tnml.mps.checks import check_nonzero, checked_limits, checked_site, weight_budget
from tnml.mps.linalg import qr_positive, rescaled, robust_svd, truncated_split

Cores = list[Tensor]
_NEAR_ONE = 0.1


def canonical(cores: Sequence[Tensor], center: int) -> tuple[Cores, Tensor]:
    """Brings cores into the canonical form with the given center, which gets norm 1.

        l ─ core ─ r ─ next ─    =    l ─ q ─ k ─ (r next) ─       and the mirror image from the right
             │          │                 │            │

    Left of the center sum_{l,d} conj(A) A = 1 on the right bond, right of it the mirror image. Bonds shrink
    to what the sites between them and the outer end can use.

    Returns:
        the cores, and the logarithm of the norm of the state.

    Raises:
        InputError: there is no such site.

    Cost: n d chi^3.

    Example:
        >>> cores, log_norm = canonical([torch.ones(1, 2, 3), torch.ones(3, 2, 1)], center=1)
        >>> cores[0].shape, round(float(log_norm.exp()), 4)
        (torch.Size([1, 2, 2]), 6.0)
    """
    center = checked_site(center, len(cores), "center")
    cores = list(cores)
    log = torch.zeros((), dtype=torch.float64, device=cores[0].device)
    for site in range(center):
        core, up = rescaled(cores[site])
        q, r = qr_positive(core.reshape(-1, core.shape[2]))
        cores[site] = q.reshape(*core.shape[:2], -1)
        cores[site + 1] = torch.tensordot(r, cores[site + 1], 1)
        log = log + up
    for site in range(len(cores) - 1, center, -1):
        core, up = rescaled(cores[site])
        q, r = qr_positive(core.reshape(core.shape[0], -1).mH)
        cores[site] = q.mH.reshape(-1, *core.shape[1:])
        cores[site - 1] = torch.tensordot(cores[site - 1], r.mH, 1)
        log = log + up
    cores[center], up = rescaled(cores[center])
    return cores, log + up


def schmidt_values(cores: Sequence[Tensor]) -> list[Tensor]:
    """The normalised Schmidt values of every inner bond, descending; their squares add up to 1.

    Raises:
        InputError: the state is zero.

    Cost: n d chi^3.

    Example:
        >>> [s.tolist() for s in schmidt_values([torch.ones(1, 2, 1), torch.ones(1, 2, 1)])]
        [[1.0]]
    """
    cores, _ = canonical(cores, 0)
    check_nonzero(cores[0])
    found = []
    core = cores[0]
    for following in cores[1:]:
        _, r = qr_positive(core.reshape(-1, core.shape[2]))
        s = robust_svd(r)[1]
        found.append(s / torch.linalg.vector_norm(s))
        core, _ = rescaled(torch.tensordot(r, following, 1))
    return found


def vidal(cores: Sequence[Tensor]) -> tuple[Cores, list[Tensor]]:
    """The normalised state as cores Γ and Schmidt values λ: Γ_0 λ_0 Γ_1 λ_1 .. Γ_{n-1}.

    Schmidt values that rounding cannot tell from zero are left out, for Γ divides by them.

    Raises:
        InputError: the state is zero.

    Source: Vidal, arXiv quant-ph/0301063; computed as in arXiv 1008.3477, section 4.6.

    Example:
        >>> gammas, values = vidal([torch.ones(1, 2, 1), torch.ones(1, 2, 1)])
        >>> gammas[0].shape, values
        (torch.Size([1, 2, 1]), [tensor([1.])])
    """
    cores, _ = canonical(cores, 0)
    check_nonzero(cores[0])
    gammas: Cores = []
    values: list[Tensor] = []
    core, before = cores[0], None
    for following in [*cores[1:], None]:
        shape = core.shape[:2]
        u, s, vh = robust_svd(core.reshape(-1, core.shape[2]))
        keep = s[0] * torch.finfo(s.dtype).eps * max(core.shape) < s
        u, s, vh = u[:, keep], s[keep] / torch.linalg.vector_norm(s[keep]), vh[keep]
        gamma = u.reshape(*shape, -1)
        if before is not None:
            gamma = gamma / before.reshape(-1, 1, 1)
        if following is None:
            gammas.append(gamma * vh)  # the phase of the state
        else:
            gammas.append(gamma)
            values.append(s)
            core, before = torch.tensordot(s.unsqueeze(1) * vh, following, 1), s
    return gammas, values


def entropies(values: Sequence[Tensor], order: float = 1.0) -> Tensor:
    """Entanglement entropies `[n - 1]` in nats of the Schmidt values of every bond.

    Args:
        values: Schmidt values of every bond, their squares adding up to 1.
        order: 1 gives the von Neumann entropy, other positive numbers that of Rényi, `math.inf` the smallest.

    Raises:
        InputError: `order` is not positive.

    Example:
        >>> entropies([torch.tensor([0.5, 0.5]).sqrt(), torch.tensor([1.0, 0.0])])
        tensor([0.6931, 0.0000])
    """
    if not is_number(order) or not order > 0:
        raise InputError(
            f"the order of an entropy must be a positive number, got {order!r}; 1 is von Neumann's"
        )
    if not values:
        return torch.zeros(0, dtype=torch.float64)
    return torch.stack([spectrum_entropy(s.square(), order) for s in values])


def spectrum_entropy(probabilities: Inexact[Tensor, " k"], order: float = 1.0) -> Tensor:
    """The entropy in nats of probabilities; tiny and negative ones count as zero, also in the gradient.

    Example:
        >>> spectrum_entropy(torch.tensor([0.25, 0.75]), order=2)
        tensor(0.4700)
    """
    present = probabilities > torch.finfo(probabilities.dtype).tiny
    p = torch.where(present, probabilities, torch.ones_like(probabilities))
    if order == 1:
        return (0.0 - (p * p.log()).sum()).clamp(min=0.0)
    if math.isinf(order):
        return 0.0 - probabilities.max().log()
    logs = p.log()
    if abs(order - 1) < _NEAR_ONE:  # the logarithm of the sum would be lost in the rounding of 1
        excess = torch.where(present, p * torch.expm1((order - 1) * logs), torch.zeros_like(p))
        return excess.sum().log1p() / (1 - order)
    powers = torch.where(present, order * logs, torch.full_like(logs, -torch.inf))
    return torch.logsumexp(powers, 0) / (1 - order)


def truncate(
    cores: Sequence[Tensor],
    max_bond: int | Sequence[int] | None = None,
    max_error: float | None = None,
) -> tuple[Cores, Tensor, list[float]]:
    """Truncates every inner bond in one sweep from the left over the right-canonical form.

    Each bond may lose the weight max_error² / (n - 1) of the whole state. The projections of the sweep are
    nested, so the weights that are really lost add up to the squared relative error of the state.

    Args:
        cores: `(l, d, r)`.
        max_bond: the largest bond dimension, one for all inner bonds or one for each; None sets no limit.
        max_error: the largest relative error of the state; None allows that of rounding only.

    Returns:
        left-canonical cores, the last of norm 1; the logarithm of the norm; for every inner bond the lost
        weight relative to that of the state.

    Raises:
        InputError: a limit is out of range.

    Cost: n d chi^3.

    Example:
        >>> pair = [torch.eye(2).reshape(1, 2, 2), torch.eye(2).reshape(2, 2, 1)]
        >>> cores, _, lost = truncate(pair, max_bond=1)
        >>> cores[0].shape, round(lost[0], 4)
        (torch.Size([1, 2, 1]), 0.5)
    """
    limits = checked_limits(max_bond, len(cores) - 1)
    budget = weight_budget(max_error, len(cores) - 1)
    cores, log = canonical(cores, 0)
    left = 0.0  # logarithm of the weight that is left
    lost = []
    for site, limit in enumerate(limits):
        core = cores[site]
        q, rest, _, weight = truncated_split(
            core.reshape(-1, core.shape[2]), limit, min(budget * math.exp(-left), 2.0)
        )
        cores[site] = q.reshape(*core.shape[:2], -1)
        lost.append(weight * math.exp(left))
        cores[site + 1], up = rescaled(torch.tensordot(rest, cores[site + 1], 1))
        log = log + up
        left += 2 * float(up)
    return cores, log, lost


def from_dense(
    tensor: Inexact[Tensor, "..."],
    max_bond: int | Sequence[int] | None = None,
    max_error: float | None = None,
) -> tuple[Cores, Tensor]:
    """The truncated cores of a dense tensor `[d_0, .., d_{n-1}]` (TT-SVD), and the log of the norm.

    Raises:
        InputError: the tensor has no axis or an empty one, or a limit is out of range.

    Source: Oseledets, SIAM J. Sci. Comput. 33 (2011) 2295, algorithm 1.

    Example:
        >>> cores, log_norm = from_dense(torch.ones(2, 3, 2))
        >>> [tuple(core.shape) for core in cores]
        [(1, 2, 1), (1, 3, 1), (1, 2, 1)]
    """
    if tensor.dim() == 0 or tensor.numel() == 0:
        raise InputError(
            f"expected a tensor with one axis of at least one entry per site, got shape {list(tensor.shape)}"
        )
    limits = checked_limits(max_bond, tensor.dim() - 1)
    budget = weight_budget(max_error, tensor.dim() - 1)
    rest, log = rescaled(tensor)
    cores, bond = [], 1
    left = 0.0  # logarithm of the weight that is left
    for physical, limit in zip(tensor.shape, limits, strict=False):
        matrix = rest.reshape(bond * physical, -1)
        q, rest, _, _ = truncated_split(matrix, limit, min(budget * math.exp(-left), 2.0))
        cores.append(q.reshape(bond, physical, -1))
        bond = q.shape[1]
        rest, up = rescaled(rest)
        log = log + up
        left += 2 * float(up)
    return [*cores, rest.reshape(bond, tensor.shape[-1], 1)], log
