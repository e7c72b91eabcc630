"""Losses of supervised training: one file and one row of `LOSSES` each, for every solver."""

from tnml.training.losses.base import Loss, measure, measure_blocks
from tnml.training.losses.cross_entropy import CrossEntropy
from tnml.training.losses.focal import Focal
from tnml.training.losses.generalized import GeneralizedCrossEntropy
from tnml.training.losses.huber import Huber
from tnml.training.losses.likelihood import NegativeLogLikelihood
from tnml.training.losses.quantile import Quantile
from tnml.training.losses.sparse_noise import NoiseMemory, SparseNoise
from tnml.training.losses.squared_error import LabelSquaredError, SquaredError
from tnml.training.losses.symmetric import SymmetricCrossEntropy
from tnml.training.losses.table import LOSSES, LossSpec, loss_of, loss_record
from tnml.training.losses.transition import BackwardCorrection, ForwardCorrection

__all__ = [
    "LOSSES",
    "BackwardCorrection",
    "CrossEntropy",
    "Focal",
    "ForwardCorrection",
    "GeneralizedCrossEntropy",
    "Huber",
    "LabelSquaredError",
    "Loss",
    "LossSpec",
    "NegativeLogLikelihood",
    "NoiseMemory",
    "Quantile",
    "SparseNoise",
    "SquaredError",
    "SymmetricCrossEntropy",
    "loss_of",
    "loss_record",
    "measure",
    "measure_blocks",
]
