"""Dropout for matrix product states: of bond indices and of sites."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from tnml.errors import InputError

_PART: ContextVar[tuple[int, int, int] | None] = ContextVar("part of a batch", default=None)


@contextmanager
def part_of_batch(first: int, count: int, total: int) -> Iterator[None]:
    """Inside, `SiteDropout` treats its samples as `first` to `first + count - 1` of a whole batch.

    It draws the masks of all `total` samples, so processes with equal seeds that each take a part of a batch
    drop together what one process drops, and their generators stay in step.

    Args:
        first: the part's first sample.
        count: samples in the part; a tensor with another number of samples gets masks of its own.
        total: samples in the whole batch.

    Example:
        >>> with part_of_batch(2, 1, 3):
        ...     SiteDropout(0.5)(torch.zeros(1, 4, 2), torch.ones(2)).shape
        torch.Size([1, 4, 2])
    """
    token = _PART.set((first, count, total))
    try:
        yield
    finally:
        _PART.reset(token)


def check_probability(what: str, p: float) -> float:
    """`p` if it lies in [0, 1).

    Raises:
        InputError: it does not.

    Example:
        >>> check_probability("bond_dropout", 0.1)
        0.1
    """
    if not 0.0 <= p < 1.0:
        raise InputError(f"{what} is a probability in [0, 1), got {p}")
    return float(p)


class BondDropout(nn.Module):
    """A keep-mask over bond indices: 0 where an index is dropped, 1 where it is kept.

    One mask serves every bond and every sample of a batch, so a step trains a matrix product state of fewer
    bond indices; an own mask on each bond would cut every path through a long chain. The first index, or the
    first few, which carry the starting path, are never dropped. In evaluation mode all indices are kept.

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
        self.p = check_probability("bond_dropout", p)

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
        self.p = check_probability("site_dropout", p)

    def forward(self, features: Tensor, neutral: Tensor) -> Tensor:
        """Features `[b, n, d]` where dropped sites hold `neutral [d]`."""
        if not self.training or self.p == 0:
            return features
        samples, sites = features.shape[:2]
        part = _PART.get()
        if part is None or part[1] != samples:
            draws = torch.rand(samples, sites, device=features.device)
        else:
            first, _, total = part
            draws = torch.rand(total, sites, device=features.device)[first : first + samples]
        drop = draws < self.p
        return torch.where(drop.unsqueeze(-1), neutral.to(features.dtype), features)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"
