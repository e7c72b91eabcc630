"""What a feature map is: a record of a function and of what a chain needs to know about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Inexact
from torch import Tensor

from tnml.checks import keep_whole
from tnml.errors import InputError, choose

NORMALISATIONS = ("sum", "norm", "orthonormal", "none")


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """A local feature map and what a chain needs to know about it; `fmap(x)` gives the features of `x`.

    Attributes:
        name: the name `feature_map` knows it by, or "callable".
        dim: the number of components d.
        function: the components, `[...] -> [..., d]`, of any strides.
        derivative: d phi / dx, `[...] -> [..., d]`.
        normalisation: "sum" (the components add up to 1), "norm" (their 2-norm is 1), "orthonormal" (under
            the uniform distribution on [0, 1]) or "none".
        identity: weights w with sum_d w_d phi_d(x) = 1 for every x; None where there are none.
        options: what `feature_map(name, dim=dim, **options)` needs to build it again; plain JSON values.

    Raises:
        InputError: a field does not fit the others.

    Example:
        >>> import torch
        >>> from tnml.features import feature_map
        >>> linear = feature_map("linear")
        >>> linear(torch.tensor([[0.0, 0.25]])).tolist()
        [[[1.0, 0.0], [0.75, 0.25]]]
        >>> linear.identity, linear.normalisation
        ((1.0, 1.0), 'sum')
    """

    name: str
    dim: int
    function: Callable[[Tensor], Tensor] = field(repr=False)
    derivative: Callable[[Tensor], Tensor] = field(repr=False)
    normalisation: str = "none"
    identity: tuple[float, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keep_whole(self, "dim", least=1)
        choose("normalisation", self.normalisation, dict.fromkeys(NORMALISATIONS))
        if self.identity is not None and len(self.identity) != self.dim:
            raise InputError(
                f"expected {self.dim} identity weights, one per component, got {len(self.identity)}"
            )

    def __call__(self, x: Tensor) -> Inexact[Tensor, "... d"]:
        """The features `[..., d]` of `x`, in its dtype and on its device."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            came = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"features need a floating-point tensor, got {came}; convert pixels by x.float() / 255"
            )
        return self.function(x)

    @property
    def spec(self) -> dict[str, Any]:
        """A JSON-able description; `feature_map(fmap.spec)` builds the map again unless it was a callable."""
        return {"name": self.name, "dim": self.dim, **self.options}
