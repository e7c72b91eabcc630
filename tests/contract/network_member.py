"""What a network's test says about the network, and what all its tests share."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tnml.nn import NETWORKS, Network, TensorNetworkLayer

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


class Member(ABC):
    """What a network's test says about it; five sites and three outputs everywhere."""

    network: ClassVar[str]
    """Its name in the table."""
    row: ClassVar[Network | None] = None
    """Its row, where the table does not hold it."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Arguments of its constructor; no dropout."""
    others: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Other arguments, each of which makes another model of another size, whose states can be loaded."""
    unknown: ClassVar[Mapping[str, Any]] = {"colour": "red"}
    """An argument that the network does not take."""
    program: ClassVar[str] = "from tnml.nn import MPSLayer as Layer"
    """A line of Python that gives the class the name `Layer`, for a process of its own."""

    @abstractmethod
    def dense(self, layer: TensorNetworkLayer, features: Tensor) -> Tensor:
        """Outputs `[b, c]` of features `[b, n, d]` by other means, from `layer.tensors()`."""

    @pytest.fixture(autouse=True)
    def _in_the_table(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if self.row is not None:
            monkeypatch.setitem(NETWORKS, self.network, self.row)

    def make(self, n_sites: int = 5, out_features: int = 3, **changes: Any) -> Any:
        """A fresh layer."""
        arguments = {"dtype": "float64", **self.options, **changes}
        return NETWORKS[self.network].layer(n_sites, out_features, **arguments)

    def generic(self, *sizes: int, **changes: Any) -> Any:
        """A layer whose parameters have left the starting path."""
        layer = self.make(*sizes, **changes)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        return layer

    def widened(self, layer: TensorNetworkLayer) -> TensorNetworkLayer:
        """A copy in double precision."""
        twin = copy.deepcopy(layer)
        for parameter in twin.parameters():
            parameter.data = parameter.data.to(torch.promote_types(layer.dtype, torch.float64))
        return twin

    def inputs(self, samples: int = 4, n_sites: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
        """`[b, n]` in [0, 1]."""
        return torch.rand(samples, n_sites, generator=torch.Generator().manual_seed(1), dtype=dtype)

    def bound(self, layer: TensorNetworkLayer, features: Tensor) -> Tensor:
        """`[b, c]`: how far rounding can move an output, from the sum of the sizes of all its terms.

        Every site sums d times its bond at most, both in the network and here, and multiplies a few times.
        """
        sizes = Sizes(layer.tensors())
        with torch.no_grad():
            total = self.dense(sizes, features.abs())  # type: ignore[arg-type]
        roundings = features.shape[1] * (features.shape[2] * max(layer.bond_dims) + 4)
        return EPS[layer.dtype.to_real()] * roundings * total


class TensorMember(Member):
    """What the test of a network that is one tensor says about it."""

    @abstractmethod
    def weight_tensor(self, layer: TensorNetworkLayer) -> Tensor:
        """The dense tensor `[d, .., d, c]` of `layer.tensors()`, a leg a site, in the network's order."""

    @abstractmethod
    def cuts(self, layer: TensorNetworkLayer) -> list[list[int]]:
        """Of each of `layer.bonds()` the legs of the dense tensor on one side; leg n is the label's."""

    def dense(self, layer: TensorNetworkLayer, features: Tensor) -> Tensor:
        """Outputs `[b, c]` of features `[b, n, d]`, from the dense tensor leg by leg."""
        tensor = self.weight_tensor(layer)
        found = torch.einsum("bd,dr->br", features[:, 0], tensor.reshape(features.shape[2], -1))
        for site in range(1, features.shape[1]):
            part = found.reshape(len(features), features.shape[2], -1)
            found = torch.einsum("bd,bdr->br", features[:, site], part)
        return found


class Sizes:
    """A stand-in for a layer: the same tensors, entry by entry their absolute values."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = {name: tensor.detach().abs() for name, tensor in tensors.items()}

    def tensors(self) -> Mapping[str, Tensor]:
        return self._tensors
