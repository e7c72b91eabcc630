"""Which of torch's transformations are at work on a call."""

import torch
from torch import Tensor


def transformed(*tensors: Tensor) -> bool:
    """Whether torch.func or forward-mode differentiation is at work, which hand-written adjoints do not know.

    Example:
        >>> transformed(torch.ones(1)), torch.func.vmap(lambda x: x * transformed(x))(torch.ones(1))
        (False, tensor([1.]))
    """
    if torch.compiler.is_compiling():
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    if any(torch._C._functorch.is_legacy_batchedtensor(tensor) for tensor in tensors):  # is_grads_batched
        return True
    dual = torch.autograd.forward_ad
    return dual._current_level >= 0 and any(dual.unpack_dual(t).tangent is not None for t in tensors)
