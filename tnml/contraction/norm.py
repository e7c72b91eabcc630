"""The norm of a chain: both layers contracted from the ends to the label site, with a hand-written adjoint.

    left half    E_{s+1} = sum_d A_s[d]^H E_s A_s[d]       right half    E_s = sum_d A_s[d] E_{s+1} A_s[d]^H
    adjoint      K_s     = sum_d A_s[d] K_{s+1} A_s[d]^H   with K = F + F^H, F the gradient of E
    gradient     dA_s[d] = E_s A_s[d] K_{s+1}              and the mirror image on the right

E is Hermitian: what the ket and the bra of the sites behind it make of a bond. There is no batch: a step is
two products with a core as it lies in memory, 2 d chi^3 multiply-adds, its adjoint three.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from tnml.contraction.chain.reference import power_of_two
from tnml.contraction.chain.shape import ChainShape
from tnml.contraction.transforms import traced, transformed
from tnml.errors import InputError

RESCALE_EVERY = 4  # sites: E grows like the square of a vector, which the chain rescales every eight


def chain_log_norm(
    weight: Inexact[Tensor, " w"], label: Inexact[Tensor, "l c r"], shape: ChainShape
) -> Float[Tensor, ""]:
    """The logarithm of the squared 2-norm of the tensor that a chain and its label core make up.

        1 ══ A ══ .. ══ A ══ label ══ A ══ .. ══ A ══ 1        two layers; the legs d and c join them
             A*         A*   label*   A*         A*

    Args:
        weight: `[shape.n_weights]`, real or complex.
        label: `(l, c, r)`; a chain without one has the identity, `(l, 1, l)`.
        shape: bonds and label site.

    Raises:
        InputError: the sizes do not fit.

    Cost: 2 n d chi^3 multiply-adds, 5 n d chi^3 with the gradient; n chi² numbers are kept for it. Nothing
    overflows or vanishes, however many sites there are.

    Example:
        >>> shape = ChainShape(2, (1, 1), (1, 1))
        >>> chain_log_norm(torch.tensor([3.0, 4.0, 0.0, 2.0]), torch.ones(1, 1, 1), shape).exp()
        tensor(100.0000)
    """
    ends = (shape.left[-1], shape.right[0])
    if weight.shape != (shape.n_weights,) or label.dim() != 3 or (label.shape[0], label.shape[2]) != ends:
        raise InputError(
            f"expected {shape.n_weights} weights and a label core ({ends[0]}, c, {ends[1]}) for this chain, "
            f"got {list(weight.shape)} and {list(label.shape)}"
        )
    if transformed(weight, label) or traced():
        left, right, exponent = reference_ends(weight, shape)
    else:
        left, right, exponent = _Ends.apply(weight, shape)  # type: ignore[no-untyped-call]
    joined = torch.einsum("lm,mcs,sr->lcr", left, label, right)
    total = (joined * label.conj()).sum().real
    return total.log() + exponent.sum() * math.log(2)


def reference_ends(weight: Tensor, shape: ChainShape) -> tuple[Tensor, Tensor, Tensor]:
    """What the two layers of either half make of its bond at the label site, as a plain recurrence.

    Returns:
        `left [l, l]`, the bra first, `right [r, r]`, the ket first, and binary exponents `[2]` of their
        scales.

    Example:
        >>> left, right, _ = reference_ends(torch.tensor([3.0, 4.0, 0.0, 2.0]), ChainShape(2, (1, 1), (1, 1)))
        >>> left, right
        (tensor([[25.]]), tensor([[4.]]))
    """
    cores, found = shape.split(weight), []
    for half, equation in (
        (cores[: shape.label_site], "dkj,kl,dlm->jm"),
        ([core.conj() for core in reversed(cores[shape.label_site :])], "djk,kl,dml->jm"),
    ):
        env = weight.new_ones(1, 1)
        exponent = torch.zeros((), dtype=weight.real.dtype, device=weight.device)
        for step, core in enumerate(half):
            env = torch.einsum(equation, core.conj(), env, core)
            if step % RESCALE_EVERY == RESCALE_EVERY - 1:
                power = power_of_two(env.flatten())
                env, exponent = env * torch.exp2(-power), exponent + power
        found.append((env, exponent))
    (left, first), (right, second) = found
    return left, right, torch.stack([first, second])


class _Ends(torch.autograd.Function):
    """`reference_ends` and its adjoint."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, shape: ChainShape) -> tuple[Tensor, Tensor, Tensor]:
        cores, label = shape.split(weight.detach()), shape.label_site
        left, first, ctx.left = _inwards(cores[:label], weight, _sandwich)
        right, second, ctx.right = _inwards(cores[label:][::-1], weight, _outer)
        exponent = torch.stack([first, second])
        ctx.shape = shape
        ctx.save_for_backward(weight, exponent)
        ctx.mark_non_differentiable(exponent)
        return left, right, exponent

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        weight, exponent = ctx.saved_tensors
        if torch.is_grad_enabled() or transformed(*gradients[:2]):
            return _differentiable(gradients[:2], weight, exponent, ctx.shape), None
        found, label = torch.empty_like(weight), ctx.shape.label_site
        cores, of_cores = ctx.shape.split(weight), ctx.shape.split(found)
        adjoint = gradients[0] + gradients[0].mH
        for site, (env, factor) in zip(range(label - 1, -1, -1), reversed(ctx.left), strict=True):
            if factor is not None:
                adjoint = adjoint * factor
            core = cores[site]
            through = torch.mm(core.flatten(0, 1), adjoint).view(core.shape)
            torch.bmm(env.expand(len(core), -1, -1), through, out=of_cores[site])
            adjoint = torch.bmm(through, core.mH).sum(0)
        adjoint = gradients[1] + gradients[1].mH
        for site, (env, factor) in zip(range(label, len(cores)), reversed(ctx.right), strict=True):
            if factor is not None:
                adjoint = adjoint * factor
            core = cores[site]
            through = torch.bmm(adjoint.expand(len(core), -1, -1), core).flatten(0, 1)
            torch.mm(through, env, out=of_cores[site].flatten(0, 1))
            adjoint = torch.mm(core.flatten(0, 1).mH, through)
        return found, None


_Kept = list[tuple[Tensor, Tensor | None]]


def _sandwich(env: Tensor, core: Tensor) -> Tensor:
    """sum_d A[d]^H E A[d]."""
    half = torch.bmm(env.expand(len(core), -1, -1), core)
    return torch.mm(core.flatten(0, 1).mH, half.flatten(0, 1))


def _outer(env: Tensor, core: Tensor) -> Tensor:
    """sum_d A[d] E A[d]^H."""
    half = torch.mm(core.flatten(0, 1), env).view(core.shape)
    return torch.bmm(half, core.mH).sum(0)


def _inwards(
    cores: list[Tensor], like: Tensor, through: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor, _Kept]:
    """E at the label site, its exponent, and for every core what entered it and the factor after it."""
    env = like.new_ones(1, 1)
    exponent = torch.zeros((), dtype=like.real.dtype, device=like.device)
    kept: _Kept = []
    for step, core in enumerate(cores):
        entering, factor = env, None
        env = through(env, core)
        if step % RESCALE_EVERY == RESCALE_EVERY - 1:
            power = power_of_two(env.flatten())
            factor = torch.exp2(-power)
            env, exponent = env * factor, exponent + power
        kept.append((entering, factor))
    return env, exponent, kept


def _differentiable(
    gradients: tuple[Tensor, ...], weight: Tensor, exponent: Tensor, shape: ChainShape
) -> Tensor:
    """The gradient through the plain recurrence, so that it can be differentiated again."""
    with torch.enable_grad():
        own = weight.view_as(weight)
        left, right, powers = reference_ends(own, shape)
        factor = torch.exp2(powers - exponent)
        live = [
            (env * scale, of)
            for env, scale, of in zip((left, right), factor, gradients, strict=True)
            if env.requires_grad
        ]
        (found,) = torch.autograd.grad(
            [env for env, _ in live], own, [of for _, of in live], create_graph=True, materialize_grads=True
        )
    return found
