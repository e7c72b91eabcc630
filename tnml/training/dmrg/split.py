"""The split of a local tensor into a core and the next center, by an SVD in the metric of the sweep."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.mps.canonical import spectrum_entropy
from tnml.mps.linalg import robust_svd, truncation_rank
from tnml.training.dmrg.metric import Metric


@dataclass(frozen=True)
class BondSplit:
    """A local tensor `B (p, c, q)` in two, the label leg on one of them.

    Args:
        left: `[p, c or 1, k]`.
        right: `[k, 1 or c, q]`.
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
    center_right: bool,
    max_bond: int,
    max_error: float,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> BondSplit:
    """The local tensor, in white coordinates, split so that the side without the center is an isometry there.

    Args:
        white: B in the coordinates of the metrics.
        metrics: of the left and the right side.
        label_right: whether the label leg goes right.
        center_right: whether the singular values go right, with the center.
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
        extra = torch.randn(white.shape, generator=generator, dtype=white.dtype).to(white.device)
        noisy = white + noise * white.square().mean().sqrt() * extra
        white = noisy / math.sqrt(1 + noise**2)  # its size would grow from bond to bond
    u, s, vh = robust_svd(white.reshape(p, c * q) if label_right else white.reshape(p * c, q))
    total = s.square().sum().item()
    rank, weight = truncation_rank(s, max_bond, max_error**2 * total)
    u, s, vh = u[:, :rank], s[:rank], vh[:rank]
    if center_right:
        vh = s.unsqueeze(1) * vh
    else:
        u = u * s
    left = metrics[0].unwhiten(u.reshape(p, -1)).reshape(p, -1, rank)
    right = metrics[1].unwhiten(vh.reshape(-1, q).T).T.reshape(rank, -1, q)
    shares = s.square() / max(s.square().sum().item(), torch.finfo(s.dtype).tiny)
    return BondSplit(
        left.contiguous(),
        right.contiguous(),
        weight / total if total > 0 else 0.0,
        spectrum_entropy(shares).item(),
    )
