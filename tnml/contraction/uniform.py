"""The batched uniform chain: one core at every site, run by the engines of the chain.

    start - A - A - .. - A - label - A - .. - A - end
            |   |        |     |     |        |
            f   f        f     c     f        f

The engines give the gradient of every site's core in one array; its sum over the sites is that of the core.
"""

import functools

import torch
from torch import Tensor

from tnml.contraction.chain.labelled import labelled_chain
from tnml.contraction.chain.shape import ChainShape


@functools.lru_cache(maxsize=64)
def uniform_shape(physical: int, bond: int, n_sites: int, label_site: int) -> ChainShape:
    """The chain of a number of equal cores.

    Example:
        >>> uniform_shape(2, 3, 4, 4).key
        '2;1,3*4;1'
    """
    right = n_sites - label_site
    return ChainShape(physical, (1, *[bond] * label_site) if label_site else (1,), (*[bond] * right, 1))


def with_padding(features: Tensor, core: Tensor, absent: Tensor) -> tuple[Tensor, Tensor]:
    """Features and core with one component more, in which the core is the identity: sites that are not there.

    Args:
        features: `[b, n, d]`.
        core: `[d, l, r]`.
        absent: `[b, n]`, True where a sample has no site.

    Example:
        >>> absent = torch.tensor([[False, True]])
        >>> features, core = with_padding(torch.ones(1, 2, 1), torch.zeros(1, 2, 2), absent)
        >>> features.tolist(), core[1].tolist()
        ([[[1.0, 0.0], [0.0, 1.0]]], [[1.0, 0.0], [0.0, 1.0]])
    """
    gone = absent.unsqueeze(-1)
    kept = torch.where(gone, torch.zeros_like(features), features)
    eye = torch.eye(core.shape[1], dtype=core.dtype, device=core.device)
    return torch.cat([kept, gone.to(features.dtype)], -1), torch.cat([core, eye.unsqueeze(0)])


def uniform_chain(
    features: Tensor,
    core: Tensor,
    start: Tensor,
    label: Tensor,
    end: Tensor | None,
    label_site: int,
    engine: str = "auto",
) -> tuple[Tensor, Tensor]:
    """`value [b, c]` and `exponent [b]` of a uniform chain; the outputs are `value * 2^exponent`.

    Args:
        features: `[b, n, d]`, of any length n of at least 1.
        core: `[d, l, r]`, both bonds chi.
        start: `[chi]`.
        label: `(l, c, r)`; r is 1 where no site follows it.
        end: `[chi]`; None where no site follows the label core.
        label_site: number of sites before the label core.
        engine: see `chain`.

    Raises:
        InputError: shapes, dtypes or devices disagree, or the engine cannot take them.

    Cost: that of a chain, n d chi^2 multiply-adds a sample; n d chi^2 numbers for the cores' gradients.

    Example:
        >>> core, start = torch.eye(2).expand(3, 2, 2), torch.tensor([1.0, 0.0])
        >>> value, _ = uniform_chain(torch.ones(5, 4, 3) / 3, core, start, torch.ones(2, 1, 1), None, 4)
        >>> value[0].round(decimals=4)
        tensor([1.])
    """
    physical, bond, _ = core.shape
    n_sites = features.shape[1]
    after = n_sites - label_site
    parts = []
    if label_site:
        first = torch.einsum("l,dlr->dr", start, core)
        parts += [first.reshape(-1), core.expand(label_site - 1, *core.shape).reshape(-1)]
    else:
        label = torch.einsum("l,lcr->cr", start, label).unsqueeze(0)
    if after and end is not None:
        last = torch.einsum("dlr,r->dl", core, end)
        parts += [core.expand(after - 1, *core.shape).reshape(-1), last.reshape(-1)]
    shape = uniform_shape(physical, bond, n_sites, label_site)
    return labelled_chain(features, torch.cat(parts), label, shape, engine)
