"""How sure predictions are: entropies of several networks, and samples beyond the range of training."""

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy.special import entr
from sklearn.utils.validation import check_is_fitted

from tnml.data.scaling import distance_beyond
from tnml.estimators.layers import LayersOfParameters


class Uncertainty(NamedTuple):
    """Entropies in nats of the classes of each sample; `total` is the sum of the other two.

    Attributes:
        total: `[b]`, of the networks' mean probabilities.
        aleatoric: `[b]`, the mean entropy of each network: noise in the labels that more training samples
            would not remove.
        epistemic: `[b]`, the rest: how far the networks disagree, the mutual information between the class
            and the choice of the network. 0 for one network.

    Example:
        >>> found = entropies(np.array([[[0.5, 0.5]], [[0.5, 0.5]]]))  # two networks that agree
        >>> round(float(found.total[0]), 4), float(found.epistemic[0])
        (0.6931, 0.0)
    """

    total: Float64[ndarray, " b"]
    aleatoric: Float64[ndarray, " b"]
    epistemic: Float64[ndarray, " b"]


def entropies(each: Float64[ndarray, "k b c"]) -> Uncertainty:
    """The entropies of the class probabilities of k networks.

    Source: Houlsby, Huszar, Ghahramani and Lengyel, arXiv 1112.5745; for ensembles Lakshminarayanan, Pritzel
    and Blundell, arXiv 1612.01474.

    Example:
        >>> sure = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # each network is sure of another class
        >>> found = entropies(sure)
        >>> float(found.aleatoric[0]), round(float(found.epistemic[0]), 4)
        (0.0, 0.6931)
    """
    total, aleatoric = entr(each.mean(axis=0)).sum(axis=1), entr(each).sum(axis=2).mean(axis=0)
    epistemic = np.maximum(total - aleatoric, 0.0)
    return Uncertainty(total, np.minimum(aleatoric, total), epistemic)


class OutOfRange(NamedTuple):
    """How far each sample is beyond what its columns held in training.

    Attributes:
        share: `[b]`, of the sample's values that lie beyond the range of their column; missing values do not
            count.
        excess: `[b]`, how far the farthest one is beyond, in units of its column's range; 1 for an unknown
            category.

    Example:
        >>> from tnml import MPSRegressor
        >>> model = MPSRegressor(random_state=0).fit([[0.0, 10.0], [2.0, 20.0]], [1.0, 2.0])
        >>> model.out_of_range([[1.0, 15.0], [1.0, 25.0]])
        OutOfRange(share=array([0. , 0.5]), excess=array([0. , 0.5]))
    """

    share: Float64[ndarray, " b"]
    excess: Float64[ndarray, " b"]


class RangeScores(LayersOfParameters):
    """The part of an estimator that tells samples beyond the range of training."""

    @abstractmethod
    def _inputs(self, X: Any) -> Any:
        """Checked samples to predict for."""

    def out_of_range(self, X: Any) -> OutOfRange:
        """How far samples `X [b, n]` are beyond the range of training: a warning before their predictions.

        The range of a column is `feature_range_`, which becomes 0 to 1 (so 0 to 1 itself, where all training
        values lie between them); with features by column the lowest and highest training value, and for
        categories those that are known. Without a range it is 0 to 1, where the feature maps are defined.
        Values beyond are cut off in predictions. Samples within the range can be unlike those of training,
        too: their values may never have come together.

        Args:
            X: samples.

        Example:
            >>> from tnml import MPSClassifier
            >>> model = MPSClassifier(bond_dim=2, random_state=0).fit([[0.0], [5.0]], ["no", "yes"])
            >>> model.out_of_range([[2.0], [10.0]]).share
            array([0., 1.])
        """
        check_is_fitted(self)
        given = self._inputs(X)
        if self.columns_ is not None:
            pairs = list(zip(self.columns_.encoders, given.columns, strict=True))
            beyond = np.stack([encoder.beyond(column) for encoder, column in pairs], axis=1)
            there = ~np.stack([column.missing for _, column in pairs], axis=1)
        else:
            low, high = (0.0, 1.0) if self.feature_range_ is None else self.feature_range_
            beyond, there = distance_beyond(given, low, high), np.ones(given.shape, dtype=bool)
        share = (beyond > 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
        return OutOfRange(share, beyond.max(axis=1))
