"""Products with a large tensor-train matrix that is rebuilt slice by slice and never exists as a whole.

The cores are multiplied out into two halves, A `(o1, i1, r)` and S `(o2, r, i2)`. For a few o2 at a time the
slice `W[o2] = A @ S[o2]`, `(o1 i1, r) @ (r, i2)`, is `(o1, i1 i2)` without a permutation and small enough for
the cache; inputs, outputs and gradients meet it there. Only the outputs have to be permuted, `(o2, o1)` to
`(o1, o2)`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tnml.contraction.transforms import differentiable_gradients, transformed
from tnml.contraction.tt.matrix import multiply_cores


def halves(cores: Sequence[Tensor], first: int) -> tuple[Tensor, Tensor]:
    """A `(o1, i1, r)` of the first cores and S `(o2, r, i2)` of the others.

    Example:
        >>> a, s = halves([torch.ones(1, 2, 3, 4), torch.ones(4, 5, 6, 1)], 1)
        >>> tuple(a.shape), tuple(s.shape)
        ((2, 3, 4), (5, 4, 6))
    """
    return multiply_cores(cores[:first])[0], multiply_cores(cores[first:])[..., 0].transpose(
        0, 1
    ).contiguous()


def whole_matrix(a: Tensor, s: Tensor) -> Tensor:
    """The matrix `[o, i]` at once.

    Example:
        >>> whole_matrix(torch.ones(2, 3, 4), torch.ones(5, 4, 6)).shape
        torch.Size([10, 18])
    """
    (o1, i1, _), (o2, _, i2) = a.shape, s.shape
    return torch.einsum("oir,prj->opij", a, s).reshape(o1 * o2, i1 * i2)


class Slices(torch.autograd.Function):
    """`x W^T`, called as `Slices.apply(x, a, s, block, keep)`: `block` slices at a time, kept or rebuilt.

    Example:
        >>> Slices.apply(torch.ones(1, 6), torch.ones(2, 3, 4), torch.ones(5, 4, 2), 2, False)[0, :3]
        tensor([24., 24., 24.])
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, s: Tensor, block: int, keep: bool) -> Tensor:
        """The outputs `[b, o]`."""
        (o1, i1, rank), (o2, _, i2) = a.shape, s.shape
        matrix = a.reshape(1, o1 * i1, rank)
        turned = x.new_empty(x.shape[0], o2 * o1)  # a block's outputs are neighbouring columns here
        kept: list[Tensor] = []
        keep = keep and any(ctx.needs_input_grad)
        weight = x.new_empty(0)
        for first in range(0, o2, block):
            some = s[first : first + block]
            # Blocks that are not kept share one buffer, which stays in the cache; the last may be shorter.
            if keep or weight.shape[0] != len(some):
                weight = x.new_empty(len(some), o1 * i1, i2)
            torch.bmm(matrix.expand(len(some), -1, -1), some, out=weight)
            target = turned[:, first * o1 : (first + len(some)) * o1]
            torch.mm(x, weight.view(-1, i1 * i2).t(), out=target)
            if keep:
                kept.append(weight)
        ctx.block = block
        ctx.save_for_backward(x, a, s, *kept)
        y = x.new_empty(x.shape[0], o1 * o2)  # never a view, which the user could not change in place
        y.view(-1, o1, o2).copy_(turned.view(-1, o2, o1).transpose(1, 2))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the inputs and of both halves."""
        x, a, s, *kept = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled() or transformed(gradients[0]):
            again = differentiable_gradients(
                lambda x, a, s: x @ whole_matrix(a, s).t(), [x, a, s], wanted, gradients[0]
            )
            return (*again, None, None)
        (o1, i1, rank), (o2, _, i2) = a.shape, s.shape
        matrix = a.reshape(1, o1 * i1, rank)
        incoming = gradients[0].reshape(-1, o1, o2).transpose(1, 2).reshape(-1, o1 * o2)
        of_x = torch.zeros_like(x, memory_format=torch.contiguous_format)
        of_a, of_s = a.new_zeros(o1 * i1, rank), torch.empty_like(s)
        weight = slope = parts = x.new_empty(0)
        for number, first in enumerate(range(0, o2, ctx.block)):
            some = s[first : first + ctx.block]
            if slope.shape[0] != len(some):
                slope, parts = x.new_empty(len(some), o1 * i1, i2), x.new_empty(len(some), o1 * i1, rank)
                weight = slope.new_empty(0 if kept else slope.shape)
            part = incoming[:, first * o1 : (first + len(some)) * o1]
            if wanted[0]:
                if kept:
                    weight = kept[number]
                else:
                    torch.bmm(matrix.expand(len(some), -1, -1), some, out=weight)
                of_x.addmm_(part, weight.view(-1, i1 * i2))
            # The slope of a slice, dL/dW[o2], meets both halves while it is in the cache.
            if wanted[1] or wanted[2]:
                torch.mm(part.t(), x, out=slope.view(-1, i1 * i2))
                torch.bmm(matrix.mT.expand(len(some), -1, -1), slope, out=of_s[first : first + len(some)])
                of_a += torch.bmm(slope, some.mT, out=parts).sum(0)
        found = (of_x, of_a.view(a.shape), of_s)
        return (*(g if wish else None for g, wish in zip(found, wanted, strict=True)), None, None)
