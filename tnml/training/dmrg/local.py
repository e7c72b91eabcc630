"""The local problem of a bond: outputs linear in one tensor, a convex loss, and its derivatives."""

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

_CHUNK_BYTES = 1 << 24  # of an intermediate: it stays near the processor, and large products stay large


class BondOutputs:
    """The outputs `f [b, c]`, f_c(s) = sum_pq left[s, p] B[p, c, q] right[s, q], and the adjoint of that map.

    Args:
        left: `[b, p]` what the samples look like left of the bond.
        right: `[b, q]` what they look like right of it.

    Cost: 2 b p c q multiplications and additions for either direction, in matrix products of `chunk`
    samples; the memory beyond the result is that of one chunk.

    Example:
        >>> outputs = BondOutputs(torch.ones(3, 2), torch.ones(3, 4))
        >>> outputs(torch.ones(2, 5, 4))[0, 0]
        tensor(8.)
    """

    def __init__(self, left: Float[Tensor, "b p"], right: Float[Tensor, "b q"]) -> None:
        self.swapped = right.shape[1] > left.shape[1]  # the larger side is summed first, in the product
        self._first, self._second = (right, left) if self.swapped else (left, right)

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        """`left` and `right`."""
        return (self._second, self._first) if self.swapped else (self._first, self._second)

    def _chunks(self, classes: int) -> list[tuple[Tensor, Tensor]]:
        row = classes * self._second.shape[1] * self._second.element_size()
        size = max(64, _CHUNK_BYTES // row)
        return list(zip(self._first.split(size), self._second.split(size), strict=True))

    def __call__(self, tensor: Float[Tensor, "p c q"]) -> Float[Tensor, "b c"]:
        """The outputs."""
        if self.swapped:
            tensor = tensor.permute(2, 1, 0)
        _, c, rest = tensor.shape
        flat = tensor.reshape(-1, c * rest)
        parts = [
            torch.bmm((first @ flat).view(-1, c, rest), second.unsqueeze(2)).squeeze(2)
            for first, second in self._chunks(c)
        ]
        return torch.cat(parts)

    def adjoint(self, weights: Float[Tensor, "b c"]) -> Float[Tensor, "p c q"]:
        """The gradient of `(weights * self(B)).sum()` with respect to B."""
        c, rest = weights.shape[1], self._second.shape[1]
        total = self._first.new_zeros(self._first.shape[1], c * rest)
        start = 0
        for first, second in self._chunks(c):
            part = weights[start : start + len(first)]
            total.addmm_(first.T, (part.unsqueeze(2) * second.unsqueeze(1)).reshape(len(first), c * rest))
            start += len(first)
        result = total.view(-1, c, rest)
        return result.permute(2, 1, 0).contiguous() if self.swapped else result


class OutputLoss(Protocol):
    """A convex loss of outputs `[b, c]` with its derivatives; sums over samples, not means."""

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, `[b]`."""

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Its derivative by the outputs, `[b, c]`."""

    def curvature(self, outputs: Tensor, direction: Tensor) -> Tensor:
        """Its second derivative at `outputs` applied to `direction`, `[b, c]`."""


class CrossEntropyOf:
    """Cross-entropy of logits and target probabilities `[b, c]`.

    Example:
        >>> CrossEntropyOf().value(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor([0.6931])
    """

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample."""
        return -(targets * outputs.log_softmax(1)).sum(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Its gradient."""
        return outputs.softmax(1) - targets

    def curvature(self, outputs: Tensor, direction: Tensor) -> Tensor:
        """Its Hessian applied to a direction."""
        p = outputs.softmax(1)
        return p * (direction - (p * direction).sum(1, keepdim=True))


class SquaredErrorOf:
    """Mean over the outputs of the squared difference to the targets `[b, c]`.

    Example:
        >>> SquaredErrorOf().value(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]))
        tensor([5.])
    """

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample."""
        return (outputs - targets).square().mean(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Its gradient."""
        return (outputs - targets) * (2 / outputs.shape[1])

    def curvature(self, outputs: Tensor, direction: Tensor) -> Tensor:
        """Its Hessian applied to a direction."""
        return direction * (2 / outputs.shape[1])


class Objective:
    """Mean loss + ridge / 2 |B|² + proximal / 2 |B - start|², as a function of the local tensor B.

    Args:
        outputs: the linear map from B to the outputs.
        targets: `[b, c]`.
        loss: of the outputs.
        start: B before.
        ridge: see above.
        proximal: see above.

    Example:
        >>> ones = torch.ones(3, 1)
        >>> objective = Objective(BondOutputs(ones, ones), ones, SquaredErrorOf(), torch.zeros(1, 1, 1), 0, 0)
        >>> objective(torch.zeros(1, 1, 1)), objective.gradient(torch.zeros(3, 1), torch.zeros(1, 1, 1))
        (1.0, tensor([[[-2.]]]))
    """

    def __init__(
        self,
        outputs: BondOutputs,
        targets: Tensor,
        loss: OutputLoss,
        start: Float[Tensor, "p c q"],
        ridge: float,
        proximal: float,
    ) -> None:
        self.outputs, self.targets, self.loss = outputs, targets, loss
        self.start, self.ridge, self.proximal = start, ridge, proximal

    def __call__(self, tensor: Tensor) -> float:
        """The objective at B."""
        return self.at(self.outputs(tensor), tensor)

    def mean_loss(self, outputs: Tensor) -> float:
        """The mean loss at these outputs."""
        return self.loss.value(outputs, self.targets).mean().item()

    def at(self, outputs: Tensor, tensor: Tensor) -> float:
        """The objective where the outputs of B are known."""
        penalty = self.ridge * tensor.square().sum()
        if self.proximal:
            penalty = penalty + self.proximal * (tensor - self.start).square().sum()
        return self.mean_loss(outputs) + 0.5 * penalty.item()

    def gradient(self, outputs: Tensor, tensor: Tensor) -> Tensor:
        """The gradient at B, whose outputs are known."""
        residual = self.loss.gradient(outputs, self.targets) / len(self.targets)
        gradient = self.outputs.adjoint(residual).add_(tensor, alpha=self.ridge)
        return gradient.add_(tensor - self.start, alpha=self.proximal) if self.proximal else gradient

    def curvature(self, outputs: Tensor, moved: Tensor, direction: Tensor) -> Tensor:
        """The Hessian at B applied to a direction, whose own outputs are `moved`."""
        bent = self.loss.curvature(outputs, moved) / len(self.targets)
        return self.outputs.adjoint(bent).add_(direction, alpha=self.ridge + self.proximal)
