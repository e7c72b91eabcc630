"""The common part of all estimators: from parameters to a layer, its training and its predictions."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from tnml.checks import whole
from tnml.data.scaling import limits_of
from tnml.errors import InputError
from tnml.estimators.columns import fit_columns, order_of_columns
from tnml.estimators.ensemble import in_blocks, orders_of_members, smaller, train_members
from tnml.estimators.layers import LAYER_PARAMETERS, OF_THE_DATA, defaults
from tnml.estimators.scaling import fit_range, scale
from tnml.estimators.solvers import SWEPT, check_solver, checked_loss, sweep_options, train_options
from tnml.estimators.stored import plain
from tnml.estimators.tables import Table, checked_table, checked_targets
from tnml.estimators.uncertainty import RangeScores
from tnml.estimators.validation import look_at_range, validated
from tnml.estimators.weights import typical_rows
from tnml.loop.options import LoopOptions
from tnml.loop.processes import device_of
from tnml.loop.progress import ProgressReporter
from tnml.loop.protocols import Callback
from tnml.loop.results import Row, TrainingInterrupted
from tnml.nn import MPSLayer, TensorNetworkLayer
from tnml.nn.layer import DTYPES
from tnml.nn.networks import check_sweeps
from tnml.training import SweepResult, TrainResult
from tnml.training.losses import Loss
from tnml.training.samples import split_rows
from tnml.training.tasks import Task

BY_INFORMATION = "mutual-information"  # the order that is computed from the samples


class TensorNetworkEstimator(RangeScores, ABC):
    """The common part of classifiers and regressors.

    Attributes:
        layer_: the trained layer; the first one with `n_estimators`.
        layers_: all trained layers.
        feature_range_: `[2, n]`, the values that are scaled to 0 and 1; None if nothing is scaled.
        choice_: with `preset`, the parameters it has chosen, by name; set instead, they give the same model.
        columns_: `tnml.estimators.columns.Columns`, what `fit` found out about the columns of a table; None
            if all columns have the same features.
        history_: one dictionary per epoch or sweep, with the numbers of the callbacks; not kept in model
            files.
        n_iter_: epochs or sweeps trained.
        n_features_in_, feature_names_in_: as in every scikit-learn estimator.
    """

    _task: ClassVar[Task]
    _trained: ClassVar[Callable[..., TrainResult]]
    _swept: ClassVar[Callable[..., SweepResult]]
    _usual_sweeps: ClassVar[Mapping[str, Any]]

    def compressed(
        self, *, max_bond: int | None = None, max_error: float | None = None, X: Any = None
    ) -> Self:
        """A fitted copy with smaller bonds; this estimator stays as it is.

        The copy's parameter `bond_dim` is the largest bond it has, so fitting it again trains a model of
        that size. Its `data_["compression"]`, also kept in model files, says what was lost. Test results in
        `data_` are dropped, because they belong to the larger model.

        Args:
            max_bond: largest bond.
            max_error: largest relative error; see `tnml.nn.MPSLayer.compressed`, and with X
                `tnml.training.truncate_layer`.
            X: samples like those of `fit`. With them, the error is that of the outputs on such samples, and
                far fewer predictions change.

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
        limits = {"max_bond": plain(max_bond), "max_error": plain(max_error)}
        some = None
        if X is not None and self.layer_.n_sites > 1:
            given = self._inputs(X)
            self._look_at_range(given)
            some = self._scaled(given)
        found = [smaller(layer, some, limits) for layer in self.layers_]
        model = copy.copy(self)
        (model.layer_, *model._others), errors = [layer.eval() for layer, _ in found], [e for _, e in found]
        model.bond_dim = max(max(layer.bond_dims) for layer in model.layers_)
        if isinstance(model.network, Mapping):  # the parameter is the only place for it now
            model.network = {name: value for name, value in model.network.items() if name != "bond_dim"}
        model.choice_ = {k: v for k, v in (model.choice_ or {}).items() if k != "bond_dim"} or None
        model._made_with = model._facts_of_layer()
        model._forget()
        model.history_ = list(self.history_)
        data = copy.deepcopy(self.data_ or {})
        data.pop("results", None)
        data["compression"] = {
            "relative_error": max(errors),
            "norm": "tensor" if X is None else "samples",
            "bond_dim_before": max(max(layer.bond_dims) for layer in self.layers_),
            "parameters_before": sum(p.numel() for layer in self.layers_ for p in layer.parameters()),
        }
        model.data_ = data
        return model

    def _forget(self) -> None:
        """Drops what was measured before the networks were compressed."""

    def _forget_all(self) -> None:
        """Drops what was measured before the networks are trained, further or anew."""
        self._forget()

    @classmethod
    def _around(
        cls,
        layer: TensorNetworkLayer,
        *,
        image_shape: tuple[int, int] | None,
        feature_range: tuple[float, float] | npt.NDArray[np.float64] | None,
        feature_names: Sequence[str] | None,
        loss: Any,
        history: Sequence[Row],
        data: Mapping[str, Any] | None,
    ) -> Self:
        """An estimator around a layer that was trained elsewhere; its parameters make a new one like it."""
        config = layer.config
        parameters = {name: config.pop(name) for name in LAYER_PARAMETERS if name in config}
        if "bond_dim" in parameters:
            parameters["bond_dim"] = max(layer.bond_dims)
        own = {name: value for name, value in config.items() if name not in OF_THE_DATA}
        rule: Any = "auto" if isinstance(feature_range, np.ndarray) else feature_range
        model = cls(
            network={"name": layer.network, **own} if own else layer.network,
            image_shape=image_shape,
            feature_range=rule,
            loss=loss,
            **parameters,
        )
        model.feature_range_ = None
        if feature_range is not None:
            model.feature_range_ = limits_of("feature_range", feature_range, layer.n_sites)
        if feature_names is not None:
            if len(feature_names) != layer.n_sites:
                raise InputError(f"expected {layer.n_sites} feature names, got {len(feature_names)}")
            model.feature_names_in_ = np.array(feature_names, dtype=object)
        model.layer_, model._others, model.n_features_in_ = layer.eval(), [], layer.n_sites
        model._made_with = model._facts_of_layer()
        model.history_, model.n_iter_, model.seed_ = list(history), len(history), 0
        model.data_ = None if data is None else dict(data)
        return model

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's description of valid input: gaps and text if each column has its own features."""
        tags = super().__sklearn_tags__()
        if self._is_by_column():
            tags.input_tags.allow_nan = tags.input_tags.string = True
        tags.input_tags.sparse = not self._is_by_column()
        return tags

    def _continues(self) -> bool:
        """Whether `fit` continues from the fitted layer."""
        return bool(self.warm_start) and hasattr(self, "layer_")

    def _loss_options(self) -> dict[str, Any]:
        """What the options of both solvers need to know about the loss and the samples."""
        return {"loss": plain(self.loss)}

    def _checked(self, callbacks: Sequence[Callback]) -> Loss:
        """The loss; raises, before anything is done, if a parameter does not suit the solver or the task."""
        chosen = self._chosen()
        check_solver(chosen, defaults(type(self)))
        if self.solver in SWEPT:
            check_sweeps(self.network, f"solver={self.solver!r}")
        whole("n_estimators", chosen["n_estimators"], 1)
        if callable(callbacks):
            raise InputError(f"callbacks must be a list of functions, got {callbacks!r}; put it into a list")
        told = self._loss_options()
        return checked_loss(told["loss"], told.get("label_smoothing", 0.0), self._task, self.solver)

    @contextmanager
    def _whole(self, *, first: bool) -> Iterator[None]:
        """Leaves this estimator as it was if a fit fails; an interrupted training keeps what it has."""
        before = dict(vars(self))
        spare = [] if first else copy.deepcopy(self.layers_)  # a fit that continues trains in place
        try:
            yield
        except TrainingInterrupted:
            raise
        except BaseException:
            if spare:
                before["layer_"], *before["_others"] = spare
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _start(
        self,
        X: Any,
        targets: npt.NDArray[Any],
        weight: Float64[ndarray, " b"] | None,
        outputs: int,
        seed: int,
    ) -> None:
        """Makes new layers for samples like `X`, and everything else that a fit starts from."""
        self._fit_inputs(X, weight)
        order = self._order_for(X, targets, weight)
        rows, counts = typical_rows(weight, len(X))
        some = torch.from_numpy(self._scaled(X[rows]))
        times = None if counts is None else torch.from_numpy(counts)
        chosen = self._chosen()
        orders = orders_of_members(chosen["member_orders"], order, X.shape[1], chosen["n_estimators"], seed)
        layers = [self._new_layer(X.shape[1], outputs, seed + k, each) for k, each in enumerate(orders)]
        layers = [layer.rescale_(some.to(layer.dtype), times).eval() for layer in layers]
        self.layer_, self._others = layers[0], layers[1:]
        self._made_with = self._facts_of_layer()
        self.history_, self.n_iter_, self.seed_, self.data_ = [], 0, seed, None

    def _drawn_seed(self) -> int:
        """The seed of a fit."""
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _fit_inputs(self, X: Any, weight: Float64[ndarray, " b"] | None) -> None:
        """Finds the properties of the columns, or the range of the features, from the samples."""
        self.columns_ = self.feature_range_ = None
        if not isinstance(X, Table):
            self.feature_range_ = fit_range(X, self.feature_range)
            return
        if not (isinstance(self.feature_range, str) and self.feature_range == "auto"):
            raise InputError(
                f"features={self.features!r} scale each column themselves; leave feature_range="
                f"{self.feature_range!r} out"
            )
        self.columns_ = fit_columns(X, self._chosen()["features"], weight)

    def _validated(self, X: Any, y: Any, *, first: bool, **targets: Any) -> tuple[Any, Any]:
        """Checked samples, an array or, if each column has its own features, a `Table`; and targets."""
        if self._is_by_column() if first else self.columns_ is not None:
            table = checked_table(self, X, reset=first)
            return table, checked_targets(self, len(table), y, **targets)
        found: tuple[Any, Any] = validated(self, X, y, reset=first, **targets)
        return found

    def _inputs(self, X: Any) -> Any:
        """Checked samples to predict for."""
        if self.columns_ is not None:
            return checked_table(self, X, reset=False)
        return validated(self, X, reset=False)

    def _order_for(self, X: Any, targets: npt.NDArray[Any], weight: Float64[ndarray, " b"] | None) -> Any:
        """The order of the sites, computed from the samples if they are to decide."""
        order = self._chosen()["order"]
        asked = isinstance(order, str) and order == BY_INFORMATION
        table = isinstance(order, str) and order == "auto" and self.image_shape is None
        if not (asked or (table and self.columns_ is not None)):
            return order
        x = (X if self.columns_ is None else self.columns_.encode(X)).astype(np.float64)
        return order_of_columns(x, targets, weight, ranked=self.columns_ is not None)

    def _sweeps_for(self, bond_dim: int, samples: float, *, one_pass: bool) -> dict[str, Any]:
        """Options of the sweeps, up to this bond dimension, for this number of samples or sum of weights."""
        del bond_dim, samples, one_pass
        return dict(self._usual_sweeps)

    def _run(
        self,
        X: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        weight: Float64[ndarray, " b"] | None,
        callbacks: Sequence[Callback],
        *,
        first: bool,
        one_pass: bool,
        loss: Mapping[str, Any],
        **data: Any,
    ) -> Self:
        """This estimator after a training run, or one epoch or sweep, on samples of weight above 0."""
        chosen, samples, swept = self._chosen(), len(X), self._sweeps_on(X.shape[1])
        if chosen["n_estimators"] != len(self.layers_):
            raise InputError(
                f"the fitted model has {len(self.layers_)} networks, got n_estimators="
                f"{chosen['n_estimators']}; a fit that continues keeps their number"
            )
        seed = self.seed_ + self.n_iter_
        told = {**loss, "seed": seed}
        given = {
            **data,
            "sample_weight": None if weight is None else weight / weight.mean(),
            "callbacks": callbacks,
            "progress": self._progress(swept=swept),
        }
        self._look_at_range(X)
        x = self._scaled(X)
        self._forget_all()  # now, because an interrupted training never measures anew
        rows: list[Row] = []
        try:
            if swept:
                total = samples if weight is None else float(weight.sum())
                told |= self._sweeps_for(chosen["bond_dim"], total, one_pass=one_pass)
                told["observations"] = total / samples
                steps = sweep_options(chosen, samples, one_pass=one_pass, **told)
                rows = type(self)._swept(cast(MPSLayer, self.layer_), x, targets, steps, **given).history
            elif self.solver != "als":  # with "als" there is only one core here, fitted at the end
                told["feature_size"] = self._feature_size(X, weight)
                options = train_options(chosen, self.layer_.n_sites, samples, one_pass=one_pass, **told)
                given |= {"task": self._task, "alone": type(self)._trained, "quick": self.preset is not None}
                rows = train_members(self.layers_, x, targets, options, **given)
        except TrainingInterrupted as stop:  # a stopped notebook cell: what was trained can be used
            rows = stop.history or []
            raise
        finally:
            for layer in self.layers_:
                layer.eval()
            self.history_ = [*self.history_, *rows]
            self.n_iter_ += len(rows)
        fraction = 0.0 if one_pass else chosen["validation_fraction"]
        labels = torch.from_numpy(targets) if self._task.stratified else None
        keep, held = (part.numpy() for part in split_rows(samples, labels, fraction, seed))
        self._settle(x, targets, weight, keep, held if first else held[:0])
        return self

    @torch.no_grad()
    def _feature_size(self, X: Any, weight: Float64[ndarray, " b"] | None) -> float:
        """The mean over samples and sites of the sum of |phi_d|, at least 1; it divides the default rate."""
        if self.layer_.features.normalisation == "sum":
            return 1.0
        rows, counts = typical_rows(weight, len(X))
        sizes = self.layer_.local_features(torch.from_numpy(self._scaled(X[rows]))).abs().sum(-1).mean(-1)
        return max(1.0, float(np.average(sizes.double().numpy(), weights=counts)))

    @abstractmethod
    def _settle(
        self,
        x: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        weight: Float64[ndarray, " b"] | None,
        keep: Int64[ndarray, " k"],
        held: Int64[ndarray, " h"],
    ) -> None:
        """Measures what a fitted model keeps, once its networks are trained.

        Args:
            x: the scaled samples that they were trained on.
            targets: in the form that the task needs.
            weight: of the samples.
            keep: rows trained on.
            held: rows that no fit has seen: none after a fit that continued another.
        """

    def _progress(self, *, swept: bool) -> ProgressReporter | None:
        if not self.verbose:
            return None
        return ProgressReporter(unit="sweep" if swept else "epoch")

    def _scaled(self, X: Any) -> npt.NDArray[Any]:
        """What the layer is trained on: inputs `[b, n]`, or the features of columns `[b, n, d]`."""
        if self.columns_ is None:
            return scale(X, self.feature_range_)
        return self.columns_.vectors(X, DTYPES[str(self._chosen()["dtype"])])

    def _look_at_range(self, X: Any) -> None:
        """Warns or raises, as `clip` says, if many values lie outside the range; columns have none."""
        look_at_range(X, self.feature_range_, self.clip)

    def _evaluate(self, X: Any) -> Float64[ndarray, "b c"]:
        """Outputs of the network, or of all networks combined."""
        return self._outputs(self._to_predict(X))

    def _to_predict(self, X: Any) -> npt.NDArray[Any]:
        """Checked samples, scaled."""
        check_is_fitted(self)
        given = self._inputs(X)
        self._look_at_range(given)
        return self._scaled(given) if self.columns_ is None else self.columns_.encode(given)

    def _outputs(self, x: npt.NDArray[Any]) -> Float64[ndarray, "b c"]:
        """Outputs of the network, or of all networks combined, for scaled samples."""
        each = [self._in_blocks(layer, x) for layer in self.layers_]
        return each[0] if len(each) == 1 else self._joined(np.stack(each))

    def _joined(self, each: Float64[ndarray, "k b c"]) -> Float64[ndarray, "b c"]:
        """The outputs of several networks, combined."""
        found: Float64[ndarray, "b c"] = each.mean(axis=0)
        return found

    def _in_blocks(
        self,
        layer: TensorNetworkLayer,
        x: npt.NDArray[Any],
        function: Callable[..., torch.Tensor] = lambda layer, x: layer(x),
    ) -> Float64[ndarray, "b m"]:
        """Outputs of a layer, or a function of it and samples, on the device of the parameters."""
        return in_blocks(layer, x, function, device_of(LoopOptions(device=self.device).device))

    @abstractmethod
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, callbacks: Sequence[Callback] = ()) -> Self:
        """This estimator, trained on samples `X [b, n]` with targets `y`."""
