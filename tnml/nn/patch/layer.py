"""A matrix product state with several outputs on every patch of an image."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from jaxtyping import Inexact
from torch import Tensor, nn

from tnml.checks import whole
from tnml.contraction.chain.outputs import many_chains
from tnml.errors import InputError
from tnml.features import FeatureMap, feature_map
from tnml.nn.entry import check_input, on_the_cpu, placed, refuse_scripting
from tnml.nn.mps.layer import MPSLayer
from tnml.nn.patch.geometry import Pair, grid_of, pair, patch_pixels


class PatchMPS(nn.Module):
    """`[b, h, w, d]` features of images to `[b, h', w', channels]`, by a matrix product state on every patch.

        image [h, w]   -- cut -->   patches [h' w', k k]   -- one chain each -->   [h' w', channels]

    It stands where a convolution would, but multiplies the pixels of a patch: its outputs are linear in each
    pixel's features. The last patch of a row or column is moved back so that it ends at the border, so every
    pixel is in a patch. All patches are one batch of short chains.

    Args:
        kernel: height and width of a patch, one number for both; cut where the image is smaller.
        stride: from one patch to the next.
        channels: number of outputs of every patch.
        bond_dim: largest bond dimension of the chain on a patch.
        shape: `(height, width)` of the images.
        features: map of pixels to features, where images `[b, h, w]` come without; see `MPSLayer`.
        shared: whether all patches have the same weights; else each position has its own.
        noise: standard deviation of the noise on the starting path; None chooses it.
        bond_dropout: probability of dropping a bond index in training.
        dtype: "float32", .. or the torch dtype; None: torch's default.
        device: where the parameters live; None: torch's default.
        engine: "auto", "torch", "native" or "reference"; see `MPSLayer`.
        seed: of the starting weights.

    Raises:
        InputError: an argument is out of range; the text says which and what to do.

    Cost: h' w' k^2 d chi^2 multiply-adds a sample; weights of each position are called one after the other.

    Source: Selvan and Dam, arXiv 2004.10076, whose layers are such chains on patches that do not overlap.

    Example:
        >>> layer = PatchMPS(kernel=3, stride=2, channels=4, bond_dim=5, shape=(7, 7))
        >>> layer(torch.rand(6, 7, 7)).shape
        torch.Size([6, 3, 3, 4])
    """

    __prepare_scriptable__ = refuse_scripting

    pixels: Tensor  # a plain attribute: averages of weights average buffers, whole numbers among them

    def __init__(
        self,
        kernel: int | Pair,
        stride: int | Pair,
        channels: int,
        bond_dim: int = 8,
        *,
        shape: Pair,
        features: str | Mapping[str, Any] | Callable[[Tensor], Tensor] | FeatureMap = "linear",
        shared: bool = True,
        noise: float | None = None,
        bond_dropout: float = 0.0,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        engine: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.shape = pair("shape", shape)
        self.kernel, self.stride = pair("kernel", kernel), pair("stride", stride)
        self.channels, self.shared = whole("channels", channels, 1), bool(shared)
        seed = whole("seed", seed, -(2**63))  # a number of NumPy would overflow below
        features = feature_map(features)
        if features.n_columns is not None:
            raise InputError("patches need one feature map for all pixels, got one for each column")
        self.grid = grid_of(self.shape, self.kernel, self.stride)
        with on_the_cpu():
            pixels = patch_pixels(self.shape, self.kernel, self.stride)
        self.pixels = placed(pixels, "cpu")
        options: dict[str, Any] = {
            "features": features,
            "noise": noise,
            "bond_dropout": bond_dropout,
            "dtype": dtype,
            "device": device,
            "engine": engine,
        }
        count = 1 if shared else len(pixels)
        self.chains = nn.ModuleList(
            MPSLayer(pixels.shape[1], self.channels, bond_dim, seed=seed + place, **options)
            for place in range(count)
        )
        self._no_constant()

    def reset_parameters(self) -> None:
        """Starts again from the seed; what `rescale_` fitted is undone.

        Raises:
            InputError: pruning or a parametrization computes a parameter.
        """
        for chain in self.layers:
            chain.reset_parameters()
        self._no_constant()

    @torch.no_grad()
    def _no_constant(self) -> None:
        """Takes what all inputs have in common out of the label cores: it would drown the rest at first."""
        for chain in self.layers:
            if chain.n_sites > 1 and max(chain.bond_dims) > 1 and not chain.label.is_meta:
                chain.label[0, :, 0] = 0

    @property
    def layers(self) -> list[MPSLayer]:
        """The chain of all patches, or of each."""
        return list(self.chains)  # type: ignore[arg-type]

    def patches(self, features: Inexact[Tensor, "b h w d"]) -> Inexact[Tensor, "b p k d"]:
        """The features of every patch, pixel by pixel.

        Example:
            >>> PatchMPS(2, 1, 4, shape=(3, 3)).patches(torch.rand(5, 3, 3, 2)).shape
            torch.Size([5, 4, 4, 2])
        """
        pixels = self.pixels.to(features.device)
        flat = features.flatten(1, 2).index_select(1, pixels.flatten())
        return flat.reshape(-1, *pixels.shape, features.shape[-1])

    def forward(self, x: Inexact[Tensor, "..."]) -> Inexact[Tensor, "..."]:
        """Outputs `[b, h', w', channels]` of images `[b, h, w]` in [0, 1], or of features `[b, h, w, d]`.

        b is any number of axes; what could be both is taken for features.

        Raises:
            InputError: `x` is not a tensor, the images have another shape, or it is `torch.jit.trace` that
                calls.
        """
        check_input(x)
        first = self.layers[0]
        dim = first.features.dim
        featured = x.dim() > 2 and x.shape[-1] == dim and tuple(x.shape[-3:-1]) == self.shape
        if not featured and tuple(x.shape[-2:]) != self.shape:
            raise InputError(
                f"expected images [b, {self.shape[0]}, {self.shape[1]}] or their features "
                f"[b, {self.shape[0]}, {self.shape[1]}, {dim}], got {list(x.shape)}"
            )
        features = (x if featured else first.features(x)).to(first.dtype)
        lead = features.shape[:-3]
        return self.of_features(features.reshape(-1, *self.shape, dim)).reshape(
            *lead, *self.grid, self.channels
        )

    def of_features(self, features: Inexact[Tensor, "b h w d"]) -> Inexact[Tensor, "b down across c"]:
        """Outputs of features; see `forward`.

        Example:
            >>> PatchMPS(2, 2, 4, shape=(4, 4)).of_features(torch.rand(5, 4, 4, 2)).shape
            torch.Size([5, 2, 2, 4])
        """
        patches = self.patches(features)
        if self.shared:
            found = _values(self.layers[0], patches.flatten(0, 1))
        else:
            each = zip(self.layers, patches.unbind(1), strict=True)
            found = torch.stack([_values(chain, own) for chain, own in each], 1)
        return found.reshape(-1, *self.grid, self.channels)

    @torch.no_grad()
    def rescale_(self, features: Inexact[Tensor, "b h w d"], weight: Tensor | None = None) -> Self:
        """This layer with outputs of order one for these features; see `MPSLayer.rescale_`.

        Args:
            features: of some training samples.
            weight: `[b]`, how often each sample counts; None counts all alike.

        Example:
            >>> layer = PatchMPS(2, 1, 4, shape=(3, 3)).rescale_(torch.rand(50, 3, 3, 2))
        """
        patches = self.patches(features)
        if self.shared:
            each = None if weight is None else weight.repeat_interleave(patches.shape[1])
            self.layers[0].rescale_(patches.flatten(0, 1), each)
        else:
            for chain, own in zip(self.layers, patches.unbind(1), strict=True):
                chain.rescale_(own, weight)
        return self

    def extra_repr(self) -> str:
        """Geometry and outputs."""
        return (
            f"kernel={self.kernel}, stride={self.stride}, channels={self.channels}, shape={self.shape}, "
            f"grid={self.grid}, shared={self.shared}"
        )


def _values(chain: MPSLayer, features: Tensor) -> Tensor:
    weight, label = chain.weights()
    value, exponent = many_chains(features, weight, label, chain.chain_shape, chain.engine)
    return value * torch.exp2(exponent).unsqueeze(-1).to(value.dtype)
