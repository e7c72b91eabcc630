"""The chain that a sweep works on: cores in a gauge, and the center, which changes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tnml.contraction import ChainShape
from tnml.nn import MPSLayer
from tnml.nn.mps.layout import layout_of


@dataclass
class CenteredChain:
    """A layer's weights with a center, in one of two forms.

    With a label core the chain has n + 1 sites, one of them the label core, which stays where it is. Without
    one it has n sites, and the label leg is on the center and travels with it.

    Args:
        cores: the cores `(l, d, r)` and the label core `(l, c, r)`, None at the center.
        center: `(l, d, c, r)`: c is 1 where the label leg is elsewhere, d is 1 at the label core.
        at: the center's site.
        label: the label core's site, None where the label leg travels.
    """

    cores: list[Tensor | None]
    center: Tensor
    at: int
    label: int | None

    @property
    def bond_dims(self) -> list[int]:
        """The inner bonds, left to right."""
        dims = []
        for site in range(len(self.cores) - 1):
            core = self.cores[site]
            dims.append(self.center.shape[3] if core is None else core.shape[2])
        return dims

    def core(self, site: int) -> Tensor:
        """The core of a site that is not the center."""
        core = self.cores[site]
        if core is None:
            raise AssertionError(f"site {site} is the center")
        return core

    def move(self, core: Tensor, center: Tensor, *, right: bool) -> None:
        """Leaves `core` at the center's site and takes `center` to the next one."""
        self.cores[self.at] = core.contiguous()
        self.at += 1 if right else -1
        self.cores[self.at] = None
        self.center = center.contiguous()


def chain_of(layer: MPSLayer, *, travels: bool) -> CenteredChain:
    """The weights of a layer, the center at the label core or at the site that absorbed it.

    Args:
        layer: its weights are copied.
        travels: whether the label leg is to travel: the label core is absorbed by the site left of it, or by
            the first one.

    Example:
        >>> layer = MPSLayer(4, 3, bond_dim=2)
        >>> chain_of(layer, travels=True).center.shape, chain_of(layer, travels=False).center.shape
        (torch.Size([2, 2, 3, 2]), torch.Size([2, 1, 3, 2]))
    """
    cores: list[Tensor | None] = [core.detach().clone() for core in layer.cores]
    label, place = layer.label_core.detach(), layer.label_site
    if not travels:
        return CenteredChain([*cores[:place], None, *cores[place:]], label.unsqueeze(1), place, place)
    at = max(0, place - 1)
    equation = "ldm,mcr->ldcr" if place else "mdr,lcm->ldcr"
    center = torch.einsum(equation, layer.cores[at].detach(), label).contiguous()
    cores[at] = None
    return CenteredChain(cores, center, at, None)


@torch.no_grad()
def put_into(layer: MPSLayer, chain: CenteredChain) -> None:
    """Gives a layer the weights of a chain whose center is site 0; the layer's bonds become the chain's.

    A label leg that travelled is put into a label core after the first site: the center itself, exactly.

    Example:
        >>> layer = MPSLayer(4, 3, bond_dim=2, label_site=0)
        >>> x = torch.rand(5, 4)
        >>> before = layer(x)
        >>> put_into(layer, chain_of(layer, travels=True))
        >>> layer.label_site, torch.allclose(before, layer(x), atol=1e-5)
        (1, True)
    """
    d, rest = layer.features.dim, [chain.core(site) for site in range(1, len(chain.cores))]
    if chain.label is None:
        first = torch.eye(d, dtype=chain.center.dtype, device=chain.center.device).unsqueeze(0)
        cores, place = [first, chain.center.squeeze(0), *rest], 1
    else:
        center = chain.center
        cores, place = [center.flatten(1, 2), *rest], chain.label  # one of the two legs is 1
    label = cores.pop(place)
    give(layer, cores, label, place)


@torch.no_grad()
def give(layer: MPSLayer, cores: Sequence[Tensor], label: Tensor, place: int) -> None:
    """Gives a layer these cores `(l, d, r)` and a label core `(l, c, r)`, and their bonds.

    Args:
        layer: of as many sites and outputs.
        cores: from the left end to the right.
        label: has `place` of them on its left.
        place: the layer's new label site.

    Example:
        >>> layer = MPSLayer(2, 3)
        >>> give(layer, [torch.ones(1, 2, 4), torch.ones(5, 2, 1)], torch.ones(4, 3, 5), 1)
        >>> layer.bond_dims
        [1, 4, 5, 1]
    """
    d = layer.features.dim
    left = (1, *(core.shape[2] for core in cores[:place]))
    right = (*(core.shape[0] for core in cores[place:]), 1)
    shape = ChainShape(d, left, right)
    weight = shape.join([core.transpose(0, 1) for core in cores])
    state = layer.state_dict() | {"layout": layout_of(shape), "weight": weight, "label": label}
    layer.load_state_dict(state)


def largest(bonds: Sequence[int]) -> int:
    """The largest bond, 1 for a chain of one site.

    Example:
        >>> largest([2, 5, 3]), largest([])
        (5, 1)
    """
    return max(bonds, default=1)
