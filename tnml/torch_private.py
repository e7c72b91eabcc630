"""Everything private of torch that tnml uses, in one place: a newer torch may drop a name without notice.

`tests/test_torch_private.py` says which name is gone, and that no other module uses any.
"""

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

Function = TypeVar("Function", bound=Callable[..., Any])
_OPTIMIZER = vars(sys.modules[torch.optim.Optimizer.__module__])  # torch.optim hides the module's name
_HOOKS_OF_ALL = _OPTIMIZER["_global_optimizer_pre_hooks"], _OPTIMIZER["_global_optimizer_post_hooks"]


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


def fused_adam_(optimizer: torch.optim.Adam) -> bool:
    """Takes the step of a fused Adam or AdamW where nothing but the step would happen; else it does nothing.

    The optimiser's own `step` calls the same function, after ten times as long in Python.

    Returns:
        Whether the step was taken. Not where hooks are registered, a parameter has no gradient or no state
        yet, or there are several dtypes or devices.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> optimizer = torch.optim.Adam([weight], fused=True)
        >>> weight.grad = torch.ones(2)
        >>> fused_adam_(optimizer)
        False
        >>> _ = optimizer.step()
        >>> fused_adam_(optimizer), optimizer.state[weight]["step"]
        (True, tensor(2.))
    """
    group = group_of_plain_adam(optimizer)
    if group is None:
        return False
    parameters = group["params"]
    first = parameters[0]
    gradients, means, squares, steps = [], [], [], []
    for p in parameters:
        state = optimizer.state.get(p)
        if not state or p.grad is None or p.dtype != first.dtype or p.device != first.device:
            return False
        gradients.append(p.grad)
        means.append(state["exp_avg"])
        squares.append(state["exp_avg_sq"])
        steps.append(state["step"])
    beta1, beta2 = group["betas"]
    step = torch._fused_adamw_ if settings_of_adam(optimizer)["decoupled"] else torch._fused_adam_
    with torch.no_grad():
        torch._foreach_add_(steps, 1)
        step(
            parameters, gradients, means, squares, [], steps,
            lr=group["lr"], beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"],
            amsgrad=False, maximize=False, grad_scale=None, found_inf=None,
        )  # fmt: skip
    return True


def group_of_plain_adam(optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """The parameter group of a fused Adam or AdamW in whose step nothing else would happen; else None.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> group_of_plain_adam(torch.optim.Adam([weight], lr=0.5, fused=True))["lr"]
        0.5
        >>> group_of_plain_adam(torch.optim.SGD([weight])) is None
        True
    """
    if (
        type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW)
        or "step" in vars(optimizer)
        or optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or any(_HOOKS_OF_ALL)
        or len(optimizer.param_groups) != 1
    ):
        return None
    (group,) = optimizer.param_groups
    plain = not (group["amsgrad"] or group["maximize"] or group["capturable"] or group["differentiable"])
    return group if group["fused"] and plain and isinstance(group["lr"], float) else None


def settings_of_adam(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What an Adam does besides following its rate; AdamW decays weights apart from the gradient.

    Example:
        >>> settings_of_adam(torch.optim.AdamW([torch.ones(2, requires_grad=True)], weight_decay=0.1))
        {'betas': (0.9, 0.999), 'eps': 1e-08, 'decay': 0.1, 'decoupled': True}
    """
    group = optimizer.param_groups[0]
    decoupled = group.get("decoupled_weight_decay", type(optimizer) is torch.optim.AdamW)
    return {
        "betas": group["betas"],
        "eps": group["eps"],
        "decay": group["weight_decay"],
        "decoupled": bool(decoupled),
    }


def state_of_adam(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What a fused Adam keeps of a parameter, as its first step would make it where there is none yet.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> state_of_adam(torch.optim.Adam([weight], fused=True), weight)["step"]
        tensor(0.)
    """
    state: dict[str, Tensor] = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return state


def is_watched(module: nn.Module) -> bool:
    """Whether hooks of any kind see calls of a module itself, or gradients of its own parameters.

    Example:
        >>> linear = nn.Linear(2, 3)
        >>> before, _ = is_watched(linear), linear.weight.register_hook(lambda gradient: None)
        >>> before, is_watched(linear)
        (False, True)
    """
    backward = module._backward_hooks or module._backward_pre_hooks
    if has_forward_hooks(module) or backward or torch.nn.modules.module._has_any_global_hook():
        return True
    return any(
        p is not None and (p._backward_hooks or p._post_accumulate_grad_hooks)
        for p in module._parameters.values()
    )


def smoothed_cross_entropy_adjoint(
    gradient: Tensor, logs: Tensor, y: Tensor, smoothing: float, count: Tensor
) -> Tensor:
    """The gradient of `cross_entropy(outputs, y, label_smoothing=smoothing)`, to the last bit.

    Args:
        gradient: `[]`, of the loss.
        logs: `[b, c]` logarithms of the probabilities.
        y: `[b]` labels.
        smoothing: above 0.
        count: `[]`, the number b in the dtype of the logarithms.

    Example:
        >>> outputs, y = torch.tensor([[2.0, 0.0]], requires_grad=True), torch.tensor([0])
        >>> nn.functional.cross_entropy(outputs, y, label_smoothing=0.1).backward()
        >>> logs = outputs.detach().log_softmax(1)
        >>> found = smoothed_cross_entropy_adjoint(torch.tensor(1.0), logs, y, 0.1, torch.tensor(1.0))
        >>> torch.equal(found, outputs.grad)
        True
    """
    of_logs = torch.ops.aten.nll_loss_backward(gradient * (1 - smoothing), logs, y, None, 1, -100, count)
    of_logs -= gradient * (smoothing / logs.shape[1]) / count
    return torch._log_softmax_backward_data(of_logs, logs, 1, logs.dtype)


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


def modes_disabled() -> AbstractContextManager[object]:
    """A block in which no `TorchDispatchMode` sees the calls: tensors made in it hold numbers.

    Example:
        >>> with modes_disabled():
        ...     dispatch_mode_at_work()
        False
    """
    return torch.utils._python_dispatch._disable_current_modes()


def holds_numbers(tensor: Tensor) -> bool:
    """Whether the entries of a tensor exist: not on the meta device and not under a `FakeTensorMode`.

    Example:
        >>> holds_numbers(torch.ones(1)), holds_numbers(torch.ones(1, device="meta"))
        (True, False)
    """
    return not tensor.is_meta and not torch._subclasses.fake_tensor.is_fake(tensor)


def computed_by_hooks(module: nn.Module) -> dict[str, Callable[[nn.Module, object], object]]:
    """The hooks of torch.nn.utils that compute tensors of a module before each call, by the tensor's name.

    Example:
        >>> linear = torch.nn.utils.prune.l1_unstructured(nn.Linear(2, 3), "weight", 0.5)
        >>> list(computed_by_hooks(linear))
        ['weight']
    """
    found: dict[str, Callable[[nn.Module, object], object]] = {}
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            found[hook._tensor_name] = hook
        elif isinstance(hook, WeightNorm | SpectralNorm):
            found[hook.name] = hook
    return found


def as_plain_tensors() -> AbstractContextManager[object]:
    """A block in which subclasses of tensors are handled as tensors, and results are tensors.

    Example:
        >>> with as_plain_tensors():
        ...     type(nn.Parameter(torch.ones(1)) + 1)
        <class 'torch.Tensor'>
    """
    return torch._C.DisableTorchFunctionSubclass()


def constant_in_graphs(function: Function) -> Function:
    """Marks a function that torch.compile calls while it traces, to keep the result as a constant.

    `torch.compiler.assume_constant_result` does the same, but imports the compiler: a second and a half that
    every program would pay for.

    Example:
        >>> @constant_in_graphs
        ... def plan(batch):
        ...     return batch // 2
        >>> plan(6)
        3
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def scan(
    step: Callable[[Any, Any], tuple[Tensor, ...]], start: tuple[Tensor, ...], inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """What `step(state, slices)` makes of `start` over the slices of `inputs`: one node of a traced graph.

    Example:
        >>> scan(lambda state, x: (state[0] + x[0],), (torch.zeros(1),), (torch.ones(5, 1),))
        (tensor([5.]),)
    """
    if not torch.compiler.is_compiling():
        return functools.reduce(step, zip(*inputs, strict=True), start)

    def counted(state: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return list(step(tuple(state), tuple(slices))), []

    final, _ = torch._higher_order_ops.scan(counted, list(start), list(inputs))
    return tuple(final)
