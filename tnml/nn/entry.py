"""What layers ask of their inputs, and tensors that hold numbers whatever mode surrounds the call."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
from torch import Tensor, nn

from tnml.errors import InputError
from tnml.torch_private import dispatch_mode_at_work, modes_disabled

_INSTEAD = "use torch.compile, torch.export.export or torch.onnx.export(..., dynamo=True)"


def check_input(x: object) -> None:
    """Raises unless `x` is a tensor, and where `torch.jit.trace` would keep the numbers of one example.

    Raises:
        InputError: `x` is something else, or the call is being traced.

    Example:
        >>> check_input([0.5])
        Traceback (most recent call last):
        tnml.errors.InputError: expected a torch.Tensor, got list; convert it by torch.as_tensor
    """
    if not isinstance(x, Tensor):
        raise InputError(f"expected a torch.Tensor, got {type(x).__name__}; convert it by torch.as_tensor")
    if not torch.compiler.is_compiling() and torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        raise InputError(f"torch.jit.trace cannot follow layers of tnml; {_INSTEAD}")


def refuse_scripting(module: nn.Module) -> NoReturn:
    """The `__prepare_scriptable__` of modules that `torch.jit.script` cannot compile.

    Raises:
        InputError: always.

    Example:
        >>> refuse_scripting(nn.Identity())
        Traceback (most recent call last):
        tnml.errors.InputError: torch.jit.script cannot compile Identity; use torch.compile, ...
    """
    raise InputError(f"torch.jit.script cannot compile {type(module).__name__}; {_INSTEAD}")


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """Inside the block tensors are on the CPU and hold numbers, whatever default device or mode there is.

    Example:
        >>> with torch.device("meta"), on_the_cpu():
        ...     torch.ones(2)
        tensor([1., 1.])
    """
    with modes_disabled(), torch.device("cpu"):
        yield


def placed(tensor: Tensor, device: torch.device | str | None = None) -> Tensor:
    """A tensor made by `on_the_cpu`, on a device and as the modes around this call see one.

    Args:
        tensor: with numbers, on the CPU.
        device: None takes torch's default device.

    Example:
        >>> placed(torch.ones(2), "meta").device
        device(type='meta')
    """
    target = torch.get_default_device() if device is None else torch.device(device)
    if target.type == "meta":
        return torch.empty_like(tensor, device=target)
    if dispatch_mode_at_work():
        with on_the_cpu():
            double = torch.promote_types(tensor.dtype, torch.float64)
            numbers = tensor.to(double if tensor.dtype.is_floating_point else tensor.dtype).numpy()
        tensor = torch.tensor(numbers, dtype=tensor.dtype, device="cpu")
    return tensor.to(target)
