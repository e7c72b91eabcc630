"""What a run or a model is for: labels or real targets, and everything that differs between the two.

A goal takes the targets from a data set, trains a layer to predict them, turns the trained layer into an
estimator and measures that. `GOALS` has one for each task of the command line.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, cast

import numpy as np
import numpy.typing as npt

from tnml import report
from tnml.data import Dataset
from tnml.errors import InputError
from tnml.estimators import MPSClassifier, MPSRegressor
from tnml.nn import MPSLayer, TensorNetworkLayer
from tnml.training import (
    SweepResult,
    TrainResult,
    sweep_classifier,
    sweep_regressor,
    train_classifier,
    train_regressor,
)
from tnml.training.dmrg.options import SweepOptions
from tnml.training.options import TrainOptions
from tnml.training.tasks import CLASSIFICATION, REGRESSION, Task

Estimator = MPSClassifier | MPSRegressor
MOST = 12  # classes in one line
_MEMBERS = 10  # samples per class, on average, if floats are taken as labels


class Goal(Protocol):
    """A task, together with what is known about its targets from the data or a model."""

    task: ClassVar[Task]
    real_targets: ClassVar[bool]
    figure: ClassVar[str]
    """The suggested file name for the figure of `tnml evaluate`."""

    @classmethod
    def of_data(cls, train: Dataset) -> Self:
        """The goal of a run on this training part."""

    @classmethod
    def of_model(cls, model: Any) -> Self:
        """The goal of a fitted estimator."""

    @property
    def outputs(self) -> int:
        """The number of outputs that a layer must have."""

    @property
    def about(self) -> str:
        """The targets in a few words."""

    def targets(self, data: Dataset) -> npt.NDArray[Any]:
        """The targets of a data set, in the form that layers learn."""

    def train(
        self,
        layer: TensorNetworkLayer,
        x: npt.NDArray[np.float32],
        y: npt.NDArray[Any],
        options: TrainOptions | SweepOptions,
        image_shape: tuple[int, int] | None,
        **given: Any,
    ) -> TrainResult | SweepResult:
        """Trains a layer in place."""

    def estimator(self, layer: TensorNetworkLayer, **given: Any) -> Estimator:
        """A fitted estimator around a trained layer."""

    def measured(self, model: Any, data: Dataset) -> dict[str, float]:
        """Scores of an estimator on inputs in [0, 1], by the names used in summaries and files."""

    def tested(
        self, result: TrainResult | SweepResult, layer: TensorNetworkLayer, test: Dataset
    ) -> dict[str, float]:
        """The same scores of a layer that was just trained."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Class labels as targets.

    Args:
        classes: sorted.
        stranger: the end of the error message for a label that is not among them.

    Example:
        >>> goal = Labels(classes=np.array(["cat", "dog"]))
        >>> goal.outputs, goal.about
        (2, '2 classes')
    """

    task: ClassVar[Task] = CLASSIFICATION
    real_targets: ClassVar[bool] = False
    figure: ClassVar[str] = "confusion.png"

    classes: npt.NDArray[np.generic]
    stranger: str = ""

    @classmethod
    def of_data(cls, train: Dataset) -> Self:
        """The labels in the training part.

        Raises:
            InputError: the targets are not labels, or there is only one class.
        """
        classes = np.unique(train.y)
        if _may_be_labels(train.y, classes):
            classes = classes.astype(np.int64)
        elif train.y.dtype.kind not in "biuU":
            raise InputError(
                f"{train.name}: expected class labels (whole numbers, booleans or text), got y of "
                f"{train.y.dtype}; for real targets choose --task regression, or tnml.MPSRegressor in Python"
            )
        if len(classes) < 2:
            raise InputError(
                f"{train.name}: expected two classes or more, got only {classes[0]}; add another class"
            )
        told = "which no training sample has; drop those samples, or add some to the training data"
        return cls(classes=classes, stranger=told)

    @classmethod
    def of_model(cls, model: MPSClassifier) -> Self:
        """The labels that a classifier knows."""
        return cls(
            classes=model.classes_, stranger=f"the model knows {in_line(model.classes_)}; drop those samples"
        )

    @property
    def outputs(self) -> int:
        """One for each class."""
        return len(self.classes)

    @property
    def about(self) -> str:
        """The number of classes."""
        return f"{len(self.classes)} classes"

    def targets(self, data: Dataset) -> npt.NDArray[np.int64]:
        """The labels as positions in `classes`.

        Raises:
            InputError: a label is not among them.
        """
        strange = np.setdiff1d(data.y, self.classes)
        if len(strange):
            raise InputError(f"{data.name} {data.split} holds the label {strange[0]}, {self.stranger}")
        return np.searchsorted(self.classes, data.y).astype(np.int64)

    def train(
        self,
        layer: TensorNetworkLayer,
        x: npt.NDArray[np.float32],
        y: npt.NDArray[Any],
        options: TrainOptions | SweepOptions,
        image_shape: tuple[int, int] | None,
        **given: Any,
    ) -> TrainResult | SweepResult:
        """Trains a layer in place, by gradients or by sweeps as the options say."""
        given["image_shape"] = image_shape
        return _trained(train_classifier, sweep_classifier, layer, x, y, options, given)

    def estimator(self, layer: TensorNetworkLayer, **given: Any) -> MPSClassifier:
        """A fitted classifier around a trained layer."""
        return MPSClassifier.from_layer(layer, self.classes, **given)

    def measured(self, model: MPSClassifier, data: Dataset) -> dict[str, float]:
        """The accuracy."""
        return {"accuracy": float(model.score(data.x, data.y))}

    def tested(
        self, result: TrainResult | SweepResult, layer: TensorNetworkLayer, test: Dataset
    ) -> dict[str, float]:
        """The accuracy, which was measured in training."""
        del layer, test
        return {"accuracy": result.test["accuracy"]}


@dataclass(frozen=True, kw_only=True, eq=False)
class Reals:
    """Real targets, scaled to mean 0 and standard deviation 1 for training.

    Args:
        mean: of the training targets.
        scale: their standard deviation; 1 if all are equal.
        about: the targets in a few words.

    Example:
        >>> Reals(mean=20.0, scale=5.0).outputs
        1
    """

    task: ClassVar[Task] = REGRESSION
    real_targets: ClassVar[bool] = True
    figure: ClassVar[str] = "predictions.png"

    mean: float
    scale: float
    about: str = "real targets"

    @classmethod
    def of_data(cls, train: Dataset) -> Self:
        """The goal with mean and standard deviation of the targets."""
        deviation = float(train.y.std())
        span = f"targets from {train.y.min():.4g} to {train.y.max():.4g}"
        return cls(mean=float(train.y.mean()), scale=deviation if deviation > 0 else 1.0, about=span)

    @classmethod
    def of_model(cls, model: MPSRegressor) -> Self:
        """The goal with mean and standard deviation of the targets that a regressor was trained on.

        Raises:
            InputError: it predicts several targets at once.
        """
        if len(model.y_mean_) != 1:
            raise InputError(
                f"the model predicts {len(model.y_mean_)} targets at once, but data sets have one; use "
                "model.score(X, y) in Python"
            )
        return cls(mean=float(model.y_mean_[0]), scale=float(model.y_scale_[0]))

    @property
    def outputs(self) -> int:
        """One."""
        return 1

    def targets(self, data: Dataset) -> npt.NDArray[np.float64]:
        """The targets, with mean 0 and standard deviation 1 over the training part."""
        standard: npt.NDArray[np.float64] = (data.y - self.mean) / self.scale
        return standard

    def train(
        self,
        layer: TensorNetworkLayer,
        x: npt.NDArray[np.float32],
        y: npt.NDArray[Any],
        options: TrainOptions | SweepOptions,
        image_shape: tuple[int, int] | None,
        **given: Any,
    ) -> TrainResult | SweepResult:
        """Trains a layer in place, by gradients or by sweeps as the options say."""
        del image_shape  # used for shifts only
        return _trained(train_regressor, sweep_regressor, layer, x, y, options, given)

    def estimator(self, layer: TensorNetworkLayer, **given: Any) -> MPSRegressor:
        """A fitted regressor around a trained layer."""
        return MPSRegressor.from_layer(layer, y_mean=self.mean, y_scale=self.scale, **given)

    def measured(self, model: MPSRegressor, data: Dataset) -> dict[str, float]:
        """R2 and the root mean squared error; no R2 for a single sample."""
        scores = report.regression_scores(data.y, np.asarray(model.predict(data.x)))
        found = {"R2": scores.r2, "RMSE": scores.rmse}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def tested(
        self, result: TrainResult | SweepResult, layer: TensorNetworkLayer, test: Dataset
    ) -> dict[str, float]:
        """R2 and RMSE in the units of the target, which are not known in training."""
        del result
        return self.measured(self.estimator(layer), test)


def _may_be_labels(y: npt.NDArray[Any], values: npt.NDArray[Any]) -> bool:
    """Whether floats are clearly labels: whole numbers, each of which occurs ten times on average."""
    return (
        y.dtype.kind == "f" and _MEMBERS * len(values) <= len(y) and bool((values == np.rint(values)).all())
    )


GOALS: Mapping[str, type[Labels] | type[Reals]] = {goal.task.name: goal for goal in (Labels, Reals)}
"""The goals by the name of their task."""


def in_line(items: Sequence[Any] | npt.NDArray[Any], most: int = MOST) -> str:
    """The first items, separated by commas.

    Example:
        >>> in_line([0, 1, 2], most=2)
        '0, 1, ...'
    """
    return ", ".join(map(str, items[:most])) + (", ..." if len(items) > most else "")


def shown(name: str, value: float) -> str:
    """A score as it is printed: errors, which have units, with six digits, others with four decimals.

    Example:
        >>> shown("test accuracy", 0.5), shown("RMSE", 1234.5678), shown("R2", 0.12345)
        ('0.5000', '1234.57', '0.1235')
    """
    return f"{value:.6g}" if name.endswith(("RMSE", "MAE")) else f"{value:.4f}"


def _trained(
    by_gradients: Callable[..., TrainResult],
    by_sweeps: Callable[..., SweepResult],
    layer: TensorNetworkLayer,
    x: npt.NDArray[np.float32],
    y: npt.NDArray[Any],
    options: TrainOptions | SweepOptions,
    given: Mapping[str, Any],
) -> TrainResult | SweepResult:
    """The result of training by the solver that the options belong to."""
    if isinstance(options, SweepOptions):
        return by_sweeps(cast(MPSLayer, layer), x, y, options, **given)
    return by_gradients(layer, x, y, options, **given)
