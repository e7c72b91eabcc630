"""What makes a model the same model when a run is resumed, beyond the shapes of its parameters."""

import json
import zlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tnml.loop.options import IDENTITY, LoopOptions
from tnml.nn import TensorNetworkLayer

_LONGEST = 80  # characters of an entry that is kept as it is; of a longer one its checksum is kept
_WHOLE = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def model_identity(module: nn.Module, options: LoopOptions) -> dict[str, str]:
    """One short text for everything in `module` that training does not change.

    These are the class of every module, the shape of every buffer with a checksum where it holds whole
    numbers or truth values, and every argument of each tensor network layer, such as "model.features".
    Arguments that a resumed run may change are left out, the engine for one. So is the dtype where
    `precision` gives it, because the run itself converts the module. Training changes floating-point buffers
    (running statistics) and counters without axes, so their values are left out.

    Args:
        module: what is trained.
        options: `precision` is read.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> found = model_identity(MPSLayer(4, 2, order="snake"), LoopOptions())
        >>> found["model.order"], found["module"], found["buffer neutral"]
        ('snake', 'MPSLayer', '[4, 2] near 0.500 0.500')
    """
    found = {IDENTITY: "2"}
    for name, part in module.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(part, TensorNetworkLayer):
            facts = part.identity().items()
            found |= {f"model.{prefix}{key}": _short(value) for key, value in facts}
        found[f"module {name}".rstrip()] = type(part).__qualname__
        found |= {f"buffer {prefix}{key}": text for key, text in _buffers(part)}
    if options.precision in ("32", "64"):
        found = {key: value for key, value in found.items() if not key.endswith(".dtype")}
    return found


def _buffers(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Name and text of what a state dict of the module itself holds besides parameters."""
    whole = module.whole_state() if isinstance(module, TensorNetworkLayer) else {}
    for name, buffer in (*whole.items(), *module.named_buffers(recurse=False)):
        if name in module._non_persistent_buffers_set:
            continue
        text = str(list(buffer.shape))
        if buffer.dtype in _WHOLE and buffer.dim():
            numbers = buffer.detach().cpu().to(torch.int64).contiguous().numpy()
            text += f" checksum {zlib.crc32(numbers.tobytes()):08x}"
        elif name == "neutral" and isinstance(module, TensorNetworkLayer):
            text += f" near {_rough(buffer)}"
        yield name, text


def _rough(neutral: Tensor) -> str:
    """The mean over the sites of each component, to the digits on which two computers agree.

    It is fitted to samples where the feature map has no identity weights.
    """
    means = neutral.detach().double().cpu().mean(0)
    return _short(" ".join(f"{mean:.3f}" for mean in means.tolist()))


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if len(text) <= _LONGEST:
        return text
    return f"checksum {zlib.crc32(text.encode()):08x}"
