"""Bayesian least squares: the ridge, the noise and the rank that the evidence prefers, and the posterior."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.mps.linalg import robust_svd
from tnml.training.dmrg.local import Objective

_SHOWN = 1e-12  # of the largest eigenvalue: directions below are rounding, and keep their prior
_LEAST_NOISE = 1e-13  # of the mean square of the targets: what double precision can tell from none
_FEWEST, _MOST = 1e-10, 1e4  # ridges looked at, in units of the largest eigenvalue
_GRID = 64
_PARTS, _DIVISIONS = 16, 9  # of the interval that the grid leaves: 36 bits


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The posterior of weights W in `y = design W + noise`, for each target by itself.

        W_c ~ N(mean_c, (gram / noise_c + 1 / prior_c)^-1),   gram = design' design = basis diag(shown) basis'

    Args:
        mean: `[m, c]`.
        basis: `[m, r]` orthonormal directions that the samples show.
        shown: `[r]` how strongly, the eigenvalues of the gram matrix.
        noise: `[c]` variance of the noise.
        prior: `[c]` variance of every weight before the samples.
        log_evidence: `[c]` the logarithm of the probability of the targets, in nats.
    """

    mean: Tensor
    basis: Tensor
    shown: Tensor
    noise: Tensor
    prior: Tensor
    log_evidence: Tensor


def evidence(
    design: Float[Tensor, "b m"], targets: Float[Tensor, "b c"], observations: float | None = None
) -> Evidence:
    """The posterior under the ridge and the noise of largest evidence.

    For the ridge t = noise / prior the best noise is known, E(t) / n with
    E = y' (1 + design design' / t)^-1 y, which leaves one number to look for:

        2 log p(y | t) = -n log(2 pi e E(t) / n) - sum_i log(1 + shown_i / t)

    Its maximum is the fixed point of MacKay's iteration, 1 / prior = g / |mean|² and
    noise = |rest|² / (n - g) with g = sum_i shown_i / (shown_i + t), which scikit-learn's `BayesianRidge`
    follows.

    Args:
        design: in double precision; with weights of samples their roots are multiplied in.
        targets: likewise.
        observations: n, where weights add up to another number than that of the rows.

    Cost: b m min(b, m) + min(b, m)³.

    Source: MacKay, Bayesian Interpolation, Neural Computation 4 (1992), section 4; Tipping, Sparse Bayesian
    learning, JMLR 1 (2001).

    Example:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
        >>> found = evidence(x, 2 * x + 0.1 * torch.cos(50 * x))
        >>> print(f"{found.mean.item():.2f} {found.noise.sqrt().item():.3f}")
        2.00 0.072
    """
    count = float(len(design)) if observations is None else observations
    basis, shown, along = _spectrum(design, targets)
    total = targets.square().sum(0)
    floor = (_LEAST_NOISE * total).clamp_min(torch.finfo(design.dtype).tiny)
    beyond = (total - along.square().sum(0)).clamp_min(0.0)  # what no weights reach
    largest = float(shown[0]) if len(shown) else 1.0

    def at(log_ridge: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The evidence, its derivative and the squares that are left over, at `[c, g]` ridges."""
        share = 1 / (1 + shown / log_ridge.exp().unsqueeze(2))  # t / (shown + t), [c, g, r]
        squares = along.T.square().unsqueeze(1) * share
        left = beyond.unsqueeze(1) + squares.sum(2)
        bent = torch.where(left > floor.unsqueeze(1), (squares * (1 - share)).sum(2), 0.0)
        left = left.maximum(floor.unsqueeze(1))
        return share.log().sum(2) - count * left.log(), (1 - share).sum(2) - count * bent / left, left

    ends = (math.log(_FEWEST * largest), math.log(_MOST * largest), _GRID)
    grid = torch.linspace(*ends, dtype=design.dtype, device=design.device).expand(targets.shape[1], -1)
    best = grid.gather(1, at(grid)[0].argmax(1, keepdim=True))
    step = (ends[1] - ends[0]) / (_GRID - 1)
    low, width = best - step, 2 * step
    parts = torch.arange(1, _PARTS, dtype=design.dtype, device=design.device) / _PARTS
    for _ in range(_DIVISIONS):  # the derivative is exact where the evidence itself is flat
        rises = at(low + width * parts)[1] > 0
        low, width = low + width * rises.cumprod(1).sum(1, keepdim=True) / _PARTS, width / _PARTS
    best = low + 0.5 * width
    score, _, left = (value.squeeze(1) for value in at(best))
    ridge, noise = best.squeeze(1).exp(), left / count
    constant = count * (math.log(count) - math.log(2 * math.pi) - 1)
    return Evidence(
        mean=basis @ (shown.sqrt().unsqueeze(1) * along / (shown.unsqueeze(1) + ridge)),
        basis=basis,
        shown=shown,
        noise=noise,
        prior=noise / ridge,
        log_evidence=0.5 * (score + constant),
    )


def _spectrum(design: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Directions `[m, r]` that the samples show, their eigenvalues `[r]`, and the targets along them."""
    rows, columns = design.shape
    if columns <= rows:
        values, vectors = torch.linalg.eigh(design.T @ design)
    else:
        values, vectors = torch.linalg.eigh(design @ design.T)
    values, vectors = values.flip(0), vectors.flip(1)
    there = int((values > _SHOWN * values[0].clamp_min(0.0)).sum())
    values, vectors = values[:there], vectors[:, :there]
    root = values.sqrt()
    if columns <= rows:
        return vectors, values, (vectors.T @ (design.T @ targets)) / root.unsqueeze(1)
    return design.T @ vectors / root, values, vectors.T @ targets


def evidence_rank(objective: Objective, solved: Float[Tensor, "p c q"], *, label_right: bool) -> int:
    """The rank at which the evidence of a local tensor, split by its largest singular values, is largest.

    A tensor of rank k has D = k (p' + q' - k) free numbers, (p', q') the shape of the matrix that is split.
    In white coordinates the samples show all of them alike, and Laplace's approximation of the evidence is

        -n / 2 sum_c log(E_kc / n) - D / 2 log(1 + n prior / noise),

    E_k the squared errors at rank k, noise = E_k / n and prior = |B_k|² / D, both from the tensor itself; but
    the prior is as wide as the noise at least, which is the unit of information of the BIC: a tensor that
    the ridge has shrunk to nothing would otherwise be worth any number of directions.

    Args:
        objective: of the local problem, with squared errors.
        solved: its solution, in white coordinates.
        label_right: whether the label leg is on the right when it is split.

    Cost: b (p + c q) rank, and the SVD.

    Source: the choice of a rank by Laplace's approximation: Minka, Automatic choice of dimensionality for
    PCA, NIPS 13 (2000).
    """
    p, c, q = solved.shape
    u, s, vh = robust_svd(
        solved.double().reshape(p, c * q) if label_right else solved.double().reshape(p * c, q)
    )
    sides = zip(objective.outputs.metrics, (objective.outputs.left, objective.outputs.right), strict=True)
    left, right = (metric.whiten(side.vectors).double() for metric, side in sides)
    rank = torch.arange(1, len(s) + 1, dtype=s.dtype, device=s.device)
    if label_right:
        each = ((left @ u) * s).unsqueeze(2) * torch.einsum("kcq,bq->bkc", vh.view(-1, c, q), right)
        free = rank * (p + c * q - rank)
    else:
        each = torch.einsum("bp,pck->bkc", left, u.view(p, c, -1)) * ((right @ vh.T) * s).unsqueeze(2)
        free = rank * (p * c + q - rank)
    errors = (objective.targets.double().unsqueeze(1) - each.cumsum(1)).square()
    if objective.weight is not None:
        errors = errors * objective.weight.double().view(-1, 1, 1)
    count = objective.observations * len(errors)
    level = objective.targets.double().square().mean().clamp_min(torch.finfo(s.dtype).tiny)
    noise = errors.mean(0).clamp_min(_LEAST_NOISE * level)  # [k, c]
    prior = s.square().cumsum(0) / free
    signal = (prior / noise.mean(1)).clamp_min(1.0)
    score = -count * noise.log().sum(1) - free * (1 + count * signal).log()
    return int(score.argmax()) + 1
