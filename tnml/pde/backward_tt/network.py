"""A functional tensor train: a chain whose sites are the standardised coordinates, time first."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tnml.nn import MPSLayer
from tnml.training.dmrg.chain import give


def hermite(x: Tensor, dim: int) -> Float[Tensor, "... dim"]:
    """The first Hermite polynomials at every entry of x, orthonormal for standard normal numbers.

    Source: `sqrt(k + 1) h_(k+1) = x h_k - sqrt(k) h_(k-1)`.

    Example:
        >>> hermite(torch.tensor([2.0]), 3)
        tensor([[1.0000, 2.0000, 2.1213]])
    """
    found = [torch.ones_like(x), x]
    for k in range(1, dim - 1):
        found.append((x * found[k] - math.sqrt(k) * found[k - 1]) / math.sqrt(k + 1))
    return torch.stack(found[:dim], -1)


class FunctionalTrain(nn.Module):
    """`[m, n]` standardised inputs to `[m, 1]`, a tensor train of polynomials in every input.

    Args:
        inputs: n, at least 2.
        degree: of the polynomials.

    It starts as the number zero. A state of other bonds can be loaded into it.

    Source: Oseledets, Constructive representation of functions in low-rank tensor formats, Constr. Approx. 37
    (2013); for parabolic equations Richter, Sallandt, Nüsken, ICML 2021, arXiv 2102.11830.

    Example:
        >>> train = FunctionalTrain(3, degree=2)
        >>> train(torch.rand(5, 3)).shape, train.ranks
        (torch.Size([5, 1]), [1, 1])
    """

    def __init__(self, inputs: int, degree: int = 3) -> None:
        super().__init__()
        self.widths = (inputs, 1)
        self.degree = degree
        self.chain = MPSLayer(inputs, 1, bond_dim=1, features=_Hermite(degree + 1))
        self.adopt([torch.zeros(1, degree + 1, 1)] * inputs)

    @property
    def ranks(self) -> list[int]:
        """The bond dimensions between the inputs, from time to the last coordinate."""
        dims, middle = self.chain.bond_dims, self.chain.label_site
        return [*dims[1 : middle + 1], *dims[middle + 2 : -1]]

    @property
    def cores(self) -> list[Tensor]:
        """The cores `(l, d, r)`, the first for time."""
        found, place = [core.detach() for core in self.chain.cores], self.chain.label_site
        found[place] = torch.einsum("lcm,mdr->ldr", self.chain.label_core.detach(), found[place])
        return found

    def adopt(self, cores: Sequence[Tensor]) -> None:
        """Takes these cores in place of its own; it evaluates them from both ends to the middle."""
        middle = len(cores) // 2
        label = torch.eye(cores[middle].shape[0], dtype=cores[0].dtype).unsqueeze(1)
        give(self.chain, cores, label, middle)

    def features(self, x: Float[Tensor, "m n"]) -> Float[Tensor, "m n d"]:
        """What the cores see of every input."""
        return hermite(x, self.degree + 1)

    def features_and_slopes(self, x: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
        """The features of inputs `[n, m]`, and their derivatives times `along`; both `[n, d, m]`."""
        found = hermite(x, self.degree + 1).movedim(-1, 1).contiguous()
        roots = torch.arange(1, self.degree + 1, dtype=x.dtype, device=x.device).sqrt()
        slopes = torch.cat([torch.zeros_like(found[:, :1]), found[:, :-1] * roots[:, None]], 1)
        return found, slopes * along.unsqueeze(1)

    def forward(self, x: Float[Tensor, "m n"]) -> Float[Tensor, "m 1"]:
        """The value."""
        value: Tensor = self.chain(self.features(x))
        return value

    def extra_repr(self) -> str:
        """Inputs and degree."""
        return f"inputs={self.widths[0]}, degree={self.degree}"


class _Hermite:
    """`hermite` of a fixed number of components, as a feature map."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def __call__(self, x: Tensor) -> Tensor:
        return hermite(x, self.dim)
