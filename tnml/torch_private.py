"""Everything private of torch that tnml uses, in one place: a newer torch may drop a name without notice.

`tests/test_torch_private.py` says which name is gone, and that no other module uses any.
"""

from typing import TypeGuard

import torch
from torch import Tensor, nn


def function_transform_at_work() -> bool:
    """Whether a transformation of torch.func (vmap, grad, jvp, ...) surrounds the call.

    Example:
        >>> function_transform_at_work()
        False
        >>> torch.func.vmap(lambda x: x * function_transform_at_work())(torch.ones(1))
        tensor([1.])
    """
    return torch._C._functorch.peek_interpreter_stack() is not None


def batched_by_autograd(tensor: Tensor) -> bool:
    """Whether the tensor stands for many gradients: `torch.autograd.grad(..., is_grads_batched=True)`.

    Example:
        >>> batched_by_autograd(torch.ones(1))
        False
    """
    return torch._C._functorch.is_legacy_batchedtensor(tensor)


def forward_mode_at_work() -> bool:
    """Whether the call is inside `torch.autograd.forward_ad.dual_level()`.

    Example:
        >>> with torch.autograd.forward_ad.dual_level():
        ...     forward_mode_at_work()
        True
    """
    return torch.autograd.forward_ad._current_level >= 0


def dispatch_mode_at_work() -> bool:
    """Whether a `TorchDispatchMode`, fake tensors among them, sees the calls: it may compute nothing.

    Example:
        >>> dispatch_mode_at_work()
        False
    """
    return torch._C._len_torch_dispatch_stack() > 0


def lerp_all_(values: list[Tensor], targets: list[Tensor], weight: float) -> None:
    """Moves each value the part `weight` of its way to its target, all of them in few calls.

    Example:
        >>> value = torch.zeros(1)
        >>> lerp_all_([value], [torch.ones(1)], 0.25)
        >>> value
        tensor([0.2500])
    """
    torch._foreach_lerp_(values, targets, weight)


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether hooks are called before or after the module's `forward`.

    Example:
        >>> has_forward_hooks(nn.Identity())
        False
    """
    return bool(module._forward_hooks or module._forward_pre_hooks)


def put_buffer(module: nn.Module, name: str, buffer: Tensor | None) -> None:
    """Makes `buffer` the module's buffer of this name again, saved or not in the state dict as it was.

    Example:
        >>> norm, mean = nn.BatchNorm1d(1), torch.ones(1)
        >>> put_buffer(norm, "running_mean", mean)
        >>> norm.running_mean is mean
        True
    """
    module._buffers[name] = buffer


def is_batch_norm(module: nn.Module) -> TypeGuard[nn.BatchNorm1d]:
    """Whether the module is a batch norm of any kind.

    Example:
        >>> is_batch_norm(nn.SyncBatchNorm(3)), is_batch_norm(nn.LayerNorm(3))
        (True, False)
    """
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def is_dropout(module: nn.Module) -> TypeGuard[nn.Dropout]:
    """Whether the module is a dropout of torch, of any kind.

    Example:
        >>> is_dropout(nn.AlphaDropout()), is_dropout(nn.Identity())
        (True, False)
    """
    return isinstance(module, nn.modules.dropout._DropoutNd)
