"""What makes a model the same model when a run is resumed, beyond the shapes of its parameters."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from tnml.errors import InputError
from tnml.loop.options import LoopOptions
from tnml.nn import MPSLayer

_LONGEST = 80  # characters of an entry that is kept as it is; of a longer one its checksum is kept


def model_identity(module: nn.Module, options: LoopOptions) -> dict[str, str]:
    """One short text for each argument of each `MPSLayer` in `module`, such as "model.features".

    The engine is left out: it changes the rounding, not the model. So is the dtype where `precision` gives
    it, because the run itself converts the module.

    Args:
        module: what is trained.
        options: `precision` is read.

    Example:
        >>> model_identity(MPSLayer(4, 2, order="snake"), LoopOptions())["model.order"]
        'snake'
    """
    found: dict[str, str] = {}
    for name, part in module.named_modules():
        if isinstance(part, MPSLayer):
            prefix = f"model.{name}" if name else "model"
            found |= {f"{prefix}.{key}": _short(value) for key, value in _arguments(part).items()}
    if options.precision in ("32", "64"):
        found = {key: value for key, value in found.items() if not key.endswith(".dtype")}
    return found


def _arguments(layer: MPSLayer) -> Mapping[str, Any]:
    """The layer's arguments without the engine; of a user's feature map what can be said of a function."""
    try:
        config = layer.config
    except InputError:
        function = str(layer.features.options.get("function", layer.features.name)).rpartition(".")[2]
        return {
            "n_sites": layer.n_sites,
            "out_features": layer.out_features,
            "bond_dim": layer.bond_dims,
            "features": f"{function} with {layer.features.dim} components",
            "order": layer.order.tolist(),
            "label_site": layer.label_site,
            "bond_dropout": layer.bond_dropout.p,
            "site_dropout": layer.site_dropout.p,
            "dtype": str(layer.weight.dtype).removeprefix("torch."),
        }
    return {key: value for key, value in config.items() if key != "engine"}


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if len(text) <= _LONGEST:
        return text
    return f"checksum {zlib.crc32(text.encode()):08x}"
