"""The norm of a chain: both layers contracted from the ends to the label site, with a hand-written adjoint.

    forward    E_{s+1} = sum_e A_s[e]^H E_s A_s[e]            all E_s are kept
    adjoint    K_s     = sum_e A_s[e] K_{s+1} A_s[e]^H        K = F + F^H, F the gradient of E
    gradient   dA_s[e] = E_s A_s[e] K_{s+1}

E_s `(k, k)` is Hermitian: what the ket and the bra of the sites behind it make of a bond. There is no batch:
a step is two products of a (k, k) with a (k, e j) matrix, 2 d chi^3 multiply-adds, its adjoint three.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from tnml.contraction.chain.kernels_torch import Run, runs_of
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
    joined = torch.einsum("lm,mcs,rs->lcr", left, label, right)
    total = (joined * label.conj()).sum().real
    return total.log() + exponent.sum() * math.log(2)


def reference_ends(weight: Tensor, shape: ChainShape) -> tuple[Tensor, Tensor, Tensor]:
    """What the two layers of either half make of its bond at the label site, as a plain recurrence.

    Returns:
        `left [l, l]`, `right [r, r]`, index of the bra first, and binary exponents `[2]` of their scales.

    Example:
        >>> left, right, _ = reference_ends(torch.tensor([3.0, 4.0, 0.0, 2.0]), ChainShape(2, (1, 1), (1, 1)))
        >>> left, right
        (tensor([[25.]]), tensor([[4.]]))
    """
    cores, found = shape.split(weight), []
    mirrored = [core.transpose(1, 2) for core in reversed(cores[shape.label_site :])]
    for half in (cores[: shape.label_site], mirrored):
        env = weight.new_ones(1, 1)
        exponent = torch.zeros((), dtype=weight.real.dtype, device=weight.device)
        for step, core in enumerate(half):
            env = torch.einsum("ekj,kl,elm->jm", core.conj(), env, core)
            if step % RESCALE_EVERY == RESCALE_EVERY - 1:
                power = power_of_two(env.flatten())
                env, exponent = env * torch.exp2(-power), exponent + power
        found.append((env, exponent))
    (left, first), (right, second) = found
    return left, right, torch.stack([first, second])


class _Ends(torch.autograd.Function):
    """`reference_ends`, halves that mirror each other together, and its adjoint."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, shape: ChainShape) -> tuple[Tensor, Tensor, Tensor]:
        keep, ends, exponents = ctx.needs_input_grad[0], [], []
        ctx.shape, ctx.kept = shape, []
        for run in runs_of(shape):
            env, exponent, kept = _forward_run(weight.detach(), shape, run, keep)
            ctx.kept.append(kept)
            ends += env.unbind(0)
            exponents += exponent.unbind(0)
        exponent = torch.stack(exponents)
        ctx.save_for_backward(weight, exponent)
        ctx.mark_non_differentiable(exponent)
        return ends[0].clone(), ends[1].clone(), exponent

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        weight, exponent = ctx.saved_tensors
        if torch.is_grad_enabled() or transformed(*gradients[:2]):
            return _differentiable(gradients[:2], weight, exponent, ctx.shape), None
        found = torch.empty_like(weight)
        runs = runs_of(ctx.shape)
        for run, kept in zip(runs, ctx.kept, strict=True):
            incoming = torch.stack(gradients[:2]) if len(runs) == 1 else gradients[run.right[0]].unsqueeze(0)
            _backward_run(incoming, ctx.shape, run, kept, found)
        return found, None


_Kept = list[tuple[Tensor, Tensor, list[Tensor]]]


def _forward_run(weight: Tensor, shape: ChainShape, run: Run, keep: bool) -> tuple[Tensor, Tensor, _Kept]:
    """E `[half, k, k]` at the label site, exponents `[half]`, and of every chunk cores, E and factors."""
    halves = len(run.right)
    env = weight.new_ones(halves, 1, 1)
    exponent = torch.zeros(halves, dtype=weight.real.dtype, device=weight.device)
    every = shape.split(weight)
    kept: _Kept = []
    for first, last in run.chunks():
        k, j = run.bonds[first]
        d, count = shape.physical, last - first
        cores = weight.new_empty(count, halves, k, d, j)
        wide = cores.view(count, halves, k, d * j).unbind(0)
        tall = cores.view(count, halves, k * d, j).mH.unbind(0)
        entering = weight.new_empty(count, halves, k, k)
        factors = []
        for i in range(count):
            for core, site, is_right in zip(cores[i], run.sites[first + i], run.right, strict=True):
                core.copy_(every[site].permute(2, 0, 1) if is_right else every[site].transpose(0, 1))
            entering[i] = env
            env = torch.bmm(tall[i], torch.bmm(env, wide[i]).view(halves, k * d, j))
            if (first + i) % RESCALE_EVERY == RESCALE_EVERY - 1:
                power = power_of_two(env.flatten(1))
                factors.append(torch.exp2(-power).view(-1, 1, 1))
                env = env * factors[-1]
                exponent = exponent + power
        if keep:
            kept.append((cores, entering, factors))
    return env, exponent, kept


def _backward_run(incoming: Tensor, shape: ChainShape, run: Run, kept: _Kept, gradient: Tensor) -> None:
    """Writes the gradients of a run's cores into `gradient`, core by core, while they are in the cache."""
    adjoint = incoming + incoming.mH
    halves, d = len(run.right), shape.physical
    every = shape.split(gradient)
    for (first, last), (cores, entering, factors) in reversed(list(zip(run.chunks(), kept, strict=True))):
        k, j = run.bonds[first]
        count = last - first
        tall, turned = cores.view(count, halves, k * d, j), cores.view(count, halves, k, d * j).mH
        place = len(factors)
        for i in range(count - 1, -1, -1):
            if (first + i) % RESCALE_EVERY == RESCALE_EVERY - 1:
                place -= 1
                adjoint = adjoint * factors[place]
            through = torch.bmm(tall[i], adjoint).view(halves, k, d * j)
            adjoint = torch.bmm(through, turned[i])
            found = torch.bmm(entering[i], through).view(halves, k, d, j)
            for half, (site, is_right) in enumerate(zip(run.sites[first + i], run.right, strict=True)):
                every[site].copy_(found[half].permute(1, 2, 0) if is_right else found[half].transpose(0, 1))


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
