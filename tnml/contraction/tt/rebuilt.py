"""Products with a small tensor-train matrix that is rebuilt from two halves at every call."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tnml.contraction.transforms import transformed
from tnml.contraction.tt.matrix import multiply_cores


def rebuild(a: Tensor, s: Tensor) -> Tensor:
    """The matrix `(o, i)` of halves `(1, o1, i1, r)` and `(r, o2, i2, 1)`.

    Example:
        >>> rebuild(torch.ones(1, 2, 3, 4), torch.ones(4, 5, 2, 1)).shape
        torch.Size([10, 6])
    """
    return multiply_cores((a, s))[0, :, :, 0]


class Rebuilt(torch.autograd.Function):
    """`x W^T + bias` as one node of the graph, called as `Rebuilt.apply(x, bias, a, s, outputs)`.

    Example:
        >>> Rebuilt.apply(torch.ones(1, 6), None, torch.ones(1, 2, 3, 4), torch.ones(4, 5, 2, 1), 3)
        tensor([[24., 24., 24.]])
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, a: Tensor, s: Tensor, outputs: int) -> Tensor:
        """The first `outputs` outputs."""
        weight = rebuild(a, s)
        if weight.shape != (outputs, x.shape[1]):
            weight = weight[:outputs, : x.shape[1]]
        ctx.weight = weight
        ctx.save_for_backward(x, a, s)
        return torch.nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of inputs, bias and halves."""
        (gradient,) = gradients
        x, a, s = ctx.saved_tensors
        of_x, of_bias, of_a, of_s, _ = ctx.needs_input_grad
        bias_gradient = gradient.sum(0) if of_bias else None
        if torch.is_grad_enabled() or transformed(gradient):
            found = _differentiable_gradients(gradient, x, a, s, (of_x, of_a, of_s))
            return found[0], bias_gradient, found[1], found[2], None
        x_gradient = gradient @ ctx.weight if of_x else None
        if not (of_a or of_s):
            return x_gradient, bias_gradient, None, None, None
        (_, o1, i1, rank), (_, o2, i2, _) = a.shape, s.shape
        if ctx.weight.shape == (o1 * o2, i1 * i2):
            slope = gradient.t() @ x
        else:
            slope = x.new_zeros(o1 * o2, i1 * i2)
            slope[: gradient.shape[1], : x.shape[1]] = gradient.t() @ x
        slope = slope.view(o1, o2, i1, i2).transpose(1, 2).reshape(o1 * i1, o2 * i2)
        a_gradient = (slope @ s.reshape(rank, -1).t()).view(a.shape) if of_a else None
        s_gradient = (a.reshape(-1, rank).t() @ slope).view(s.shape) if of_s else None
        return x_gradient, bias_gradient, a_gradient, s_gradient, None


def _differentiable_gradients(
    gradient: Tensor, x: Tensor, a: Tensor, s: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients through plain torch calls, so that they can be differentiated again."""
    with torch.enable_grad():
        weight = rebuild(a, s)[: gradient.shape[-1], : x.shape[1]]
        inputs = [t for t, wish in zip((x, a, s), wanted, strict=True) if wish]
        found = iter(torch.autograd.grad(x @ weight.t(), inputs, gradient, create_graph=True))
    return [next(found) if wish else None for wish in wanted]
