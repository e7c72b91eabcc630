"""The chain as a loop in the graph, for exports that know no operators of tnml: ONNX."""

import itertools

import torch
from torch import Tensor
from torch.nn import functional

from tnml.contraction.chain.reference import RESCALE_EVERY, power_of_two
from tnml.contraction.chain.shape import ChainShape
from tnml.torch_private import scan


def scanned_chain(features: Tensor, weight: Tensor, shape: ChainShape) -> tuple[Tensor, Tensor, Tensor]:
    """`reference_chain` without gradients, in a graph whose size does not grow with a uniform chain.

    All bonds are padded with zeros to the largest bond dimension, and one step takes a few sites. A chain
    whose bonds are all different needs a few nodes for each site, as its cores have to be padded one by one.

    Args:
        features: `[b, n, d]`.
        weight: flat weights laid out as `shape` says.
        shape: bonds and label site.

    Returns:
        `left [b, l]`, `right [b, r]`, `exponent [2, b]`.

    Example:
        >>> shape = ChainShape(2, (1, 2), (2, 1))
        >>> left, _, exponent = scanned_chain(torch.ones(3, 2, 2), torch.ones(8), shape)
        >>> (left * torch.exp2(exponent[0]).unsqueeze(1))[0]
        tensor([2., 2.])
    """
    features, weight = features.detach(), weight.detach()
    label, cut = shape.label_site, shape.offsets[shape.label_site]
    left = _padded(weight[:cut], shape.physical, shape.bonds[:label])
    right = _padded(weight[cut:], shape.physical, shape.bonds[label:])
    mirrored = None if right is None else right.flip(0).transpose(2, 3)
    from_left, of_left = _half(features[:, :label], left)
    from_right, of_right = _half(features[:, label:].flip(1), mirrored)
    exponent = torch.stack([of_left, of_right])
    return from_left[:, : shape.left[-1]], from_right[:, : shape.right[0]], exponent


def _padded(weight: Tensor, physical: int, bonds: tuple[tuple[int, int], ...]) -> Tensor | None:
    """All cores of a half as one stack `[n, d, k, k]`; None if there are none."""
    widest = max(itertools.chain.from_iterable(bonds), default=0)
    pieces, first = [], 0
    for (left, right), run in itertools.groupby(bonds):
        count = len(list(run))
        size = count * physical * left * right
        cores = weight[first : first + size].view(count, physical, left, right)
        pieces.append(functional.pad(cores, (0, widest - right, 0, widest - left)))
        first += size
    return torch.cat(pieces) if pieces else None


def _half(features: Tensor, cores: Tensor | None) -> tuple[Tensor, Tensor]:
    """Vectors `[b, k]` and exponents `[b]` at the end of a half whose sites stand in order of processing."""
    if cores is None:
        return features.new_ones(features.shape[0], 1), features.new_zeros(features.shape[0])
    one = torch.ones_like(features[:, :1, 0])
    count, widest = cores.shape[0], cores.shape[3]
    vector, exponent = functional.pad(one, (0, widest - 1)), torch.zeros_like(one[:, 0])
    alone = count % RESCALE_EVERY
    sites = features.transpose(0, 1)
    vector, exponent = _steps((vector, exponent), (sites[:alone], cores[:alone]))
    if count > alone:
        steps = (count - alone) // RESCALE_EVERY
        groups = sites[alone:].reshape(steps, RESCALE_EVERY, -1, features.shape[2])
        stacks = cores[alone:].reshape(steps, RESCALE_EVERY, *cores.shape[1:])
        vector, exponent = scan(_steps, (vector, exponent), (groups, stacks))
    return vector, exponent


def _steps(state: tuple[Tensor, Tensor], sites: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A few sites, then a division by a power of two."""
    (vector, exponent), (features, cores) = state, sites
    for site in range(cores.shape[0]):
        both = features[site].unsqueeze(2) * vector.unsqueeze(1)
        vector = both.flatten(1) @ cores[site].flatten(0, 1)
    power = power_of_two(vector)
    return vector * torch.exp2(-power).unsqueeze(1), exponent + power
