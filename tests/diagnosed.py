"""Models and training loops that the tests of the diagnostics share."""

import copy
import random

import numpy as np
import torch
from torch import nn

from tnml.nn import MPSLayer

SITES, CLASSES = 6, 3


class Counting(nn.Module):
    """Passes its input on and counts its calls in a buffer, in eval mode, too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x):
        self.calls += 1
        return x


def restless(seed=0, dtype=torch.float32):
    """A classifier with everything that a careless look changes: running statistics, dropout, a counter."""
    torch.manual_seed(seed)
    layer = MPSLayer(
        SITES, CLASSES, 4, features="legendre", bond_dropout=0.2, site_dropout=0.1, dtype=dtype, seed=seed
    )
    return nn.Sequential(nn.BatchNorm1d(SITES), nn.Dropout(0.2), Counting(), layer).to(dtype)


def samples(n, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, SITES, generator=generator, dtype=dtype)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def grown(layer, seed=7, size=0.4):
    """The layer with noise on every parameter, far from its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return layer


def everything(model, optimizer=None):
    """All that may not change, as plain bytes, numbers and flags."""
    return {
        "parameters": [
            (id(p), p._version, p.requires_grad, p.detach().numpy().tobytes()) for p in model.parameters()
        ],
        "gradients": [None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()],
        "buffers": [(name, id(b), b.numpy().tobytes()) for name, b in model.named_buffers()],
        "flags": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "optimizer": None if optimizer is None else plain(optimizer.state_dict()),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),  # noqa: NPY002  (it must not move)
        "python": random.getstate(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def plain(value):
    """Nested dictionaries and lists with tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return copy.deepcopy(value)
