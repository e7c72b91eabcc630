"""scikit-learn's own checks of estimators, sample weights among them, for each solver and precision."""

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from tnml import MPSClassifier, MPSRegressor

# These allow a relative difference of 1e-7, the last digit of one float32, between weights and repeats, which
# agree to rounding: in single precision the processor decides. It also decides for exact least squares on the
# 15 samples of 10 features of these checks: many models fit them exactly, and rounding chooses one. Elsewhere
# weights and repeats are compared in tests/test_estimators_weights.py and test_estimators_error_bars.py.
ROUNDED = {
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
}
ALL_AT_ONCE = {"dtype": "float64", "batch_size": 1000, "bond_dim": 4, "epochs": 100}
BY_COLUMN = {**ALL_AT_ONCE, "features": "auto", "order": "mutual-information"}
SWEPT = {"dtype": "float64", "solver": "dmrg"}
TWO = {"n_estimators": 2, "bond_dim": 4, "epochs": 20}
ESTIMATORS = [
    *(
        kind(**parameters)
        for kind in (MPSClassifier, MPSRegressor)
        for parameters in ({}, ALL_AT_ONCE, {"solver": "dmrg"}, SWEPT, BY_COLUMN, TWO)
    ),
    MPSRegressor(solver="als", dtype="float64"),
]


@pytest.mark.slow
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    rounded = estimator.dtype == "float32" or estimator.solver == "als"
    try:
        check(estimator)
    except AssertionError:
        if not (rounded and check.func.__name__ in ROUNDED):  # type: ignore[attr-defined]
            raise
        pytest.xfail("weights and repeats differ by rounding")


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
