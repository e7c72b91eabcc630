"""scikit-learn estimators whose model is a matrix product state."""

from tnml.estimators.classifier import MPSClassifier
from tnml.estimators.regressor import MPSRegressor

__all__ = ["MPSClassifier", "MPSRegressor"]
