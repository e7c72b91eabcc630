"""The layers of an estimator: made from its parameters, and adapted when these change."""

import functools
import math
from abc import ABC
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from tnml.errors import InputError, choose
from tnml.estimators.columns import is_by_column
from tnml.estimators.solvers import SWEPT, unused_by
from tnml.estimators.stored import StoredEstimator, plain
from tnml.estimators.warm import following
from tnml.nn import TensorNetworkLayer, make_layer

LAYER_PARAMETERS = (  # a network may have options of the same names
    "bond_dim",
    "features",
    "order",
    "label_site",
    "noise",
    "bond_dropout",
    "site_dropout",
    "dtype",
    "engine",
)
_KEPT = (*LAYER_PARAMETERS, "network", "image_shape", "feature_range")  # what a fitted model is made with
OF_THE_DATA = ("n_sites", "out_features", "shape")  # also in the config of a layer


class LayersOfParameters(StoredEstimator, ABC):
    """The part of an estimator that turns parameters into layers."""

    def _chosen(self) -> dict[str, Any]:
        """The parameters by name, as Python numbers, with options of `network` and what a preset has chosen.

        Raises:
            InputError: a parameter is given in both places.
        """
        usual = defaults(type(self))
        chosen = {name: plain(getattr(self, name)) for name in usual}
        for name in LAYER_PARAMETERS if isinstance(self.network, Mapping) else ():
            if name not in self.network:
                continue
            inside = plain(self.network[name])
            if not any(np.array_equal(chosen[name], value) for value in (usual[name], inside)):
                raise InputError(
                    f"{name} is given twice, as {inside!r} with the network and as {chosen[name]!r}; "
                    "give it once"
                )
            chosen[name] = inside
        made = {} if self.preset is None else self.choice_ or {}
        return chosen | {
            name: value for name, value in made.items() if np.array_equal(chosen[name], usual[name])
        }

    def _facts_of_layer(self) -> dict[str, Any]:
        """The present values of the parameters that a fitted model is made with."""
        chosen, network = self._chosen(), self.network
        if isinstance(network, Mapping):
            network = {name: value for name, value in network.items() if name not in LAYER_PARAMETERS}
            network = network["name"] if network.keys() == {"name"} else network
        return {**{name: chosen[name] for name in _KEPT}, "network": network}

    def _follow(self) -> None:
        """Adapts the fitted layers to parameters that were changed, before they are trained further."""
        before, now = getattr(self, "_made_with", None), self._facts_of_layer()
        if before is not None:  # None if pickled by an earlier version
            swept, seed = self._sweeps_on(self.layer_.n_sites), self.seed_ + self.n_iter_
            # parameters of another solver have their defaults now, and the layer stays as it was made
            now |= {name: before[name] for name in unused_by(self.solver) if name in now}
            self.layer_, *self._others = [
                following(layer, before, now, swept=swept, seed=seed + place)
                for place, layer in enumerate(self.layers_)
            ]
            self._made_with = now

    def _is_by_column(self) -> bool:
        """Whether the features that `fit` would use are those of columns."""
        chosen, usual = self._chosen(), defaults(type(self))
        if self.preset is not None and np.array_equal(self.features, usual["features"]):
            return True  # whichever candidate is the best
        return is_by_column(chosen["features"])

    def _new_layer(self, sites: int, outputs: int, seed: int, order: Any) -> TensorNetworkLayer:
        """A layer before training; with sweeps its bond dimensions start at 1 and grow."""
        chosen = {**self._chosen(), "order": order}
        if self.columns_ is not None:
            chosen["features"] = self.columns_.features
        usual = _layer_arguments(defaults(type(self)), sites, seed)
        arguments = _layer_arguments(chosen, sites, seed)
        if self._sweeps_on(sites):
            arguments |= {"bond_dim": 1, "noise": 0.0}
        choose("dtype", chosen["dtype"], {name: name for name in ("float32", "float64")})
        network = self._facts_of_layer()["network"]
        return make_layer(network, sites, outputs, usual=usual, **arguments)

    def _sweeps_on(self, n_sites: int) -> bool:
        """Whether a chain of that many sites is trained by sweeps; one site has no bond."""
        return self.solver in SWEPT and n_sites > 1


@functools.cache
def defaults(kind: type[StoredEstimator]) -> Mapping[str, Any]:
    """The parameters of a class of estimators, and their defaults.

    Example:
        >>> from tnml import MPSRegressor
        >>> defaults(MPSRegressor)["bond_dim"]
        20
    """
    return MappingProxyType(kind().get_params(deep=False))


def _layer_arguments(chosen: Mapping[str, Any], sites: int, seed: int) -> dict[str, Any]:
    """The arguments of any network; the order "auto" is "snake" for images and for what may be one."""
    order, shape = chosen["order"], chosen["image_shape"]
    if isinstance(order, str) and order == "auto":
        square = sites >= 16 and math.isqrt(sites) ** 2 == sites
        order = "snake" if shape is not None or square else "raster"
    same = {name: chosen[name] for name in LAYER_PARAMETERS}
    return {**same, "order": order, "shape": shape, "seed": seed}
