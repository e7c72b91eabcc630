"""Linear equations for a function by its value and slope at many points, as a fit sees them."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

Rows = Callable[[Tensor, Tensor], Tensor]
"""Value and slope `[q, b]` at all points to the left sides of the equations `[q, e]`."""


class Dual(NamedTuple):
    """Functions `[q, b]` at every point, and their derivatives along the noise of the step from there.

    The points are the last axis, along which everything is computed in one go.

    Example:
        >>> import torch
        >>> one = torch.ones(2, 1)
        >>> Dual(one, one).times(Dual(3 * one, 0 * one)).slope.flatten().tolist()
        [3.0, 3.0, 3.0, 3.0]
    """

    value: Tensor
    slope: Tensor

    def times(self, other: "Dual") -> "Dual":
        """All products of a function of one with one of the other, `[p q, b]`."""
        (a, da), (b, db) = (part.unsqueeze(1) for part in self), (part.unsqueeze(0) for part in other)
        return Dual((a * b).flatten(0, 1), (da * b).addcmul_(a, db).flatten(0, 1))

    def through(self, matrix: Tensor) -> "Dual":
        """The combinations that the columns of a matrix `[q, k]` say."""
        return Dual(matrix.T @ self.value, matrix.T @ self.slope)


def values_only(value: Tensor, slope: Tensor) -> Tensor:
    """The rows of a plain fit: the value at each point."""
    return value
