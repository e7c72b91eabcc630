"""The sizes of a layer: its arguments checked, and what a saved state says about them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tnml.checks import entries, whole
from tnml.contraction import ChainShape
from tnml.errors import InputError
from tnml.shapes import growing_bonds


def layout_of(shape: ChainShape) -> Tensor:
    """Label site and bonds in one integer vector, which travels in the state dict.

    Example:
        >>> layout_of(ChainShape(2, (1, 2), (2, 1)))
        tensor([1, 1, 2, 2, 1])
    """
    return torch.tensor([shape.label_site, *shape.left, *shape.right], device="cpu")


def chain_shape_of(
    n_sites: int, physical: int, bond_dim: int | Sequence[int], label_site: int | None
) -> ChainShape:
    """The chain of `n_sites` sites cut at the label site.

    Args:
        n_sites: sites without the label core.
        physical: dimension d of the features.
        bond_dim: the largest bond, or all n_sites + 2 of them.
        label_site: sites left of the label core; None takes the middle.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> chain_shape_of(4, 2, 3, None)
        ChainShape(physical=2, left=(1, 2, 3), right=(3, 2, 1))
    """
    label = n_sites // 2 if label_site is None else label_site
    label = whole("label_site (the sites left of the label core)", label, 0, n_sites)
    listed = entries(bond_dim)
    if listed is not None:
        bonds = [whole("every entry of bond_dim", bond, 1) for bond in listed]
        if len(bonds) != n_sites + 2:
            raise InputError(f"expected {n_sites + 2} bonds (n_sites + 2) in bond_dim, got {len(bonds)}")
        return ChainShape(physical, tuple(bonds[: label + 1]), tuple(bonds[label + 1 :]))
    chi = whole("bond_dim", bond_dim, 1)
    right = growing_bonds(n_sites - label, physical, chi)[::-1]
    return ChainShape(physical, growing_bonds(label, physical, chi), right)


def bond_index(shape: ChainShape, device: torch.device) -> Tensor:
    """For every weight `[n_weights]` its index on the bond towards the label core.

    Example:
        >>> bond_index(ChainShape(1, (1, 2), (2, 1)), torch.device("cpu"))
        tensor([0, 1, 0, 1])
    """
    pieces = []
    for site, (left, right) in enumerate(shape.bonds):
        inner = np.arange(right) if site < shape.label_site else np.arange(left)[:, None]
        pieces.append(np.broadcast_to(inner, (shape.physical, left, right)).reshape(-1))
    return torch.tensor(np.concatenate([*pieces, np.zeros(0, np.int64)]), device=device)
