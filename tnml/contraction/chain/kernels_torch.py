"""The `torch` engine: any device, any floating or complex dtype, hand-written adjoint.

    forward    v_{s+1}[b, j] = sum_{e, k} f[b, s, e] v_s[b, k] A_s[e, k, j]            all v_s are kept
    adjoint    g_s[b, k]     = sum_{e, j} f[b, s, e] g_{s+1}[b, j] A_s[e, k, j]*
    gradient   dA_s[e, k, j] = sum_b (f[b, s, e] v_s[b, k])* g_{s+1}[b, j]
               df[b, s, e]   = sum_{k, j} (v_s[b, k] A_s[e, k, j])* g_{s+1}[b, j]

k is the bond by which a half chain enters a site, j the one by which it leaves, towards the label site. A
step is one GEMM of the batch with an (e k, j) matrix, never a chi x chi matrix per sample. Where both halves
have the same bonds they run together as one batched GEMM; core gradients are one batched GEMM per chunk of
sites.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.contraction.chain.reference import RESCALE_EVERY, power_of_two
from tnml.contraction.chain.shape import ChainShape

CHUNK = 28  # sites whose gradients are one batched GEMM


class _Run(NamedTuple):
    """Halves that advance together: for every step the site of each half, and the bonds (k, j)."""

    sites: tuple[tuple[int, ...], ...]
    bonds: tuple[tuple[int, int], ...]
    right: tuple[bool, ...]

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Steps `[first, last)` of one bond pair, at most CHUNK of them."""
        first = 0
        for _, group in itertools.groupby(self.bonds):
            end = first + len(list(group))
            for start in range(first, end, CHUNK):
                yield start, min(start + CHUNK, end)
            first = end


def _runs(shape: ChainShape) -> list[_Run]:
    """One run of both halves when they mirror each other, else one run per half."""
    label, n = shape.label_site, shape.n_sites
    left = _Run(tuple((s,) for s in range(label)), tuple(shape.bonds[:label]), (False,))
    mirrored = tuple((r, l) for l, r in reversed(shape.bonds[label:]))
    right = _Run(tuple((s,) for s in range(n - 1, label - 1, -1)), mirrored, (True,))
    if left.bonds == right.bonds:
        return [
            _Run(
                tuple(a + b for a, b in zip(left.sites, right.sites, strict=True)), left.bonds, (False, True)
            )
        ]
    return [left, right]


class _Saved:
    """Views of one buffer: what enters each chunk's steps `[step, half, b, k]`, and the rescaling factors."""

    def __init__(self, run: _Run, batch: int, buffer: Tensor) -> None:
        halves = len(run.right)
        self.entering: list[Tensor] = []
        place = 0
        for first, last in run.chunks():
            k, size = run.bonds[first][0], (last - first) * halves * batch * run.bonds[first][0]
            self.entering.append(buffer[place : place + size].view(last - first, halves, batch, k))
            place += size
        count = len(run.bonds) // RESCALE_EVERY
        self.factors = buffer[place : place + count * halves * batch].view(count, halves, batch, 1)

    def chunk(self, number: int) -> Tensor:
        """What enters the steps of a chunk."""
        return self.entering[number]

    def factor(self, number: int) -> Tensor:
        """Where the factor of a rescaling goes."""
        return self.factors[number]

    @staticmethod
    def size(run: _Run, batch: int) -> int:
        """Numbers in the buffer of a run."""
        return len(run.right) * batch * (sum(k for k, _ in run.bonds) + len(run.bonds) // RESCALE_EVERY)


class _Passing:
    """Like `_Saved` where no backward pass follows: every chunk has its own memory, freed afterwards."""

    def __init__(self, run: _Run, like: Tensor) -> None:
        halves, batch = len(run.right), like.shape[0]
        self._sizes = [(last - first, halves, batch, run.bonds[first][0]) for first, last in run.chunks()]
        self._like, self._factor = like, like.new_empty(halves, batch, 1)

    def chunk(self, number: int) -> Tensor:
        """What enters the steps of a chunk."""
        return self._like.new_empty(self._sizes[number])

    def factor(self, number: int) -> Tensor:
        """Where the factor of a rescaling goes."""
        return self._factor


def saved_size(shape: ChainShape, batch: int) -> int:
    """Numbers that `forward` keeps for `backward`: every vector and the factors of the rescaling.

    Example:
        >>> saved_size(ChainShape(2, (1, 2), (2, 1)), batch=3)
        6
    """
    return sum(_Saved.size(run, batch) for run in _runs(shape))


def _ordered(features: Tensor, run: _Run) -> Tensor:
    """Features `[step, half, b, e, 1]` in the order of processing."""
    steps, sites = len(run.sites), features.permute(1, 0, 2)
    halves = [sites[len(sites) - steps :].flip(0) if is_right else sites[:steps] for is_right in run.right]
    return torch.stack(halves, 1).unsqueeze(-1)


def _cores(weight: Tensor, shape: ChainShape, run: _Run, first: int, last: int) -> Tensor:
    """Cores `[step, half, e, k, j]` of the steps of a chunk."""
    k, j = run.bonds[first]
    d, count = shape.physical, last - first
    stacks = []
    for half, is_right in enumerate(run.right):
        lowest = min(run.sites[first][half], run.sites[last - 1][half])
        start = shape.offsets[lowest]
        stretch = weight[start : start + count * d * k * j]
        if is_right:
            stacks.append(stretch.view(count, d, j, k).flip(0).transpose(-1, -2))
        else:
            stacks.append(stretch.view(count, d, k, j))
    return torch.stack(stacks, 1)


def forward(
    features: Tensor, weight: Tensor, shape: ChainShape, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`left [b, l]`, `right [b, r]`, `exponent [2, b]`, and what `backward` needs (empty without `keep`).

    Example:
        >>> shape = ChainShape(2, (1, 2), (2, 1))
        >>> [tuple(t.shape) for t in forward(torch.ones(3, 2, 2), torch.ones(8), shape, keep=False)]
        [(3, 2), (3, 2), (2, 3), (0,)]
    """
    batch = features.shape[0]
    kept = features.new_empty(saved_size(shape, batch) if keep else 0)
    place = 0
    vectors: list[Tensor] = []
    exponents: list[Tensor] = []
    for run in _runs(shape):
        size = _Saved.size(run, batch)
        saved = _Saved(run, batch, kept[place : place + size]) if keep else _Passing(run, features)
        vector, exponent = _forward_run(features, weight, shape, run, saved)
        place += size
        vectors += vector.unbind(0)
        exponents += exponent.unbind(0)
    return vectors[0].clone(), vectors[1].clone(), torch.stack(exponents), kept


def _forward_run(
    features: Tensor, weight: Tensor, shape: ChainShape, run: _Run, saved: _Saved | _Passing
) -> tuple[Tensor, Tensor]:
    """Takes the halves of a run to the label site; fills `saved` with what enters each step."""
    halves, batch = len(run.right), features.shape[0]
    result = features.new_ones(halves, batch, run.bonds[-1][1] if run.bonds else 1)
    exponent = torch.zeros(halves, batch, dtype=weight.real.dtype, device=weight.device)
    ordered = _ordered(features, run)
    chunks = list(run.chunks())
    now = saved.chunk(0) if chunks else result
    now[:1].fill_(1)
    for number, (first, last) in enumerate(chunks):
        cores = _cores(weight, shape, run, first, last).flatten(2, 3).unbind(0)
        upcoming = saved.chunk(number + 1) if number + 1 < len(chunks) else result.unsqueeze(0)
        entering = now.unsqueeze(3).unbind(0)
        leaving = [*now[1:].unbind(0), upcoming[0]]
        now = upcoming
        expanded = features.new_empty(halves, batch, shape.physical, run.bonds[first][0])
        flat = expanded.flatten(2)
        for i, feature in enumerate(ordered[first:last].unbind(0)):
            torch.mul(feature, entering[i], out=expanded)
            torch.bmm(flat, cores[i], out=leaving[i])
            step = first + i
            if step % RESCALE_EVERY == RESCALE_EVERY - 1:
                power = power_of_two(leaving[i])
                factor = saved.factor(step // RESCALE_EVERY).copy_(torch.exp2(-power).unsqueeze(-1))
                leaving[i].mul_(factor)
                exponent += power
    return result, exponent


def backward(
    gradients: tuple[Tensor, Tensor],
    features: Tensor,
    weight: Tensor,
    shape: ChainShape,
    saved: Tensor,
    want_features: bool,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the weights and, if wanted, of the features `[b, n, d]`, in PyTorch's complex convention.

    Args:
        gradients: those of `left` and `right`.
        features: as in `forward`.
        weight: as in `forward`.
        shape: as in `forward`.
        saved: the last output of `forward`.
        want_features: whether to compute the gradient of the features.

    Example:
        >>> shape = ChainShape(2, (1, 2), (2, 1))
        >>> f, w = torch.ones(3, 2, 2), torch.ones(8)
        >>> left, right, _, saved = forward(f, w, shape, keep=True)
        >>> backward((torch.ones_like(left), torch.ones_like(right)), f, w, shape, saved, False)[0]
        tensor([3., 3., 3., 3., 3., 3., 3., 3.])
    """
    batch = features.shape[0]
    gradient = torch.empty_like(weight)
    of_features = features.new_empty(shape.n_sites, batch, shape.physical) if want_features else None
    place = 0
    runs = _runs(shape)
    for run in runs:
        size = _Saved.size(run, batch)
        incoming = torch.stack(gradients) if len(runs) == 1 else gradients[int(run.right[0])].unsqueeze(0)
        kept = _Saved(run, batch, saved[place : place + size])
        _backward_run(incoming, features, weight, shape, run, kept, (gradient, of_features))
        place += size
    return gradient, None if of_features is None else of_features.permute(1, 0, 2).contiguous()


def _backward_run(
    adjoint: Tensor,
    features: Tensor,
    weight: Tensor,
    shape: ChainShape,
    run: _Run,
    saved: _Saved,
    outputs: tuple[Tensor, Tensor | None],
) -> None:
    """Writes the gradients of a run's cores (and features) into `outputs`."""
    halves, batch, d = len(run.right), features.shape[0], shape.physical
    ordered = _ordered(features, run).conj().resolve_conj()
    for number, (first, last) in reversed(list(enumerate(run.chunks()))):
        k, j = run.bonds[first]
        count = last - first
        cores = _cores(weight, shape, run, first, last).conj().resolve_conj()
        turned = cores.transpose(-1, -2).flatten(2, 3).unbind(0)
        leaving = adjoint.new_empty(count, halves, batch, j)
        leaving[-1] = adjoint
        adjoint = adjoint.new_empty(halves, batch, k)
        below = [adjoint, *leaving[:-1].unbind(0)]
        expanded = adjoint.new_empty(halves, batch, d, j)
        flat = expanded.flatten(2)
        sources = leaving.unsqueeze(3).unbind(0)
        feature = ordered[first:last].unbind(0)
        for i in range(count - 1, -1, -1):
            step = first + i
            if step % RESCALE_EVERY == RESCALE_EVERY - 1:
                leaving[i].mul_(saved.factors[step // RESCALE_EVERY])
            torch.mul(feature[i], sources[i], out=expanded)
            torch.bmm(flat, turned[i], out=below[i])
        entering = saved.entering[number].conj()
        vectors = (ordered[first:last] * entering.unsqueeze(3)).flatten(3)
        of_cores = torch.matmul(vectors.transpose(-1, -2), leaving).view(count, halves, d, k, j)
        _scatter(of_cores, shape, run, first, last, outputs[0])
        if outputs[1] is not None:
            through = torch.einsum("shekj,shbj->shbek", cores, leaving)
            found = torch.einsum("shbk,shbek->shbe", entering, through)
            n = len(outputs[1])
            for half, is_right in enumerate(run.right):
                target = outputs[1][n - last : n - first] if is_right else outputs[1][first:last]
                target.copy_(found[:, half].flip(0) if is_right else found[:, half])


def _scatter(of_cores: Tensor, shape: ChainShape, run: _Run, first: int, last: int, gradient: Tensor) -> None:
    """Gradients `[step, half, e, k, j]` of a chunk to where its cores lie; the inverse of `_cores`."""
    count, _, d, k, j = of_cores.shape
    for half, is_right in enumerate(run.right):
        lowest = min(run.sites[first][half], run.sites[last - 1][half])
        start = shape.offsets[lowest]
        stretch = gradient[start : start + count * d * k * j]
        if is_right:
            stretch.view(count, d, j, k).copy_(of_cores[:, half].flip(0).transpose(-1, -2))
        else:
            stretch.view(count, d, k, j).copy_(of_cores[:, half])
