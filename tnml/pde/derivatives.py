"""Values of a function u(t, x) with its gradient or one directional derivative, at many points at once."""

from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor, Tensor], Tensor]  # u: t [m, 1], x [m, d] -> [m, 1]


def value_and_gradient(u: Function, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """`u(t, x) [m, 1]` and `Du(t, x) [m, d]`, both differentiable again if gradients are enabled.

    If u has a method `value_and_gradient(t, x)` of its own, as `Ansatz` has, that is called.

    Example:
        >>> t, x = torch.zeros(1, 1), torch.ones(1, 2)
        >>> y, z = value_and_gradient(lambda t, x: (x**3).sum(1, keepdim=True), t, x)
        >>> y.item(), z.tolist()
        (2.0, [[3.0, 3.0]])
    """
    own = getattr(u, "value_and_gradient", None)
    found: tuple[Tensor, Tensor] = own(t, x) if own is not None else reverse_gradient(lambda x: u(t, x), x)
    return found


def value_and_slope(u: Function, t: Tensor, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """`u(t, x) [m, 1]` and `v . Du(t, x) [m, 1]`, both differentiable again.

    If u has a method `value_and_slope(t, x, v)` of its own, as `Ansatz` has, that is called, and may use
    forward mode. Any other function is differentiated in reverse mode: what `torch.func.jvp` returns cannot
    always be differentiated again (through a layer norm its gradient is silently wrong), and is not faster.

    Example:
        >>> x, v = torch.ones(1, 2), torch.tensor([[1.0, 2.0]])
        >>> y, slope = value_and_slope(lambda t, x: (x**3).sum(1, keepdim=True), torch.zeros(1, 1), x, v)
        >>> slope.item()
        9.0
    """
    own = getattr(u, "value_and_slope", None)
    if own is not None:
        found: tuple[Tensor, Tensor] = own(t, x, v)
        return found
    y, z = reverse_gradient(lambda x: u(t, x), x)
    return y, (z * v).sum(1, keepdim=True)


def reverse_gradient(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """`f(x) [m, 1]` and its gradient `[m, d]` by reverse mode; the rows of x must not mix.

    The gradient keeps its graph if gradients are enabled: the parameters of f learn through it.

    Example:
        >>> reverse_gradient(lambda x: (x**2).sum(1, keepdim=True), torch.ones(1, 2))[1].tolist()
        [[2.0, 2.0]]
    """
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = x if x.requires_grad else x.detach().requires_grad_()
        y = f(inputs)
        if not y.requires_grad:  # a constant
            return y, torch.zeros_like(x)
        (z,) = torch.autograd.grad(y.sum(), inputs, create_graph=keep, materialize_grads=True)
    return (y, z) if keep else (y.detach(), z.detach())
