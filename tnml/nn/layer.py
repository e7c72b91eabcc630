"""The contract of every tensor network layer: what the base class does, and what a network has to provide."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, Protocol, Self, final, runtime_checkable

import torch
from jaxtyping import Inexact
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError
from tnml.features import FeatureMap, feature_map
from tnml.features.spec import STORED_NAMES
from tnml.files import FORMAT, write_model
from tnml.mps import MatrixProductState
from tnml.nn.computed import check_plain, effective_state
from tnml.nn.dropout import SiteDropout
from tnml.nn.entry import check_input, on_the_cpu, placed, refuse_scripting
from tnml.nn.ordered import OrderedModule
from tnml.nn.sample_weights import weighted_median

DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
}


class TensorNetworkLayer(OrderedModule, ABC):
    """`[b, n]` inputs in [0, 1] (or `[b, n, d]` features) to `[b, c]` outputs, by a tensor network.

        order, feature map, site dropout  ->  features [b, n, d]  ->  contract  ->  value [b, c], exponent [b]

    The outputs are `value * 2^exponent`, linear in the features of every site. Everything before and after
    `contract` is here and final; a network is defined by its abstract members. Its parameters have one
    dtype, and a fresh layer gives outputs of order one where the feature map has identity weights.

    Args:
        n_sites: number of sites n (pixels).
        out_features: number of outputs c.
        features: a name, spec, callable or `FeatureMap`; see `tnml.features.feature_map`.
        order: site order, a name or a permutation; see `tnml.features.site_order`.
        shape: `(height, width)` of the image behind the sites, for the order.
        site_dropout: probability of replacing a site's features by `neutral` in training.

    Raises:
        InputError: an argument is out of range; the text says which and what to do.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> layer = MPSLayer(4, 2)
        >>> isinstance(layer, TensorNetworkLayer), layer.network, list(layer.tensors())
        (True, 'mps', ['core.0', 'core.1', 'label', 'core.2', 'core.3'])
    """

    neutral: Tensor

    __prepare_scriptable__ = refuse_scripting

    may_change: ClassVar[frozenset[str]] = frozenset()
    """Names in `config` that a resumed run may change, because they change the rounding and not the model."""

    multilinear: ClassVar[bool] = True
    """Whether the outputs are linear in the features of every site, which exact explanations rest on."""

    def __init__(
        self,
        n_sites: int,
        out_features: int,
        *,
        features: str | Mapping[str, Any] | Callable[[Tensor], Tensor] | FeatureMap = "linear",
        order: str | Sequence[int] = "raster",
        shape: tuple[int, int] | None = None,
        site_dropout: float = 0.0,
    ) -> None:
        super().__init__(whole("n_sites", n_sites, 1), order, shape)
        self.n_sites = whole("n_sites", n_sites, 1)
        self.out_features = whole("out_features", out_features, 1)
        with on_the_cpu():
            self.features = feature_map(features)
            if self.features.n_columns not in (None, self.n_sites):
                raise InputError(
                    f"the features are those of {self.features.n_columns} columns, but there are "
                    f"{self.n_sites} sites; give one map for each"
                )
            neutral = neutral_of(self._site_features(), self.n_sites).float().clone()
        self.site_dropout = SiteDropout(site_dropout)
        self.register_buffer("neutral", placed(neutral))

    @property
    @abstractmethod
    def network(self) -> str:
        """Its name in `tnml.nn.NETWORKS`, which model files keep; write `network = "..."` in the class."""

    @abstractmethod
    def contract(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`value [b, c]` and the binary logarithm `exponent [b]` of its scale, of features `[b, n, d]`.

        The exponent must not carry a gradient; take a power of two out wherever the value could overflow.
        """

    @abstractmethod
    def rescale_(self, x: Tensor, weight: Tensor | None = None) -> Self:
        """This layer, its parameters set so that the outputs of the samples `x` are of order one."""

    @abstractmethod
    def own_config(self) -> dict[str, Any]:
        """The arguments that this network has beyond those of the base class and dtype, ready for JSON."""

    @abstractmethod
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors whose contraction with the features is the output, as a dense oracle needs them."""

    @property
    @abstractmethod
    def bond_dims(self) -> list[int]:
        """The dimensions of its bonds."""

    @abstractmethod
    def bonds(self) -> list[Tensor]:
        """What each cut carries, in double precision without gradient: Schmidt values or a matrix.

        The cuts are of the weight tensor, label leg included. Schmidt values `[k]` descend, their squares add
        up to 1; of a matrix `[k, l]` the singular values are, up to one factor, the Schmidt values.

        Raises:
            InputError: the weight tensor is zero or not finite.
        """

    @abstractmethod
    def log_norm(self) -> float:
        """The logarithm of the 2-norm of the weight tensor, computed in double precision."""

    @abstractmethod
    def adopt_(self, state: Mapping[str, Any], prefix: str) -> None:
        """Adopts, before a state is loaded, the sizes that it has; does nothing where sizes are fixed.

        Args:
            state: a state dict, perhaps incomplete or not of this network at all: torch raises afterwards.
            prefix: of this layer's names in it.
        """

    def reset_parameters(self) -> None:
        """Starts again as a fresh layer does that has the same arguments and the present sizes.

        A network that keeps its seed starts from it; this one starts from the default seed of its class.

        Raises:
            InputError: pruning or a parametrization computes a parameter.

        Example:
            >>> from tnml.nn import MPSLayer
            >>> layer = MPSLayer(4, 2, seed=3)
            >>> _ = torch.nn.init.zeros_(layer.label)
            >>> layer.reset_parameters()
            >>> torch.equal(layer.label, MPSLayer(4, 2, seed=3).label)
            True
        """
        check_plain(self, "reset it")
        with on_the_cpu(), torch.no_grad():
            fresh = type(self)(**{**self._facts(), "features": self.features, **self._arguments})
            start = fresh.state_dict()
        for name, tensor in (*self.named_parameters(), *self.named_buffers()):
            tensor.data.copy_(placed(start[name], tensor.device))

    @final  # type: ignore[misc]  # in torch it is an attribute
    def forward(self, x: Tensor) -> Tensor:
        """Outputs `[b, c]` of inputs `[b, n]` in [0, 1], or of features `[b, n, d]`; b is any number of axes.

        Raises:
            InputError: `x` is not a tensor or has another shape, or it is `torch.jit.trace` that calls.
        """
        value, exponent = self._contracted(x)
        return value * torch.exp2(exponent).unsqueeze(-1).to(value.dtype)

    @final
    def log_forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`value [b, c]` and `log_scale [b]`, the outputs being `value * exp(log_scale)`.

        Nothing overflows or vanishes, however many sites there are; only the gradient of `value` is recorded.

        Example:
            >>> from tnml.nn import MPSLayer
            >>> value, log_scale = MPSLayer(4, 2).log_forward(torch.rand(3, 4))
            >>> value.shape, log_scale.shape
            (torch.Size([3, 2]), torch.Size([3]))
        """
        value, exponent = self._contracted(x)
        return value, exponent * math.log(2)

    @final
    def _contracted(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.local_features(x)
        *lead, sites, dim = features.shape
        if len(lead) != 1:
            features = features.reshape(-1, sites, dim)
        if self.training and self.site_dropout.p > 0:
            features = self.site_dropout(features, self.neutral)
        value, exponent = self.contract(features)
        if len(lead) != 1:
            value, exponent = value.reshape(*lead, value.shape[1]), exponent.reshape(lead)
        return value, exponent

    @final
    def local_features(self, x: Tensor) -> Tensor:
        """Features `[b, n, d]` in the network's order, of inputs `[b, n]` or features `[b, n, d]` as given.

        b is any number of axes; what could be both `[b, n]` and `[b, n, d]` is taken for features.

        Raises:
            InputError: `x` is not a tensor, or the shape is not one of these.

        Example:
            >>> from tnml.nn import MPSLayer
            >>> MPSLayer(4, 2).local_features(torch.zeros(1, 4))[0, 0]
            tensor([1., 0.])
        """
        check_input(x)
        sizes = self.n_sites, self.features.dim
        featured = x.dim() > 2 and x.shape[-2:] == sizes
        if not featured and x.shape[-1:] != sizes[:1]:
            raise InputError(
                f"expected inputs [b, {sizes[0]}] or features [b, {sizes[0]}, {sizes[1]}], "
                f"got {list(x.shape)}; flatten images to one row per sample"
            )
        if not featured and self.features.n_columns is not None:  # they know columns, not places in the chain
            x, featured = self.features(x), True
        x = self.in_order(x, -2 if featured else -1)
        return (x if featured else self.features(x)).to(self.dtype)

    @final
    def _site_features(self) -> FeatureMap:
        """The feature map with what it knows of columns in the network's order."""
        if self.features.n_columns is None:
            return self.features
        return self.features.reordered(self.order.tolist())

    @property
    @final
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        for parameter in self._parameters.values():  # quicker than `parameters()`: this is on the hot path
            if parameter is not None:
                return parameter.dtype
        return next(self.parameters()).dtype

    @property
    @final
    def config(self) -> dict[str, Any]:
        """Arguments that rebuild this layer (not its weights), ready for JSON: `type(layer)(**layer.config)`.

        Raises:
            InputError: the feature map is the user's own function, which no file can hold.
        """
        if self.features.name not in STORED_NAMES:
            raise InputError(
                f"the feature map {self.features.name!r} is a function, which no file can hold; "
                "save the state dict and rebuild the layer with the function"
            )
        return {**self._facts(), "features": self.features.spec, **self._arguments}

    @final
    def identity(self) -> dict[str, Any]:
        """What has to be the same where a run is resumed: `config` without what `may_change`.

        Of a feature map that is the user's own function it has what can be recorded of a function.

        Example:
            >>> from tnml.nn import MPSLayer
            >>> layer = MPSLayer(4, 2)
            >>> set(layer.config) - set(layer.identity())
            {'engine'}
        """
        if self.features.name in STORED_NAMES:
            facts = self.config
        else:
            function = str(self.features.options.get("function", self.features.name)).rpartition(".")[2]
            described = f"{function} with {self.features.dim} components"
            facts = {**self._facts(), "features": described, "order": self.order.tolist()}
        return {name: value for name, value in facts.items() if name not in self.may_change}

    @final
    def _facts(self) -> dict[str, Any]:
        return {
            "n_sites": self.n_sites,
            "out_features": self.out_features,
            **self.own_config(),
            "site_dropout": self.site_dropout.p,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @final
    def save(self, path: str | PathLike[str]) -> None:
        """Writes the layer to one safetensors file; `tnml.load` reads it.

        A tensor that pruning or a parametrization computes is saved as what it is now.

        Raises:
            InputError: the file cannot be written, or the feature map is a user's function.

        Example:
            >>> import tempfile, os, tnml
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     tnml.nn.MPSLayer(4, 2).save(os.path.join(folder, "m.safetensors"))
            ...     tnml.load(os.path.join(folder, "m.safetensors")).n_sites
            4
        """
        facts = {"format": FORMAT, "kind": "layer", "network": self.network, "config": self.config}
        write_model(path, effective_state(self), facts)

    @final
    @torch.no_grad()
    def typical_log_norm(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """The (lower) median over the samples of log |f(x)| / sqrt(c), without dropout.

        Args:
            x: `[b, n]` or `[b, n, d]`.
            weight: `[b]`, at least 0: how often each sample counts; None counts all alike.

        Raises:
            InputError: the weights are not `[b]`, one is negative or not finite, or all are zero.

        Example:
            >>> from tnml.nn import MPSLayer
            >>> layer, x = MPSLayer(4, 2), torch.rand(3, 4)
            >>> a = layer.typical_log_norm(x, torch.tensor([2.0, 0.0, 1.0]))
            >>> bool(a == layer.typical_log_norm(x[[0, 0, 2]]))
            True
        """
        was_training = self.training
        value, log_scale = self.eval().log_forward(x)
        self.train(was_training)
        log_norm = value.abs().square().mean(-1).sqrt().log() + log_scale
        return log_norm.median() if weight is None else weighted_median(log_norm, weight)


@runtime_checkable
class Chain(Protocol):
    """A layer that is a chain with a label core: one with a matrix product state, in the order of its sites.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> isinstance(MPSLayer(4, 2), Chain), isinstance(torch.nn.Linear(4, 2), Chain)
        (True, False)
    """

    @property
    def label_site(self) -> int:
        """Number of sites before the label core."""

    def to_state(self) -> MatrixProductState:
        """The state, its label core marked."""


@runtime_checkable
class Compressible(Protocol):
    """A layer of which a smaller copy can be made.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> isinstance(MPSLayer(4, 2), Compressible)
        True
    """

    def compressed(
        self,
        *,
        max_bond: int | Sequence[int] | None = None,
        max_error: float | None = None,
        samples: Tensor | None = None,
    ) -> tuple[TensorNetworkLayer, float]:
        """A copy with smaller bonds, and its relative error: by the tensor, or by samples."""


@runtime_checkable
class Growable(Protocol):
    """A layer of which a larger copy can be made.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> isinstance(MPSLayer(4, 2), Growable)
        True
    """

    def grown(self, bond_dim: int, *, noise: float | None = None, seed: int = 0) -> TensorNetworkLayer:
        """A copy with larger bonds and the same outputs, for further training."""


def neutral_of(features: FeatureMap, n_sites: int, path: Tensor | None = None) -> Inexact[Tensor, "n d"]:
    """Features whose product with the path weights w is 1 at every site, w / |w|²: what a dropped site holds.

    Args:
        features: the local feature map.
        n_sites: number of sites n.
        path: w `[n, d]`; None takes the identity weights of the map, or ones where it has none.

    Example:
        >>> neutral_of(feature_map("linear"), 1)
        tensor([[0.5000, 0.5000]])
    """
    if path is None:
        path = features.path(n_sites)
    if path is None:
        path = torch.ones(n_sites, features.dim)
    return path / path.square().sum(-1, keepdim=True).clamp_min(1e-12)
