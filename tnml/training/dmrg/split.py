"""The split of a local tensor into a core and the next center, by an SVD in the metric of the sweep."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.mps.canonical import spectrum_entropy
from tnml.mps.linalg import robust_svd, truncation_rank


@dataclass(frozen=True)
class Metric:
    """How directions on one side of a bond are measured: |v|² of `v` is |v @ factor|² beyond it.

    Args:
        factor: `[p, p]` lower triangular, F F' = the second moment of the samples, or None for the
            Frobenius norm.
        inverse: `[p, p]` its inverse, transposed: samples times it are white.

    Example:
        >>> metric = data_metric(torch.eye(2) * 2, damping=0.0)
        >>> metric.whiten(torch.eye(2) * 2)
        tensor([[1.4142, 0.0000],
                [0.0000, 1.4142]])
    """

    factor: Tensor | None = None
    inverse: Tensor | None = None

    def whiten(self, samples: Float[Tensor, "b p"]) -> Float[Tensor, "b p"]:
        """The samples in coordinates in which the metric is the identity."""
        return samples if self.inverse is None else samples @ self.inverse


def data_metric(samples: Float[Tensor, "b p"], damping: float) -> Metric:
    """The metric in which the samples have unit second moment, up to `damping`.

    Args:
        samples: what the samples look like on one side.
        damping: share of the mean square that every direction gets in addition.

    Cost: b p² + p³, in double precision but for the first.
    """
    moment = (samples.T @ samples).double() / len(samples)
    level = moment.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    # Without damping a rank-deficient moment has no factor: rounding sets a least one.
    least = damping + 100 * torch.finfo(samples.dtype).eps
    moment.diagonal().add_(least * level)
    factor = torch.linalg.cholesky(moment)
    inverse = torch.linalg.solve_triangular(
        factor, torch.eye(len(factor), dtype=torch.float64, device=factor.device), upper=False
    )
    return Metric(factor.to(samples.dtype), inverse.T.to(samples.dtype).contiguous())


@dataclass(frozen=True)
class BondSplit:
    """A local tensor `B (p, c, q)` in two.

    Args:
        left: `[p, k]`, or `[p, c, k]` where the label leg stays left.
        right: `[k, c, q]`, or `[k, q]` where it stays left.
        discarded: share of |B|² that was thrown away.
        entropy: von Neumann entropy of the kept squares, in nats.
    """

    left: Tensor
    right: Tensor
    discarded: float
    entropy: float

    @property
    def bond(self) -> int:
        """The bond dimension."""
        return self.right.shape[0]


def split_bond(
    white: Float[Tensor, "p c q"],
    metrics: tuple[Metric, Metric],
    *,
    label_right: bool,
    max_bond: int,
    max_error: float,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> BondSplit:
    """The local tensor, in white coordinates, split so that the side without label is an isometry there.

    Args:
        white: B in the coordinates of the metrics.
        metrics: of the left and the right side.
        label_right: whether the label leg goes right.
        max_bond: largest bond.
        max_error: largest root of the discarded share.
        noise: standard deviation of what is added before, relative to the root mean square entry.
        generator: of the noise.

    Raises:
        InputError: the tensor is not finite.

    Cost: one SVD of `[p, c q]` or `[p c, q]`.

    Source: White, Phys. Rev. B 48, 10345 (1993); with a label leg arXiv 1605.05775, section 4.
    """
    p, c, q = white.shape
    if noise:
        size = white.square().mean().sqrt()
        extra = torch.randn(white.shape, generator=generator, dtype=white.dtype)
        white = white + noise * size * extra.to(white.device)
    matrix = white.reshape(p, c * q) if label_right else white.reshape(p * c, q)
    u, s, vh = robust_svd(matrix)
    total = s.square().sum().item()
    rank, weight = truncation_rank(s, max_bond, max_error**2 * total)
    u, kept, vh = u[:, :rank], s[:rank], vh[:rank]
    discarded = weight / total if total > 0 else 0.0
    if label_right:
        left = _leave(u, metrics[0])
        right = (kept.unsqueeze(1) * vh).reshape(rank * c, q)
        right = _leave(right.T, metrics[1]).T.reshape(rank, c, q)
    else:
        right = _leave(vh.T, metrics[1]).T.contiguous()
        left = (u * kept).reshape(p, c * rank)
        left = _leave(left, metrics[0]).reshape(p, c, rank)
    shares = kept.square() / max(kept.square().sum().item(), torch.finfo(kept.dtype).tiny)
    return BondSplit(left.contiguous(), right.contiguous(), discarded, spectrum_entropy(shares).item())


def into_white(tensor: Float[Tensor, "p c q"], metrics: tuple[Metric, Metric]) -> Float[Tensor, "p c q"]:
    """B in the coordinates of the metrics.

    Example:
        >>> into_white(torch.ones(1, 1, 1), (Metric(), Metric()))
        tensor([[[1.]]])
    """
    p, c, q = tensor.shape
    left, right = metrics
    if left.factor is not None:
        tensor = (left.factor.T @ tensor.reshape(p, c * q)).view(p, c, q)
    if right.factor is not None:
        tensor = (tensor.reshape(p * c, q) @ right.factor).view(p, c, q)
    return tensor.contiguous()


def _leave(columns: Tensor, metric: Metric) -> Tensor:
    """Columns in white coordinates, back in those of the samples."""
    return columns if metric.inverse is None else metric.inverse @ columns
