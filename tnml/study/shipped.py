"""The studies that come with tnml, and the search for a study by name or file."""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tnml.errors import choose
from tnml.files import user_path
from tnml.study.grid import Study, read_study_file
from tnml.study.wrong_labels import METHODS

_BONDS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
_TEACHERS: Mapping[str, Any] = {
    "runner": "tnml.study.teachers:run",
    "group": ("seed",),
    "group_runner": "tnml.study.teachers:run_together",
}
_LEARNING = {"n_test": 4000, "noise": 0.1, "sweeps": 6, "steps": 2000, "lr": 0.01, "batch_size": 64}
_QUICK = {"bond_dim": [2, 4], "n_train": [100], "seed": [0, 1], "steps": 60, "sweeps": 2, "n_test": 500}


def _overfitting(name: str, about: str, target: str, target_options: Mapping[str, Any]) -> Study:
    return Study(
        name=name,
        about=about,
        grid={
            "solver": ["adam", "als"],
            "n_train": [100, 300, 1000, 3000],
            "bond_dim": list(_BONDS),
            "seed": list(range(5)),
        },
        fixed={"target": target, "target_options": dict(target_options), **_LEARNING},
        smoke=_QUICK,
        **_TEACHERS,
    )


_SHIPPED = (
    _overfitting(
        "overfitting-1d",
        "Test error against bond dimension on data of a random MPS, which an MPS represents exactly",
        "mps",
        {"n_sites": 10, "bond_dim": 4},
    ),
    _overfitting(
        "overfitting-permuted",
        "The same with the sites in an order that the model is not told",
        "permuted",
        {"n_sites": 10, "bond_dim": 4},
    ),
    _overfitting(
        "overfitting-grid",
        "Test error against bond dimension on data of a random two-dimensional tensor network",
        "grid",
        {"rows": 2, "columns": 5, "bond_dim": 2},
    ),
    Study(
        name="double-descent",
        about="Least squares by sweeps: error peaks where the largest core has as many numbers as samples",
        grid={
            "n_train": [1000, 300, 100],
            "bond_dim": [2, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32],
            "seed": list(range(3)),
        },
        fixed={
            "target": "mps",
            "target_options": {"n_sites": 12, "bond_dim": 4},
            "solver": "als",
            **_LEARNING,
        },
        smoke=_QUICK,
        **_TEACHERS,
    ),
    Study(
        name="label-noise",
        about="Test accuracy, memorised labels and susceptibility against bond dimension and label noise",
        runner="tnml.study.labels:run",
        grid={
            "noise": [0.0, 0.15, 0.3],
            "bond_dim": [2, 4, 6, 8, 12, 16, 24],
            "seed": list(range(5)),
        },
        fixed={
            "target_options": {"n_sites": 10, "bond_dim": 3, "features": "trigonometric"},
            "n_train": 1000,
            "n_test": 4000,
            "epochs": 100,
            "lr": 3e-3,
            "batch_size": 64,
        },
        smoke={"noise": [0.0, 0.3], "bond_dim": [2, 8], "seed": [0], "epochs": 3, "n_test": 500},
    ),
    Study(
        name="wrong-labels",
        about="Losses made for wrong labels, on a matrix product state, tensor-train layers and dense ones",
        runner="tnml.study.wrong_labels:run",
        grid={
            "network": ["mps", "tnn", "dense"],
            "method": list(METHODS),
            "data": ["mnist", "fashion-mnist"],
            "noise": [0.2, 0.4, 0.6],
            "seed": [0, 1, 2],
        },
        fixed={
            "kind": "symmetric",
            "pool": 2,
            "n_train": 60_000,
            "n_test": 10_000,
            "size": 20,
            "epochs": 10,
            "lr": 1e-3,
            "batch_size": 100,
            "lr_u": 300.0,
            "lr_v": 3000.0,
        },
        smoke={
            "network": ["mps", "dense"],
            "method": ["cross-entropy", "sop"],
            "data": ["clusters"],
            "noise": [0.4],
            "seed": [0],
            "n_train": 200,
            "n_test": 200,
            "pool": 1,
            "epochs": 2,
        },
    ),
    Study(
        name="mnist-bond-dimension",
        about="Train and test error on MNIST against bond dimension, with many and with few images",
        runner="tnml.study.images:run",
        grid={
            "n_train": [1000, 60_000],
            "bond_dim": [2, 4, 8, 16, 32, 64],
            "seed": [0, 1, 2],
        },
        fixed={
            "data": "mnist",
            "pool": 2,
            "n_test": 10_000,
            "steps": 6000,
            "lr": 5e-4,
            "batch_size": 100,
        },
        smoke={"data": "digits", "pool": 1, "n_train": [300], "bond_dim": [2, 8], "seed": [0], "steps": 60},
    ),
    Study(
        name="sample-complexity",
        about="How many samples a bond dimension needs: test error on data of a random MPS",
        grid={
            "n_train": [30, 100, 300, 1000, 3000, 10_000],
            "bond_dim": [2, 4, 8, 16],
            "teacher": [2, 4, 8],
            "seed": list(range(5)),
        },
        fixed={"target": "mps", "target_options": {"n_sites": 10}, "solver": "adam", **_LEARNING},
        smoke={**_QUICK, "teacher": [4]},
        **_TEACHERS,
    ),
)

STUDIES: Mapping[str, Study] = MappingProxyType({study.name: study for study in _SHIPPED})
"""The studies known by name."""


def find_study(source: Study | str | os.PathLike[str]) -> Study:
    """A study: as it is, by its name, or from a YAML file.

    Raises:
        InputError: there is no study of that name and no such file, or the file holds no study.

    Example:
        >>> find_study(Study(name="mine", runner="my.runs:one", grid={"seed": [0]})).name
        'mine'
    """
    if isinstance(source, Study):
        return source
    text = os.fspath(source)
    if text not in STUDIES and (text.endswith((".yaml", ".yml", ".json")) or os.sep in text):
        return read_study_file(user_path(text))
    return choose("study", text, STUDIES)
