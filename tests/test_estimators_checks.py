"""scikit-learn's own checks of estimators, sample weights among them, for each solver and precision."""

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from tnml import MPSClassifier, MPSRegressor

# Expected to fail in single precision, as scikit-learn expects it of its own estimators that
# are trained by stochastic gradients; and for exact least squares on its 15 samples of 10 features, which are
# fitted without a rest: rounding decides between the many that do. Where samples are many it is compared in
# tests/test_estimators_error_bars.py.
SINGLE = {
    "check_sample_weight_equivalence_on_dense_data": "weights and repeats agree to rounding; it allows "
    "a relative difference of 1e-7, which is the last digit of one float32",
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


def expected_to_fail(estimator: Any) -> dict[str, str]:
    return SINGLE if estimator.dtype == "float32" or estimator.solver == "als" else {}


@pytest.mark.slow
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_to_fail)
def test_scikit_learns_checks(estimator: Any, check: Callable[[Any], None]) -> None:
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
