"""The generative classifier: one density of the columns and the class together."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64
from numpy import ndarray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from tnml.checks import whole
from tnml.errors import InputError
from tnml.estimators.density_base import DensityEstimator
from tnml.estimators.parameters import estimator
from tnml.estimators.stored import plain
from tnml.estimators.tables import checked_targets


@estimator
class MPSGenerativeClassifier(ClassifierMixin, DensityEstimator):
    """A classifier by a density p(x, y) of columns and class: it also samples, and knows what is strange.

    The class is one site of the chain. Rows with the label -1 have no class and count with p(x) alone
    (semi-supervised learning), where the other labels are whole numbers from 0 up.

    Attributes:
        classes_: the labels.

    Example:
        >>> rng = np.random.RandomState(0)
        >>> X, y = rng.normal(size=(200, 2)), np.repeat(["left", "right"], 100)
        >>> X[y == "right"] += 3
        >>> model = MPSGenerativeClassifier(random_state=0).fit(X, y)
        >>> model.predict([[0.0, 0.0], [3.0, 3.0], [np.nan, 3.0]])
        array(['left', 'right', 'right'], dtype='<U5')
        >>> bool(model.sample(50, y="right").mean() > 2)
        True
    """

    _kind: ClassVar[str] = "generative-classifier"

    def fit(self, X: Any, y: Any) -> Self:
        """Learns the density of rows and labels.

        Args:
            X: `[b, n]`, an array or a data frame.
            y: `[b]` labels; -1 among whole numbers from 0 up is no label.

        Raises:
            InputError: there are fewer than two classes, or a column has no value.
        """
        table = self._checked_fit(X)
        y = checked_targets(self, len(table), y)
        check_classification_targets(y)
        labels = np.asarray(y)
        unknown = self._unknown(labels)
        self.classes_ = np.unique(labels[~unknown])
        if len(self.classes_) < 2:
            raise InputError(
                f"a classifier needs at least 2 classes, got only one class: {self.classes_.tolist()}"
            )
        codes = np.where(
            unknown, -1, np.searchsorted(self.classes_, np.where(unknown, self.classes_[0], labels))
        )
        self._fit(table, codes, len(self.classes_))
        return self

    def _facts(self) -> dict[str, Any]:
        if self.classes_.dtype.kind not in "biufUS":
            raise InputError(
                f"a file keeps classes that are text, numbers or truth values, got {self.classes_.dtype}"
            )
        return {"classes": self.classes_.tolist()}

    def _adopt(self, facts: Mapping[str, Any]) -> None:
        self.classes_ = np.array(facts["classes"])

    @staticmethod
    def _unknown(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Where there is no label: -1, if all the others are whole numbers from 0 up."""
        if labels.dtype.kind not in "if":
            return np.zeros(len(labels), dtype=bool)
        others = np.unique(labels[labels != -1])
        semi = len(others) > 1 and others.min() >= 0
        return (labels == -1) if semi else np.zeros(len(labels), dtype=bool)

    def _joint(self, X: Any) -> tuple[Float64[ndarray, "b c"], Float64[ndarray, " b"]]:
        """The logarithm of p(x, class) of the transforms, and the logarithms of the slopes."""
        codes, slopes = self._codes(X)
        b, c = len(codes), len(self.classes_)
        every = torch.arange(c, dtype=torch.float64).repeat(b).unsqueeze(1)
        rows = torch.cat([codes.repeat_interleave(c, 0), every], 1)
        found: npt.NDArray[np.float64] = self.machine_.log_prob(rows).view(b, c).numpy()
        return found, slopes

    def predict_log_proba(self, X: Any) -> Float64[ndarray, "b c"]:
        """The logarithm of p(class | x), of the values that are not missing."""
        joint, _ = self._joint(X)
        top = joint.max(1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
        found: npt.NDArray[np.float64] = joint - top - np.log(np.exp(joint - top).sum(1, keepdims=True))
        return found

    def predict_proba(self, X: Any) -> Float64[ndarray, "b c"]:
        """p(class | x)."""
        found: npt.NDArray[np.float64] = np.exp(self.predict_log_proba(X))
        return found

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The most probable class of every row."""
        joint, _ = self._joint(X)
        found: npt.NDArray[Any] = self.classes_[joint.argmax(1)]
        return found

    def score_samples(self, X: Any) -> Float64[ndarray, " b"]:
        """The logarithm of p(x) of every row, whatever its class: low where a row is like none before."""
        joint, slopes = self._joint(X)
        found: npt.NDArray[np.float64] = np.logaddexp.reduce(joint, axis=1) + slopes
        return found

    def sample(self, n_samples: int = 1, *, y: Any = None, random_state: int = 0) -> npt.NDArray[Any]:
        """Rows drawn from the density, of one class or of all as they come; see `MPSDensity.sample`.

        Args:
            n_samples: how many.
            y: the class; None draws it, too.
            random_state: seed of the draws.

        Raises:
            InputError: there is no such class.
        """
        self._codes_needed()
        given = torch.full((self.n_features_in_ + 1,), torch.nan, dtype=torch.float64)
        if y is not None:
            place = np.flatnonzero(self.classes_ == y)
            if not len(place):
                raise InputError(f"y must be one of {self.classes_.tolist()}, got {y!r}")
            given[-1] = float(place[0])
        draws = self.machine_.sample(whole("n_samples", plain(n_samples), 1), given=given, seed=random_state)
        return self.columns_.decode(draws[:, :-1].numpy())
