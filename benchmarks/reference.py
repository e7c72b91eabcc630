"""The function all must compute, in float64, by the plainest recurrence; imports nothing from tnml."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

PHYSICAL = 2


@dataclass(frozen=True)
class Instance:
    """The numbers of one chain.

    Attributes:
        cores: n tensors `(d, l, r)`, float64; the bonds grow from 1 at both ends.
        label: `(l, c, r)`, in the middle.
    """

    cores: list[Tensor]
    label: Tensor

    @property
    def label_site(self) -> int:
        """Cores left of the label core."""
        return len(self.cores) // 2

    @property
    def bond_dim(self) -> int:
        """The largest bond dimension."""
        return max(max(core.shape[1:]) for core in self.cores)

    @property
    def n_weights(self) -> int:
        """Numbers in the cores, without the label core."""
        return sum(core.numel() for core in self.cores)

    def padded(self) -> tuple[list[Tensor], Tensor]:
        """Cores `(l, d, r)` and label core, all bonds filled with zeros to the largest: the same function."""
        chi = self.bond_dim
        cores = []
        for core in self.cores:
            full = torch.zeros(chi, PHYSICAL, chi, dtype=core.dtype)
            full[: core.shape[1], :, : core.shape[2]] = core.transpose(0, 1)
            cores.append(full)
        label = torch.zeros(chi, self.label.shape[1], chi, dtype=self.label.dtype)
        label[: self.label.shape[0], :, : self.label.shape[2]] = self.label
        return cores, label


def bonds(n_sites: int, bond_dim: int) -> list[int]:
    """The n + 2 bond dimensions: from the left end to the label core, then from it to the right end."""
    left = [min(bond_dim, PHYSICAL ** min(i, 30)) for i in range(n_sites // 2 + 1)]
    right = [min(bond_dim, PHYSICAL ** min(i, 30)) for i in range(n_sites - n_sites // 2 + 1)]
    return left + right[::-1]


def make_instance(
    n_sites: int, bond_dim: int, classes: int, seed: int, noise: float | None = None
) -> Instance:
    """An identity path with Gaussian noise, so that outputs are of order one for features that sum to 1.

    Args:
        n_sites: cores.
        bond_dim: largest bond dimension.
        classes: outputs.
        seed: of the noise and the label core.
        noise: its standard deviation; None takes 0.3 / sqrt(n_sites * bond_dim).
    """
    generator = torch.Generator().manual_seed(seed)
    std = 0.3 / (n_sites * bond_dim) ** 0.5 if noise is None else noise
    dims, half = bonds(n_sites, bond_dim), n_sites // 2
    pairs = [
        *itertools.pairwise(dims[: half + 1]),
        *itertools.pairwise(dims[half + 1 :]),
    ]
    cores = [
        torch.eye(l, r, dtype=torch.float64)
        + std * torch.randn(PHYSICAL, l, r, generator=generator, dtype=torch.float64)
        for l, r in pairs
    ]
    label = torch.randn(dims[half], classes, dims[half + 1], generator=generator, dtype=torch.float64)
    return Instance(cores, label)


def embed(x: Tensor) -> Tensor:
    """Features `(1 - x, x)` `[b, n, d]` of inputs `[b, n]`."""
    return torch.stack([1 - x, x], dim=-1)


def outputs(cores: list[Tensor], label: Tensor, features: Tensor) -> Tensor:
    """Outputs `[b, c]`: from the left end to the right end, site after site.

    1 - A - .. - A - L - A - .. - A - 1        v_s[b, r] = sum_dl f[b, d] v[b, l] A[d, l, r]
        |        |   c   |        |
        f        f       f        f
    """
    half = len(cores) // 2
    vector = torch.ones(features.shape[0], 1, dtype=features.dtype)
    for site in range(half):
        vector = torch.einsum("bd,bl,dlr->br", features[:, site], vector, cores[site])
    carried = torch.einsum("bl,lcr->bcr", vector, label)
    for site in range(half, len(cores)):
        carried = torch.einsum("bd,bcl,dlr->bcr", features[:, site], carried, cores[site])
    return carried[..., 0]


def answer(instance: Instance, x: Tensor, weights: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Outputs, and the gradients of `sum(weights * outputs)`: one `(d, l, r)` per core, then `(l, c, r)`.

    Args:
        instance: the chain.
        x: `[b, n]` inputs.
        weights: `[b, c]`.
    """
    cores = [core.clone().requires_grad_() for core in instance.cores]
    label = instance.label.clone().requires_grad_()
    found = outputs(cores, label, embed(x.double()))
    gradients = torch.autograd.grad((weights.double() * found).sum(), [*cores, label])
    return found.detach(), list(gradients)
