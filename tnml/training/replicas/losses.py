"""The losses of `losses` for many replicas at once, with their gradients written out.

Outputs are `[k, b, c]`; every replica's loss is the mean over its own batch, so the gradients of replicas do
not meet.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tnml.training.options import TrainOptions


class Measured(NamedTuple):
    """What a batch says of every replica.

    Attributes:
        loss: `[k]`, the mean over the batch.
        right: `[k]`, how many labels are right; None for real targets.
        gradient: `[k, b, c]` of each replica's loss with respect to its outputs.
    """

    loss: Tensor
    right: Tensor | None
    gradient: Tensor


ReplicaLoss = Callable[[Tensor, Tensor], Measured]


def squared_error(outputs: Tensor, y: Tensor) -> Measured:
    """The mean squared error of outputs and targets, both `[k, b, c]`.

    Example:
        >>> squared_error(torch.tensor([[[1.0], [3.0]]]), torch.ones(1, 2, 1)).loss
        tensor([2.])
    """
    off = outputs - y
    count = off.shape[1] * off.shape[2]
    flat = off.flatten(1)
    return Measured(torch.linalg.vecdot(flat, flat) / count, None, off * (2.0 / count))


def label_squared_error(outputs: Tensor, y: Tensor) -> Measured:
    """The mean squared error of outputs `[k, b, c]` and one-hot labels `y [k, b]`.

    Example:
        >>> label_squared_error(torch.ones(1, 1, 2), torch.zeros(1, 1, dtype=torch.int64)).loss
        tensor([0.5000])
    """
    found = squared_error(outputs, one_hot(y, outputs.shape[2]).to(outputs.dtype))
    return found._replace(right=(outputs.argmax(2) == y).sum(1))


def cross_entropy(outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Measured:
    """The mean cross-entropy of logits `[k, b, c]` and labels `y [k, b]`.

    Args:
        outputs: logits.
        y: labels.
        smoothing: share of the target spread evenly over the classes.

    Example:
        >>> cross_entropy(torch.tensor([[[2.0, 0.0]]]), torch.zeros(1, 1, dtype=torch.int64)).loss
        tensor([0.1269])
    """
    batch, classes = outputs.shape[1:]
    logs = outputs.log_softmax(2)
    labels = y.unsqueeze(2)
    losses = logs.gather(2, labels).squeeze(2) * (smoothing - 1.0)
    if smoothing:
        losses -= logs.sum(2) * (smoothing / classes)
    gradient = logs.exp()
    if smoothing:
        gradient -= smoothing / classes
    gradient.scatter_add_(2, labels, gradient.new_full((), smoothing - 1.0).expand(labels.shape))
    return Measured(losses.mean(1), (outputs.argmax(2) == y).sum(1), gradient.mul_(1.0 / batch))


def replica_loss_of(options: TrainOptions, *, labels: bool, training: bool = True) -> ReplicaLoss:
    """The loss that `options.loss` names, for labels or for real targets; smoothing is for training only.

    Example:
        >>> replica_loss_of(TrainOptions(), labels=False).__name__
        'squared_error'
    """
    if not labels:
        return squared_error
    if options.loss == "mse":
        return label_squared_error
    smoothing = options.label_smoothing if training else 0.0
    return lambda outputs, y: cross_entropy(outputs, y, smoothing)
