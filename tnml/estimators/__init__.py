"""scikit-learn estimators whose model is a tensor network."""

from tnml.estimators.calibration import expected_calibration_error
from tnml.estimators.classifier import MPSClassifier, TensorNetworkClassifier
from tnml.estimators.density import MPSDensity
from tnml.estimators.density_classifier import MPSGenerativeClassifier
from tnml.estimators.parameters import estimator
from tnml.estimators.regressor import MPSRegressor, TensorNetworkRegressor

__all__ = [
    "MPSClassifier",
    "MPSDensity",
    "MPSGenerativeClassifier",
    "MPSRegressor",
    "TensorNetworkClassifier",
    "TensorNetworkRegressor",
    "estimator",
    "expected_calibration_error",
]
