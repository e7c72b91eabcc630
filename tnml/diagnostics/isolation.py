"""Looking at a model without leaving a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode; afterwards nothing shows that somebody looked.

    What comes back as it was: the train flag of every submodule, the values of all buffers, and torch's
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
    with untouched_generators(model):
        try:
            model.eval()
            yield
        finally:
            for module, flag in flags:
                module.training = flag
            for module, name, buffer, before in buffers:
                module._buffers[name] = buffer
                if not torch.equal(buffer, before):  # a write would spoil graphs that hold the buffer
                    with torch.no_grad():
                        buffer.copy_(before)


@contextmanager
def untouched_generators(model: nn.Module) -> Iterator[None]:
    """Inside, torch's default generators may be used at will; afterwards they are as before.

    Args:
        model: says which CUDA devices count.

    Example:
        >>> net, before = nn.Identity(), torch.get_rng_state()
        >>> with untouched_generators(net):
        ...     _ = torch.rand(3)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        yield


def seed_generators(device: torch.device, seed: int) -> None:
    """Seeds torch's default generators of the CPU and of `device`, and no others.

    Example:
        >>> with untouched_generators(nn.Identity()):
        ...     seed_generators(torch.device("cpu"), 7)
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


def device_of(model: nn.Module, x: Tensor) -> torch.device:
    """The device of the model's first parameter, or that of `x` where it has none.

    Example:
        >>> device_of(nn.Identity(), torch.ones(1))
        device(type='cpu')
    """
    return next(iter(model.parameters()), x).device


def _copy(buffer: Tensor) -> Tensor:
    return buffer.detach().clone()
