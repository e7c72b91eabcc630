"""Many equal chains at once: weights `[k, n_weights]`, each replica with its own batch, adjoint by hand.

The arithmetic of one chain of a few sites and a small bond takes less time than the calls that start it.
Here one call serves all replicas: the native engine takes whole chains, each thread one after another;
the torch engine takes all replicas through one site as one batched product, both halves at once where they
mirror each other:

    x[k, b, (e l)] = f[k, b, e] v[k, b, l]            v[k, b, r] = x[k, b, (e l)] A[k, (e l), r]
    dA[k, (e l), r] = sum_b x[k, b, (e l)] g[k, b, r]     g[k, b, l] = sum_e f[k, b, e] (A g)[k, b, e, l]

Letters: k replica, b sample, e physical index, l the bond by which a half enters a site, r the one by which
it leaves.
"""

import importlib
import itertools
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from tnml.contraction.chain.loading import native_engine
from tnml.contraction.chain.operator import ENGINES
from tnml.contraction.chain.reference import RESCALE_EVERY, power_of_two
from tnml.contraction.chain.shape import ChainShape
from tnml.errors import InputError, choose


class ReplicaChains(Protocol):
    """Equal chains, their weights and the memory of one batch, ready to be run any number of times.

    Attributes:
        features: `[k, b, n, d]`, filled by the caller before `forward`.
        left: `[k, b, l]`, the left halves' vectors, set by `forward`.
        right: `[k, b, r]`, likewise.
        grad_left: `[k, b, l]`, filled by the caller before `backward`.
        grad_right: `[k, b, r]`, likewise.
    """

    features: Tensor
    left: Tensor
    right: Tensor
    grad_left: Tensor
    grad_right: Tensor

    def forward(self) -> Tensor:
        """Sets `left` and `right`; the exponents `[k, b]` of two, of left times right."""

    def backward(self) -> None:
        """Writes the gradients of the cores into the gradient that the chains were made with."""


def replica_chains(
    shape: ChainShape, weight: Tensor, batch: int, *, gradient: Tensor | None = None, engine: str = "auto"
) -> ReplicaChains:
    """The chains of all rows of `weight`, for batches of one size.

    They read `weight` in place, afresh at every call.

    Args:
        shape: bonds and label site, the same for all replicas.
        weight: `[k, p]` real, p at least `shape.n_weights`: the first numbers of each row are its cores.
        batch: samples b of each replica.
        gradient: `[k, p]`, where `backward` writes; None for chains that only run forward.
        engine: "auto" (native for float32 on the CPU, else torch), "torch" or "native"; "reference" is torch.

    Raises:
        InputError: the engine cannot take these weights, or the sizes disagree.

    Cost: that of k chains, `shape.flops_forward` per chain and sample, three times that with the gradient.

    Example:
        >>> chains = replica_chains(ChainShape(2, (1, 2), (2, 1)), torch.ones(3, 8), batch=5)
        >>> _ = chains.features.fill_(1.0)
        >>> exponent = chains.forward()
        >>> chains.left.shape, chains.left[0, 0], exponent.shape
        (torch.Size([3, 5, 2]), tensor([2., 2.]), torch.Size([3, 5]))
    """
    choose("engine", engine, dict.fromkeys(ENGINES))
    if weight.dim() != 2 or weight.shape[1] < shape.n_weights or weight.is_complex() or batch < 1:
        raise InputError(
            f"expected real weights [k, at least {shape.n_weights}] and at least one sample, "
            f"got {weight.dtype} {list(weight.shape)} and {batch}"
        )
    if gradient is not None and (gradient.shape != weight.shape or gradient.dtype != weight.dtype):
        raise InputError(
            f"the gradient must be {weight.dtype} {list(weight.shape)} as the weights are, "
            f"got {gradient.dtype} {list(gradient.shape)}"
        )
    fits = weight.device.type == "cpu" and weight.dtype == torch.float32
    if engine == "native" and not fits:
        raise InputError(
            f"the native engine takes float32 on the CPU, got {weight.dtype} on {weight.device}; "
            'use engine="torch" or "auto"'
        )
    chains: ReplicaChains
    if fits and engine in ("auto", "native") and native_engine() is not None:
        module: Any = importlib.import_module("tnml.contraction.chain.native_replicas")
        chains = module.NativeReplicas(shape, weight, batch, gradient)
    else:
        chains = TorchReplicas(shape, weight, batch, gradient)
    return chains


@dataclass
class _Step:
    """What the backward pass needs of one site of the halves that run together."""

    sites: tuple[int, ...]
    features: Tensor
    expanded: Tensor
    matrix: Tensor
    factor: Tensor | None


class TorchReplicas:
    """The torch engine of `replica_chains`: any real dtype, any device, one batched product a site.

    Args:
        shape: bonds and label site.
        weight: `[k, p]`.
        batch: samples of each replica.
        gradient: `[k, p]` or None.

    Example:
        >>> chains = TorchReplicas(ChainShape(2, (1, 2), (2, 1)), torch.ones(3, 8).double(), 5, None)
        >>> chains.features.shape
        torch.Size([3, 5, 2, 2])
    """

    def __init__(self, shape: ChainShape, weight: Tensor, batch: int, gradient: Tensor | None) -> None:
        count = len(weight)
        self._shape, self._weight, self._gradient = shape, weight, gradient
        self.features = weight.new_empty(count, batch, shape.n_sites, shape.physical)
        self.left, self.right = (
            weight.new_ones(count, batch, bond) for bond in (shape.left[-1], shape.right[0])
        )
        self.grad_left, self.grad_right = torch.zeros_like(self.left), torch.zeros_like(self.right)
        left, right = range(shape.label_site), range(shape.n_sites - 1, shape.label_site - 1, -1)
        mirrored = shape.left == shape.right[::-1]
        self._runs: list[list[tuple[int, ...]]] = [[(s,) for s in left], [(s,) for s in right]]
        if mirrored:
            self._runs = [list(zip(left, right, strict=True))]
        self._steps: list[list[_Step]] = []

    def forward(self) -> Tensor:
        """Sets `left` and `right`; the exponents `[k, b]` of two."""
        ends: list[Tensor] = []
        exponent = self._weight.new_zeros(self.features.shape[:2])
        self._steps = []
        by_site = self.features.unbind(2)
        for run in self._runs:
            halves = len(run[0]) if run else 1
            vector = self._weight.new_ones(halves * len(self._weight), self.features.shape[1], 1)
            steps = []
            for number, sites in enumerate(run):
                features = torch.cat([by_site[site] for site in sites]).unsqueeze(3)
                expanded = (features * vector.unsqueeze(2)).flatten(2)
                matrix = torch.cat([self._matrix(site) for site in sites])
                vector = torch.bmm(expanded, matrix)
                factor = None
                if number % RESCALE_EVERY == RESCALE_EVERY - 1:
                    power = power_of_two(vector)
                    factor = torch.exp2(-power).unsqueeze(-1)
                    vector = vector * factor
                    exponent += power.view(halves, *exponent.shape).sum(0)
                if self._gradient is not None:
                    steps.append(_Step(sites, features, expanded, matrix, factor))
            self._steps.append(steps)
            ends += vector.chunk(halves)
        self.left, self.right = ends
        return exponent

    def backward(self) -> None:
        """Writes the gradients of the cores."""
        incoming = [self.grad_left, self.grad_right]
        for run, steps in enumerate(self._steps):
            adjoint = torch.cat(incoming) if len(self._steps) == 1 else incoming[run]
            for step in reversed(steps):
                if step.factor is not None:
                    adjoint = adjoint * step.factor
                found = torch.bmm(step.expanded.mT, adjoint).chunk(len(step.sites))
                for site, of_core in zip(step.sites, found, strict=True):
                    self._core(site, of_core)
                through = torch.bmm(adjoint, step.matrix.mT)
                adjoint = (through.view(*step.features.shape[:3], -1) * step.features).sum(2)

    def _matrix(self, site: int) -> Tensor:
        """The core of a site as `[k, (e, entering), leaving]`."""
        shape = self._shape
        left, right = shape.bonds[site]
        first, last = shape.offsets[site : site + 2]
        core = self._weight[:, first:last].view(-1, shape.physical, left, right)
        return core.flatten(1, 2) if site < shape.label_site else core.transpose(2, 3).flatten(1, 2)

    def _core(self, site: int, found: Tensor) -> None:
        """Puts the gradient `[k, (e, entering), leaving]` of a core into its place."""
        if self._gradient is None:  # no step was kept
            return
        shape = self._shape
        left, right = shape.bonds[site]
        first, last = shape.offsets[site : site + 2]
        target = self._gradient[:, first:last].view(-1, shape.physical, left, right)
        if site < shape.label_site:
            target.copy_(found.view(target.shape))
        else:
            target.copy_(found.view(-1, shape.physical, right, left).transpose(2, 3))


def pieces(total: int, size: int) -> list[tuple[int, int]]:
    """`[first, last)` of stretches of `size`; the last one takes what is left.

    Example:
        >>> pieces(5, 2)
        [(0, 2), (2, 4), (4, 5)]
    """
    return list(itertools.pairwise([*range(0, total, size), total]))
