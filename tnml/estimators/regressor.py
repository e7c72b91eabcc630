"""The regressors."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from torch import Tensor

from tnml.errors import InputError
from tnml.estimators.chunks import chunks
from tnml.estimators.error_bars import ErrorBars
from tnml.estimators.parameters import estimator
from tnml.estimators.solvers import checked_loss, damping
from tnml.estimators.stored import stored_array
from tnml.estimators.weights import counted, mean_and_deviation, sample_weights
from tnml.loop.protocols import Callback
from tnml.loop.results import Row
from tnml.nn import TensorNetworkLayer
from tnml.training import sweep_regressor, train_regressor
from tnml.training.tasks import REGRESSION


@estimator
class TensorNetworkRegressor(RegressorMixin, ErrorBars):
    """The scikit-learn regressor of any tensor network; see `TensorNetworkClassifier`.

    Attributes:
        y_mean_, y_scale_: `[c]`, mean and scale of the targets, which are standardised for training.

    Example:
        >>> @estimator
        ... class Straight(TensorNetworkRegressor):
        ...     '''A chain without bonds.'''
        ...
        ...     bond_dim: int = 1
        >>> Straight(random_state=0).fit([[0.0], [1.0]], [2.0, 4.0]).predict([[0.5]]).shape
        (1,)
    """

    _kind: ClassVar[str] = "regressor"
    _task = REGRESSION
    _trained = staticmethod(train_regressor)
    _swept = staticmethod(sweep_regressor)
    _usual_sweeps: ClassVar[Mapping[str, Any]] = {"sweeps": 5, "proximal": 1.0, "max_error": 0.003}

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's description of valid input: also several targets at once."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @classmethod
    def from_layer(
        cls,
        layer: TensorNetworkLayer,
        *,
        y_mean: Any = 0.0,
        y_scale: Any = 1.0,
        image_shape: tuple[int, int] | None = None,
        feature_range: tuple[float, float] | npt.NDArray[np.float64] | None = None,
        feature_names: Sequence[str] | None = None,
        history: Sequence[Row] = (),
        data: Mapping[str, Any] | None = None,
        loss: Any = None,
    ) -> Self:
        """A fitted regressor around `layer`, which was trained elsewhere and is shared, not copied.

        Args:
            layer: its outputs times `y_scale` plus `y_mean` are the predictions; one output makes them `[b]`.
            y_mean: a number, or one for each output.
            y_scale: the same, above 0.
            image_shape: (height, width) if a sample is an image.
            feature_range: (low, high), scaled to (0, 1) before the layer, or `[2, n]`, one pair for each
                feature; None scales nothing.
            feature_names: of the n features; None if they have none.
            history: rows of its training.
            data: what it was trained on, kept as `data_` and in the model file; plain JSON values.
            loss: what it was trained with, in the form of the parameter `loss`.

        Raises:
            InputError: mean or scale has the wrong shape or is out of range, the feature map is a function
                without a name, or the loss is not one for real targets.

        Example:
            >>> from tnml import MPSRegressor
            >>> from tnml.nn import MPSLayer
            >>> model = MPSRegressor.from_layer(MPSLayer(4, 1), y_mean=20.0, y_scale=5.0)
            >>> model.predict([[0.1, 0.2, 0.3, 0.4]]).shape
            (1,)
        """
        outputs = layer.out_features
        checked_loss(loss, 0.0, REGRESSION, "gradient")
        model = cls._around(
            layer,
            image_shape=image_shape,
            feature_range=feature_range,
            feature_names=feature_names,
            loss=loss,
            history=history,
            data=data,
        )
        model.y_mean_ = _one_each("y_mean", y_mean, outputs)
        model.y_scale_ = _one_each("y_scale", y_scale, outputs)
        if model.y_scale_.min() <= 0:
            raise InputError(f"y_scale must be above 0, got {y_scale!r}")
        model._flat = outputs == 1
        model._forget()
        return model

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, callbacks: Sequence[Callback] = ()) -> Self:
        """This regressor, trained on samples `X [b, n]` with targets `y`, `[b]` or `[b, c]`.

        Args:
            X: any real features.
            y: real targets.
            sample_weight: `[b]`, at least 0; see the class.
            callbacks: functions of (layer, optimizer, row), called after each epoch or sweep; the numbers
                that they return are added to `history_`. See `tnml.training.run`. Where networks are trained
                together (`n_estimators`), the optimizer is None.

        Raises:
            InputError: a parameter or a weight is out of range; scikit-learn's ValueError for data it does
                not accept (NaN, wrong shapes).
        """
        first = not self._continues()
        with self._whole(first=first):
            return self._learn(X, y, sample_weight, callbacks, first=first, one_pass=False)

    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, callbacks: Sequence[Callback] = ()
    ) -> Self:
        """This regressor after one pass, at the constant rate `lr`, or one sweep over `X [b, n]` and `y`.

        The samples of the first call fix the feature range, and the mean and scale of the targets. Each call
        starts the optimiser's averages from zero, so use a few large parts rather than many small ones.

        Args:
            X: samples; or an `np.memmap`, a `torch.utils.data.Dataset` of (x, y) pairs or a `DataLoader`,
                read once in chunks of about 10,000 samples; each is trained on like a separate call.
            y: their targets; None with a Dataset or DataLoader.
            sample_weight: as in `fit`; weights are compared within one call or chunk only.
            callbacks: as in `fit`.

        Raises:
            InputError: the number of targets changed.
        """
        self._check_parts()
        for x, targets, weight in chunks(X, y, sample_weight):
            first = not hasattr(self, "layer_")
            with self._whole(first=first):
                self._learn(x, targets, weight, callbacks, first=first, one_pass=True)
        return self

    def _learn(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        callbacks: Sequence[Callback],
        *,
        first: bool,
        one_pass: bool,
    ) -> Self:
        if first:
            self.choice_ = None
        self._checked(callbacks)
        X, y = self._validated(X, y, first=first, multi_output=True, y_numeric=True)
        targets = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        weight = sample_weights(sample_weight, len(X))
        there = counted(weight, len(X))
        if weight is not None and there is not None:
            X, targets, weight = X[there], targets[there], weight[there]
        if first:
            mean, deviation = mean_and_deviation(targets, weight)
            self.y_mean_: npt.NDArray[np.float64] = mean
            self.y_scale_: npt.NDArray[np.float64] = np.where(deviation > 0, deviation, 1.0)
            seed, loss = self._drawn_seed(), self._loss_options()
            standard = (targets - self.y_mean_) / self.y_scale_
            self._choose(X, standard, weight, targets.shape[1], seed, {"loss": loss})
            self._start(X, targets, weight, targets.shape[1], seed)
        elif targets.shape[1] != len(self.y_mean_):
            raise InputError(
                f"expected {len(self.y_mean_)} targets as in the first fit, got {targets.shape[1]}"
            )
        else:
            self._follow()
        self._flat = np.ndim(y) == 1
        standard = (targets - self.y_mean_) / self.y_scale_
        loss = self._loss_options()
        return self._run(X, standard, weight, callbacks, first=first, one_pass=one_pass, loss=loss)

    def _sweeps_for(self, bond_dim: int, samples: float, *, one_pass: bool) -> dict[str, Any]:
        """Adds the damping, from the number of weights that the two sites of a bond can have."""
        if self.solver == "als":  # its ridge is chosen by the evidence, so it needs no damping
            own = {"solver": "evidence", "max_error": 0.0, "tolerance": None}
            return own | ({} if self.sweeps is not None else {"sweeps": 5})
        usual = super()._sweeps_for(bond_dim, samples, one_pass=one_pass)
        return {**usual, "damping": self._damping(bond_dim, samples)}

    def _damping(self, bond_dim: int, samples: float) -> float:
        d, sites = self.layer_.features.dim, self.layer_.n_sites
        return damping(min(float(d) ** sites, float(d * bond_dim) ** 2), samples)

    def _loss_options(self) -> dict[str, Any]:
        if self.solver == "als" and self.loss is None:  # sweeps need the name of the loss
            return {"loss": "mse"}
        return super()._loss_options()

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        own = {"y_mean": self.y_mean_, "y_scale": self.y_scale_}
        return {**own, **self._arrays_of_errors(), **self._arrays_of_means()}

    def _facts(self) -> dict[str, Any]:
        return {"flat": self._flat}

    def _adopt(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        shape = (self.layer_.out_features,)
        self.y_mean_ = stored_array(tensors, "y_mean", shape)
        self.y_scale_ = stored_array(tensors, "y_scale", shape)
        self._flat = bool(metadata["flat"])
        self._adopt_errors(tensors)
        self._adopt_means(tensors)


def _one_each(name: str, value: Any, outputs: int) -> npt.NDArray[np.float64]:
    """A finite number for each output."""
    found = np.asarray(value, dtype=np.float64)
    if found.shape not in ((), (outputs,)) or not np.isfinite(found).all():
        raise InputError(
            f"{name} must be a finite number or one for each of {outputs} outputs, got {value!r}"
        )
    return np.broadcast_to(found, outputs).copy()


@estimator
class MPSRegressor(TensorNetworkRegressor):
    """A scikit-learn regressor: a matrix product state on the features, trained to least squares.

    `fit(X, y)` takes any real features and targets `[b]` or `[b, c]`. Targets are scaled to mean 0 and
    standard deviation 1 for training, and predictions are scaled back. Options of a loss, such as Huber's
    `delta`, are in units of that deviation.

    `solver="dmrg"` trains by sweeps, as described at `MPSClassifier`. The fewer samples there are for each
    weight of the model, the more it damps products of many features.

    A `sample_weight` counts as described at `MPSClassifier`, also in the mean and standard deviation of the
    targets. With `solver="dmrg"` the sum of the weights is taken as the number of samples, so multiplying all
    weights by one number does change the fit.

    Example:
        >>> X = [[0.0], [0.25], [0.5], [0.75], [1.0]]
        >>> model = MPSRegressor(bond_dim=2, random_state=0).fit(X, [10.0, 15.0, 20.0, 25.0, 30.0])
        >>> model.predict([[0.4]]).round(1)
        array([18.])
    """
