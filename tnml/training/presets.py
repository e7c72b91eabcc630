"""Recipes by data set: what `tnml train` uses unless told otherwise, and the accurate ones.

Every recipe was chosen on a validation part of the training set; its test figures are in the README and in
`benchmarks/results/`. The large sweeps were chosen on MNIST averaged to 14 x 14 and measured there alone.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tnml.errors import choose
from tnml.training.dmrg.options import SweepOptions
from tnml.training.options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A recipe.

    Args:
        model: arguments of `tnml.nn.MPSLayer` beyond sites and outputs.
        train: options of the training by gradients.
        sweep: options of the training by sweeps; they say which bond dimension it starts from.

    Example:
        >>> preset("mnist").model["bond_dim"]
        20
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    train: TrainOptions = field(default_factory=TrainOptions)
    sweep: SweepOptions = field(default_factory=SweepOptions)


_SMALL_SWEEPS = SweepOptions(
    label="travels", sweeps=5, max_bond=20, max_error=0.01, label_smoothing=0.05, proximal=3.0
)
_LARGE_SWEEPS = SweepOptions(
    sweeps=11,
    max_bond=(20, 24),
    max_error=7e-4,
    iterations=6,
    damping=10.0,
    ridge=1e-5,
    proximal=(0.03, 0.01, 0.003, 0.003, 0.001),
    label_smoothing=0.1,
    max_shift=1,
)
_FASHION_SWEEPS = dataclasses.replace(_LARGE_SWEEPS, max_shift=0, sweeps=6)  # not measured
_SMALL = Preset(
    model={"bond_dim": 16, "order": "snake"},
    train=TrainOptions(epochs=30, lr=2e-3, batch_size=32, clip_norm=1.0, label_smoothing=0.1),
    sweep=_SMALL_SWEEPS,
)
_MNIST = Preset(
    model={"bond_dim": 20, "order": "snake"},
    train=TrainOptions(
        epochs=12, lr=5e-4, batch_size=100, clip_norm=1.0, max_shift=1, label_smoothing=0.1, average="ema"
    ),
    sweep=_LARGE_SWEEPS,
)
_MNIST_ACCURATE = Preset(
    model={"bond_dim": 50, "order": "snake"},
    train=TrainOptions(
        epochs=24, lr=3e-4, batch_size=100, clip_norm=1.0, max_shift=2, label_smoothing=0.1, average="ema"
    ),
    sweep=_LARGE_SWEEPS,
)
_FASHION = Preset(
    model={"bond_dim": 32, "order": "snake", "site_dropout": 0.05},
    train=TrainOptions(
        epochs=20, lr=1.5e-4, batch_size=100, clip_norm=1.0, label_smoothing=0.1, average="ema"
    ),
    sweep=_FASHION_SWEEPS,
)
_FASHION_ACCURATE = Preset(
    model={"bond_dim": 64, "order": "snake", "site_dropout": 0.05},
    train=TrainOptions(
        epochs=20, lr=1.5e-4, batch_size=100, clip_norm=1.0, label_smoothing=0.1, average="ema"
    ),
    sweep=_FASHION_SWEEPS,
)

PRESETS: Mapping[str, Mapping[str, Preset]] = MappingProxyType(
    {
        "digits": {"default": _SMALL, "accurate": _SMALL},
        "mnist": {"default": _MNIST, "accurate": _MNIST_ACCURATE},
        "fashion-mnist": {"default": _FASHION, "accurate": _FASHION_ACCURATE},
        "other": {"default": _SMALL, "accurate": _SMALL},
    }
)


_REALS = Preset(  # chosen on the diabetes data and on Friedman's first two functions, 100 to 3,000 samples
    model={"bond_dim": 16, "order": "snake"},
    train=TrainOptions(epochs=60, lr=2e-3, batch_size=32, clip_norm=1.0, loss="mse"),
    sweep=SweepOptions(label="travels", sweeps=5, max_bond=20, max_error=3e-3, proximal=1.0, loss="mse"),
)

REAL_TARGETS: Mapping[str, Preset] = MappingProxyType({"default": _REALS, "accurate": _REALS})
"""For regression, on any data: nothing of what only labels and images have."""


def preset(data: str, name: str = "default", task: str = "classification") -> Preset:
    """The recipe called `name` for a data set; data sets without recipes of their own share "other".

    Args:
        data: name of the data set.
        name: "default" or "accurate".
        task: "classification" or "regression", whose recipes are the same for all data sets.

    Raises:
        InputError: there is no recipe of this name, or for this task.

    Example:
        >>> preset("my-folder").train.epochs == preset("other").train.epochs
        True
        >>> preset("mnist", task="regression").train.label_smoothing
        0.0
    """
    recipes = {"classification": PRESETS.get(data, PRESETS["other"]), "regression": REAL_TARGETS}
    return choose("preset", name, choose("task", task, recipes))
