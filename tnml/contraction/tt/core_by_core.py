"""A batch carried through a tensor-train matrix core by core, with an adjoint that keeps little.

At every core the batch is a stack `(n, a, c)` and the core a matrix `(p, a)`: the step is one batched product
`(p, a) @ (n, a, c)`, and the next core finds its own indices side by side, so nothing is ever permuted. From
the left a step has n = samples and outputs made so far, c = inputs to come; from the right the other way.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tnml.contraction.transforms import differentiable_gradients, transformed
from tnml.contraction.tt.shape import TTShape

BIG = 4 * 2**20  # elements beyond which the products of single samples are not kept side by side


def step_matrices(cores: Sequence[Tensor], *, left: bool) -> list[Tensor]:
    """The cores `(l, o, i, r)` as the matrices of the steps, in the order of the steps.

              o
              │
        l ── core ── r        from the left:   p = (o r), a = (l i)
              │               from the right:  p = (l o), a = (i r)
              i

    Example:
        >>> cores = [torch.ones(1, 2, 3, 4), torch.ones(4, 5, 6, 1)]
        >>> [tuple(matrix.shape) for matrix in step_matrices(cores, left=False)]
        [(20, 6), (2, 12)]
    """
    if left:
        return [core.permute(1, 3, 0, 2).reshape(core.shape[1] * core.shape[3], -1) for core in cores]
    return [core.reshape(core.shape[0] * core.shape[1], -1) for core in reversed(cores)]


def walk_steps(shape: TTShape, *, left: bool) -> list[tuple[int, int, int, int]]:
    """`(n, p, a, c)` of every step, n for one sample.

    Example:
        >>> walk_steps(TTShape((2, 3, 5), (1, 1, 4), (1, 6, 7, 1)), left=True)
        [(1, 6, 2, 15), (1, 7, 18, 5), (1, 4, 35, 1)]
    """
    steps = []
    made, to_come = 1, shape.in_size
    for k in range(shape.n_cores) if left else reversed(range(shape.n_cores)):
        near, far = shape.ranks[k : k + 2] if left else reversed(shape.ranks[k : k + 2])
        to_come //= shape.ins[k]
        n, c = (made, to_come) if left else (to_come, made)
        steps.append((n, shape.outs[k] * far, shape.ins[k] * near, c))
        made *= shape.outs[k]
    return steps


def walk_plainly(x: Tensor, rest: Sequence[int], matrices: Sequence[Tensor]) -> Tensor:
    """The walk in torch calls that can be differentiated in every way and to any order.

    Example:
        >>> walk_plainly(torch.ones(1, 6), [3, 1], [torch.ones(4, 2), torch.ones(5, 12)])[0]
        tensor([24., 24., 24., 24., 24.])
    """
    batch, size = x.shape
    state = x
    for matrix, c in zip(matrices, rest, strict=True):
        rows, inner = matrix.shape
        state = matrix @ state.reshape(batch * size // (inner * c), inner, c)
        size = size * rows // inner
    return state.reshape(batch, size)


class Walk(torch.autograd.Function):
    """`walk_plainly` in chunks of samples; the backward pass uses what was kept, or recomputes it.

    Called as `Walk.apply(x, chunk, keep, rest, *matrices)`.

    Example:
        >>> Walk.apply(torch.ones(1, 6), 1, True, [3, 1], torch.ones(4, 2), torch.ones(5, 12))[0]
        tensor([24., 24., 24., 24., 24.])
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, chunk: int, keep: bool, rest: Sequence[int], *matrices: Tensor
    ) -> Tensor:
        """The outputs `[b, o]`."""
        batch, size = x.shape
        for matrix in matrices:
            size = size * matrix.shape[0] // matrix.shape[1]
        y = x.new_empty(batch, size)
        kept: list[Tensor] = []
        keep = keep and any(ctx.needs_input_grad)
        for first in range(0, batch, chunk):
            part = x[first : first + chunk]
            states = _states(part, rest, matrices)
            target = y[first : first + chunk].view(-1, matrices[-1].shape[0], rest[-1])
            _product(matrices[-1], states[-1], target)  # straight into y: the outputs are never copied
            if keep:
                kept += states[1:]  # the first is a view of x, which is saved anyway
        ctx.chunk, ctx.rest, ctx.count = chunk, rest, len(matrices)
        ctx.save_for_backward(x, *matrices, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the inputs and of every matrix."""
        (gradient,) = gradients
        x, *others = ctx.saved_tensors
        matrices, kept = others[: ctx.count], others[ctx.count :]
        wanted = (ctx.needs_input_grad[0], *ctx.needs_input_grad[4:])
        if torch.is_grad_enabled() or transformed(gradient):
            of_x, *of_matrices = differentiable_gradients(
                lambda x, *matrices: walk_plainly(x, ctx.rest, matrices), [x, *matrices], wanted, gradient
            )
            return (of_x, None, None, None, *of_matrices)
        of_x = torch.empty_like(x, memory_format=torch.contiguous_format) if wanted[0] else None
        sums: list[Tensor | None] = [None] * len(matrices)
        for number, first in enumerate(range(0, x.shape[0], ctx.chunk)):
            part = x[first : first + ctx.chunk]
            if kept:
                inner = ctx.count - 1
                own = kept[number * inner : (number + 1) * inner]
                states = [part.reshape(-1, matrices[0].shape[1], ctx.rest[0]), *own]
            else:
                states = _states(part, ctx.rest, matrices)
            incoming = gradient[first : first + ctx.chunk]
            for k in range(len(matrices) - 1, -1, -1):
                incoming = incoming.reshape(-1, matrices[k].shape[0], ctx.rest[k])
                if wanted[k + 1]:
                    found = _weight_gradient(incoming, states[k])
                    known = sums[k]
                    sums[k] = found if known is None else known.add_(found)
                if k:
                    incoming = _product(matrices[k].t(), incoming)
                elif of_x is not None:
                    target = of_x[first : first + ctx.chunk].view(incoming.shape[0], -1, ctx.rest[0])
                    _product(matrices[0].t(), incoming, target)
        # An empty batch has no chunk, and its gradients are zero.
        filled = [
            torch.zeros_like(matrix) if wish and total is None else total
            for wish, total, matrix in zip(wanted[1:], sums, matrices, strict=True)
        ]
        return (of_x, None, None, None, *filled)


def _states(part: Tensor, rest: Sequence[int], matrices: Sequence[Tensor]) -> list[Tensor]:
    """What enters every step, `(n, a, c)`."""
    states = [part.reshape(-1, matrices[0].shape[1], rest[0])]
    for matrix, following, c in zip(matrices, matrices[1:], rest[1:], strict=False):
        states.append(_product(matrix, states[-1]).view(-1, following.shape[1], c))
    return states


def _product(matrix: Tensor, state: Tensor, out: Tensor | None = None) -> Tensor:
    """`(p, a) @ (n, a, c)`, as one matrix product where c is 1."""
    count, inner, c = state.shape
    if c == 1:
        target = None if out is None else out.view(count, -1)
        return torch.mm(state.view(count, inner), matrix.t(), out=target).unsqueeze(2)
    return torch.bmm(matrix.expand(count, -1, -1), state, out=out)


def _weight_gradient(incoming: Tensor, state: Tensor) -> Tensor:
    """The sum over n of `(n, p, c) @ (n, c, a)`: `(p, a)`."""
    count, rows, c = incoming.shape
    inner = state.shape[1]
    if c == 1:
        return incoming.view(count, rows).t() @ state.view(count, inner)
    if count == 1:
        return incoming[0] @ state[0].t()
    if copies_are_smaller(count, rows, inner, c):
        # n and c become one summed axis: one large product instead of many small ones.
        turned = incoming.transpose(1, 2).reshape(-1, rows)
        return turned.t() @ state.transpose(1, 2).reshape(-1, inner)
    return torch.bmm(incoming, state.transpose(1, 2)).sum(0)


def copies_are_smaller(count: int, rows: int, inner: int, c: int) -> bool:
    """Whether permuted copies of both operands take less than their `count` products side by side.

    Example:
        >>> copies_are_smaller(10, 64, 64, 16)
        True
    """
    return c * (rows + inner) < rows * inner or count * rows * inner > BIG
