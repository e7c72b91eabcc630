"""Losses of supervised training: one file and one row of `LOSSES` each, for every solver."""

from tnml.training.losses.base import Loss, measure, measure_blocks
from tnml.training.losses.cross_entropy import CrossEntropy
from tnml.training.losses.focal import Focal
from tnml.training.losses.huber import Huber
from tnml.training.losses.likelihood import NegativeLogLikelihood
from tnml.training.losses.quantile import Quantile
from tnml.training.losses.squared_error import LabelSquaredError, SquaredError
from tnml.training.losses.table import LOSSES, LossSpec, loss_of, loss_record

__all__ = [
    "LOSSES",
    "CrossEntropy",
    "Focal",
    "Huber",
    "LabelSquaredError",
    "Loss",
    "LossSpec",
    "NegativeLogLikelihood",
    "Quantile",
    "SquaredError",
    "loss_of",
    "loss_record",
    "measure",
    "measure_blocks",
]
