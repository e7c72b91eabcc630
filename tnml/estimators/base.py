"""What classifier and regressor share: parameters into a layer and a training run, predictions, files."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, Float64
from numpy import ndarray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError, choose
from tnml.estimators.scaling import fit_range, scale
from tnml.estimators.solvers import check_solver, sweep_options
from tnml.features import FEATURE_NAMES, FeatureMap
from tnml.files import FORMAT, write_model
from tnml.loop.processes import device_of
from tnml.loop.results import Row
from tnml.nn import MPSLayer, TensorNetworkLayer, make_layer
from tnml.nn.networks import can, check_sweeps, compressible, restored_layer
from tnml.training import LoopOptions, ProgressReporter, SweepOptions, TrainOptions, truncate_layer

FLOATS = [np.float64, np.float32]
BLOCK = 256  # samples predicted at a time; always as many, so that no sample's bits depend on the others
_LEAST_EPOCHS, _MOST_EPOCHS, _LEAST_STEPS = 10, 200, 1000
_LAYER_PREFIX = "layer."


class MPSEstimator(BaseEstimator, ABC):
    """The common part of `MPSClassifier` and `MPSRegressor`, which describe the parameters."""

    _kind: ClassVar[str]

    network: Any = "mps"
    bond_dim: int
    solver: str
    features: Any
    order: Any
    image_shape: tuple[int, int] | None
    label_site: int | None
    noise: float | None
    bond_dropout: float
    site_dropout: float
    feature_range: Any
    epochs: int | None
    batch_size: int | None
    lr: float | None
    optimizer: str
    weight_decay: float
    schedule: str
    clip_norm: float | None
    average: str
    validation_fraction: float
    patience: int | None
    sweeps: int | None
    max_error: float | None
    ridge: float
    dtype: str
    engine: str
    device: str
    warm_start: bool
    verbose: bool
    random_state: Any

    n_features_in_: int
    layer_: TensorNetworkLayer
    feature_range_: npt.NDArray[np.float64] | None
    history_: list[Row]
    n_iter_: int
    seed_: int
    data_: dict[str, Any] | None

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the fitted model to one safetensors file; `tnml.load` reads it.

        The file holds tensors and JSON, never code. Left out are `history_`, `device` and a `random_state`
        that is not a number.

        Args:
            path: by custom it ends in `.safetensors`.

        Raises:
            InputError: the file cannot be written, or something cannot be kept in one: a feature map that
                is your own function, classes that are not text, numbers or truth values.
        """
        check_is_fitted(self)
        if self.layer_.features.name not in FEATURE_NAMES:
            raise InputError(
                "a feature map that is your own function cannot be kept in a model file; pickle the model "
                "or choose features by name"
            )
        tensors = {_LAYER_PREFIX + name: tensor for name, tensor in self.layer_.state_dict().items()}
        tensors |= {name: torch.tensor(array) for name, array in self._arrays().items()}
        if self.feature_range_ is not None:
            tensors["feature_range"] = torch.tensor(self.feature_range_)
        names = getattr(self, "feature_names_in_", None)
        metadata = {
            "format": FORMAT,
            "kind": self._kind,
            "network": self.layer_.network,
            "config": self.layer_.config,
            "parameters": _parameters_for_json(self.get_params(deep=False)),
            "feature_names": None if names is None else list(names),
            "n_iter": self.n_iter_,
            "seed": self.seed_,
            "data": self.data_,
            **self._facts(),
        }
        write_model(path, tensors, metadata)

    def compressed(
        self, *, max_bond: int | None = None, max_error: float | None = None, X: Any = None
    ) -> Self:
        """A fitted copy with smaller bonds; this estimator stays as it is.

        The copy's parameter `bond_dim` is the largest bond it has, so a new `fit` of it trains a model of
        that size. Its `data_["compression"]`, also kept in model files, says what was lost. Results of tests
        in `data_` are dropped: they were those of the larger model.

        Args:
            max_bond: largest bond.
            max_error: largest relative error; see `tnml.nn.MPSLayer.compressed`, and with X
                `tnml.training.truncate_layer`.
            X: samples like those of `fit`. They make the error that of outputs on such samples, and many
                fewer predictions change than without.

        Raises:
            InputError: neither limit is given, or one is out of range.

        Example:
            >>> from tnml import MPSClassifier
            >>> model = MPSClassifier(bond_dim=4, random_state=0).fit([[0.0, 0.1], [1.0, 0.7]], [0, 1])
            >>> smaller = model.compressed(max_bond=1)
            >>> smaller.bond_dim, max(smaller.layer_.bond_dims), model.bond_dim
            (1, 1, 4)
        """
        check_is_fitted(self)
        limits = {"max_bond": _plain(max_bond), "max_error": _plain(max_error)}
        if X is None or self.layer_.n_sites == 1:
            layer, error = compressible(self.layer_).compressed(**limits)
        else:
            some = self._scaled(validate_data(self, X, dtype=FLOATS, reset=False))
            layer, error = self._truncated(some, limits)
        model = copy.copy(self)
        model.layer_, model.bond_dim = layer.eval(), max(layer.bond_dims)
        model.history_ = list(self.history_)
        data = copy.deepcopy(self.data_ or {})
        data.pop("results", None)
        data["compression"] = {
            "relative_error": error,
            "norm": "tensor" if X is None else "samples",
            "bond_dim_before": max(self.layer_.bond_dims),
            "parameters_before": sum(p.numel() for p in self.layer_.parameters()),
        }
        model.data_ = data
        return model

    def _truncated(self, some: Float32[ndarray, "b n"], limits: Mapping[str, Any]) -> Any:
        """A smaller layer and its error on samples: by a sweep where the network has sweeps."""
        layer = compressible(self.layer_)
        if can(layer, "sweeps"):
            return truncate_layer(self._swept_layer(), some, **limits)
        return layer.compressed(**limits, samples=torch.from_numpy(some))

    def _swept_layer(self) -> MPSLayer:
        """The layer, for what sweeps over it and checks by itself whether it can."""
        return cast(MPSLayer, self.layer_)

    @classmethod
    def _from_file(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Self:
        """The model that `save` wrote; any exception means that the file is damaged."""
        parameters = dict(metadata["parameters"])
        if parameters["image_shape"] is not None:
            parameters["image_shape"] = tuple(parameters["image_shape"])
        model = cls(**parameters)
        state = {
            name.removeprefix(_LAYER_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(_LAYER_PREFIX)
        }
        model.layer_ = restored_layer(metadata.get("network", "mps"), metadata["config"], state).eval()
        model.n_features_in_ = sites = model.layer_.n_sites
        model.feature_range_ = None
        if "feature_range" in tensors:
            model.feature_range_ = stored_array(tensors, "feature_range", (2, sites))
        model.history_, model.data_ = [], metadata["data"]
        model.n_iter_, model.seed_ = (whole(name, metadata[name], 0) for name in ("n_iter", "seed"))
        names = metadata["feature_names"]
        if names is not None:
            if len(names) != sites:
                raise InputError(f"{sites} sites and {len(names)} feature names")
            model.feature_names_in_ = np.array(names, dtype=object)
        model._adopt(tensors, metadata)
        return model

    @abstractmethod
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Further arrays of a fitted model, for the file."""

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """Further facts of a fitted model, for the file."""

    @abstractmethod
    def _adopt(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Takes back what `_arrays` and `_facts` gave."""

    def __getstate__(self) -> dict[str, Any]:
        """Parameters, numbers and numpy arrays, for the layer, too; that with an own feature map itself."""
        state: dict[str, Any] = dict(super().__getstate__())
        layer = state.get("layer_")
        if layer is not None and layer.features.name in FEATURE_NAMES:
            arrays = {name: tensor.detach().cpu().numpy() for name, tensor in layer.state_dict().items()}
            state["layer_"] = {"network": layer.network, "config": layer.config, "state": arrays}
        elif layer is not None:
            state["layer_"] = copy.deepcopy(layer).cpu()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        stored = state.get("layer_")
        if isinstance(stored, dict):
            tensors = {name: torch.tensor(np.array(array)) for name, array in stored["state"].items()}
            network = stored.get("network", "mps")  # pickles of tnml 0.1 name none
            state["layer_"] = restored_layer(network, stored["config"], tensors).eval()
        super().__setstate__(state)

    def _continues(self) -> bool:
        """Whether `fit` goes on from the fitted layer."""
        return bool(self.warm_start) and hasattr(self, "layer_")

    def _start(self, X: npt.NDArray[Any], outputs: int) -> None:
        """A new layer for samples like `X`, and everything else that a fit begins with.

        Sweeps let the bonds grow, from 1.
        """
        swept = self._sweeps_on(X.shape[1])
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self.feature_range_ = fit_range(X, self.feature_range)
        if swept:
            check_sweeps(self.network, "solver='dmrg'")
        layer = make_layer(
            self.network,
            X.shape[1],
            outputs,
            usual={**type(self)().get_params(deep=False), "seed": seed},
            bond_dim=1 if swept else _plain(self.bond_dim),
            features=self.features,
            order=self._order(X.shape[1]),
            shape=self.image_shape,
            label_site=_plain(self.label_site),
            noise=0.0 if swept else _plain(self.noise),
            bond_dropout=_plain(self.bond_dropout),
            site_dropout=_plain(self.site_dropout),
            dtype=choose("dtype", self.dtype, {name: name for name in ("float32", "float64")}),
            engine=self.engine,
            seed=seed,
        )
        some = torch.from_numpy(scale(X[:: max(1, len(X) // 500)], self.feature_range_))
        self.layer_ = layer.rescale_(some.to(layer.dtype)).eval()
        self.history_, self.n_iter_, self.seed_, self.data_ = [], 0, seed, None

    def _order(self, n_sites: int) -> Any:
        """The order of the sites: "auto" is "snake" on images, also on those it takes for some."""
        if not (isinstance(self.order, str) and self.order == "auto"):
            return self.order
        square = n_sites >= 16 and math.isqrt(n_sites) ** 2 == n_sites
        return "snake" if self.image_shape is not None or square else "raster"

    def _check_solver(self) -> None:
        """Raises where the solver is unknown or would not use a parameter that was set."""
        check_solver(self.get_params(deep=False), type(self)().get_params(deep=False))

    def _sweeps_on(self, n_sites: int) -> bool:
        """Whether a chain of so many sites is trained by sweeps; one site has no bond."""
        return self.solver == "dmrg" and n_sites > 1

    def _sweep_options(self, samples: int, *, one_pass: bool, **own: Any) -> SweepOptions:
        """The options of the next sweeps on so many samples."""
        given = {name: _plain(value) for name, value in self.get_params(deep=False).items()}
        own = {name: _plain(value) for name, value in own.items()} | {"seed": self.seed_ + self.n_iter_}
        return sweep_options(given, samples, one_pass=one_pass, **own)

    def _options(self, samples: int, *, one_pass: bool, **own: Any) -> TrainOptions:
        """The options of the next run on so many samples, numbers left at None chosen as the docstrings say.

        Adam moves a weight by up to lr a step, so a rate of distance / steps lets it go that far whatever
        the size of the data: less underfits, more fits noise. All sites move at once, hence 1 / n; few sites
        cannot fit much noise, and with small steps they stay in poor minima (a product of two among three).
        """
        sites, epochs, lr = self.layer_.n_sites, self.epochs, self.lr
        batch = min(100, max(32, samples // 100)) if self.batch_size is None else self.batch_size
        batch = whole("batch_size", batch, 1)
        steps_per_epoch = math.ceil(samples / batch)
        if epochs is None:
            epochs = min(_MOST_EPOCHS, max(_LEAST_EPOCHS, math.ceil(_LEAST_STEPS / steps_per_epoch)))
        epochs = whole("epochs", epochs, 1)
        if lr is None and self.optimizer == "lbfgs":
            lr = 1.0
        elif lr is None:
            distance = max(2.0, 200.0 / sites**2)
            lr = max(3e-4, min(0.02, 0.2 / sites, distance / (epochs * steps_per_epoch)))
        chosen = {
            "epochs": 1 if one_pass else epochs,
            "batch_size": batch,
            "lr": lr,
            "weight_decay": self.weight_decay,
            "schedule": "constant" if one_pass else self.schedule,
            "clip_norm": self.clip_norm,
            "validation": 0.0 if one_pass else self.validation_fraction,
            "patience": None if one_pass else self.patience,
            "seed": self.seed_ + self.n_iter_,
            **own,
        }
        chosen = {name: _plain(value) for name, value in chosen.items()}
        return TrainOptions(optimizer=self.optimizer, average=self.average, device=self.device, **chosen)

    def _progress(self) -> ProgressReporter | None:
        if not self.verbose:
            return None
        return ProgressReporter(unit="sweep" if self._sweeps_on(self.layer_.n_sites) else "epoch")

    def _note(self, history: Sequence[Row]) -> None:
        """Takes down a finished run."""
        self.layer_.eval()
        self.history_ += history
        self.n_iter_ += len(history)

    def _scaled(self, X: npt.NDArray[Any]) -> Float32[ndarray, "b n"]:
        return scale(X, self.feature_range_)

    @torch.no_grad()
    def _evaluate(self, X: Any) -> Float64[ndarray, "b c"]:
        """Outputs of the layer.

        The layer sees blocks of one size, the last one filled up: a sample's outputs are then the same to
        the last bit whatever else it is predicted with.
        """
        check_is_fitted(self)
        x = torch.from_numpy(self._scaled(validate_data(self, X, dtype=FLOATS, reset=False)))
        device = device_of(LoopOptions(device=self.device).device)
        layer = self.layer_.to(device).eval()
        outputs = []
        for block in x.to(layer.dtype).split(BLOCK):
            full = torch.nn.functional.pad(block, (0, 0, 0, BLOCK - len(block)))
            outputs.append(layer(full.to(device))[: len(block)].cpu().double())
        return torch.cat(outputs).numpy()


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


def _plain(value: Any) -> Any:
    """A Python number where numpy's was given, as by a search over `np.arange`."""
    return value.item() if isinstance(value, np.generic) else value


def _parameters_for_json(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters a file can hold; without the device, because the next reader may have another."""
    kept = {name: _plain(value) for name, value in parameters.items() if name != "device"}
    if not isinstance(kept["random_state"], int):
        kept["random_state"] = None
    if isinstance(kept["features"], FeatureMap):
        kept["features"] = kept["features"].spec
    elif isinstance(kept["features"], Mapping):
        kept["features"] = dict(kept["features"])
    if not isinstance(kept["order"], str):
        kept["order"] = [int(site) for site in kept["order"]]
    for name in ("image_shape", "feature_range"):
        if kept[name] is not None and not isinstance(kept[name], str):
            kept[name] = [_plain(number) for number in kept[name]]
    return kept
