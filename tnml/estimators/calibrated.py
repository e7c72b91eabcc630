"""Probabilities of classifiers: from several networks combined, and with a temperature."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, Int64
from numpy import ndarray
from scipy.special import log_softmax, logsumexp, softmax

from tnml.errors import InputError
from tnml.estimators.calibration import best_temperature, expected_calibration_error, log_loss
from tnml.estimators.explained import Explained
from tnml.estimators.probabilities import nearest_probabilities
from tnml.loop.protocols import Callback
from tnml.training.losses import Loss


class Calibrated(Explained):
    """The part of a classifier that turns outputs into probabilities.

    Attributes:
        temperature_: with `calibrate`, the number that the outputs are divided by; None without.
        calibration_: with `calibrate`, "ece" and "log_loss" of the held-out part with the temperature, and
            "ece_before" and "log_loss_before" without it; "samples" is the size of that part. The expected
            calibration error uses 15 bins, see `tnml.estimators.calibration`. None without `calibrate`.
    """

    calibrate: bool
    _logits: bool = True  # also for an estimator pickled by an earlier version
    temperature_: float | None = None
    calibration_: dict[str, float] | None = None

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
        if not self.calibrate:
            return
        outputs, codes = self._outputs(x[held]), targets[held]
        each = None if weight is None else weight[held]
        before = self._probabilities(outputs)
        self.temperature_ = best_temperature(outputs, codes, each)
        self.calibration_ = {
            "ece": expected_calibration_error(self._probabilities(outputs), codes, each),
            "ece_before": expected_calibration_error(before, codes, each),
            "log_loss": log_loss(self._probabilities(outputs), codes, each),
            "log_loss_before": log_loss(before, codes, each),
            "samples": len(held),
        }

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
        if self.temperature_ is None and not self._logits:
            return nearest_probabilities(outputs)
        found: npt.NDArray[np.float64] = softmax(outputs / (self.temperature_ or 1.0), axis=1)
        return found

    def _forget(self) -> None:
        self.calibration_ = None

    def _forget_all(self) -> None:
        super()._forget_all()
        self.temperature_ = None
