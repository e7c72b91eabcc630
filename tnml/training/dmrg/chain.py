"""The chain that a sweep works on: cores in a gauge, and the center, which carries the label leg."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.contraction import ChainShape
from tnml.nn import MPSLayer
from tnml.nn.layout import layout_of


@dataclass
class CenteredChain:
    """A layer's weights with the label leg on one site.

    Args:
        cores: the cores `(l, d, r)`, None at the center.
        center: `(l, d, c, r)`, the tensor of site `at` with the label leg.
        at: the center's site.
    """

    cores: list[Tensor | None]
    center: Tensor
    at: int

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


def chain_of(layer: MPSLayer) -> CenteredChain:
    """The weights of a layer, its label core absorbed by the site left of it, or by the first one.

    Example:
        >>> chain = chain_of(MPSLayer(4, 3, bond_dim=2))
        >>> chain.at, chain.center.shape
        (1, torch.Size([2, 2, 3, 2]))
    """
    cores: list[Tensor | None] = [core.detach().clone() for core in layer.cores]
    label = layer.label_core.detach()
    at = max(0, layer.label_site - 1)
    beside = cores[at]
    assert beside is not None
    if layer.label_site:
        center = torch.einsum("ldm,mcr->ldcr", beside, label)
    else:
        center = torch.einsum("lcm,mdr->ldcr", label, beside)
    cores[at] = None
    return CenteredChain(cores, center.contiguous(), at)


@torch.no_grad()
def put_into(layer: MPSLayer, chain: CenteredChain) -> None:
    """Gives a layer the weights of a chain whose center is site 0; its label core comes after that site.

    The label core is the center itself, exactly; the layer's bonds become those of the chain.

    Example:
        >>> layer = MPSLayer(4, 3, bond_dim=2, label_site=0)
        >>> x = torch.rand(5, 4)
        >>> before = layer(x)
        >>> put_into(layer, chain_of(layer))
        >>> layer.label_site, torch.allclose(before, layer(x), atol=1e-5)
        (1, True)
    """
    d = layer.features.dim
    first = torch.eye(d, dtype=chain.center.dtype, device=chain.center.device).unsqueeze(0)
    rest = [chain.core(site) for site in range(1, len(chain.cores))]
    label = chain.center.squeeze(0)
    shape = ChainShape(d, (1, d), (label.shape[2], *(core.shape[2] for core in rest)))
    weight = shape.join([core.transpose(0, 1) for core in [first, *rest]])
    state = layer.state_dict() | {"layout": layout_of(shape), "weight": weight, "label": label}
    layer.load_state_dict(state)


def largest(bonds: Sequence[int]) -> int:
    """The largest bond, 1 for a chain of one site.

    Example:
        >>> largest([2, 5, 3]), largest([])
        (5, 1)
    """
    return max(bonds, default=1)


def absorb_left(tensor: Float[Tensor, "l c k"], core: Float[Tensor, "a d l"]) -> Float[Tensor, "a d c k"]:
    """The core of the site on the left times what a move to the left brings.

    Example:
        >>> absorb_left(torch.ones(2, 3, 4), torch.ones(1, 2, 2)).shape
        torch.Size([1, 2, 3, 4])
    """
    return torch.einsum("lck,adl->adck", tensor, core)


def absorb_right(tensor: Float[Tensor, "k c r"], core: Float[Tensor, "r d s"]) -> Float[Tensor, "k d c s"]:
    """What a move to the right brings times the core of the site on the right.

    Example:
        >>> absorb_right(torch.ones(4, 3, 2), torch.ones(2, 2, 1)).shape
        torch.Size([4, 2, 3, 1])
    """
    return torch.einsum("kcr,rds->kdcs", tensor, core)
