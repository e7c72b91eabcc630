"""The classifier."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64
from numpy import ndarray
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import Tensor

from tnml.errors import InputError
from tnml.estimators.base import FLOATS, MPSEstimator
from tnml.loop.results import Row
from tnml.nn import TensorNetworkLayer
from tnml.training import SweepResult, TrainResult, sweep_classifier, train_classifier


class MPSClassifier(ClassifierMixin, MPSEstimator):
    """A scikit-learn classifier: a matrix product state on the features, trained by gradients or sweeps.

    `fit(X, y)` takes any real features and labels of any type. The defaults are meant for a first good
    result on small tables and images alike; `None` lets the data decide, as said below.

    `solver="dmrg"` solves for two neighbouring cores at a time, from bond to bond and back, as the density
    matrix renormalisation group does. Bonds begin at 1 and grow where the data want it. `label_site`,
    `noise`, the dropouts, `epochs`, everything from `lr` to `average`, and `patience` belong to
    `solver="gradient"`; with "dmrg" they are an error unless they have their defaults.

    Args:
        bond_dim: largest bond dimension, the capacity of the model.
        solver: "gradient" (stochastic gradient descent) or "dmrg" (sweeps; on a single feature, which has no
            bond, gradients).
        features: local feature map, see `tnml.features.feature_map`.
        order: the sequence of the features on the chain, see `tnml.features.site_order`; "auto" is "snake"
            with an `image_shape` or for 16, 25, 36, ... features, else the order given.
        image_shape: (height, width) where a sample is an image; None takes a square where it is needed.
        label_site: number of sites left of the label core; None is the middle.
        noise: standard deviation of the noise on the starting cores; None chooses it from the chain.
        bond_dropout: probability of dropping a bond index in training.
        site_dropout: probability of skipping a feature of a sample in training.
        feature_range: what becomes 0 and 1. "auto": 0 and 1 where all training values lie between them,
            else each feature's least and greatest training value; a pair (low, high) for all features; None
            hands values on untouched. Unless None, values beyond are cut off, also in `predict`.
        epochs: passes over the data; None makes it about 1000 steps, in 10 to 200 epochs.
        batch_size: samples per step; None is a hundredth of the samples, between 32 and 100. With "dmrg",
            samples of each half sweep; None takes all, but of many 10,000, drawn anew each time.
        lr: peak learning rate; None is 2 / steps (times 100 / features² for fewer than 10), at most 0.02
            and 0.2 / features, but at least 3e-4; 1 for "lbfgs".
        optimizer: "adam", "adamw", "sgd" or "lbfgs".
        weight_decay: decoupled for "adamw", else an L2 penalty.
        schedule: of the learning rate, "one-cycle", "cosine", "constant" or "step".
        clip_norm: longest gradient, None for no limit.
        average: "ema" keeps a moving average of the weights, "none" does not.
        label_smoothing: share of the target spread evenly over the classes; it keeps small data from being
            learnt by heart and probabilities off 0 and 1.
        max_shift: shift training images by up to this many pixels at random.
        validation_fraction: part of the samples held out, stratified; `history_` tells how it does.
        patience: epochs without a lower loss on that part after which training stops; None never stops.
        sweeps: over all bonds and back, `solver="dmrg"` only; None is 5.
        max_error: `solver="dmrg"` only: at each bond singular values are dropped while they make up less
            than this share of the norm, so that bonds are as large as the data want, up to `bond_dim`;
            None is 0.01.
        ridge: `solver="dmrg"` only: weight of the mean square output in the loss, which keeps a model of
            few samples small.
        dtype: "float32" or "float64".
        engine: of the contraction, see `tnml.nn.MPSLayer`.
        device: "cpu", "cuda", "cuda:1", or "auto" for CUDA where there is one.
        warm_start: let `fit` continue from the last fit instead of starting anew; it keeps the classes and
            the feature range of the first one.
        verbose: show progress.
        random_state: None, a number or a `numpy.random.RandomState`; a number makes `fit` repeatable.

    Attributes:
        classes_: the labels, sorted; the columns of `predict_proba`.
        layer_: the trained `MPSLayer`.
        feature_range_: `[2, n]` what was scaled to 0 and 1; None where nothing was.
        history_: one dictionary per epoch or sweep; not kept in model files.
        n_iter_: epochs or sweeps trained.
        n_features_in_, feature_names_in_: as in every scikit-learn estimator.

    Example:
        >>> X = [[0.0, 1.0], [0.1, 0.8], [0.9, 0.2], [1.0, 0.0]]
        >>> model = MPSClassifier(bond_dim=2, random_state=0).fit(X, ["cat", "cat", "dog", "dog"])
        >>> model.predict([[0.2, 0.9]])
        array(['cat'], dtype='<U3')
        >>> swept = MPSClassifier(bond_dim=2, solver="dmrg").fit(X, ["cat", "cat", "dog", "dog"])
        >>> swept.predict([[0.2, 0.9]]), swept.n_iter_
        (array(['cat'], dtype='<U3'), 5)
    """

    _kind: ClassVar[str] = "classifier"

    classes_: npt.NDArray[Any]

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
        label_smoothing: float = 0.05,
        max_shift: int = 0,
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
        self.label_smoothing = label_smoothing
        self.max_shift = max_shift
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

    @classmethod
    def from_layer(
        cls,
        layer: TensorNetworkLayer,
        classes: Any,
        *,
        image_shape: tuple[int, int] | None = None,
        feature_range: tuple[float, float] | None = None,
        history: Sequence[Row] = (),
        data: Mapping[str, Any] | None = None,
    ) -> Self:
        """A fitted classifier around `layer`, which was trained elsewhere and is shared, not copied.

        Args:
            layer: its outputs are the logits of `classes`.
            classes: labels in ascending order, one per output.
            image_shape: (height, width) where a sample is an image.
            feature_range: (low, high) that becomes (0, 1) before the layer; None for none.
            history: rows of its training.
            data: what it was trained on, kept as `data_` and in the model file; plain JSON values.

        Raises:
            InputError: the number of classes is not that of the outputs, they do not ascend, or the feature
                map is a function without a name.

        Example:
            >>> from tnml.nn import MPSLayer
            >>> model = MPSClassifier.from_layer(MPSLayer(4, 2), ["no", "yes"], data={"name": "mine"})
            >>> model.predict_proba([[0.1, 0.2, 0.3, 0.4]]).shape, model.data_
            ((1, 2), {'name': 'mine'})
        """
        labels = np.asarray(classes)
        if labels.shape != (layer.out_features,) or not np.array_equal(np.unique(labels), labels):
            raise InputError(
                f"expected {layer.out_features} classes in ascending order, one per output, got {labels}"
            )
        config = layer.config
        model = cls(
            max(layer.bond_dims),
            image_shape=image_shape,
            feature_range=feature_range,
            **{name: config[name] for name in _SHARED if name in config},
        )
        ends = None if feature_range is None else np.array(feature_range, dtype=np.float64)
        model.feature_range_ = None if ends is None else np.tile(ends[:, None], layer.n_sites)
        model.layer_, model.classes_, model.n_features_in_ = layer.eval(), labels, layer.n_sites
        model.history_, model.n_iter_, model.seed_ = list(history), len(history), 0
        model.data_ = None if data is None else dict(data)
        return model

    def fit(self, X: Any, y: Any) -> Self:
        """This classifier, trained on samples `X [b, n]` with labels `y [b]`.

        Raises:
            InputError: a parameter is out of range, or there is only one class; scikit-learn's ValueError for
                data it does not take (NaN, wrong shapes).
        """
        self._check_solver()
        again = self._continues()
        X, y = validate_data(self, X, y, dtype=FLOATS, reset=not again)
        check_classification_targets(y)
        if not again:
            classes = np.unique(y)
            _check_classes(classes)
            self._start(X, len(classes))
            self.classes_ = classes
        return self._train(X, self._codes(y), one_pass=False)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """This classifier after one pass, at the constant rate `lr`, or one sweep over `X [b, n]`, `y [b]`.

        The first call fixes the feature range by its samples; give `feature_range` if they do not show it.
        Each call starts the optimiser's averages anew, and a sweep fits the part it sees, so prefer few large
        parts to many small ones.

        Args:
            X: samples.
            y: their labels.
            classes: all labels there will be; needed in the first call.

        Raises:
            InputError: no classes in the first call, other ones later, or a label that is none of them.
        """
        self._check_solver()
        first = not hasattr(self, "layer_")
        X, y = validate_data(self, X, y, dtype=FLOATS, reset=first)
        check_classification_targets(y)
        if first:
            if classes is None:
                raise InputError("the first call of partial_fit needs classes, all labels that will come")
            labels = np.unique(classes)
            _check_classes(labels)
            self._start(X, len(labels))
            self.classes_ = labels
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise InputError(f"classes must be those of the first call, {self.classes_}, got {classes}")
        return self._train(X, self._codes(y), one_pass=True)

    def _train(self, X: npt.NDArray[Any], codes: npt.NDArray[np.int64], *, one_pass: bool) -> Self:
        own: dict[str, Any] = {"label_smoothing": self.label_smoothing, "max_shift": self.max_shift}
        given: dict[str, Any] = {"image_shape": self.image_shape, "progress": self._progress()}
        result: TrainResult | SweepResult
        if self._sweeps_on(X.shape[1]):
            steps = self._sweep_options(len(X), one_pass=one_pass, **own, **_SWEPT)
            result = sweep_classifier(self._swept_layer(), self._scaled(X), codes, steps, **given)
        else:
            options = self._options(len(X), one_pass=one_pass, **own)
            result = train_classifier(self.layer_, self._scaled(X), codes, options, **given)
        self._note(result.history)
        return self

    def _codes(self, y: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The place of each label in `classes_`."""
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise InputError(
                f"expected labels among {self.classes_}, got {unknown}; name all classes in the "
                "first call of partial_fit, or fit without warm_start"
            )
        return np.searchsorted(self.classes_, y).astype(np.int64)

    def decision_function(self, X: Any) -> Float64[ndarray, "..."]:
        """Logits `[b, c]` of samples `X [b, n]`; of two classes `[b]`, positive for the second."""
        logits = self._evaluate(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> Float64[ndarray, "b c"]:
        """The probability of each of `classes_`, `[b, c]`."""
        probabilities: npt.NDArray[np.float64] = softmax(self._evaluate(X), axis=1)
        return probabilities

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The most probable label of each sample, `[b]`."""
        best = self._evaluate(X).argmax(axis=1)  # first: it tells whether there was a fit
        labels: npt.NDArray[Any] = self.classes_[best]
        return labels

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {}

    def _facts(self) -> dict[str, Any]:
        values = self.classes_.tolist()
        if not all(isinstance(value, str | int | float | bool) for value in values):
            raise InputError(
                f"a model file keeps classes that are text, numbers or truth values, got {values[0]!r} "
                f"of dtype {self.classes_.dtype}; convert the labels before fit, or pickle the model"
            )
        return {"classes": values, "classes_dtype": str(self.classes_.dtype)}

    def _adopt(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        labels = np.array(metadata["classes"], dtype=np.dtype(metadata["classes_dtype"]))
        if labels.shape != (self.layer_.out_features,):
            raise InputError(f"{self.layer_.out_features} outputs and {len(labels)} classes")
        self.classes_ = labels


_SWEPT = {"proximal": 3.0, "max_error": 0.01}  # chosen on digits, wine, iris and breast cancer
_SHARED = ("features", "order", "label_site", "bond_dropout", "site_dropout", "dtype", "engine")


def _check_classes(classes: npt.NDArray[Any]) -> None:
    if len(classes) < 2:
        raise InputError(
            f"expected samples of at least 2 classes, got 1 class: {classes[0]}; nothing can be told apart"
        )
