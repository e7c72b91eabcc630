"""Dropout for matrix product states: of bond indices and of sites."""

import torch
from torch import Tensor, nn

from tnml.checks import probability
from tnml.randomness import batch_part


class BondDropout(nn.Module):
    """A keep-mask over bond indices: 0 where an index is dropped, 1 where it is kept.

    One mask serves every bond and every sample of a batch, so a step trains a matrix product state of fewer
    bond indices; a separate mask on each bond would cut every path through a long chain. The first index, or
    the first few, which carry the starting path, are never dropped. In evaluation mode all indices are kept.

    Args:
        p: probability of dropping an index, in [0, 1).

    Raises:
        InputError: `p` is not in [0, 1).

    Source: the variational dropout of recurrent networks, with the bond as the hidden state; own design.

    Example:
        >>> BondDropout(0.5).eval()(3, torch.ones(()))
        tensor([1., 1., 1.])
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = probability("bond_dropout", p)

    def forward(self, bond_dim: int, like: Tensor, first: int = 1) -> Tensor:
        """The mask `[bond_dim]` in the dtype and on the device of `like`; indices below `first` are kept."""
        mask = torch.ones(bond_dim, dtype=like.dtype, device=like.device)
        if self.training and self.p > 0 and bond_dim > first:
            keep = torch.rand(bond_dim - first, device=like.device) >= self.p
            mask[first:] = keep.to(like.dtype)
        return mask

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


def scale_of_pairs(mask: Tensor, p: float, first: int) -> Tensor:
    """`[k, k]`: for two indices that one mask keeps or drops, 0, or one over the chance that both are kept.

    Args:
        mask: `[k]` of `BondDropout`.
        p: its probability.
        first: indices below are always kept.

    Example:
        >>> scale_of_pairs(torch.tensor([1.0, 1.0, 0.0]), 0.5, 1)[1]
        tensor([2., 2., 0.])
    """
    kept = torch.full_like(mask, 1 - p)
    kept[:first] = 1.0
    chance = torch.outer(kept, kept)
    chance.diagonal().copy_(kept)  # one mask serves both sides
    return torch.outer(mask, mask) / chance


class SiteDropout(nn.Module):
    """Features with whole sites replaced by a neutral vector, drawn for every sample and site.

    A dropped site acts as the identity on the bond at initialisation: the chain skips it.

    Args:
        p: probability of dropping a site, in [0, 1).

    Raises:
        InputError: `p` is not in [0, 1).

    Example:
        >>> SiteDropout(0.5).eval()(torch.zeros(1, 1, 2), torch.ones(2))
        tensor([[[0., 0.]]])
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = probability("site_dropout", p)

    def forward(self, features: Tensor, neutral: Tensor) -> Tensor:
        """Features `[b, n, d]` where dropped sites hold `neutral [d]`."""
        if not self.training or self.p == 0:
            return features
        # Compiled code has to ask at every call which part of a batch this is: an operator of its own does.
        if torch.compiler.is_compiling():
            drop: Tensor = torch.ops.tnml.dropped_sites(features.detach(), self.p)
        else:
            drop = _dropped_sites(features, self.p)
        return torch.where(drop.unsqueeze(-1), neutral.to(features.dtype), features)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


def _dropped_sites(features: Tensor, p: float) -> Tensor:
    """Truth values `[b, n]`, with those of the whole batch drawn where the features are a part of it."""
    samples, sites = features.shape[:2]
    part = batch_part()
    if part is None or part[1] != samples:
        return torch.rand(samples, sites, device=features.device) < p
    first, _, total = part
    return torch.rand(total, sites, device=features.device)[first : first + samples] < p


@torch.library.custom_op("tnml::dropped_sites", mutates_args=(), tags=torch.Tag.nondeterministic_seeded)
def _dropped_sites_op(features: Tensor, p: float) -> Tensor:
    return _dropped_sites(features, p)


@_dropped_sites_op.register_fake
def _dropped_sites_fake(features: Tensor, p: float) -> Tensor:
    return features.new_empty(features.shape[:2], dtype=torch.bool)
