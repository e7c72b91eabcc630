"""Values as JSON keeps them: options that name a run, and what a run returned."""

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from tnml.errors import InputError, choose

LENGTH = 16  # hexadecimal digits of a run's name: two among a million runs agree with probability 3e-8


def plain(value: Any, where: str = "value") -> Any:
    """`value` as numbers, texts, booleans, None, lists and dictionaries; tuples, arrays and tensors as lists.

    Args:
        value: what to convert; it is not changed.
        where: what the error should call it.

    Raises:
        InputError: there is something else in it, or a dictionary whose keys are not texts.

    Example:
        >>> import numpy as np
        >>> plain({"bonds": (2, np.int64(3)), "lr": np.float32(0.5)})
        {'bonds': [2, 3], 'lr': 0.5}
    """
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise InputError(f"{where}: names must be texts, got {wrong[0]!r}; put it in quotes")
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "tolist"):  # of numpy and torch
        return plain(value.tolist(), where)
    raise InputError(
        f"{where} must be made of numbers, texts, None, lists and dictionaries, got {type(value).__name__}"
    )


def canonical(options: Mapping[str, Any]) -> str:
    """Options as one text that is the same for the same options: JSON, names in order, no spaces.

    Numbers are written as Python does: 1 and 1.0 differ, 0.1 stays 0.1.

    Raises:
        InputError: an option cannot be written as JSON, or is a number that is not finite.

    Example:
        >>> canonical({"seed": 0, "lr": 1e-3})
        '{"lr":0.001,"seed":0}'
    """
    value = plain(options, "options")
    _finite(value, "options")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def run_id(options: Mapping[str, Any]) -> str:
    """The name of the run with these options: 16 hexadecimal digits of the SHA-256 sum of `canonical`.

    Raises:
        InputError: as `canonical`.

    Example:
        >>> run_id({"seed": 0, "lr": 1e-3}) == run_id({"lr": 1e-3, "seed": 0})
        True
    """
    return hashlib.sha256(canonical(options).encode()).hexdigest()[:LENGTH]


def check_options(
    options: Mapping[str, Any], needed: Collection[str], optional: Collection[str] = ()
) -> None:
    """Raises unless a run's options are the required ones and perhaps some optional ones.

    Raises:
        InputError: one is unknown (the nearest known one is named) or missing.

    Example:
        >>> check_options({"seed": 0, "nosie": 0.1}, {"seed", "noise"})
        Traceback (most recent call last):
        tnml.errors.InputError: unknown option of this run 'nosie'; did you mean 'noise'? Choose from: ...
    """
    known = dict.fromkeys(sorted({*needed, *optional}))
    for name in options:
        choose("option of this run", name, known)
    if missing := sorted(set(needed) - set(options)):
        raise InputError(
            f"a run of this study needs the options {', '.join(missing)}; add them to grid or fixed"
        )


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, the names joined by dots.

    Example:
        >>> flat({"train": {"lr": 0.1, "epochs": 3}, "seed": 0})
        {'train.lr': 0.1, 'train.epochs': 3, 'seed': 0}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value
    return found


def _finite(value: Any, where: str) -> None:
    """Raises for a number that JSON cannot hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} must be finite, got {value}; name such a case with a text or None")
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in parts:
        _finite(item, f"{where}.{name}")
