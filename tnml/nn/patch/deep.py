"""A stack of matrix product states on patches, with normalisation between, and a linear head: `DeepMPS`."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from jaxtyping import Inexact
from torch import Tensor, nn

from tnml.checks import entries, one_of, whole
from tnml.errors import InputError, choose
from tnml.features import FeatureMap, feature_map
from tnml.nn.computed import check_plain
from tnml.nn.entry import on_the_cpu, placed
from tnml.nn.layer import DTYPES, TensorNetworkLayer
from tnml.nn.patch.geometry import Pair, image_shape, pair
from tnml.nn.patch.layer import PatchMPS
from tnml.randomness import seeded

NORMS = ("rms", "none")
_TINY = 1e-12  # norm below which a vector is not blown up to a mean square of 1


class DeepMPS(TensorNetworkLayer):
    """`[b, n]` images in [0, 1] to `[b, c]` outputs, by matrix product states on patches, stage after stage.

        features [h, w, d] -- PatchMPS --> v [h', w', channels] -- norm --> (1, v) -- PatchMPS --> .. head

    Every stage sees the vectors v of the stage before it as features (1, v). The head is linear in all
    vectors of the last stage. With the normalisation the outputs are no longer linear in the features of a
    site, so what needs that (exact Shapley values, Sobol indices, sweeps) refuses this network. One stage is
    a patch network.

    Args:
        n_sites: number of pixels n.
        out_features: number of outputs c.
        bond_dim: largest bond dimension, one number or one for each stage.
        channels: outputs of every patch, one number for each stage.
        kernel: side of the patches of each stage; one number or pair serves for all.
        stride: from one patch to the next, likewise.
        norm: "rms" divides each patch's vector by the root of its mean square; "none" does not.
        shared: whether all patches of a stage have the same weights.
        features: a name, spec, callable or `FeatureMap`; see `tnml.features.feature_map`.
        order: a permutation of the pixels. Names of curves through an image leave them in their places.
        shape: `(height, width)` of the images; None takes a square where n is one, else one row.
        noise: standard deviation of the noise on the starting paths; None chooses it.
        bond_dropout: probability of dropping a bond index in training.
        site_dropout: probability of skipping a pixel of a sample in training.
        dtype: "float32", .. or the torch dtype; None: torch's default.
        device: where the parameters live; None: torch's default.
        engine: "auto", "torch", "native" or "reference"; see `MPSLayer`.
        seed: of the starting weights.

    Raises:
        InputError: an argument is out of range; the text says which and what to do.

    Cost: that of its `PatchMPS` stages, d being the channels of the stage before plus 1.

    Source: Selvan and Dam, arXiv 2004.10076 (stages of patches); the constant feature and the normalisation
    by the root mean square are our own choice.

    Example:
        >>> layer = DeepMPS(64, 10, 5, channels=(6, 8), kernel=(3, 2), stride=(2, 1))
        >>> layer(torch.rand(5, 64)).shape, [stage.grid for stage in layer.stages]
        (torch.Size([5, 10]), [(4, 4), (3, 3)])
    """

    network = "deep"
    multilinear = False
    may_change = frozenset({"engine"})

    def __init__(
        self,
        n_sites: int,
        out_features: int,
        bond_dim: int | Sequence[int] = 8,
        *,
        channels: int | Sequence[int] = (16, 32),
        kernel: int | Sequence[int | Pair] = 3,
        stride: int | Sequence[int | Pair] = 2,
        norm: str = "rms",
        shared: bool = True,
        features: str | Mapping[str, Any] | Callable[[Tensor], Tensor] | FeatureMap = "linear",
        order: str | Sequence[int] = "raster",
        shape: Pair | None = None,
        noise: float | None = None,
        bond_dropout: float = 0.0,
        site_dropout: float = 0.0,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        engine: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(
            n_sites,
            out_features,
            features=features,
            order="raster" if isinstance(order, str) else order,
            shape=shape,
            site_dropout=site_dropout,
        )
        self.norm, self.shared, self.engine = one_of("norm", norm, NORMS), bool(shared), engine
        seed = whole("seed", seed, -(2**63))  # a number of NumPy would overflow below
        self.bond_dropout = bond_dropout
        self.channels = [whole("channels", each, 1) for each in entries(channels) or [channels]]
        count = len(self.channels)
        chosen = choose("dtype", str(dtype or torch.get_default_dtype()).removeprefix("torch."), DTYPES)
        options: dict[str, Any] = {
            "shared": shared,
            "noise": noise,
            "bond_dropout": bond_dropout,
            "dtype": chosen,
            "device": device,
            "engine": engine,
        }
        self._kernels, self._strides = _each("kernel", kernel, count), _each("stride", stride, count)
        self.stages = nn.ModuleList()
        grid, own = image_shape(self.n_sites, shape), self._site_features()
        bonds = [whole("bond_dim", bond, 1) for bond in entries(bond_dim) or [bond_dim] * count]
        if len(bonds) != count:
            raise InputError(f"expected one bond_dim or {count}, one for each stage, got {bond_dim!r}")
        for place, (wide, bond) in enumerate(zip(self.channels, bonds, strict=True)):
            stage = PatchMPS(
                self._kernels[place],
                self._strides[place],
                wide,
                bond,
                shape=grid,
                features=own,
                seed=seed + 1000 * place,
                **options,
            )
            self.stages.append(stage)
            # As many components, the first one constant; its noise is right for vectors of mean square 1.
            grid, own = stage.grid, feature_map("legendre", dim=wide + 1)
        self._start_head(grid[0] * grid[1] * self.channels[-1], chosen, device, seed)

    def _start_head(self, inputs: int, dtype: torch.dtype, device: Any, seed: int) -> None:
        with on_the_cpu():
            drawn = torch.randn(self.out_features, inputs, generator=seeded(seed + 999), dtype=torch.float64)
            start = (drawn / math.sqrt(inputs)).to(dtype)
            zero = torch.zeros(self.out_features, dtype=dtype)
        place = torch.get_default_device() if device is None else torch.device(device)
        self.head, self.bias = nn.Parameter(placed(start, place)), nn.Parameter(placed(zero, place))
        self.neutral = self.neutral.to(place)
        self.order = self.order.to(self._place())

    def contract(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`value [b, c]` and an `exponent [b]` of zeros, of features `[b, n, d]`."""
        found = self._vectors(features)
        value = found.flatten(1) @ self.head.T + self.bias
        return value, torch.zeros_like(value[:, 0].real)

    def _vectors(self, features: Tensor, upto: int | None = None) -> Tensor:
        """The normalised vectors `[b, h', w', channels]` of the last stage, or features of stage `upto`."""
        found: Tensor = features.unflatten(1, self._all[0].shape)
        for place, stage in enumerate(self._all):
            found = found if place == 0 else constant_first(found)
            if place == upto:
                return found
            found = stage.of_features(found)
            if self.norm == "rms":
                size = torch.linalg.vector_norm(found, dim=-1, keepdim=True)
                found = found * (math.sqrt(found.shape[-1]) / size.clamp_min(_TINY))
        return found

    @torch.no_grad()
    def rescale_(self, x: Tensor, weight: Tensor | None = None) -> Self:
        """This layer, each stage and then the head set so that its outputs of `x` are of order one.

        Example:
            >>> layer = DeepMPS(16, 2, features="rbf").rescale_(torch.rand(100, 16))
        """
        check_plain(self, "rescale it")
        features, training = self.local_features(x), self.training
        self.eval()
        for place, stage in enumerate(self._all):
            stage.rescale_(self._vectors(features, place), weight)
        self.train(training)
        factor = torch.exp(-self.typical_log_norm(x, weight)).to(self.head.dtype)
        self.head.mul_(factor)
        self.bias.mul_(factor)
        return self

    def own_config(self) -> dict[str, Any]:
        """Bonds, channels and geometry of the stages, normalisation, dropout and engine."""
        return {
            "bond_dim": [_widest(stage) for stage in self._all],
            "channels": self.channels,
            "kernel": [list(kernel) for kernel in self._kernels],
            "stride": [list(stride) for stride in self._strides],
            "norm": self.norm,
            "shared": self.shared,
            "bond_dropout": self.bond_dropout,
            "engine": self.engine,
        }

    @property
    def _all(self) -> list[PatchMPS]:
        return list(self.stages)  # type: ignore[arg-type]

    def tensors(self) -> dict[str, Tensor]:
        """Every core of every chain, and the head `[c, h' w' channels]` with its bias `[c]`.

        Example:
            >>> list(DeepMPS(4, 2, channels=3, kernel=2).tensors())[:2]
            ['stage.0.0.core.0', 'stage.0.0.core.1']
        """
        found = {
            f"stage.{place}.{number}.{name}": tensor
            for place, stage in enumerate(self._all)
            for number, chain in enumerate(stage.layers)
            for name, tensor in chain.tensors().items()
        }
        return {**found, "head": self.head, "bias": self.bias}

    @property
    def bond_dims(self) -> list[int]:
        """The bond dimensions of the chains, stage after stage."""
        return [bond for stage in self._all for chain in stage.layers for bond in chain.bond_dims]

    def bonds(self) -> list[Tensor]:
        """The Schmidt values of the inner bonds of the chains, stage after stage; each chain is one tensor.

        Raises:
            InputError: the weight tensor of a chain is zero or not finite.
        """
        return [values for stage in self._all for chain in stage.layers for values in chain.bonds()]

    def log_norm(self) -> float:
        """The logarithm of the product of the 2-norms of the chains' weight tensors and the head."""
        wide = torch.complex128 if self.dtype.is_complex else torch.float64
        head = torch.cat([self.head.detach(), self.bias.detach().unsqueeze(1)], 1).to(wide)
        chains = sum(chain.log_norm() for stage in self._all for chain in stage.layers)
        return float(torch.linalg.vector_norm(head).log()) + chains

    def adopt_(self, state: Mapping[str, Any], prefix: str) -> None:
        """Does nothing: the chains adopt their bonds themselves."""


def constant_first(vectors: Inexact[Tensor, "*lead c"]) -> Inexact[Tensor, "*lead d"]:
    """The features (1, v) of vectors v.

    Example:
        >>> constant_first(torch.tensor([[2.0, 3.0]]))
        tensor([[1., 2., 3.]])
    """
    return torch.cat([torch.ones_like(vectors[..., :1]), vectors], -1)


def _each(name: str, value: object, count: int) -> list[Pair]:
    """One pair for each stage."""
    given = entries(value)
    if given is None:
        return [pair(name, value)] * count
    if len(given) != count:
        raise InputError(f"expected one {name} or {count}, one for each stage, got {value!r}")
    return [pair(name, each) for each in given]


def _widest(stage: PatchMPS) -> int:
    return max(bond for chain in stage.layers for bond in chain.bond_dims)
