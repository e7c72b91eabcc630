"""What an explanation holds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, Inexact
from torch import Tensor

from tnml.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """What each feature contributes to each output of each sample.

    Attributes:
        values: `[b, n, k]` contributions, in the order of the inputs, in double precision.
        base: `[k]` outputs of the background.
        outputs: `[b, k]` outputs of the samples; `values` add up to `outputs - base` up to `gap`.
        gap: the largest |sum of values - (outputs - base)|, divided by the largest
            |outputs - base|; None for values that do not add up by their definition (Banzhaf).
        nodes: points of the quadrature; half as many as there are sites make it exact in any case.
        features: n names of the features; None if they have none.
        names: k names of the outputs, such as the classes; None if nobody named them.
        data: `[b, n]` the samples as they were given to an estimator; None from a network.

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
    features: tuple[str, ...] | None = None
    names: tuple[Any, ...] | None = None
    data: npt.NDArray[Any] | None = None

    @property
    def importance(self) -> Float64[Tensor, "n k"]:
        """The mean over the samples of the size of each contribution."""
        return self.values.abs().mean(0)

    def to_shap(self) -> Any:
        """The same as a `shap.Explanation`, for the plots of the package shap.

        The axis of outputs is left out if there is only one.

        Raises:
            InputError: shap is not installed, or the values are complex.
        """
        if self.values.is_complex():
            raise InputError("shap knows real values only, got complex ones; take their real part or size")
        try:
            import shap  # optional
        except ImportError as error:
            raise InputError("to_shap needs the package shap: python -m pip install shap") from error
        values, outputs = self.values.cpu().numpy(), self.values.shape[2]
        base = np.broadcast_to(self.base.cpu().numpy(), (len(values), outputs))
        names = range(outputs) if self.names is None else self.names
        return shap.Explanation(
            values=values[..., 0] if outputs == 1 else values,
            base_values=base[:, 0] if outputs == 1 else base,
            data=self.data,
            feature_names=None if self.features is None else list(self.features),
            output_names=None if outputs == 1 else [str(name) for name in names],
        )


def gap_of(values: Tensor, base: Tensor, outputs: Tensor) -> float:
    """The largest |sum of values - (outputs - base)|, divided by the largest |outputs - base|.

    Example:
        >>> import torch
        >>> gap_of(torch.ones(1, 2, 1), torch.zeros(1), torch.full((1, 1), 4.0))
        0.5
    """
    wanted = outputs - base
    largest = max(float(wanted.abs().max()), 1e-300)
    return float((values.sum(1) - wanted).abs().max()) / largest
