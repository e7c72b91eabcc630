"""What an explanation holds."""

from dataclasses import dataclass

from jaxtyping import Float64, Inexact
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """What each feature contributes to each output of each sample.

    Attributes:
        values: `[b, n, k]` contributions, in the order of the inputs, in double precision.
        base: `[k]` outputs of the background.
        outputs: `[b, k]` outputs of the samples; `values` add up to `outputs - base` up to `gap`.
        gap: the largest |sum of values - (outputs - base)|, divided by the largest
            |outputs - base|; None for values that do not add up by their definition (Banzhaf).
        nodes: points of the quadrature; with `exact_nodes` it is exact for every polynomial that occurs.

    Example:
        >>> import torch
        >>> from tnml.explain import shapley
        >>> from tnml.nn import MPSLayer
        >>> found = shapley(MPSLayer(4, 2, dtype="float64"), torch.rand(3, 4), torch.rand(9, 4))
        >>> found.values.shape, found.base.shape, found.gap < 1e-10
        (torch.Size([3, 4, 2]), torch.Size([2]), True)
    """

    values: Inexact[Tensor, "b n k"]
    base: Inexact[Tensor, " k"]
    outputs: Inexact[Tensor, "b k"]
    gap: float | None
    nodes: int

    @property
    def importance(self) -> Float64[Tensor, "n k"]:
        """The mean over the samples of the size of each contribution."""
        return self.values.abs().mean(0)
