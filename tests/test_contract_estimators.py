"""The estimators of tnml, and a pair for a network that it does not know, under their contract."""

from typing import Any, ClassVar

from contract.estimator_tasks import ClassifierContract, RegressorContract
from toy_network import TOY

from tnml import MPSClassifier, MPSRegressor
from tnml.estimators import TensorNetworkClassifier, TensorNetworkRegressor, estimator


@estimator
class ToyClassifier(TensorNetworkClassifier):
    """A classifier that is a mixture of products."""

    network: Any = "toy"


@estimator
class ToyRegressor(TensorNetworkRegressor):
    """A regressor that is a mixture of products."""

    network: Any = "toy"


class TestMPSClassifier(ClassifierContract):
    kind = MPSClassifier


class TestMPSRegressor(RegressorContract):
    kind = MPSRegressor


class TestToyClassifier(ClassifierContract):
    kind, row = ToyClassifier, ("toy", TOY)
    unknown: ClassVar = {"bond_dim": 5, "label_site": 1, "noise": 0.1, "engine": "torch"}


class TestToyRegressor(RegressorContract):
    kind, row = ToyRegressor, ("toy", TOY)
    unknown: ClassVar = {"bond_dim": 5, "bond_dropout": 0.1}
