"""What a synthetic target is: a function with known mean and variance, and inputs to draw."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tnml.contraction import ChainShape, chain_flat
from tnml.data import random_table
from tnml.data.inputs import Inputs
from tnml.data.moments import moments, unit_variance
from tnml.errors import InputError
from tnml.features import FeatureMap, feature_map
from tnml.mps import MatrixProductState

FeatureName = str | Mapping[str, Any]

_MEDIAN_SAMPLES = 2**16
_CHUNK = 8192  # samples at a time, which bounds the memory
_LARGEST_DENSE = 2**16  # entries up to which the ranks of a permuted teacher are found


@dataclass(frozen=True, eq=False)
class Chain:
    """The function that a matrix product state with a label core computes of inputs `[n, n_sites]`.

    Args:
        state: float64, with a label core.
        features: what the other cores meet.
        order: chain site i meets `x[:, order[i]]`; None: as they come.

    Example:
        >>> state = MatrixProductState([torch.eye(2)[None], torch.ones(2, 1, 1)], label_site=1).to("float64")
        >>> Chain(state, feature_map("affine"))(torch.tensor([[0.25]], dtype=torch.float64))
        tensor([[1.2500]], dtype=torch.float64)
    """

    state: MatrixProductState
    features: FeatureMap
    order: tuple[int, ...] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs `[n, c]` of inputs `[n, n_sites]` in float64."""
        shape, weight, label, log2_scale = self._flat
        if self.order is not None:
            x = x[:, list(self.order)]
        left, right, exponent = chain_flat(self.features(x), weight, shape, "torch")
        value = torch.einsum("bl,lcr,br->bc", left, label, right)
        return value * torch.exp2(exponent.sum(0) + log2_scale).unsqueeze(-1).to(value.dtype)

    @functools.cached_property
    def _flat(self) -> tuple[ChainShape, Tensor, Tensor, float]:
        cores, place = self.state.cores, self.state.label_site or 0
        label = cores.pop(place)
        left = (1, *(core.shape[2] for core in cores[:place]))
        right = (*(core.shape[0] for core in cores[place:]), 1)
        shape = ChainShape(self.features.dim, left, right)
        weight = shape.join([core.transpose(0, 1) for core in cores])
        return shape, weight, label, float(self.state.log_scale) / math.log(2)


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """A function of `n_sites` numbers to be learned, and the distribution of its inputs; see `target`.

    Attributes:
        name: the name `target` knows it by.
        options: every option of it, defaults included; `target(name, **options)` makes it again.
        n_sites: inputs of one sample.
        outputs: number of outputs c.
        inputs: the distribution of the inputs.
        mean: of the outputs, `[]` for one output, else `[c]`; float64.
        variance: of the outputs, likewise.
        scale: what the function was multiplied by, likewise: its mean before was mean / scale.
        features: the feature map with which a matrix product state computes the target; None: none known.
        order: the site order in which that state visits the inputs; None: as they come.
        bond_dim: the bond dimension that state needs where it visits the inputs as they come; None: unknown.
        function: `[n, n_sites] -> [n, c]` in float64.

    Example:
        >>> from tnml.data.synthetic import target
        >>> teacher = target("mps", n_sites=6, bond_dim=3, seed=1)
        >>> x = teacher.draw(5, seed=0)
        >>> teacher(x).shape, round(float(teacher.variance), 9)
        (torch.Size([5]), 1.0)
    """

    n_sites: int
    outputs: int
    inputs: Inputs
    mean: Tensor
    variance: Tensor
    scale: Tensor
    function: Callable[[Tensor], Tensor] = field(repr=False)
    features: FeatureName | None = None
    order: tuple[int, ...] | None = None
    bond_dim: int | None = None
    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, x: Float[Tensor, "n s"]) -> Float64[Tensor, "..."]:
        """The target's values `[n]`, or `[n, outputs]` where there are several, in float64.

        Raises:
            InputError: `x` is not a float tensor of shape `[n, n_sites]`.
        """
        if x.dim() != 2 or x.shape[1] != self.n_sites or not x.is_floating_point():
            raise InputError(
                f"expected floating-point inputs [n, {self.n_sites}], got {x.dtype} {list(x.shape)}"
            )
        parts = [self.function(part.double()) for part in x.split(_CHUNK)]
        values = torch.cat(parts) if parts else x.new_zeros(0, self.outputs, dtype=torch.float64)
        return values[:, 0] if self.outputs == 1 else values

    def draw(self, n: int, *, seed: int, first: int = 0) -> Float64[Tensor, "n s"]:
        """Inputs `[n, n_sites]`: samples `first` to `first + n - 1` of those that the seed gives.

        Each sample depends on the seed and its index only: processes that each draw a part get what one
        process draws. The seed of the target plays no part.

        Args:
            n: samples.
            seed: not negative.
            first: index of the first sample.

        Raises:
            InputError: a number is negative.

        Example:
            >>> from tnml.data.synthetic import target
            >>> parity = target("parity", n_sites=4)
            >>> torch.equal(parity.draw(3, seed=0, first=2), parity.draw(5, seed=0)[2:])
            True
        """
        return self.inputs.draw(n, self.n_sites, seed=seed, first=first)

    @functools.cached_property
    def median(self) -> Tensor:
        """The median of every output over 65,536 samples, always the same ones; shaped as `mean`.

        Its standard error is about 0.005 standard deviations for a normal distribution.
        """
        return self(self.draw(_MEDIAN_SAMPLES, seed=random_table.REFERENCE_SEED)).quantile(0.5, dim=0)

    def state(self, minus: float = 0.0) -> MatrixProductState:
        """The matrix product state that computes the target, its label core in the middle of the chain.

        `MPSLayer.from_state(t.state(), **t.layer_settings())` is the layer that has nothing left to learn.

        Args:
            minus: a number subtracted from every output, as for the boundary of a classification. It may cost
                one more bond index.

        Raises:
            InputError: no state is known for this target, or its features cannot make a constant.

        Example:
            >>> from tnml.data.synthetic import target
            >>> target("mps", n_sites=6, bond_dim=3).state().bond_dims
            [1, 2, 3, 3, 3, 3, 2, 1]
        """
        if not isinstance(self.function, Chain):
            raise InputError(f"no matrix product state is known that computes the target {self.name!r}")
        state = self.function.state
        if minus == 0:
            return state
        weights = self.function.features.identity
        if weights is None:
            raise InputError(
                f"the features {self.features!r} cannot make a constant, so the target minus {minus} is not "
                "known as a matrix product state; take other features or threshold=0.0"
            )
        vectors = [torch.tensor(weights, dtype=torch.float64)] * self.n_sites
        place = state.label_site or 0
        vectors.insert(place, torch.full((self.outputs,), float(minus), dtype=torch.float64))
        return (state - MatrixProductState.product(vectors)).truncate().state

    def layer_settings(self) -> dict[str, Any]:
        """What `MPSLayer` needs besides the state to compute the target: its features and site order.

        Raises:
            InputError: no matrix product state is known for this target.

        Example:
            >>> from tnml.data.synthetic import target
            >>> target("permuted", n_sites=4, seed=2).layer_settings()
            {'features': 'legendre', 'order': [...]}
        """
        if self.features is None:
            raise InputError(f"no matrix product state is known that computes the target {self.name!r}")
        return {"features": self.features, "order": "raster" if self.order is None else list(self.order)}


def chain_target(
    state: MatrixProductState,
    features: FeatureName,
    inputs: Inputs,
    *,
    order: tuple[int, ...] | None = None,
    scaled: bool = True,
) -> Target:
    """The target that a state computes, scaled to unit variance.

    Args:
        state: float64, with a label core.
        features: name or description of the feature map.
        inputs: the distribution of the inputs along the chain.
        order: chain site i meets `x[:, order[i]]`.
        scaled: False leaves the state as it is.

    Raises:
        InputError: an output does not vary.

    Example:
        >>> state = MatrixProductState([torch.eye(2)[None], torch.ones(2, 1, 1)], label_site=1).to("float64")
        >>> round(float(chain_target(3 * state, "legendre", Inputs()).mean), 9)
        1.0
    """
    fmap = feature_map(features)
    emissions = inputs.emissions(fmap)
    outputs = state.cores[state.label_site or 0].shape[1]
    scale = torch.ones(outputs, dtype=torch.float64)
    if scaled:
        state, _, before = unit_variance(state, emissions)
        scale = before.rsqrt()
    mean, variance, log_scale = moments(state, emissions)
    size = math.exp(log_scale)
    return Target(
        n_sites=state.n_sites - 1,
        outputs=outputs,
        inputs=inputs,
        mean=one_or_all(mean * size),
        variance=one_or_all(variance * size**2),
        scale=one_or_all(scale),
        function=Chain(state, fmap, order),
        features=features,
        order=order,
        bond_dim=max(state.bond_dims) if order is None else _widest(state, order),
    )


def one_or_all(values: Tensor) -> Tensor:
    """`[c]` as it is, but `[]` for one output.

    Example:
        >>> one_or_all(torch.ones(1)).shape, one_or_all(torch.ones(2)).shape
        (torch.Size([]), torch.Size([2]))
    """
    return values[0] if len(values) == 1 else values


def _widest(state: MatrixProductState, order: tuple[int, ...]) -> int | None:
    """The largest rank over the cuts of the inputs as they come, from the tensor of all coefficients."""
    place = state.label_site or 0
    sizes = state.physical_dims
    outputs, physical = sizes[place], sizes[place - 1] if place else sizes[1]
    n = len(order)
    if outputs * physical**n > _LARGEST_DENSE:
        return None
    dense = state.normalized().to_dense().movedim(place, -1)  # [d, .., d, c] in chain order
    places = [order.index(site) for site in range(n)]
    dense = dense.permute(*places, n)
    half = n // 2  # the label leg sits there, as in the layer
    cuts = [(physical**cut) * (outputs if cut > half else 1) for cut in range(n + 1)]
    moved = dense.movedim(-1, half).reshape(-1)
    return max(_rank(moved.reshape(rows, -1)) for rows in itertools.chain(cuts, [physical**half * outputs]))


def _rank(matrix: Tensor) -> int:
    values = torch.linalg.svdvals(matrix)
    return int((values > 1e-10 * values[0]).sum())
