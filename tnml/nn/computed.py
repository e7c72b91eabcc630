"""Tensors that are computed from parameters of other names: by pruning, weight norms and parametrizations."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tnml.errors import InputError
from tnml.torch_private import computed_by_hooks

_PARTS = ("orig", "mask", "g", "v", "u")  # what hooks name the tensors that they compute from


def computed_tensors(module: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """The module, the dotted prefix and the name of every tensor in `module` that is computed.

    Example:
        >>> linear = torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
        >>> [(prefix, name) for _, prefix, name in computed_tensors(nn.Sequential(linear))]
        [('0.', 'weight')]
    """
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        if parametrize.is_parametrized(part):
            names: nn.ModuleDict = part.parametrizations
            yield from ((part, prefix, name) for name in names)
        yield from ((part, prefix, name) for name in computed_by_hooks(part))


def check_plain(module: nn.Module, purpose: str) -> None:
    """Raises where a tensor is computed: what is written to it is lost when it is computed again.

    Args:
        module: what is looked at.
        purpose: the end of the advice.

    Raises:
        InputError: there is one.

    Example:
        >>> check_plain(nn.Linear(2, 3), "reset it")
    """
    for _, prefix, name in computed_tensors(module):
        raise InputError(
            f"{prefix}{name} is computed, by pruning, a weight norm or a parametrization; make it a "
            f"parameter (parametrize.remove_parametrizations, prune.remove), then {purpose}"
        )


def effective_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict with every computed tensor in place of those that it is computed from.

    Example:
        >>> linear = torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
        >>> sorted(linear.state_dict()), sorted(effective_state(linear))[1:]
        (['bias', 'parametrizations.weight.original0', 'parametrizations.weight.original1'], ['weight'])
    """
    state: dict[str, Tensor] = dict(module.state_dict())
    computed = list(computed_tensors(module))
    if not computed:
        return state
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()  # spectral norms take a step of their iteration otherwise
        with torch.no_grad():
            for part, prefix, name in computed:
                for key in [key for key in state if _is_part(key.removeprefix(prefix), name)]:
                    if key.startswith(prefix):
                        del state[key]
                hook = computed_by_hooks(part).get(name)
                if hook is not None:
                    hook(part, ())
                state[prefix + name] = getattr(part, name).detach()
    finally:
        for part, training in modes:
            part.training = training
    return state


def _is_part(key: str, name: str) -> bool:
    return key.startswith(f"parametrizations.{name}.") or key in {f"{name}_{part}" for part in _PARTS}
