"""Weights of samples: checked, times those of their classes, and what is measured with them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, Int64
from numpy import ndarray
from sklearn.utils import check_array

from tnml.checks import number
from tnml.errors import InputError, choose

_SOME = 500  # samples, at least, that the initial network is scaled with


def sample_weights(weight: Any, rows: int) -> Float64[ndarray, " b"] | None:
    """The weights given to `fit`, one for each sample; None if none were given.

    Args:
        weight: None, or anything that can be converted to an array.
        rows: number of samples.

    Raises:
        InputError: they have the wrong shape, or one is negative; scikit-learn's ValueError if they are
            not finite numbers.

    Example:
        >>> sample_weights([1, 0, 2], 3)
        array([1., 0., 2.])
    """
    if weight is None:
        return None
    found: npt.NDArray[np.float64] = check_array(
        weight, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name="sample_weight"
    )
    if found.shape != (rows,):
        raise InputError(f"sample_weight must have shape [{rows}] as X has, got {list(found.shape)}")
    if found.min() < 0:
        raise InputError(f"sample_weight must not be negative, got {found.min():g}")
    return found


def class_weights(
    rule: Any,
    classes: npt.NDArray[Any],
    codes: Int64[ndarray, " b"],
    weight: Float64[ndarray, " b"] | None,
) -> Float64[ndarray, " b"] | None:
    """The weights of the samples, each times that of its class.

    Args:
        rule: None; "balanced", which gives all classes that occur the same total; or a mapping from labels
            to weights, 1 for labels not in it.
        classes: the labels.
        codes: for each sample the index of its label among the classes.
        weight: of the samples; None if all count alike.

    Raises:
        InputError: the rule is something else, a weight is not a number of at least 0, or a label is not
            among the classes while a class has no weight, which suggests a typing error.

    Example:
        >>> class_weights("balanced", np.array(["a", "b"]), np.array([0, 0, 0, 1]), None).round(2)
        array([0.67, 0.67, 0.67, 2.  ])
    """
    if rule is None:
        return weight
    if isinstance(rule, Mapping):
        each = _named_weights(rule, classes)
    elif isinstance(rule, str):
        choose("class_weight", rule, {"balanced": None})
        totals = np.bincount(codes, weights=weight, minlength=len(classes))
        there = totals > 0
        each = np.where(there, totals.sum() / (there.sum() * np.where(there, totals, 1.0)), 1.0)
    else:
        raise InputError(
            f"class_weight must be 'balanced', None or a mapping from labels to weights, got {rule!r}"
        )
    found: npt.NDArray[np.float64] = each[codes] if weight is None else each[codes] * weight
    return found


def _named_weights(rule: Mapping[Any, Any], classes: npt.NDArray[Any]) -> Float64[ndarray, " c"]:
    """The weight of each class."""
    labels = classes.tolist()
    for label, value in rule.items():
        number(f"class_weight of {label!r}", value, least=0.0)
    strange = [label for label in rule if label not in labels]
    missing = [label for label in labels if label not in rule]
    if strange and missing:
        raise InputError(
            f"class_weight names {strange}, which are not labels, and leaves out {missing}; "
            f"the labels are {labels}"
        )
    return np.array([float(rule.get(label, 1.0)) for label in labels])


def counted(weight: Float64[ndarray, " b"] | None, rows: int) -> npt.NDArray[np.bool_] | None:
    """Which samples have a weight above 0; None if all do.

    Raises:
        InputError: no sample has one.

    Example:
        >>> counted(np.array([1.0, 0.0]), 2)
        array([ True, False])
    """
    if weight is None or not rows or weight.min() > 0:
        return None
    if not weight.any():
        raise InputError("the weights of all samples are zero, which leaves none to train on")
    return weight > 0


def typical_rows(
    weight: Float64[ndarray, " b"] | None, rows: int
) -> tuple[Int64[ndarray, " k"], Float64[ndarray, " k"] | None]:
    """Some samples, evenly spread, that the initial network is scaled with, and their weights.

    If the weights are whole numbers, the result is the same as for repeated samples.

    Args:
        weight: positive; None if all count alike.
        rows: number of samples.

    Example:
        >>> typical_rows(None, 4)
        (array([0, 1, 2, 3]), None)
        >>> rows, weight = typical_rows(np.array([1.0, 999.0]), 2)
        >>> np.bincount(rows).tolist(), weight
        ([1, 499], None)
    """
    if weight is None:
        return np.arange(0, rows, max(1, rows // _SOME)), None
    total = max(float(weight.sum()), float(rows))  # the number of samples if weights are repeats
    if total < 2 * _SOME:
        return np.arange(rows), weight
    reached = np.cumsum(weight * (total / weight.sum()))
    places = np.searchsorted(reached, np.arange(0, total, total // _SOME), side="right")
    return np.minimum(places, rows - 1), None


def mean_and_deviation(
    targets: Float64[ndarray, "b c"], weight: Float64[ndarray, " b"] | None
) -> tuple[Float64[ndarray, " c"], Float64[ndarray, " c"]]:
    """Mean and standard deviation of each target.

    Example:
        >>> mean_and_deviation(np.array([[0.0], [3.0]]), np.array([2.0, 1.0]))
        (array([1.]), array([1.41421356]))
    """
    if weight is None:
        return targets.mean(axis=0), targets.std(axis=0)
    mean = np.average(targets, axis=0, weights=weight)
    return mean, np.sqrt(np.average((targets - mean) ** 2, axis=0, weights=weight))
