"""scikit-learn's own checks of estimators, sample weights among them, for each solver and precision."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from tnml import MPSClassifier, MPSRegressor

# These fit weights and repeats, and allow a relative difference of 1e-7 between the predictions: that is the
# last digit of one float32. In single precision they get the bounds below.
WEIGHTS = {
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
}
IN_SINGLE = {"rtol": 1e-3, "atol": 1e-4}
# Of the 15 samples with 30 features in these checks 9 have a weight. Exact least squares fits them in more
# ways than one: moving the targets by 1e-13 moves predictions of the other samples by thousands.
UNDETERMINED = "fewer samples than features: rounding decides between models that fit them"
# All samples in one batch and double precision, where weights and repeats are the same to the last digits.
BY_COLUMN = {
    "dtype": "float64",
    "batch_size": 1000,
    "bond_dim": 4,
    "epochs": 60,
    "features": "auto",
    "order": "mutual-information",
}
SWEPT = {"dtype": "float64", "solver": "dmrg"}
TWO = {"n_estimators": 2, "bond_dim": 4, "epochs": 20}
ESTIMATORS = [
    *(
        kind(**parameters)
        for kind in (MPSClassifier, MPSRegressor)
        for parameters in ({}, SWEPT, BY_COLUMN, TWO)
    ),
    MPSRegressor(solver="als", dtype="float64", sweeps=2),
]


@pytest.mark.slow
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_checks(
    estimator: Any,
    check: Callable[[Any], None],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if check.func.__name__ in WEIGHTS:  # type: ignore[attr-defined]
        if estimator.solver == "als":
            request.applymarker(pytest.mark.xfail(raises=AssertionError, reason=UNDETERMINED))
        elif estimator.dtype == "float32":
            compare = estimator_checks.assert_allclose_dense_sparse
            loose = functools.partial(compare, **IN_SINGLE)
            monkeypatch.setattr(estimator_checks, "assert_allclose_dense_sparse", loose)
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_the_checks_are_all_and_those_of_weights_among_them(estimator: Any) -> None:
    names = [check.func.__name__ for _, check in estimator_checks_generator(estimator)]
    assert len(names) > 55
    assert set(names) >= {
        "check_sample_weight_equivalence_on_dense_data",
        "check_all_zero_sample_weights_error",
        "check_sample_weights_not_overwritten",
        "check_sample_weights_shape",
    }
