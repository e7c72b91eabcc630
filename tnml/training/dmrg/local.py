"""The local problem of a bond: outputs linear in one tensor, a convex loss, and its derivatives."""

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.training.dmrg.metric import Metric, adjoint_from_white, from_white
from tnml.training.dmrg.sides import Side
from tnml.training.losses import Loss

_CHUNK_BYTES = 1 << 22  # of an intermediate: it stays near the processor, and large products stay large


class BondOutputs:
    """The outputs `f [b, c]` as a linear function of the local tensor B, and the adjoint of that map.

        f_c(s) = sum_pq left[s, p] B[p, c, q] right[s, q]        the label core is part of B
        f_c(s) = sum_pq left[s, p] B[p, 0, q] right[s, c, q]     it lies right of B; or left, likewise

    Args:
        left: what the samples look like left of B.
        right: what they look like right of it.
        metrics: where given, B is in their white coordinates.

    Cost: 2 b p c q multiplications and additions in either direction where the label core is part of B,
    2 b p q + 2 b c q where not, in matrix products of chunks of samples; the memory beyond the result is
    that of one chunk.

    Example:
        >>> left, right = Side(torch.ones(3, 2), None, left=True), Side(torch.ones(3, 4), None, left=False)
        >>> outputs = BondOutputs(left, right)
        >>> outputs(torch.ones(2, 5, 4))[0, 0]
        tensor(8.)
    """

    def __init__(
        self, left: Side, right: Side, metrics: tuple[Metric, Metric] = (Metric(), Metric())
    ) -> None:
        self.left, self.right, self.metrics = left, right, metrics
        self._label_outside = left.has_label or right.has_label
        # The side with the label core comes second; else the larger one first, in the matrix product.
        self.swapped = left.has_label or (not right.has_label and right.width > left.width)
        self._first, self._second = (right, left) if self.swapped else (left, right)

    def _chunks(self, classes: int) -> list[tuple[Tensor, Side]]:
        row = classes * self._second.width * 4
        size = max(64, _CHUNK_BYTES // row)
        return list(zip(self._first.vectors.split(size), self._second.split(size), strict=True))

    def __call__(self, tensor: Float[Tensor, "p k q"]) -> Float[Tensor, "b c"]:
        """The outputs."""
        tensor = from_white(tensor, self.metrics)
        if self.swapped:
            tensor = tensor.permute(2, 1, 0)
        _, k, rest = tensor.shape
        flat = tensor.reshape(-1, k * rest)
        if self._label_outside:
            return torch.cat([second.dot(first @ flat) for first, second in self._chunks(1)])
        parts = [
            torch.bmm((first @ flat).view(-1, k, rest), second.vectors.unsqueeze(2))
            for first, second in self._chunks(k)
        ]
        return torch.cat(parts).squeeze(2)

    def adjoint(self, weights: Float[Tensor, "b c"]) -> Float[Tensor, "p k q"]:
        """The gradient of `(weights * self(B)).sum()` with respect to B."""
        k = 1 if self._label_outside else weights.shape[1]
        total = weights.new_zeros(self._first.width, k * self._second.width)
        start = 0
        for first, second in self._chunks(k):
            part = weights[start : start + len(first)]
            if self._label_outside:
                spread = second.weighted(part)
            else:
                spread = (part.unsqueeze(2) * second.vectors.unsqueeze(1)).flatten(1)
            total.addmm_(first.T, spread)
            start += len(first)
        result = total.view(self._first.width, k, self._second.width)
        return adjoint_from_white(result.permute(2, 1, 0) if self.swapped else result, self.metrics)

    def matrix(self) -> Float[Tensor, "m n"]:
        """The map itself in double precision, `[b, p q]` for each output alike, or `[b c, p q]`.

        The first where the label core is part of B.
        """
        sides = zip((self.left, self.right), self.metrics, strict=True)
        left, right = (metric.whiten(side.vectors).double() for side, metric in sides)
        if left.dim() != right.dim():
            left, right = (side if side.dim() == 3 else side.unsqueeze(1) for side in (left, right))
        joined = left.unsqueeze(-1) * right.unsqueeze(-2)
        return joined.reshape(-1, left.shape[-1] * right.shape[-1])


class Objective:
    """Mean loss + ridge / 2 |B|² + proximal / 2 |B - start|², as a function of the local tensor B.

    Args:
        outputs: the linear map from B to the outputs.
        targets: `[b, c]`.
        loss: of the outputs.
        start: B before.
        ridge: see above.
        proximal: see above.
        weight: `[b]` of the samples, of mean 1; None where all count alike.
        observations: that a sample of weight 1 stands for.

    Example:
        >>> from tnml.training.losses import SquaredError
        >>> ones = torch.ones(3, 1)
        >>> outputs = BondOutputs(Side(ones, None, left=True), Side(ones, None, left=False))
        >>> objective = Objective(outputs, ones, SquaredError(), torch.zeros(1, 1, 1), 0, 0)
        >>> objective(torch.zeros(1, 1, 1)), objective.gradient(torch.zeros(3, 1), torch.zeros(1, 1, 1))
        (1.0, tensor([[[-2.]]]))
    """

    def __init__(
        self,
        outputs: BondOutputs,
        targets: Tensor,
        loss: Loss,
        start: Float[Tensor, "p c q"],
        ridge: float,
        proximal: float,
        weight: Tensor | None = None,
        observations: float = 1.0,
    ) -> None:
        self.outputs, self.targets, self.loss, self.weight = outputs, targets, loss, weight
        self.start, self.ridge, self.proximal = start, ridge, proximal
        self.observations = observations

    def __call__(self, tensor: Tensor) -> float:
        """The objective at B."""
        return self.at(self.outputs(tensor), tensor)

    def mean_loss(self, outputs: Tensor) -> float:
        """The mean loss at these outputs."""
        return self._weighted(self.loss.values(outputs, self.targets)).mean().item()

    def at(self, outputs: Tensor, tensor: Tensor) -> float:
        """The objective where the outputs of B are known."""
        penalty = self.ridge * tensor.square().sum()
        if self.proximal:
            penalty = penalty + self.proximal * (tensor - self.start).square().sum()
        return self.mean_loss(outputs) + 0.5 * penalty.item()

    def gradient(self, outputs: Tensor, tensor: Tensor) -> Tensor:
        """The gradient at B, whose outputs are known."""
        residual = self._weighted(self.loss.gradient(outputs, self.targets)) / len(self.targets)
        gradient = self.outputs.adjoint(residual).add_(tensor, alpha=self.ridge)
        return gradient.add_(tensor - self.start, alpha=self.proximal) if self.proximal else gradient

    def curvature(self, outputs: Tensor, moved: Tensor, direction: Tensor) -> Tensor:
        """The Hessian at B applied to a direction, whose own outputs are `moved`."""
        bent = self._weighted(self.loss.curvature(outputs, self.targets, moved)) / len(self.targets)
        return self.outputs.adjoint(bent).add_(direction, alpha=self.ridge + self.proximal)

    def _weighted(self, values: Tensor) -> Tensor:
        """Values `[b]` or `[b, c]` of the samples, each times its weight."""
        if self.weight is None:
            return values
        return values * (self.weight if values.dim() == 1 else self.weight.unsqueeze(1))
