"""From what a user writes (a name, a description, a function) to a feature map."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from tnml.errors import InputError, choose
from tnml.features.columns import columns_of_spec
from tnml.features.custom import map_of_function
from tnml.features.maps import FeatureMap
from tnml.features.named import BUILDERS, FEATURE_NAMES
from tnml.features.orthonormal import orthonormal

FeatureSpec = str | Mapping[str, Any] | Callable[[Tensor], Tensor] | FeatureMap
"""Whatever `feature_map` understands."""

STORED_NAMES = (*FEATURE_NAMES, "columns", "orthonormal")
"""Names of the maps that a file can hold: all but a user's own functions."""


def feature_map(spec: FeatureSpec, **options: Any) -> FeatureMap:
    """The feature map that `spec` stands for.

    A callable of your own must be vectorised: it gets a floating-point tensor of any shape `[...]` and
    returns `[..., d]`, each vector depending on its own pixel alone. It is called once here, on the CPU with
    values in [0, 1], to learn d, whether it keeps the identity path, and whether its components add up to 1
    or have norm 1. Its derivative comes from autograd. A model file cannot hold it: give
    it again on loading.

    Args:
        spec: a name of `FEATURE_NAMES`, a mapping such as `FeatureMap.spec`, a callable, or a finished map.
            {"name": "columns", "columns": [...]} is a map for each site, in the order of the inputs; see
            `tnml.features.columns`.
        options: `dim` for every map (only checked where it is fixed or measured); `period` (1.0) for
            "fourier": 1 makes x = 0 and x = 1 look the same, 2 tells them apart but is not orthonormal;
            `width` (default: the distance between centres) and `normalise` (True) for "rbf".

    Raises:
        InputError: unknown name or option (the nearest known one is named), a value out of range, or a
            callable that fails, returns the wrong shape, NaN or infinity, mixes pixels or changes its input.

    Example:
        >>> import torch
        >>> feature_map("legendre", dim=3).spec
        {'name': 'legendre', 'dim': 3}
        >>> feature_map(lambda x: torch.stack((1 - x, x, x * (1 - x)), -1)).identity
        (1.0, 1.0, 0.0)
    """
    if isinstance(spec, FeatureMap):
        if options:
            raise InputError(
                f"a finished FeatureMap takes no options, got {', '.join(options)}; give its name"
            )
        return spec
    if isinstance(spec, str):
        return _by_name(spec, options)
    if isinstance(spec, Mapping):
        merged = {**spec, **options}
        if not isinstance(merged.get("name"), str):
            raise InputError(f"the description of a feature map needs a 'name', got {dict(spec)!r}")
        return _by_name(merged.pop("name"), merged)
    if not callable(spec):
        raise InputError(
            f"features must be a name, a mapping with a 'name' or a function, got {spec!r}; "
            f"names: {', '.join(FEATURE_NAMES)}"
        )
    return map_of_function(spec, options)


def _by_name(name: str, options: Mapping[str, Any]) -> FeatureMap:
    if name == "columns":
        for option in options:
            choose("option of feature map 'columns'", option, dict.fromkeys(("columns", "missing", "dim")))
        return columns_of_spec(options, feature_map)
    if name == "orthonormal":
        for option in options:
            choose("option of feature map 'orthonormal'", option, dict.fromkeys(("of", "dim")))
        if "of" not in options:
            raise InputError("features 'orthonormal' need the map they are made of as `of`, got none")
        return orthonormal(feature_map(options["of"]))
    if name == "callable":
        raise InputError(
            f"these features were the function {options.get('function', '(unknown)')}, which no file holds; "
            "give the function itself as `features`"
        )
    build = choose("feature map", name, BUILDERS)
    for option in options:
        choose(f"option of feature map '{name}'", option, inspect.signature(build).parameters)
    return build(**options)
