"""Born machines small enough to be enumerated, and the oracle: the dense amplitude by numpy's einsum."""

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tnml.nn import BornMachine

LEVELS = [2, 3, 4, 2, 3]
ORDER = [3, 0, 4, 2, 1]
MIXED = {
    "name": "columns",
    "columns": [{"name": "one-hot", "dim": count} for count in LEVELS],
}
CASES: dict[str, dict[str, Any]] = {
    "real": {},
    "complex": {"dtype": "complex128"},
    "purified": {"hidden": 3, "class_site": 1},
    "classes": {"classes": 3},
    "all": {"classes": 2, "hidden": 2, "dtype": "complex128", "class_site": 5},
}


def machine(name: str, **more: Any) -> BornMachine:
    """A machine of five columns of 2 to 4 levels in an order of its own, far from a product."""
    options = {"dtype": "float64", "features": MIXED, "order": ORDER, "noise": 1.0, **CASES[name], **more}
    return BornMachine(5, 5, **options)


def table(born: BornMachine) -> tuple[Tensor, np.ndarray]:
    """Every sample `[s, columns]`, and its probability: psi from its cores, squared and normalised."""
    cores = [core.detach().numpy() for core in born.psi.cores]
    label = born.psi.label.detach().numpy()
    place = born.psi.label_site
    ranges = [range(count) for count in LEVELS]
    rows, weights = [], []
    for levels in itertools.product(*ranges):
        vector = np.ones((1, 1))
        for site, core in enumerate(cores[:place]):
            vector = vector @ core[:, levels[ORDER[site]], :]
        after = np.ones((1, 1))
        for site in range(len(cores) - 1, place - 1, -1):
            after = cores[site][:, levels[ORDER[site]], :] @ after
        psi = np.einsum("l,lcr,r->c", vector[0], label, after[:, 0]).reshape(-1, born.hidden)
        codes = [level / (count - 1) for level, count in zip(levels, LEVELS, strict=True)]
        for class_, amplitudes in enumerate(psi):
            rows.append(codes if born.classes is None else [*codes, float(class_)])
            weights.append((np.abs(amplitudes) ** 2).sum())
    found = np.array(weights)
    return torch.tensor(rows, dtype=torch.float64), found / found.sum()


def agrees(every: Tensor, row: Tensor) -> np.ndarray:
    """Which samples have the values of a row, NaN being any."""
    return ((every == row) | torch.isnan(row)).all(1).numpy()
