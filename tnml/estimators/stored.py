"""Model files and pickles of the estimators."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from os import PathLike
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tnml.checks import entries, whole
from tnml.errors import InputError
from tnml.estimators.columns import Columns, from_json
from tnml.estimators.parameters import Parameters
from tnml.features import FeatureMap
from tnml.features.spec import STORED_NAMES
from tnml.files import FORMAT, write_model
from tnml.loop.results import Row
from tnml.nn import TensorNetworkLayer
from tnml.nn.computed import effective_state
from tnml.nn.networks import restored_layer

_LAYER_PREFIX = "layer."
_OTHERS_PREFIX = "others."  # then the number of the network, from 1


class StoredEstimator(Parameters, BaseEstimator, ABC):
    """An estimator that can be written to a file, read back and pickled; the attributes of a fitted one."""

    _kind: ClassVar[str]

    n_features_in_: int
    layer_: TensorNetworkLayer
    _others: list[TensorNetworkLayer]
    feature_range_: npt.NDArray[np.float64] | None
    columns_: Columns | None = None  # pickles of earlier versions do not have it
    choice_: dict[str, Any] | None = None
    history_: list[Row]
    n_iter_: int
    seed_: int
    data_: dict[str, Any] | None
    _made_with: dict[str, Any]

    @property
    def layers_(self) -> list[TensorNetworkLayer]:
        """The trained networks; `layer_` is the first."""
        return [self.layer_, *self.__dict__.get("_others", [])]  # pickles of earlier versions have only one

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the fitted model to one safetensors file; `tnml.load` reads it.

        The file holds tensors and JSON, never code. Left out are `history_`, `device` and a `random_state`
        that is not a number.

        Args:
            path: where to write; by convention it ends in `.safetensors`.

        Raises:
            InputError: the file cannot be written, or it cannot hold something: a feature map that is
                your own function, or classes that are not text, numbers or truth values.
        """
        check_is_fitted(self)
        if self.layer_.features.name not in STORED_NAMES:
            raise InputError(
                "a feature map that is your own function cannot be kept in a model file; pickle the model "
                "or choose features by name"
            )
        tensors = _named(_LAYER_PREFIX, self.layer_)
        for number, layer in enumerate(self.layers_[1:], 1):
            tensors |= _named(f"{_OTHERS_PREFIX}{number}.", layer)
        tensors |= {name: torch.tensor(array) for name, array in self._arrays().items()}
        if self.feature_range_ is not None:
            tensors["feature_range"] = torch.tensor(self.feature_range_)
        names = getattr(self, "feature_names_in_", None)
        metadata = {
            "format": FORMAT,
            "kind": self._kind,
            "network": self.layer_.network,
            "config": self.layer_.config,
            "parameters": _for_json(self.get_params(deep=False)),
            "feature_names": None if names is None else list(names),
            "n_iter": self.n_iter_,
            "seed": self.seed_,
            "data": self.data_,
            "other_configs": [layer.config for layer in self.layers_[1:]],
            **({} if self.choice_ is None else {"choice": self.choice_}),
            **({} if self.columns_ is None else {"columns": self.columns_.to_json()}),
            **self._facts(),
        }
        write_model(path, tensors, metadata)

    @classmethod
    def _from_file(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Self:
        """The model that `save` wrote; any exception means that the file is damaged."""
        model = cls(**_from_json(metadata["parameters"]))
        network = metadata.get("network", "mps")  # files of tnml 0.1 do not name it
        configs = [metadata["config"], *metadata.get("other_configs", [])]
        prefixes = [_LAYER_PREFIX, *(f"{_OTHERS_PREFIX}{number}." for number in range(1, len(configs)))]
        model.layer_, *model._others = [
            restored_layer(
                network, config, {n.removeprefix(p): t for n, t in tensors.items() if n.startswith(p)}
            ).eval()
            for config, p in zip(configs, prefixes, strict=True)
        ]
        model.n_features_in_ = sites = model.layer_.n_sites
        model.feature_range_ = None
        if "feature_range" in tensors:
            model.feature_range_ = stored_array(tensors, "feature_range", (2, sites))
        if "columns" in metadata:
            model.columns_ = from_json(metadata["columns"], model.layer_.features)
        model.choice_ = metadata.get("choice")
        model.history_, model.data_ = [], metadata["data"]
        model.n_iter_, model.seed_ = (whole(name, metadata[name], 0) for name in ("n_iter", "seed"))
        names = metadata["feature_names"]
        if names is not None:
            if len(names) != sites:
                raise InputError(f"{sites} sites and {len(names)} feature names")
            model.feature_names_in_ = np.array(names, dtype=object)
        model._adopt(tensors, metadata)
        model._made_with = model._facts_of_layer()
        return model

    @abstractmethod
    def _facts_of_layer(self) -> dict[str, Any]:
        """The parameters that a fitted model is made with."""

    @abstractmethod
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Further arrays of a fitted model, for the file."""

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """Further facts of a fitted model, for the file."""

    @abstractmethod
    def _adopt(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Restores what `_arrays` and `_facts` returned."""

    def __getstate__(self) -> dict[str, Any]:
        """Parameters, numbers and numpy arrays, also for layers; but see `_packed`."""
        state: dict[str, Any] = dict(super().__getstate__())
        if "layer_" in state:
            state["layer_"], *state["_others"] = [_packed(layer) for layer in self.layers_]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "layer_" in state:
            stored = [state["layer_"], *state.get("_others", [])]
            state["layer_"], *state["_others"] = [_unpacked(layer) for layer in stored]
        super().__setstate__(state)


def _named(prefix: str, layer: TensorNetworkLayer) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in effective_state(layer).items()}


def _packed(layer: TensorNetworkLayer) -> Any:
    """A layer as numbers and numpy arrays; a copy of it if its feature map is your own function."""
    if layer.features.name not in STORED_NAMES:
        return copy.deepcopy(layer).cpu()
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in effective_state(layer).items()}
    return {"network": layer.network, "config": layer.config, "state": arrays}


def _unpacked(stored: Any) -> TensorNetworkLayer:
    """The layer that `_packed` packed."""
    if not isinstance(stored, dict):
        layer: TensorNetworkLayer = stored
        return layer
    tensors = {name: torch.tensor(np.array(array)) for name, array in stored["state"].items()}
    network = stored.get("network", "mps")  # pickles of tnml 0.1 do not name it
    return restored_layer(network, stored["config"], tensors).eval()


def stored_array(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """The finite float64 array `name` of a model file.

    Raises:
        InputError: it is something else.

    Example:
        >>> stored_array({"y_mean": torch.tensor([2.0], dtype=torch.float64)}, "y_mean", (1,))
        array([2.])
    """
    array = tensors[name].numpy()
    if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
        raise InputError(f"{name} must be finite float64 numbers {shape}, got {array.dtype} {array.shape}")
    return array


def plain(value: Any) -> Any:
    """Python numbers for numpy numbers, such as those of a search over `np.arange`; dicts for mappings.

    Example:
        >>> plain(np.int64(3)), plain({"name": "huber", "delta": np.float64(0.5)})
        (3, {'name': 'huber', 'delta': 0.5})
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _for_json(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as a file can hold them; without the device, which the reader may not have."""
    kept = {name: plain(value) for name, value in parameters.items() if name != "device"}
    if not isinstance(kept["random_state"], int):
        kept["random_state"] = None
    if isinstance(kept["features"], FeatureMap):
        kept["features"] = kept["features"].spec
    elif isinstance(kept["features"], Mapping) and "name" not in kept["features"]:  # a key may be a number
        kept["features"] = [[key, _spec(value)] for key, value in kept["features"].items()]
    if not isinstance(kept["order"], str):
        kept["order"] = [int(site) for site in kept["order"]]
    for name in ("image_shape", "feature_range", "max_error", "proximal"):
        listed = entries(kept[name])
        if listed is not None:
            kept[name] = [plain(number) for number in listed]
    if isinstance(kept.get("class_weight"), Mapping):  # as pairs: a label need not be text
        kept["class_weight"] = [list(pair) for pair in kept["class_weight"].items()]
    return kept


def _spec(features: Any) -> Any:
    """Features of one column as a file holds them."""
    return features.spec if isinstance(features, FeatureMap) else features


def _from_json(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that `_for_json` converted; files of earlier versions have fewer."""
    parameters = dict(kept)
    if parameters["image_shape"] is not None:
        parameters["image_shape"] = tuple(parameters["image_shape"])
    if isinstance(parameters["features"], list):
        parameters["features"] = dict(parameters["features"])
    if isinstance(parameters.get("class_weight"), list):
        parameters["class_weight"] = dict(parameters["class_weight"])
    return parameters
