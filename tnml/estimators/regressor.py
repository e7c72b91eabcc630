"""The regressor."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data
from torch import Tensor

from tnml.errors import InputError
from tnml.estimators.base import FLOATS, MPSEstimator, stored_array
from tnml.estimators.solvers import damping
from tnml.training import SweepResult, TrainResult, sweep_regressor, train_regressor

_SWEPT = {"loss": "mse", "proximal": 1.0, "max_error": 0.003}


class MPSRegressor(RegressorMixin, MPSEstimator):
    """A scikit-learn regressor: a matrix product state on the features, trained to least squares.

    `fit(X, y)` takes any real features and targets `[b]` or `[b, c]`. Targets are brought to mean 0 and
    standard deviation 1 for training, and predictions back.

    `solver="dmrg"` trains by sweeps, as told at `MPSClassifier`. Products of many features are trusted the
    less the fewer samples there are for each weight of the model.

    Args:
        bond_dim: largest bond dimension, the capacity of the model.
        solver: as for `MPSClassifier`.
        features: local feature map; "linear" makes the model linear in each feature as long as the others
            stand still, {"name": "polynomial", "dim": 4} cubic. See `tnml.features.feature_map`.
        order: as for `MPSClassifier`.
        image_shape: as for `MPSClassifier`.
        label_site: as for `MPSClassifier`.
        noise: as for `MPSClassifier`.
        bond_dropout: as for `MPSClassifier`.
        site_dropout: as for `MPSClassifier`.
        feature_range: as for `MPSClassifier`.
        epochs: as for `MPSClassifier`.
        batch_size: as for `MPSClassifier`.
        lr: as for `MPSClassifier`.
        optimizer: as for `MPSClassifier`.
        weight_decay: as for `MPSClassifier`.
        schedule: as for `MPSClassifier`.
        clip_norm: as for `MPSClassifier`.
        average: as for `MPSClassifier`.
        validation_fraction: as for `MPSClassifier`, drawn at random.
        patience: as for `MPSClassifier`.
        sweeps: as for `MPSClassifier`.
        max_error: as for `MPSClassifier`; None is 0.003.
        ridge: as for `MPSClassifier`.
        dtype: as for `MPSClassifier`.
        engine: as for `MPSClassifier`.
        device: as for `MPSClassifier`.
        warm_start: as for `MPSClassifier`; it keeps the first fit's mean and scale of the targets.
        verbose: as for `MPSClassifier`.
        random_state: as for `MPSClassifier`.

    Attributes:
        y_mean_, y_scale_: `[c]`, what was taken from the targets before training.
        layer_, feature_range_, history_, n_iter_, n_features_in_, feature_names_in_: as for `MPSClassifier`.

    Example:
        >>> X = [[0.0], [0.25], [0.5], [0.75], [1.0]]
        >>> model = MPSRegressor(bond_dim=2, random_state=0).fit(X, [10.0, 15.0, 20.0, 25.0, 30.0])
        >>> model.predict([[0.4]]).round(1)
        array([18.])
    """

    _kind: ClassVar[str] = "regressor"

    y_mean_: npt.NDArray[np.float64]
    y_scale_: npt.NDArray[np.float64]

    def __init__(
        self,
        bond_dim: int = 20,
        *,
        solver: str = "gradient",
        features: Any = "linear",
        order: str | Sequence[int] = "auto",
        image_shape: tuple[int, int] | None = None,
        label_site: int | None = None,
        noise: float | None = None,
        bond_dropout: float = 0.0,
        site_dropout: float = 0.0,
        feature_range: str | tuple[float, float] | None = "auto",
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        optimizer: str = "adam",
        weight_decay: float = 0.0,
        schedule: str = "one-cycle",
        clip_norm: float | None = None,
        average: str = "none",
        validation_fraction: float = 0.0,
        patience: int | None = None,
        sweeps: int | None = None,
        max_error: float | None = None,
        ridge: float = 1e-3,
        dtype: str = "float32",
        engine: str = "auto",
        device: str = "cpu",
        warm_start: bool = False,
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        self.bond_dim = bond_dim
        self.solver = solver
        self.features = features
        self.order = order
        self.image_shape = image_shape
        self.label_site = label_site
        self.noise = noise
        self.bond_dropout = bond_dropout
        self.site_dropout = site_dropout
        self.feature_range = feature_range
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.average = average
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.sweeps = sweeps
        self.max_error = max_error
        self.ridge = ridge
        self.dtype = dtype
        self.engine = engine
        self.device = device
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's description of what this takes: several targets at once, too."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """This regressor, trained on samples `X [b, n]` with targets `y`, `[b]` or `[b, c]`.

        Raises:
            InputError: a parameter is out of range; scikit-learn's ValueError for data it does not take (NaN,
                wrong shapes).
        """
        return self._train(X, y, first=not self._continues(), one_pass=False)

    def partial_fit(self, X: Any, y: Any) -> Self:
        """This regressor after one pass, at the constant rate `lr`, or one sweep over `X [b, n]` and `y`.

        The first call fixes the feature range and the mean and scale of the targets by its samples. Each call
        starts the optimiser's averages anew, so prefer few large parts to many small ones.

        Raises:
            InputError: the number of targets changed.
        """
        return self._train(X, y, first=not hasattr(self, "layer_"), one_pass=True)

    def _train(self, X: Any, y: Any, *, first: bool, one_pass: bool) -> Self:
        self._check_solver()
        X, y = validate_data(self, X, y, dtype=FLOATS, multi_output=True, y_numeric=True, reset=first)
        targets = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        if first:
            self._start(X, targets.shape[1])
            deviation = targets.std(axis=0)
            self.y_mean_ = targets.mean(axis=0)
            self.y_scale_ = np.where(deviation > 0, deviation, 1.0)
        elif targets.shape[1] != len(self.y_mean_):
            raise InputError(
                f"expected {len(self.y_mean_)} targets as in the first fit, got {targets.shape[1]}"
            )
        self._flat = np.ndim(y) == 1
        standard = (targets - self.y_mean_) / self.y_scale_
        x, progress = self._scaled(X), self._progress()
        result: TrainResult | SweepResult
        if self._sweeps_on(X.shape[1]):
            steps = self._sweep_options(len(X), one_pass=one_pass, **_SWEPT, damping=self._damping(len(X)))
            result = sweep_regressor(self._swept_layer(), x, standard, steps, progress=progress)
        else:
            options = self._options(len(X), one_pass=one_pass, loss="mse")
            result = train_regressor(self.layer_, x, standard, options, progress=progress)
        self._note(result.history)
        return self

    def _damping(self, samples: int) -> float:
        """The damping of the sweeps: by the weights that the two sites of a bond can have."""
        d, sites = self.layer_.features.dim, self.layer_.n_sites
        return damping(min(float(d) ** sites, float(d * self.bond_dim) ** 2), samples)

    def predict(self, X: Any) -> npt.NDArray[np.float64]:
        """The targets of samples `X [b, n]`: `[b]` or `[b, c]`, as they came to `fit`."""
        values = self._evaluate(X) * self.y_scale_ + self.y_mean_
        return values[:, 0] if self._flat else values

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"y_mean": self.y_mean_, "y_scale": self.y_scale_}

    def _facts(self) -> dict[str, Any]:
        return {"flat": self._flat}

    def _adopt(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        shape = (self.layer_.out_features,)
        self.y_mean_ = stored_array(tensors, "y_mean", shape)
        self.y_scale_ = stored_array(tensors, "y_scale", shape)
        self._flat = bool(metadata["flat"])
