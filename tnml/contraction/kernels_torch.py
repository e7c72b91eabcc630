"""The `torch` engine: any device, any floating or complex dtype, hand-written adjoint.

    forward    v_{s+1}[b, j] = sum_{e, k} f[b, s, e] v_s[b, k] A_s[e, k, j]            all v_s are kept
    adjoint    g_s[b, k]     = sum_{e, j} f[b, s, e] g_{s+1}[b, j] A_s[e, k, j]*
    gradient   dA_s[e, k, j] = sum_b (f[b, s, e] v_s[b, k])* g_{s+1}[b, j]
               df[b, s, e]   = sum_{k, j} (v_s[b, k] A_s[e, k, j])* g_{s+1}[b, j]

k is the bond a half chain enters a site by, j the one it leaves by (towards the label site). A step is one
GEMM of the batch with an (e k, j) matrix, never a chi x chi matrix per sample. Where both halves have the
same bonds they run together as one batched GEMM; core gradients are one batched GEMM per chunk of sites.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.contraction.reference import RESCALE_EVERY, power_of_two
from tnml.contraction.shape import ChainShape

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
    """One run of both halves when they mirror each other, else one run a half."""
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


def saved_size(shape: ChainShape, batch: int) -> int:
    """Numbers that `forward` keeps for `backward`: every vector and the factors of the rescaling.

    Example:
        >>> saved_size(ChainShape(2, (1, 2), (2, 1)), batch=3)
        6
    """
    per_sample = 0
    for run in _runs(shape):
        per_sample += len(run.right) * (sum(k for k, _ in run.bonds) + len(run.bonds) // RESCALE_EVERY)
    return per_sample * batch


def _ordered(features: Tensor, run: _Run) -> Tensor:
    """Features `[step, half, b, e]` in the order of processing."""
    sites = torch.tensor(run.sites, device=features.device)
    return features.permute(1, 0, 2)[sites]


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
    saved = features.new_empty(saved_size(shape, batch) if keep else 0)
    place = 0
    vectors: list[Tensor] = []
    exponents: list[Tensor] = []
    for run in _runs(shape):
        halves = len(run.right)
        kept = halves * batch * (sum(k for k, _ in run.bonds) + len(run.bonds) // RESCALE_EVERY)
        vector, exponent = _forward_run(
            features, weight, shape, run, saved[place : place + kept] if keep else None
        )
        place += kept
        vectors += vector.unbind(0)
        exponents += exponent.unbind(0)
    return vectors[0].clone(), vectors[1].clone(), torch.stack(exponents), saved


def _forward_run(
    features: Tensor, weight: Tensor, shape: ChainShape, run: _Run, saved: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Takes the halves of a run to the label site; fills `saved` with what enters each step."""
    halves, batch = len(run.right), features.shape[0]
    vector = features.new_ones(halves, batch, 1)
    exponent = torch.zeros(halves, batch, dtype=weight.real.dtype, device=weight.device)
    ordered = _ordered(features, run) if run.sites else features
    place = 0
    for first, last in run.chunks():
        cores = _cores(weight, shape, run, first, last).flatten(2, 3)
        for step in range(first, last):
            if saved is not None:
                saved[place : place + vector.numel()].view_as(vector).copy_(vector)
                place += vector.numel()
            expanded = ordered[step].unsqueeze(-1) * vector.unsqueeze(2)
            vector = torch.bmm(expanded.flatten(2), cores[step - first])
            if step % RESCALE_EVERY == RESCALE_EVERY - 1:
                power = power_of_two(vector)
                factor = torch.exp2(-power).to(vector.dtype)
                vector = vector * factor.unsqueeze(-1)
                exponent = exponent + power
                if saved is not None:
                    saved[place : place + factor.numel()].view_as(factor).copy_(factor)
                    place += factor.numel()
    return vector, exponent


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
    gradient = torch.empty_like(weight)
    of_features = torch.empty_like(features.permute(1, 0, 2), memory_format=torch.contiguous_format)
    place = 0
    runs = _runs(shape)
    for run in runs:
        halves = len(run.right)
        kept = halves * features.shape[0] * (sum(k for k, _ in run.bonds) + len(run.bonds) // RESCALE_EVERY)
        incoming = torch.stack(gradients) if len(runs) == 1 else gradients[int(run.right[0])].unsqueeze(0)
        outputs = gradient, of_features if want_features else None
        if run.sites:
            _backward_run(incoming, features, weight, shape, run, saved[place : place + kept], outputs)
        place += kept
    return gradient, of_features.permute(1, 0, 2) if want_features else None


def _backward_run(
    adjoint: Tensor,
    features: Tensor,
    weight: Tensor,
    shape: ChainShape,
    run: _Run,
    saved: Tensor,
    outputs: tuple[Tensor, Tensor | None],
) -> None:
    """Writes the gradients of a run's cores (and features) into `outputs`."""
    halves, batch, d = len(run.right), features.shape[0], shape.physical
    ordered = _ordered(features, run).conj()
    end = saved.numel()
    for first, last in reversed(list(run.chunks())):
        k, j = run.bonds[first]
        count = last - first
        cores = _cores(weight, shape, run, first, last).conj()
        entering = adjoint.new_empty(count, halves, batch, k)
        leaving = adjoint.new_empty(count, halves, batch, j)
        turned = cores.transpose(-1, -2).flatten(2, 3)
        for step in range(last - 1, first - 1, -1):
            if step % RESCALE_EVERY == RESCALE_EVERY - 1:
                factor = saved[end - halves * batch : end].view(halves, batch, 1)
                end -= halves * batch
                adjoint = adjoint * factor
            leaving[step - first] = adjoint
            entering[step - first] = saved[end - halves * batch * k : end].view(halves, batch, k)
            end -= halves * batch * k
            expanded = ordered[step].unsqueeze(-1) * adjoint.unsqueeze(2)
            adjoint = torch.bmm(expanded.flatten(2), turned[step - first])
        expanded = ordered[first:last].unsqueeze(-1) * entering.conj().unsqueeze(3)
        of_cores = torch.matmul(expanded.flatten(3).transpose(-1, -2), leaving).view(count, halves, d, k, j)
        _scatter(of_cores, shape, run, first, last, outputs[0])
        if outputs[1] is not None:
            sites = torch.tensor(run.sites[first:last], device=features.device)
            through = torch.einsum("shekj,shbj->shbek", cores, leaving)
            outputs[1][sites] = torch.einsum("shbk,shbek->shbe", entering.conj(), through)


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
