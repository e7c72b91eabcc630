"""What a loss is: values for outputs with any leading axes, derivatives, and what a solver needs to know."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from tnml.loop.options import LoopOptions
from tnml.loop.protocols import LossFn, ShortWay
from tnml.training.short import ShortSteps

Measured = tuple[Tensor, Mapping[str, Tensor]]


class Loss(ABC):
    """A loss of outputs `[..., b, c]` and targets; every sample counts by itself.

    A subclass is a frozen dataclass with `values` and the facts below. The derivatives come from autograd;
    it may write them out where that is quicker. One row in `tnml.training.losses.LOSSES` makes it known to
    the loop, to replicas and to sweeps, to the estimators and to the command line.

    Targets are labels `[..., b]` (int64) or real numbers `[..., b, c]`. Losses of labels may also be given
    floating-point targets `[..., b, c]`, which is what `targets` makes of labels: sweeps do that.

    Attributes:
        for_labels: whether the targets are labels.
        convex: whether the loss is convex in the outputs.
        smooth: whether its curvature is informative; that of piecewise linear losses does not.
        logits: of losses of labels, whether the outputs become logits; else they are roughly probabilities.
        by_sample: whether it keeps numbers of every sample; only the loop in one process can train it then.
        native: the loss's name in the native engine; None for those that it does not know.

    Example:
        >>> from tnml.training.losses import SquaredError
        >>> SquaredError().values(torch.tensor([[1.0], [3.0]]), torch.ones(2, 1))
        tensor([0., 4.])
    """

    for_labels: ClassVar[bool] = False
    convex: ClassVar[bool] = True
    smooth: ClassVar[bool] = True
    logits: ClassVar[bool] = True
    by_sample: ClassVar[bool] = False
    native: ClassVar[str | None] = None

    @abstractmethod
    def values(
        self, outputs: Float[Tensor, "*k b c"], y: Shaped[Tensor, "*k b"] | Shaped[Tensor, "*k b c"]
    ) -> Float[Tensor, "*k b"]:
        """The loss of each sample."""

    def mean(self, outputs: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """The mean over the samples `[...]`, each times its weight `[..., b]`: `sum(weight * loss) / b`."""
        values = self.values(outputs, y)
        return values.mean(-1) if weight is None else (values * weight).mean(-1)

    def gradient(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The derivative of each sample's loss with respect to its outputs, `[..., b, c]`."""
        with torch.enable_grad():
            free = outputs.detach().requires_grad_()
            (found,) = torch.autograd.grad(self.values(free, y).sum(), free)
        return found

    def curvature(self, outputs: Tensor, y: Tensor, direction: Tensor) -> Tensor:
        """The second derivative of each sample's loss, applied to a direction, all `[..., b, c]`."""
        with torch.enable_grad():
            free = outputs.detach().requires_grad_()
            (first,) = torch.autograd.grad(self.values(free, y).sum(), free, create_graph=True)
            if not first.requires_grad:  # linear in the outputs
                return torch.zeros_like(direction)
            (found,) = torch.autograd.grad(first, free, direction, materialize_grads=True)
        return found

    def mean_and_gradient(
        self, outputs: Tensor, y: Tensor, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`mean`, and its derivative with respect to the outputs, `[..., b, c]`."""
        gradient = self.gradient(outputs, y)
        if weight is not None:
            gradient = gradient * weight.unsqueeze(-1)
        return self.mean(outputs, y, weight), gradient.mul_(1.0 / outputs.shape[-2])

    def targets(self, y: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """What sweeps keep as targets `[b, c]`: real ones as they are, labels as probabilities."""
        del outputs
        return y.to(dtype)

    def start(self, tensor: Tensor, ridge: float) -> Tensor:
        """Where sweeps start to solve for a local tensor: the tensor as it is, unless its scale is free."""
        del ridge
        return tensor

    def plain(self) -> "Loss":
        """The loss to measure by: without what only training has, such as smoothed labels."""
        return self

    def begin(self) -> LossFn:
        """The loss function of one run: the loss itself, or what also remembers its samples.

        The latter has a `callback` with `state_dict` and `load_state_dict`, which takes it into checkpoints.
        """
        return self

    def metrics(self, outputs: Tensor, y: Tensor) -> dict[str, Tensor]:
        """What else is measured of each sample, `[..., b]`: for labels "accuracy", whether it is right."""
        return {"accuracy": outputs.argmax(-1) == y} if self.for_labels else {}

    def short_way(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, options: LoopOptions
    ) -> ShortWay | None:
        """The short way of steps on small data, where the class itself names what the native engine computes.

        What a class inherits does not count: it may compute something else.
        """
        name = vars(type(self)).get("native")
        return (
            None
            if name is None
            else ShortSteps(module, name, getattr(self, "smoothing", 0.0), optimizer, options)
        )

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Measured:
        """The mean loss and the metrics of a module on a batch; the form that the loop takes."""
        outputs = module(x)
        return self.mean(outputs, y, weight), self.metrics(outputs, y)


@torch.no_grad()
def measure(
    module: nn.Module,
    loss: LossFn,
    x: Tensor,
    y: Tensor,
    batch_size: int = 1000,
    weight: Tensor | None = None,
) -> dict[str, float]:
    """The means of the loss and its metrics over all samples, in eval mode and without gradients.

    Args:
        module: `[b, ...]` to outputs.
        loss: of the module on a batch.
        x: `[n, ...]` inputs.
        y: their targets.
        batch_size: samples at a time.
        weight: `[n]`, of mean 1; for the loss, not for its metrics.

    Example:
        >>> from tnml.training.losses import SquaredError
        >>> measure(nn.Identity(), SquaredError(), torch.ones(3, 1), torch.zeros(3, 1))
        {'loss': 1.0}
    """
    columns = (x, y) if weight is None else (x, y, weight)
    starts = range(0, len(x), batch_size)
    return measure_blocks(module, loss, (tuple(c[s : s + batch_size] for c in columns) for s in starts))


@torch.no_grad()
def measure_blocks(module: nn.Module, loss: LossFn, blocks: Iterable[tuple[Tensor, ...]]) -> dict[str, float]:
    """As `measure`, of samples that come in blocks (x, y) or (x, y, weight), on the module's device.

    Example:
        >>> from tnml.training.losses import SquaredError
        >>> blocks = [(torch.ones(2, 1), torch.zeros(2, 1)), (torch.zeros(2, 1), torch.zeros(2, 1))]
        >>> measure_blocks(nn.Identity(), SquaredError(), blocks)
        {'loss': 0.5}
    """
    was_training = module.training
    module.eval()
    sums: dict[str, float] = {}
    count = 0
    for x, *others in blocks:
        mean, metrics = loss(module, x, *others)
        for name, value in {"loss": mean, **metrics}.items():
            sums[name] = sums.get(name, 0.0) + value.double().mean().item() * len(x)
        count += len(x)
    module.train(was_training)
    return {name: total / count for name, total in sums.items()}
