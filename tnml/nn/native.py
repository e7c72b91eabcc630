"""Layers whose training steps the native engine can take without autograd."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from tnml.contraction import ChainShape
from tnml.contraction.transforms import plain
from tnml.torch_private import is_watched


class LabelledChain(NamedTuple):
    """The parameters of a chain with its label core.

    Attributes:
        shape: bonds and label site.
        weight: `[shape.n_weights]`.
        label: `(l, c, r)`.
    """

    shape: ChainShape
    weight: Tensor
    label: Tensor


class NativeLayer(Protocol):
    """A layer that is nothing but a chain with a label core behind local features.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> layer: NativeLayer = MPSLayer(4, 2)
        >>> layer.native_chain().shape.key
        '2;1,2,4;4,2,1'
    """

    def native_chain(self) -> LabelledChain | None:
        """The chain; None where something else happens in training, or another engine was asked for."""

    def local_features(self, x: Tensor) -> Tensor:
        """Features `[b, n, d]` of inputs."""


def native_chain_of(module: nn.Module) -> LabelledChain | None:
    """The chain of a `NativeLayer`; None of any other module, and where anything watches it or its numbers.

    Only what the class itself declares counts: a subclass may compute something else.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> native_chain_of(nn.Linear(4, 2)) is None, native_chain_of(MPSLayer(4, 2)).label.shape
        (True, torch.Size([4, 2, 4]))
    """
    if "native_chain" not in vars(type(module)) or not {"forward", "contract"}.isdisjoint(vars(module)):
        return None
    found: LabelledChain | None = module.native_chain()  # type: ignore[operator]
    if found is None or is_watched(module):
        return None
    for tensor in found[1:]:
        usual = tensor.is_cpu and tensor.dtype == torch.float32 and tensor.is_contiguous()
        if not (usual and tensor.requires_grad):
            return None
    return found if plain(found.weight, found.label) else None
