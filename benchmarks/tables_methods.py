"""What is compared on tables: scikit-learn's estimators with their defaults, and tnml's.

Everything random uses seed 0. Trees and forests take the numbers as they are. Other estimators get what they
need and nothing more: columns of mean 0 and variance 1, words as indicators, missing numbers as the column's
mean; `SVR` also a target of mean 0 and variance 1, because its C and epsilon are in units of the target. tnml
gets the numbers as they are, with missing ones filled in only if the estimator does not take them.
"""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, StandardScaler
from sklearn.svm import SVC, SVR
from sklearn.utils import get_tags

from tnml import MPSClassifier, MPSRegressor

TNML, JUDGED, INTERVALS = "tnml", "tnml tables", "tnml tables held out"
BOOSTING, LARGE, CONFORMAL = "boosting", "large boosting", "conformal boosting"
LEVEL = 0.9  # of the intervals
SEED = 0
Maker = Callable[[tuple[int, ...], int], Any]  # from columns of words and the number of rows

# The first is the one that is judged. The second, on real targets alone, has the intervals that are judged.
# The others show what a parameter changes. "scale" is not a parameter of the estimator: "quantile" puts a
# QuantileTransformer before it.
CONFIGURATIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        JUDGED: {"preset": "tables"},
        INTERVALS: {"preset": "tables", "validation_fraction": 0.25},
        TNML: {},
        f"{TNML} quantile": {"scale": "quantile"},
        f"{TNML} legendre": {"features": {"name": "legendre", "dim": 4}},
        f"{TNML} auto": {"features": "auto"},
    }
)


def _plain(model: Callable[[], Any]) -> Maker:
    return lambda words, rows: model()


def _boosting(model: Callable[..., Any], **options: Any) -> Maker:
    return lambda words, rows: model(random_state=SEED, categorical_features=list(words) or None, **options)


def _scaled(model: Callable[[], Any]) -> Maker:
    """Indicators for words, mean 0 and variance 1 for numbers."""

    def make(words: tuple[int, ...], rows: int) -> Any:
        numbers = make_pipeline(SimpleImputer(), StandardScaler())
        if not words:
            return make_pipeline(numbers, model())
        columns = make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(words)), remainder=numbers
        )
        return make_pipeline(columns, model())

    return make


PEERS: Mapping[str, Mapping[str, Maker]] = MappingProxyType(
    {
        "classification": {
            BOOSTING: _boosting(HistGradientBoostingClassifier),
            "forest": _plain(lambda: RandomForestClassifier(random_state=SEED)),
            "SVM": _scaled(SVC),
            "k-NN": _scaled(KNeighborsClassifier),
            "linear": _scaled(lambda: LogisticRegression(max_iter=1000)),
        },
        "regression": {
            BOOSTING: _boosting(HistGradientBoostingRegressor),
            "forest": _plain(lambda: RandomForestRegressor(random_state=SEED)),
            "SVM": _scaled(lambda: TransformedTargetRegressor(SVR(), transformer=StandardScaler())),
            "k-NN": _scaled(KNeighborsRegressor),
            "linear": _scaled(Ridge),
        },
        "ttml": {
            BOOSTING: _boosting(HistGradientBoostingRegressor),
            LARGE: _boosting(
                HistGradientBoostingRegressor, max_iter=2000, learning_rate=0.05, min_samples_leaf=5
            ),
        },
    }
)
BESIDE: Mapping[str, Maker] = MappingProxyType({CONFORMAL: lambda words, rows: ConformalBoosting(words)})
"""Also measured on regression sets, but for its intervals only."""


def configurations(also: list[str] | None = None) -> dict[str, dict[str, Any]]:
    """tnml's by name, with further ones given as NAME={"parameter": value, ...}."""
    found = {name: dict(options) for name, options in CONFIGURATIONS.items()}
    for text in also or []:
        name, equals, options = text.partition("=")
        if not equals:
            raise SystemExit(f'--also takes NAME={{"parameter": value, ...}}, got {text!r}')
        found[f"{TNML} {name}"] = json.loads(options)
    return found


def of_tnml(task: str, options: Mapping[str, Any]) -> Maker:
    """tnml's estimator with parameters; see `CONFIGURATIONS`."""
    kind = MPSClassifier if task == "classification" else MPSRegressor

    def make(words: tuple[int, ...], rows: int) -> Any:
        given = dict(options)
        scale = given.pop("scale", None)
        model = kind(random_state=SEED, **given)
        before: list[Any] = []
        if not get_tags(model).input_tags.allow_nan:
            before.append(SimpleImputer())
        if scale == "quantile":
            before.append(QuantileTransformer(n_quantiles=min(1000, rows), random_state=SEED))
        return make_pipeline(*before, model) if before else model

    return make


class ConformalBoosting(RegressorMixin, BaseEstimator):
    """Gradient boosting with split-conformal intervals: a quarter of the rows are held out for their width.

    Args:
        words: columns of codes.
    """

    def __init__(self, words: tuple[int, ...] = ()) -> None:
        self.words = words

    def fit(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> "ConformalBoosting":
        fitted, held, y_fitted, y_held = train_test_split(x, y, test_size=0.25, random_state=SEED)
        self.model_ = PEERS["regression"][BOOSTING](self.words, len(fitted)).fit(fitted, y_fitted)
        self.misses_ = np.sort(np.abs(y_held - self.model_.predict(held)))
        return self

    def predict(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(self.model_.predict(x))

    def predict_interval(
        self, x: npt.NDArray[Any], level: float
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The ceil((n + 1) level)-th smallest miss on both sides; the largest if there are too few."""
        count = len(self.misses_)
        width = self.misses_[min(count, int(np.ceil((count + 1) * level))) - 1]
        middle = self.predict(x)
        return middle - width, middle + width


def last_step(model: Any) -> Any:
    """The estimator at the end of a pipeline, and inside what transforms its target."""
    while True:
        if hasattr(model, "steps"):
            model = model.steps[-1][1]
        elif hasattr(model, "regressor_"):
            model = model.regressor_
        else:
            return model


def parameters_of(model: Any) -> int | None:
    """Numbers that a fitted model keeps: cores, coefficients, two for a split of a tree and one for a leaf.

    None for those that keep samples.
    """
    last = last_step(model)
    if hasattr(last, "layer_"):
        return sum(weight.numel() for weight in last.layer_.parameters())
    if hasattr(last, "_predictors"):
        nodes = [tree.nodes["is_leaf"] for trees in last._predictors for tree in trees]
        return sum(int(leaf.sum() + 2 * (~leaf.astype(bool)).sum()) for leaf in nodes)
    if hasattr(last, "estimators_"):
        width = getattr(last, "n_classes_", 1)
        trees = [tree.tree_ for tree in last.estimators_]
        return sum(int(width * tree.n_leaves + 2 * (tree.node_count - tree.n_leaves)) for tree in trees)
    if hasattr(last, "coef_") and not hasattr(last, "support_"):
        return int(np.size(last.coef_) + np.size(last.intercept_))
    return None
