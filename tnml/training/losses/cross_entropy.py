"""Cross-entropy."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss, one_hot

from tnml.checks import probability
from tnml.contraction.transforms import differentiable_gradients, plain, transformed
from tnml.torch_private import smoothed_cross_entropy_adjoint
from tnml.training.losses.base import Loss


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """The cross-entropy of logits and labels, or of logits and target probabilities that sum to 1.

    Args:
        smoothing: share of the target spread evenly over the classes; probabilities are taken as they are.

    Raises:
        InputError: `smoothing` is not in [0, 1).

    Example:
        >>> loss, metrics = CrossEntropy()(torch.nn.Identity(), torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        >>> loss, metrics["accuracy"]
        (tensor(0.1269), tensor([True]))
    """

    smoothing: float = 0.0

    for_labels: ClassVar[bool] = True
    native: ClassVar[str | None] = "cross-entropy"

    def __post_init__(self) -> None:
        probability("label_smoothing", self.smoothing)

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample."""
        if y.is_floating_point():
            shifted = outputs - outputs.amax(-1, keepdim=True)
            return shifted.exp().sum(-1).log() - (y * shifted).sum(-1)
        return self._values_of(outputs.log_softmax(-1), y)

    def mean(self, outputs: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """The mean, by one call of torch where there are neither weights nor leading axes."""
        if weight is None and outputs.dim() == 2:
            if self.smoothing and not y.is_floating_point() and plain(outputs, y):
                found: Tensor = _Smoothed.apply(outputs, y, self.smoothing)  # type: ignore[no-untyped-call]
                return found
            return cross_entropy(outputs, y, label_smoothing=self.smoothing)
        return super().mean(outputs, y, weight)

    def gradient(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Softmax minus target."""
        if y.is_floating_point():
            return _softmax(outputs) - y
        return self._gradient_of(outputs.log_softmax(-1), y)

    def curvature(self, outputs: Tensor, y: Tensor, direction: Tensor) -> Tensor:
        """`p (v - p.v)`, the same for all targets."""
        del y
        p = _softmax(outputs)
        return p * (direction - (p * direction).sum(-1, keepdim=True))

    def mean_and_gradient(
        self, outputs: Tensor, y: Tensor, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both from one log-softmax."""
        if y.is_floating_point():
            return super().mean_and_gradient(outputs, y, weight)
        logs = outputs.log_softmax(-1)
        losses, gradient = self._values_of(logs, y), self._gradient_of(logs, y)
        if weight is not None:
            losses, gradient = losses * weight, gradient * weight.unsqueeze(-1)
        return losses.mean(-1), gradient.mul_(1.0 / outputs.shape[-2])

    def targets(self, y: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """Smoothed one-hot probabilities `[b, c]`."""
        found = one_hot(y, outputs).to(dtype)
        return (1 - self.smoothing) * found + self.smoothing / outputs if self.smoothing else found

    def plain(self) -> "CrossEntropy":
        """Without smoothing."""
        return CrossEntropy()

    def _values_of(self, logs: Tensor, y: Tensor) -> Tensor:
        """The losses, from the logarithms of the probabilities."""
        losses = logs.gather(-1, y.unsqueeze(-1)).squeeze(-1) * (self.smoothing - 1.0)
        if self.smoothing:
            losses = losses - logs.sum(-1) * (self.smoothing / logs.shape[-1])
        return losses

    def _gradient_of(self, logs: Tensor, y: Tensor) -> Tensor:
        """The gradient, from the logarithms of the probabilities."""
        labels, gradient = y.unsqueeze(-1), logs.exp()
        if self.smoothing:
            gradient -= self.smoothing / logs.shape[-1]
        ones = gradient.new_full((), self.smoothing - 1.0).expand(labels.shape)
        return gradient.scatter_add_(-1, labels, ones)


class _Smoothed(torch.autograd.Function):
    """`cross_entropy` with smoothed labels as one function of autograd: its numbers, without its graph."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, y: Tensor, smoothing: float) -> Tensor:
        logs, classes = outputs.log_softmax(1), outputs.shape[1]
        count = torch.full((), len(y), dtype=logs.dtype, device=logs.device)
        ctx.save_for_backward(outputs, logs, y, count)
        ctx.smoothing = smoothing
        spread = -logs.sum(1)
        return (1 - smoothing) * nll_loss(logs, y) + spread.sum() / count * (smoothing / classes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        outputs, logs, y, count = ctx.saved_tensors
        if torch.is_grad_enabled() or transformed(gradient):
            (found,) = differentiable_gradients(
                lambda free: cross_entropy(free, y, label_smoothing=ctx.smoothing),
                [outputs],
                [True],
                gradient,
            )
            return found, None, None
        return smoothed_cross_entropy_adjoint(gradient, logs, y, ctx.smoothing, count), None, None


def _softmax(outputs: Tensor) -> Tensor:
    """Of few classes several times as quick as torch's own.

    Example:
        >>> _softmax(torch.zeros(1, 2))
        tensor([[0.5000, 0.5000]])
    """
    powers = (outputs - outputs.amax(-1, keepdim=True)).exp_()
    return powers / powers.sum(-1, keepdim=True)
