"""What makes two runs the same: fingerprints of functions, numbers and tensors, equal in every process."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, FunctionType, MappingProxyType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from tnml.errors import InputError
from tnml.loop.options import differences
from tnml.pde.comparisons import InDouble
from tnml.pde.problem import Problem

_DEEP = 6  # functions within functions, at most this many
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_FREE_OF_LOSS = frozenset({"chunk"})  # changes time and memory only
# Where functions and classes were before they moved: the checkpoints of older runs name these modules.
_FORMER_MODULES = MappingProxyType(
    {
        "tnml.nn.mps.layer": "tnml.nn.mps_layer",
        "tnml.nn.tt.embedding": "tnml.nn.tt_embedding",
        "tnml.nn.tt.linear": "tnml.nn.tt_linear",
        "tnml.nn.tt.module": "tnml.nn.tt_module",
        "tnml.nn.tt.network": "tnml.nn.tnn",
        "tnml.pde.ansatz.ansatz": "tnml.pde.ansatz",
        "tnml.pde.equations.allen_cahn": "tnml.pde.problems",
        "tnml.pde.equations.arithmetic_basket": "tnml.pde.option_problems",
        "tnml.pde.equations.black_scholes_barenblatt": "tnml.pde.problems",
        "tnml.pde.equations.geometric_basket": "tnml.pde.option_problems",
        "tnml.pde.equations.hamilton_jacobi_bellman": "tnml.pde.problems",
        "tnml.pde.equations.heat": "tnml.pde.problems",
        "tnml.pde.equations.heston": "tnml.pde.option_problems",
        "tnml.pde.equations.terms": "tnml.pde.option_problems",
        "tnml.pde.losses.deep_bsde": "tnml.pde.deep_bsde",
        "tnml.pde.losses.euler": "tnml.pde.losses",
        "tnml.pde.losses.unbiased": "tnml.pde.losses",
        "tnml.pde.paths.noise": "tnml.pde.noise",
        "tnml.pde.paths.simulation": "tnml.pde.paths",
    }
)
# What the paths and the losses take from a problem; `exact` and `reference` are for comparison only.
_OF_PROBLEM = (
    *("terminal", "diffusion", "drift", "driver", "driver_value", "driver_direction", "terminal_gradient"),
    *("coupled_drift", "log_normal", "inside", "smoothed_terminal", "discount"),
)


def fingerprint(value: object, depth: int = 0) -> str:
    """A short text that identifies this number, tensor or function, and is the same in every process.

    For a function it is the name with a hash of its code, of the values it closes over, of its defaults and
    of the plain numbers and texts of its module that it names. The functions that it calls are not examined.

    Args:
        value: anything.
        depth: how deep it lies inside another value.

    Example:
        >>> fingerprint(0.5)
        '0.5'
        >>> fingerprint(torch.ones(2)) == fingerprint(torch.ones(2)) != fingerprint(torch.zeros(2))
        True
        >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 2)
        False
    """
    value = value.function if isinstance(value, InDouble) else value
    if isinstance(value, _PLAIN):
        return repr(value)
    if depth > _DEEP:
        return type(value).__qualname__
    deeper = depth + 1
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        return f"tensor {list(plain.shape)} #{_hash(str(plain.dtype), repr(plain.tolist()))}"
    if isinstance(value, functools.partial):
        parts = [fingerprint(part, deeper) for part in (value.func, *value.args)]
        named = [f"{name}={fingerprint(part, deeper)}" for name, part in sorted(value.keywords.items())]
        return f"partial({', '.join(parts)}, {', '.join(named)})"
    if isinstance(value, MethodType):
        return f"{fingerprint(value.__func__, deeper)} of {fingerprint(value.__self__, deeper)}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {fingerprint(part, deeper)}' for name, part in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"({', '.join(fingerprint(part, deeper) for part in value)})"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(fingerprint(part, deeper) for part in value))}}}"
    code = getattr(value, "__code__", None)
    if isinstance(code, CodeType):
        return f"{_name(value)} #{_hash(*_code_parts(code, deeper), *_outside_parts(value, code, deeper))}"
    if isinstance(value, nn.Module):
        return f"{_name(type(value))} #{_hash(repr(value), fingerprint(value.state_dict(), deeper))}"
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return _name(value)
    return f"{_name(type(value))} {fingerprint(getattr(value, '__dict__', {}), deeper)}"


def identity_of(problem: Problem, loss: object, model: nn.Module) -> dict[str, str | int | float]:
    """What has to be the same when a run is resumed, beyond its options: equation, loss and network.

    Example:
        >>> from tnml.pde import EulerLoss, HeatEquation
        >>> found = identity_of(HeatEquation(2), EulerLoss(terminal_weight=3.0), nn.Linear(3, 1))
        >>> found["problem diffusion"], found["loss terminal_weight"]
        ('1.4142135623730951', '3.0')
    """
    found: dict[str, str | int | float] = {
        "problem": problem.name,
        "dim": problem.dim,
        "horizon": problem.horizon,
        "problem x0": fingerprint(problem.start(torch.float64)),
        **{f"problem {name}": fingerprint(getattr(problem, name)) for name in _OF_PROBLEM},
    }
    found |= {"problem options": repr(dict(problem.options or {})), "loss object": type(loss).__name__}
    if isinstance(loss, FunctionType | MethodType | functools.partial) or not hasattr(loss, "__dict__"):
        found["loss function"] = fingerprint(loss)
    else:
        own = {name: part for name, part in vars(loss).items() if name not in _FREE_OF_LOSS}
        found |= {f"loss {name}": fingerprint(part) for name, part in own.items()}
    return {**found, "model": repr(model)}


def check_same(checkpoint: Mapping[str, Any], identity: Mapping[str, Any], source: Path) -> None:
    """Raises if a checkpoint belongs to another equation, loss or options; the loop compares the networks.

    The texts of networks are long, and follow from the options if these describe the network.

    Raises:
        InputError: with everything that differs.

    Example:
        >>> check_same({"identity": {"dim": 3, "model": "a"}}, {"dim": 3, "model": "b"}, Path("run"))
        >>> check_same({"identity": {"dim": 3, "model": "a"}}, {"dim": 4, "model": "b"}, Path("run"))
        Traceback (most recent call last):
        tnml.errors.InputError: run belongs to another run: dim: 3 in the checkpoint, 4 now; use ...
    """
    stored = checkpoint.get("identity")
    if not isinstance(stored, Mapping):
        return  # it belongs to another kind of training, which the loop reports
    names = [name for name in identity if name != "model"]
    other = differences(
        {name: stored.get(name) for name in names}, {name: identity[name] for name in names}, free=()
    )
    if other:
        raise InputError(
            f"{source} belongs to another run: {'; '.join(other)}; use the same or start a new run"
        )


def _name(value: object) -> str:
    module = getattr(value, "__module__", "")
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{_FORMER_MODULES.get(module, module)}.{name}"


def _hash(*parts: object) -> str:
    text = b"\0".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
    return hashlib.sha256(text).hexdigest()[:8]


def _code_parts(code: CodeType, depth: int) -> list[object]:
    """What a function does, without the lines and files it is in."""
    parts: list[object] = [code.co_code, code.co_names, code.co_varnames]
    for constant in code.co_consts:
        parts += (
            _code_parts(constant, depth) if isinstance(constant, CodeType) else [fingerprint(constant, depth)]
        )
    return parts


def _outside_parts(function: object, code: CodeType, depth: int) -> list[str]:
    """What a function takes from outside: defaults, the values it closes over, numbers of its module."""
    parts = [fingerprint(getattr(function, name, None), depth) for name in ("__defaults__", "__kwdefaults__")]
    for cell in getattr(function, "__closure__", None) or ():
        try:
            parts.append(fingerprint(cell.cell_contents, depth))
        except ValueError:  # not filled yet
            parts.append("empty")
    known = getattr(function, "__globals__", {})
    plain = (known[name] for name in code.co_names if isinstance(known.get(name), int | float | str))
    return [*parts, *map(repr, plain)]
