"""Losses of supervised training, as objects that another process can be sent."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from tnml.loop.protocols import LossFn
from tnml.training.options import TrainOptions

Measured = tuple[Tensor, Mapping[str, Tensor]]


@dataclass(frozen=True)
class CrossEntropy:
    """The mean cross-entropy of logits and labels, and which samples are right.

    Args:
        smoothing: share of the target spread evenly over the classes.

    Example:
        >>> loss, metrics = CrossEntropy()(nn.Identity(), torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        >>> loss, metrics["accuracy"]
        (tensor(0.1269), tensor([True]))
    """

    smoothing: float = 0.0

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor) -> Measured:
        """The loss and metrics of inputs `x [b, ...]` and labels `y [b]`."""
        logits = module(x)
        return cross_entropy(logits, y, label_smoothing=self.smoothing), {"accuracy": logits.argmax(1) == y}


@dataclass(frozen=True)
class LabelSquaredError:
    """The mean squared error of outputs and one-hot labels, and which samples are right.

    Example:
        >>> loss, _ = LabelSquaredError()(nn.Identity(), torch.tensor([[1.0, 1.0]]), torch.tensor([0]))
        >>> loss
        tensor(0.5000)
    """

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor) -> Measured:
        """The loss and metrics of inputs `x [b, ...]` and labels `y [b]`."""
        outputs = module(x)
        target = one_hot(y, outputs.shape[1]).to(outputs.dtype)
        return mse_loss(outputs, target), {"accuracy": outputs.argmax(1) == y}


@dataclass(frozen=True)
class SquaredError:
    """The mean squared error of outputs and real targets.

    Example:
        >>> loss, _ = SquaredError()(nn.Identity(), torch.tensor([[1.0], [3.0]]), torch.ones(2, 1))
        >>> loss
        tensor(2.)
    """

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor) -> Measured:
        """The loss of inputs `x [b, ...]` and targets `y [b, c]`."""
        return mse_loss(module(x), y), {}


def loss_of(options: TrainOptions, labels: bool) -> LossFn:
    """The loss that `options.loss` names, for labels or for real targets.

    Example:
        >>> loss_of(TrainOptions(label_smoothing=0.1), labels=True)
        CrossEntropy(smoothing=0.1)
    """
    if not labels:
        return SquaredError()
    return CrossEntropy(options.label_smoothing) if options.loss == "cross-entropy" else LabelSquaredError()


@torch.no_grad()
def measure(
    module: nn.Module, loss: LossFn, x: Tensor, y: Tensor, batch_size: int = 1000
) -> dict[str, float]:
    """The means of the loss and its metrics over all samples, in eval mode and without gradients.

    Example:
        >>> measure(nn.Identity(), SquaredError(), torch.ones(3, 1), torch.zeros(3, 1))
        {'loss': 1.0}
    """
    was_training = module.training
    module.eval()
    sums: dict[str, float] = {}
    for start in range(0, len(x), batch_size):
        part, truth = x[start : start + batch_size], y[start : start + batch_size]
        mean, metrics = loss(module, part, truth)
        for name, value in {"loss": mean, **metrics}.items():
            sums[name] = sums.get(name, 0.0) + value.double().mean().item() * len(part)
    module.train(was_training)
    return {name: total / len(x) for name, total in sums.items()}
