"""Looking at a model without leaving a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tnml.randomness import forked_rng
from tnml.torch_private import put_buffer


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode; afterwards no trace of this remains.

    Restored afterwards: the train flag of every submodule, the values of all buffers, and torch's
    default generators. Parameters and their `.grad` are up to the caller: take gradients with
    `torch.autograd.grad`.

    Args:
        model: any module.

    Example:
        >>> net = nn.Dropout(0.5)
        >>> with undisturbed(net):
        ...     net(torch.ones(3)), net.training
        (tensor([1., 1., 1.]), False)
        >>> net.training
        True
    """
    flags = [(module, module.training) for module in model.modules()]
    buffers = [(m, name, b, _copy(b)) for m in model.modules() for name, b in m.named_buffers(recurse=False)]
    with forked_rng(*devices_of(model)):
        try:
            model.eval()
            yield
        finally:
            for module, flag in flags:
                module.training = flag
            for module, name, buffer, before in buffers:
                put_buffer(module, name, buffer)
                if not torch.equal(buffer, before):  # a write would spoil graphs that hold the buffer
                    with torch.no_grad():
                        buffer.copy_(before)


def devices_of(model: nn.Module) -> set[torch.device]:
    """The devices that the model's parameters are on.

    Example:
        >>> devices_of(nn.Linear(2, 1))
        {device(type='cpu')}
    """
    return {parameter.device for parameter in model.parameters()}


def device_beside(model: nn.Module, x: Tensor) -> torch.device:
    """Where inputs of the model go: the device of its first parameter, or that of `x` where it has none.

    Example:
        >>> device_beside(nn.Identity(), torch.ones(1))
        device(type='cpu')
    """
    return next(iter(model.parameters()), x).device


def _copy(buffer: Tensor) -> Tensor:
    return buffer.detach().clone()
