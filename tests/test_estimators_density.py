"""The estimators of densities: scikit-learn's checks, known densities, gaps, anomalies, classes."""

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from tnml import MPSDensity, MPSGenerativeClassifier

QUICK = {"bond_dim": 3, "epochs": 10}


@pytest.mark.slow
@parametrize_with_checks([MPSDensity(**QUICK), MPSGenerativeClassifier(bond_dim=4, epochs=40)])
def test_scikit_learns_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)
