"""Error bars of regressors: standard deviations of a posterior, and conformal intervals."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray
from torch import Tensor

from tnml.errors import InputError
from tnml.estimators.explained import Explained
from tnml.estimators.intervals import conformal_quantile
from tnml.estimators.stored import stored_array
from tnml.estimators.tuned import Tuned
from tnml.nn import MPSLayer
from tnml.training.dmrg.posterior import CorePosterior, fit_label_core, label_design


class ErrorBars(Explained, Tuned):
    """The part of a regressor that estimates the errors of its predictions.

    Attributes:
        posterior_: with `solver="als"`, the posterior of the label core in units of `y_scale_`, see
            `tnml.training.dmrg.posterior.CorePosterior`; else None.
        interval_scores_: `[h, c]`, the distance of each held-out target from its prediction, in units of
            `y_scale_`, or with `posterior_` in standard deviations. None without a held-out part that no fit
            has seen.
    """

    y_mean_: npt.NDArray[np.float64]
    y_scale_: npt.NDArray[np.float64]
    _flat: bool
    posterior_: CorePosterior | None = None  # pickles of earlier versions have none
    interval_scores_: npt.NDArray[np.float64] | None = None
    _interval_weights: npt.NDArray[np.float64] | None = None

    def _settle(
        self,
        x: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        weight: Float64[ndarray, " b"] | None,
        keep: Int64[ndarray, " k"],
        held: Int64[ndarray, " h"],
    ) -> None:
        super()._settle(x, targets, weight, keep, held)
        if self.solver == "als":
            self._fit_posterior(x[keep], targets[keep], None if weight is None else weight[keep])
        if len(held):
            off = np.abs(targets[held] - self._outputs(x[held]))
            self.interval_scores_ = off / (1.0 if self.posterior_ is None else self._deviations(x[held]))
            self._interval_weights = None if weight is None else weight[held]

    def _losses(self, outputs: Float64[ndarray, "b c"], targets: npt.NDArray[Any]) -> Float64[ndarray, " b"]:
        """The mean square error of standardised targets."""
        found: npt.NDArray[np.float64] = np.square(outputs - targets).mean(axis=1)
        return found

    def _forget(self) -> None:
        self.posterior_ = self.interval_scores_ = self._interval_weights = None

    def _fit_posterior(
        self,
        x: npt.NDArray[Any],
        targets: Float64[ndarray, "b c"],
        weight: Float64[ndarray, " b"] | None,
    ) -> None:
        """The posterior of the label core; its mean becomes the label core."""
        layer = cast(MPSLayer, self.layer_)
        mean = 1.0 if weight is None else float(weight.mean())
        self.posterior_ = fit_label_core(
            layer,
            torch.from_numpy(x),
            torch.from_numpy(targets),
            weight=None if weight is None else torch.from_numpy(weight / mean),
            observations=mean,
        )
        if layer.n_sites == 1:  # the label core was all there is to fit
            loss = float(np.average(np.square(self._outputs(x) - targets).mean(axis=1), weights=weight))
            self.n_iter_ += 1
            self.history_.append({"sweep": self.n_iter_, "loss": loss})

    def _deviations(self, x: npt.NDArray[Any]) -> Float64[ndarray, "b c"]:
        """Standard deviations of targets from the posterior, in units of `y_scale_`."""
        if self.posterior_ is None:
            raise InputError(
                "standard deviations come from the posterior of solver='als', which this model does not "
                "have: it was trained in another way, or compressed; choose solver='als', or use "
                "predict_interval"
            )
        design = self._in_blocks(self.layer_, x, label_design)
        found: Float64[ndarray, "b c"] = np.sqrt(self.posterior_.variance(design))
        return found

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The targets of samples `X [b, n]`: `[b]` or `[b, c]`, in the shape given to `fit`.

        Args:
            X: samples.
            return_std: return a pair, the targets and their standard deviations. These contain the noise and
                the uncertainty of the label core when all other cores are fixed. With `solver="als"` only.

        Raises:
            InputError: there is no posterior.
        """
        x = self._to_predict(X)
        values = self._as_given(self._outputs(x) * self.y_scale_ + self.y_mean_)
        return (values, self._as_given(self._deviations(x) * self.y_scale_)) if return_std else values

    def predict_interval(
        self, X: Any, coverage: float = 0.9
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Lower and upper ends of intervals that contain targets of new samples with this probability.

        Split conformal prediction: the half width is a quantile of the errors on the held-out part. With
        `solver="als"` it is in units of each sample's standard deviation, else the same for all samples.
        Whatever the model and the data, an interval contains the target of a new sample like the held-out
        ones with a probability of at least `coverage`, on average over samples, for each target separately.
        If `patience` chose the weights with the held-out part, this holds only approximately.

        Args:
            X: samples.
            coverage: a probability.

        Returns:
            Two arrays of the shape that `predict` returns.

        Raises:
            InputError: there is no held-out part (set `validation_fraction`; a fit that continued another, as
                with `partial_fit` or a warm start, has no new one), or it is too small for this coverage.

        Example:
            >>> from tnml import MPSRegressor
            >>> rng = np.random.RandomState(0)
            >>> X = rng.rand(200, 2)
            >>> y = X[:, 0] + 0.1 * rng.randn(200)
            >>> model = MPSRegressor(solver="als", validation_fraction=0.3, random_state=0).fit(X, y)
            >>> low, high = model.predict_interval(X, 0.9)
            >>> bool(((low < y) & (y < high)).mean() > 0.8)
            True
        """
        x = self._to_predict(X)
        if self.interval_scores_ is None:
            raise InputError(
                "intervals come from the errors on held-out samples that no fit has seen, but this model has "
                "none; fit it with validation_fraction, such as 0.2, without warm_start or partial_fit"
            )
        radius = conformal_quantile(self.interval_scores_, self._interval_weights, coverage) * self.y_scale_
        spread = radius if self.posterior_ is None else radius * self._deviations(x)
        values = self._outputs(x) * self.y_scale_ + self.y_mean_
        return self._as_given(values - spread), self._as_given(values + spread)

    def _units(self) -> tuple[Float64[ndarray, " c"], Float64[ndarray, " c"]]:
        return self.y_scale_, self.y_mean_

    def _output_names(self) -> list[Any]:
        return list(range(len(self.y_mean_)))

    def _as_given(self, values: Float64[ndarray, "b c"]) -> npt.NDArray[np.float64]:
        """The values in the shape of the targets of `fit`."""
        return values[:, 0] if self._flat else values

    def _arrays_of_errors(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays that a model file keeps."""
        kept = {"interval_scores": self.interval_scores_, "interval_weights": self._interval_weights}
        if self.posterior_ is not None:
            kept |= {f"posterior_{name}": value for name, value in vars(self.posterior_).items()}
        return {name: value for name, value in kept.items() if value is not None}

    def _adopt_errors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `_arrays_of_errors` returned."""
        outputs = (self.layer_.out_features,)
        self._forget()
        if "interval_scores" in tensors:
            rows = len(tensors["interval_scores"])
            self.interval_scores_ = stored_array(tensors, "interval_scores", (rows, *outputs))
            if "interval_weights" in tensors:
                self._interval_weights = stored_array(tensors, "interval_weights", (rows,))
        if "posterior_basis" in tensors:
            left, _, right = cast(MPSLayer, self.layer_).label.shape
            rank = tensors["posterior_basis"].shape[1]
            shapes = {"basis": (left * right, rank), "precision": (rank, *outputs)}
            found = {
                field.name: stored_array(tensors, f"posterior_{field.name}", shapes.get(field.name, outputs))
                for field in fields(CorePosterior)
            }
            self.posterior_ = CorePosterior(**found)
