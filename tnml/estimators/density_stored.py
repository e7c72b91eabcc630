"""Model files of density estimators."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from os import PathLike
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tnml.checks import entries, whole
from tnml.errors import InputError
from tnml.estimators.density_columns import DensityColumns, density_columns_of
from tnml.estimators.stored import plain
from tnml.features import FeatureMap
from tnml.features.spec import STORED_NAMES
from tnml.files import FORMAT, write_model
from tnml.loop.results import Row
from tnml.nn import BornMachine
from tnml.nn.computed import effective_state


class StoredDensity(BaseEstimator, ABC):
    """A density estimator that can be written to a file and read back; the attributes of a fitted one."""

    _kind: ClassVar[str]

    machine_: BornMachine
    columns_: DensityColumns
    history_: list[Row]
    n_iter_: int
    n_features_in_: int

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """Further facts of a fitted model, for the file."""

    @abstractmethod
    def _adopt(self, facts: Mapping[str, Any]) -> None:
        """Restores what `_facts` returned."""

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the fitted model to one safetensors file; `tnml.load` reads it.

        Left out are `history_`, `device` and a `random_state` that is not a number.

        Args:
            path: where to write; by convention it ends in `.safetensors`.

        Raises:
            InputError: the file cannot be written, or it cannot hold a feature map or the classes.
        """
        check_is_fitted(self)
        if self.machine_.psi.features.name not in STORED_NAMES:
            raise InputError(
                "a feature map that is your own function cannot be kept in a model file; pickle the model "
                "or choose features by name"
            )
        names = getattr(self, "feature_names_in_", None)
        facts = {
            "format": FORMAT,
            "kind": self._kind,
            "network": self.machine_.psi.network,
            "config": self.machine_.config,
            "parameters": _for_json(self.get_params(deep=False)),
            "columns": self.columns_.to_json(),
            "feature_names": None if names is None else list(names),
            "n_iter": self.n_iter_,
            **self._facts(),
        }
        write_model(path, effective_state(self.machine_), facts)

    @classmethod
    def _from_file(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Self:
        """The model that `save` wrote; any exception means that the file is damaged."""
        parameters = dict(metadata["parameters"])
        if parameters["image_shape"] is not None:
            parameters["image_shape"] = tuple(parameters["image_shape"])
        if isinstance(parameters["features"], list):
            parameters["features"] = dict(parameters["features"])
        model = cls(**parameters)
        model.machine_ = BornMachine.restored(metadata["config"], tensors).eval()
        model.n_features_in_ = model.machine_.psi.n_sites
        model.columns_ = density_columns_of(metadata["columns"], model.machine_.psi.features)
        model.history_, model.n_iter_ = [], whole("n_iter", metadata["n_iter"], 0)
        names = metadata["feature_names"]
        if names is not None:
            model.feature_names_in_ = np.array(names, dtype=object)
        model._adopt(metadata)
        return model


def _for_json(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as a file can hold them; without the device, which the reader may not have."""
    kept = {name: plain(value) for name, value in parameters.items() if name != "device"}
    if not isinstance(kept["random_state"], int):
        kept["random_state"] = None
    features = kept["features"]
    if isinstance(features, FeatureMap):
        kept["features"] = features.spec
    elif isinstance(features, Mapping) and "name" not in features:  # as pairs: a key may be a number
        kept["features"] = [
            [key, value.spec if isinstance(value, FeatureMap) else value] for key, value in features.items()
        ]
    for name in ("image_shape", "order", "max_error"):
        listed = entries(kept[name])
        if listed is not None:
            kept[name] = [plain(number) for number in listed]
    return kept
