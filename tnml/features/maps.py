"""What a feature map is: a record of a function and of what a chain needs to know about it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Inexact
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
    def n_columns(self) -> int | None:
        """How many sites it is for, where each has features of its own; None: for any number."""
        return None

    def reordered(self, order: Sequence[int]) -> "FeatureMap":
        """The map for inputs whose column i was column `order[i]`: itself, where all are treated alike."""
        del order
        return self

    def path(self, n_sites: int) -> Float[Tensor, "n d"] | None:
        """The identity weights of every site; None where there are none."""
        return None if self.identity is None else torch.tensor(self.identity).expand(n_sites, self.dim)

    def square_norms(self, n_sites: int) -> Float[Tensor, " n"]:
        """The mean of |phi|² over values between 0 and 1, at every site."""
        return self(torch.linspace(0, 1, 257)).abs().square().sum(-1).mean().expand(n_sites)

    @property
    def spec(self) -> dict[str, Any]:
        """A JSON-able description; `feature_map(fmap.spec)` builds the map again unless it was a callable."""
        return {"name": self.name, "dim": self.dim, **self.options}
