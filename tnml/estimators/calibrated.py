"""Probabilities of classifiers: of several networks, with a temperature; conformal sets and entropies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray
from scipy.special import log_softmax, logsumexp, softmax
from torch import Tensor

from tnml.checks import number
from tnml.errors import InputError
from tnml.estimators.calibration import best_temperature, expected_calibration_error, log_loss
from tnml.estimators.explained import Explained
from tnml.estimators.intervals import conformal_quantile
from tnml.estimators.probabilities import nearest_probabilities
from tnml.estimators.stored import stored_array
from tnml.estimators.tuned import Tuned
from tnml.estimators.uncertainty import Uncertainty, entropies
from tnml.loop.protocols import Callback
from tnml.training.losses import Loss

_LEAST_PROBABILITY = 1e-3


class Calibrated(Explained, Tuned):
    """The part of a classifier that turns outputs into probabilities.

    Attributes:
        temperature_: with `calibrate`, the number that the outputs are divided by; None without.
        calibration_: with `calibrate`, "ece" and "log_loss" of the held-out part with the temperature, and
            "ece_before" and "log_loss_before" without it; "samples" is the size of that part. The expected
            calibration error uses 15 bins, see `tnml.estimators.calibration`. None without `calibrate`.
        set_scores_: `[h, 1]`, 1 minus the probability of the label of each held-out sample, before any
            temperature, for `predict_set`. None without a held-out part that no fit has seen.
    """

    calibrate: bool
    _logits: bool = True  # also for an estimator pickled by an earlier version
    temperature_: float | None = None
    calibration_: dict[str, float] | None = None
    set_scores_: npt.NDArray[np.float64] | None = None
    _set_weights: npt.NDArray[np.float64] | None = None

    def _checked(self, callbacks: Sequence[Callback]) -> Loss:
        loss = super()._checked(callbacks)
        if self.calibrate and not self.validation_fraction:
            raise InputError(
                "calibrate=True chooses the temperature on a held-out part, but validation_fraction is 0; "
                "set it, for example to 0.2"
            )
        if self.calibrate and self._continues():
            raise InputError(
                "calibrate=True needs samples that no fit has seen, but warm_start=True holds out different "
                "ones each time; leave one of the two out"
            )
        return loss

    def _settle(
        self,
        x: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        weight: Float64[ndarray, " b"] | None,
        keep: Int64[ndarray, " k"],
        held: Int64[ndarray, " h"],
    ) -> None:
        super()._settle(x, targets, weight, keep, held)
        if not len(held):
            return
        outputs, codes = self._outputs(x[held]), targets[held]
        each = None if weight is None else weight[held]
        before = self._uncalibrated(outputs)
        self.set_scores_ = 1 - np.take_along_axis(before, codes[:, None], 1)
        self._set_weights = each
        if not self.calibrate:
            return
        self.temperature_ = best_temperature(outputs, codes, each)
        self.calibration_ = {
            "ece": expected_calibration_error(self._probabilities(outputs), codes, each),
            "ece_before": expected_calibration_error(before, codes, each),
            "log_loss": log_loss(self._probabilities(outputs), codes, each),
            "log_loss_before": log_loss(before, codes, each),
            "samples": len(held),
        }

    def _losses(self, outputs: Float64[ndarray, "b c"], targets: npt.NDArray[Any]) -> Float64[ndarray, " b"]:
        """The log loss, with probabilities of at least 0.001, so that no sample decides alone."""
        there = self._probabilities(outputs)[np.arange(len(targets)), targets]
        found: npt.NDArray[np.float64] = -np.log(np.maximum(there, _LEAST_PROBABILITY))
        return found

    def _joined(self, each: Float64[ndarray, "k b c"]) -> Float64[ndarray, "b c"]:
        """The logarithms of averaged probabilities, if the outputs are logits; else the averaged outputs."""
        if not self._logits:
            return super()._joined(each)
        found: Float64[ndarray, "b c"] = logsumexp(log_softmax(each, axis=2), axis=0) - np.log(len(each))
        return found

    def _averages_outputs(self) -> bool:
        return not self._logits

    def _probabilities(self, outputs: Float64[ndarray, "b c"]) -> Float64[ndarray, "b c"]:
        """The probabilities of the classes, from outputs."""
        if self.temperature_ is None:
            return self._uncalibrated(outputs)
        found: npt.NDArray[np.float64] = softmax(outputs / self.temperature_, axis=1)
        return found

    def _uncalibrated(self, outputs: Float64[ndarray, "b c"]) -> Float64[ndarray, "b c"]:
        """The same without the temperature."""
        found: npt.NDArray[np.float64]
        found = softmax(outputs, axis=1) if self._logits else nearest_probabilities(outputs)
        return found

    def predict_set(self, X: Any, alpha: float = 0.1, *, allow_empty: bool = True) -> Bool[ndarray, "b c"]:
        """Which of `classes_` may be the label: sets with the label in them with a probability of 1 - alpha.

        Split conformal prediction with the rule of the least ambiguous sets: a class is in the set if its
        probability is at least a threshold, the quantile of those of the held-out labels. Whatever the model
        and the data, the set contains the label of a new sample like the held-out ones with a probability
        of at least 1 - alpha, on average over samples. Of all rules with that property it needs the fewest
        classes where the probabilities are right; it keeps no random numbers, so the same sample always
        has the same set. Adaptive sets, which hold classes until their probabilities add up to enough, are
        more even over easy and hard samples, but larger.

        A set may be empty: a model that is right more often than 1 - alpha reaches 1 - alpha exactly only if
        it gives no class where it is least sure. Ask for a smaller alpha, or use `allow_empty=False`.

        If `patience` chose the weights with the held-out part, all of this holds only approximately. The
        temperature of `calibrate` is not used, because it was chosen there, too.

        Args:
            X: samples.
            alpha: the share of labels that may be missing from their sets, between 0 and 1.
            allow_empty: False adds the most probable class to empty sets, which contain their labels more
                often then.

        Returns:
            True where a class is in the set; `model.classes_[row]` are the labels of one row.

        Raises:
            InputError: alpha is out of range; there is no held-out part (set `validation_fraction`; a fit
                that continued another, as with `partial_fit` or a warm start, has no new one), or it is
                too small.

        Source: Sadinle, Lei and Wasserman, Least ambiguous set-valued classifiers, JASA 114 (2019) 223.

        Example:
            >>> from tnml import MPSClassifier
            >>> rng = np.random.RandomState(0)
            >>> X = rng.rand(200, 2)
            >>> y = np.where(X[:, 0] + 0.3 * rng.randn(200) > 0.5, "high", "low")
            >>> model = MPSClassifier(bond_dim=2, validation_fraction=0.3, random_state=0).fit(X, y)
            >>> sets = model.predict_set(X, 0.1)
            >>> bool(sets[np.arange(200), np.searchsorted(model.classes_, y)].mean() > 0.8)
            True
        """
        x, alpha = self._to_predict(X), number("alpha", alpha, above=0.0, below=1.0)
        if self.set_scores_ is None:
            raise InputError(
                "sets come from the probabilities of held-out samples that no fit has seen, but this model "
                "has none; fit it with validation_fraction, such as 0.2, without warm_start or partial_fit"
            )
        remedy = "raise alpha, which is 1 - coverage"
        most = conformal_quantile(self.set_scores_, self._set_weights, 1 - alpha, remedy=remedy)
        probabilities = self._uncalibrated(self._outputs(x))
        sets: npt.NDArray[np.bool_] = 1 - probabilities <= most
        if not allow_empty:
            sets[np.arange(len(sets)), probabilities.argmax(axis=1)] = True
        return sets

    def predict_uncertainty(self, X: Any) -> Uncertainty:
        """The entropy of the classes of each sample: of the mean, within the networks and between them.

        What the networks of `n_estimators` disagree about is called epistemic, the rest aleatoric. The
        probabilities are those of the networks, without the temperature of `calibrate`.

        Args:
            X: samples.

        Returns:
            Named arrays `[b]`: total, aleatoric and epistemic, in nats.

        Example:
            >>> from tnml import MPSClassifier
            >>> X = [[0.0], [0.1], [0.9], [1.0]]
            >>> model = MPSClassifier(bond_dim=2, n_estimators=3, random_state=0).fit(X, [0, 0, 1, 1])
            >>> found = model.predict_uncertainty(X)
            >>> bool(np.allclose(found.total, found.aleatoric + found.epistemic))
            True
        """
        x = self._to_predict(X)
        outputs = [self._in_blocks(layer, x) for layer in self.layers_]
        return entropies(np.stack([self._uncalibrated(each) for each in outputs]))

    def _arrays_of_sets(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays that a model file keeps."""
        kept = {"set_scores": self.set_scores_, "set_weights": self._set_weights}
        return {name: value for name, value in kept.items() if value is not None}

    def _adopt_sets(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `_arrays_of_sets` returned."""
        self.set_scores_ = self._set_weights = None
        if "set_scores" in tensors:
            rows = len(tensors["set_scores"])
            self.set_scores_ = stored_array(tensors, "set_scores", (rows, 1))
            if "set_weights" in tensors:
                self._set_weights = stored_array(tensors, "set_weights", (rows,))

    def _forget(self) -> None:
        self.calibration_ = self.set_scores_ = self._set_weights = None

    def _forget_all(self) -> None:
        super()._forget_all()
        self.temperature_ = None
