"""Defaults of `tnml train` by data set and preset."""

from typing import Any

from tnml.errors import choose

_DIGITS: dict[str, dict[str, Any]] = {
    "default": {"model.bond_dim": 16, "train.epochs": 30, "train.lr": 1e-3, "train.batch_size": 50},
    "accurate": {"model.bond_dim": 32, "train.epochs": 60, "train.lr": 1e-3, "train.batch_size": 50},
}
_MNIST: dict[str, dict[str, Any]] = {
    "default": {
        "model.bond_dim": 16,
        "model.noise": 0.003,
        "train.epochs": 10,
        "train.lr": 3e-4,
        "train.batch_size": 100,
    },
    "accurate": {
        "model.bond_dim": 32,
        "model.noise": 0.003,
        "train.epochs": 20,
        "train.lr": 3e-4,
        "train.batch_size": 100,
        "train.max_shift": 1,
    },
}
PRESETS = {"digits": _DIGITS, "mnist": _MNIST, "fashion-mnist": _MNIST}


def preset_defaults(name: str, dataset: str) -> dict[str, Any]:
    """The defaults of a preset for a data set, by dotted option name; other data take those of the digits.

    Raises:
        InputError: unknown preset.

    Example:
        >>> preset_defaults("accurate", "mnist")["train.max_shift"]
        1
    """
    return choose("preset", name, PRESETS.get(dataset, _DIGITS))
