"""Larger bonds for a chain that has been trained, with the same outputs to begin with."""

import torch
from torch import Tensor

from tnml.contraction import ChainShape
from tnml.features import FeatureMap
from tnml.nn.mps.initialise import starting_cores, starting_path
from tnml.nn.mps.layout import chain_shape_of


def grown_shape(shape: ChainShape, bond_dim: int) -> ChainShape:
    """The chain with bonds up to `bond_dim`; those that are larger already stay.

    Raises:
        InputError: the bond dimension is out of range.

    Example:
        >>> grown_shape(ChainShape(2, (1, 1), (3, 1)), 2)
        ChainShape(physical=2, left=(1, 2), right=(3, 1))
    """
    wanted = chain_shape_of(shape.n_sites, shape.physical, bond_dim, shape.label_site)
    left, right = (
        tuple(map(max, *pair)) for pair in ((shape.left, wanted.left), (shape.right, wanted.right))
    )
    return ChainShape(shape.physical, left, right)


def padded(
    features: FeatureMap,
    before: tuple[ChainShape, Tensor, Tensor],
    after: ChainShape,
    noise: float | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Flat weights and label core of a chain with larger bonds whose outputs are those of the smaller one.

                                     old   new
        towards the label core   old  A   noise        what has entered the new part stays in it
                                 new  0   1 + noise    and meets zeros in the label core

    So gradients of the label core's new entries are there from the first step, and those of all others from
    the second.

    Args:
        features: the local feature map.
        before: chain, weights and label core `(l, c, r)`.
        after: the same chain with bonds at least as large.
        noise: as in `starting_cores`.
        generator: of the noise.

    Example:
        >>> from tnml.features import feature_map
        >>> small, large = ChainShape(2, (1, 1), (1, 1)), ChainShape(2, (1, 2), (2, 1))
        >>> chain = small, torch.ones(4), torch.ones(1, 1, 1)
        >>> padded(feature_map("linear"), chain, large, 0.0, torch.Generator())[1].squeeze()
        tensor([[1., 0.],
                [0., 0.]])
    """
    shape, weight, label = before
    wide = starting_cores(features, after, noise, weight.dtype, generator).to(weight.device)
    fitted = starting_path(features, after) == "fitted"
    for site, (core, old) in enumerate(zip(after.split(wide), shape.split(weight), strict=True)):
        left, right = old.shape[1:]
        if fitted:  # the map keeps no path of its own: take the scale of the trained core's first bond index
            eye = torch.eye(*core.shape[1:], dtype=core.dtype, device=core.device)
            core.add_((old[:, 0, 0] - 1)[:, None, None] * eye)
        if site < after.label_site:
            core[:, left:, :right] = 0
        else:
            core[:, :left, right:] = 0
        core[:, :left, :right] = old
    wider = label.new_zeros(after.left[-1], label.shape[1], after.right[0])
    wider[: label.shape[0], :, : label.shape[2]] = label
    return wide, wider
