"""Parameters chosen on a held-out part: `preset` of the estimators."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64
from numpy import ndarray
from sklearn.base import clone

from tnml.errors import InputError, choose
from tnml.estimators.base import TensorNetworkEstimator
from tnml.estimators.layers import defaults
from tnml.estimators.presets import PRESETS, Candidate
from tnml.loop.results import TrainingInterrupted
from tnml.training.samples import split_rows

_SHARE, _LEAST_HELD, _MOST_SHARE = 0.25, 20, 0.5  # of the samples, held out to choose by
_LEAST_ROWS = 20  # with fewer the simplest candidate is taken
_ALONE = {
    "n_estimators": 1,
    "validation_fraction": 0.0,
    "patience": None,
    "calibrate": False,
    "verbose": False,
}


class Tuned(TensorNetworkEstimator):
    """The part of an estimator that chooses its parameters, if it has a `preset`."""

    def _choose(
        self,
        X: Any,
        targets: npt.NDArray[Any],
        weight: Float64[ndarray, " b"] | None,
        outputs: int,
        seed: int,
        how: Mapping[str, Any],
    ) -> None:
        """Sets `choice_`: each candidate is fitted to a part of the samples, and judged by the others.

        Samples that the fit holds out (`validation_fraction`) are not looked at.

        Args:
            X: samples of weight above 0.
            targets: in the form that the task needs.
            weight: of the samples.
            outputs: of the networks.
            seed: of the fit.
            how: further arguments of `_run`.

        Raises:
            InputError: the preset is unknown.
        """
        self.choice_ = None
        if self.preset is None:
            return
        self._forget_all()
        candidates = choose("preset", self.preset, PRESETS)[self._task.name]
        keep, held = self._rows_to_choose_by(targets, seed)
        best = candidates[-1]
        if len(candidates) > 1 and len(held):
            given = X, targets, weight, outputs
            losses = [self._tried(c, *given, keep, held, seed, how) for c in candidates]
            best = candidates[int(np.argmin(losses))]
        known, usual = self._chosen(), defaults(type(self))
        chosen = best.parameters_for(len(X), self.batch_size)
        self.choice_ = {n: value for n, value in chosen.items() if np.array_equal(known[n], usual[n])}

    def _tried(
        self,
        candidate: Candidate,
        X: Any,
        targets: npt.NDArray[Any],
        weight: Float64[ndarray, " b"] | None,
        outputs: int,
        keep: npt.NDArray[np.int64],
        held: npt.NDArray[np.int64],
        seed: int,
        how: Mapping[str, Any],
    ) -> float:
        """The loss of a candidate on the rows `held`, fitted to the rows `keep` as a single network."""
        trial: Tuned = clone(self)
        trial.set_params(**{name: value for name, value in _ALONE.items() if hasattr(self, name)})
        trial.choice_ = {**candidate.parameters_for(len(keep), self.batch_size), "n_estimators": 1}
        each, others = (None, None) if weight is None else (weight[keep], weight[held])
        try:
            trial._start(X[keep], targets[keep], each, outputs, seed)
            trial._run(X[keep], targets[keep], each, (), first=True, one_pass=False, **how)
        except TrainingInterrupted as stop:  # there is no model yet that could be kept
            raise KeyboardInterrupt from stop
        found = self._losses(trial._outputs(trial._scaled(X[held])), targets[held])
        return float(np.average(found, weights=others))

    def _check_parts(self) -> None:
        """Raises if the parameters need all samples at once."""
        if self.preset is not None:
            raise InputError(
                f"preset={self.preset!r} tries candidates on all samples, but partial_fit sees only some; "
                "use fit, or the parameters in `choice_` of a model that was fitted to some samples"
            )

    def _rows_to_choose_by(
        self, targets: npt.NDArray[Any], seed: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows to fit candidates to and to judge them by; none to judge by if there are too few."""
        labels = torch.from_numpy(targets) if self._task.stratified else None
        rows = split_rows(len(targets), labels, float(self.validation_fraction), seed)[0]
        if len(rows) < _LEAST_ROWS:
            return rows.numpy(), rows[:0].numpy()
        if labels is not None:
            labels = labels[rows]
            counts = torch.bincount(labels)
            if int(counts[counts > 0].min()) < 2:  # a class that cannot be in both parts
                labels = None
        share = min(_MOST_SHARE, max(_SHARE, _LEAST_HELD / len(rows)))
        keep, held = split_rows(len(rows), labels, share, seed)
        return rows[keep].numpy(), rows[held].numpy()

    @abstractmethod
    def _losses(self, outputs: Float64[ndarray, "b c"], targets: npt.NDArray[Any]) -> Float64[ndarray, " b"]:
        """What the outputs for held-out samples are judged by, lower is better."""
