"""Tensor networks for machine learning in PyTorch.

The names below load when they are first used, so `import tnml` stays quick.

Example:
    >>> import tnml
    >>> "MPSClassifier" in dir(tnml)
    True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tnml import contraction, data, diagnostics, explain, features, mps, nn, pde, study, training
    from tnml.errors import InputError
    from tnml.estimators import MPSClassifier, MPSDensity, MPSGenerativeClassifier, MPSRegressor
    from tnml.models import load
    from tnml.version import __version__

__all__ = [
    "InputError",
    "MPSClassifier",
    "MPSDensity",
    "MPSGenerativeClassifier",
    "MPSRegressor",
    "__version__",
    "contraction",
    "data",
    "diagnostics",
    "explain",
    "features",
    "load",
    "mps",
    "nn",
    "pde",
    "study",
    "training",
]

_HOMES = {
    "InputError": "tnml.errors",
    "MPSClassifier": "tnml.estimators",
    "MPSDensity": "tnml.estimators",
    "MPSGenerativeClassifier": "tnml.estimators",
    "MPSRegressor": "tnml.estimators",
    "__version__": "tnml.version",
    "load": "tnml.models",
}
_MODULES = frozenset(
    {"contraction", "data", "diagnostics", "explain", "features", "mps", "nn", "pde", "study", "training"}
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"tnml.{name}")
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value  # the next use does not come here again
        return value
    raise AttributeError(f"module 'tnml' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
