"""Which of torch's transformations are active in a call, and gradients that all of them can follow."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tnml.torch_private import (
    batched_by_autograd,
    dispatch_mode_at_work,
    forward_mode_at_work,
    function_transform_at_work,
)

_PLAIN = (Tensor, torch.nn.Parameter)  # subclasses may mean something else


def transformed(*tensors: Tensor) -> bool:
    """Whether torch.func or forward-mode differentiation is active: hand-written adjoints support neither.

    Example:
        >>> transformed(torch.ones(1)), torch.func.vmap(lambda x: x * transformed(x))(torch.ones(1))
        (False, tensor([1.]))
    """
    if torch.compiler.is_compiling():
        return False
    if function_transform_at_work() or any(map(batched_by_autograd, tensors)):
        return True
    dual = torch.autograd.forward_ad
    return forward_mode_at_work() and any(dual.unpack_dual(t).tangent is not None for t in tensors)


def plain(*tensors: Tensor) -> bool:
    """Whether the call is an ordinary one: nothing compiles, traces, watches or casts; tensors hold numbers.

    Then an operator may be evaluated by a direct call, without its entry in torch's registry.

    Example:
        >>> plain(torch.ones(1)), plain(torch.ones(1, device="meta"))
        (True, False)
    """
    if torch.compiler.is_compiling() or dispatch_mode_at_work():
        return False
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    if not all(type(t) in _PLAIN and (t.is_cpu or t.is_cuda) for t in tensors):
        return False
    return not torch.is_autocast_enabled(tensors[0].device.type)


def traced() -> bool:
    """Whether PyTorch records the call or computes nothing: what is found out now may not hold later.

    Example:
        >>> traced()
        False
    """
    return torch.compiler.is_compiling() or dispatch_mode_at_work()


def differentiable_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], wanted: Sequence[bool], gradient: Tensor
) -> list[Tensor | None]:
    """The gradients of a function of plain torch calls, so that they can be differentiated again.

    Args:
        function: takes all the inputs.
        inputs: where the gradients are taken.
        wanted: which gradients to compute; the others are None.
        gradient: that of the function's value, in its shape.

    Example:
        >>> x, y = torch.ones(2), torch.tensor([3.0, 4.0], requires_grad=True)
        >>> differentiable_gradients(lambda x, y: x * y**2, [x, y], [False, True], torch.ones(2))
        [None, tensor([6., 8.], grad_fn=<MulBackward0>)]
    """
    with torch.enable_grad():
        own = [t.view_as(t) for t in inputs]  # else one that depends on another would count twice
        asked = [t for t, wish in zip(own, wanted, strict=True) if wish]
        found = iter(torch.autograd.grad(function(*own), asked, gradient, create_graph=True))
    return [next(found) if wish else None for wish in wanted]
