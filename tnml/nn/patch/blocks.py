"""A matrix product state on every block of an image, and one over the blocks: `BlockMPS`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from tnml.checks import whole
from tnml.contraction.chain.outputs import many_chains
from tnml.contraction.chain.reference import power_of_two
from tnml.features import FeatureMap, feature_map
from tnml.mps import MatrixProductState
from tnml.nn.computed import check_plain
from tnml.nn.entry import placed
from tnml.nn.layer import TensorNetworkLayer, neutral_of
from tnml.nn.mps.layer import MPSLayer
from tnml.nn.patch.geometry import Pair, image_shape, pair
from tnml.nn.patch.layer import PatchMPS

_LOUD = 4.0  # brings what a block says at the start to order one


class BlockMPS(TensorNetworkLayer):
    """`[b, n]` images in [0, 1] to `[b, c]` outputs, by a chain on every block and a chain over the blocks.

        pixels of a block -- chain --> vector [channels]     one for each block
        vectors [blocks, channels] -- chain --> outputs [c]

    It is one tensor network, a tree of two levels: outputs are linear in the features of every pixel, and
    exact explanations hold. Blocks do not overlap; where they stick out of the image, their sites there
    hold the vector at which a starting core is the identity.

    Args:
        n_sites: number of pixels n.
        out_features: number of outputs c.
        bond_dim: largest bond dimension of the chains on blocks.
        head_bond: that of the chain over the blocks; None: as `bond_dim`.
        channels: length of a block's vector.
        kernel: height and width of a block, one number for both.
        shared: whether all blocks have the same weights.
        features: a name, spec, callable or `FeatureMap`; see `tnml.features.feature_map`.
        order: a permutation of the pixels. Names of curves through an image leave them in their places.
        shape: `(height, width)` of the images; None takes a square where n is one, else one row.
        noise: standard deviation of the noise on the starting paths; None chooses it.
        site_dropout: probability of skipping a pixel of a sample in training.
        dtype: "float32", .. or the torch dtype; None: torch's default.
        device: where the parameters live; None: torch's default.
        engine: "auto", "torch", "native" or "reference"; see `MPSLayer`.
        seed: of the starting weights.

    Raises:
        InputError: an argument is out of range; the text says which and what to do.

    Cost: n d chi^2 multiply-adds a sample for the blocks, and as much for n / kernel^2 sites of dimension
    `channels`.

    Source: Glasser, Pancotti and Cirac, arXiv 1806.05964, whose generalised networks join parts of an image;
    this join by a chain is our own choice.

    Example:
        >>> layer = BlockMPS(64, 10, 5, kernel=4)
        >>> layer(torch.rand(5, 64)).shape, layer.blocks.grid
        (torch.Size([5, 10]), (2, 2))
    """

    network = "patch"
    may_change = frozenset({"engine"})

    def __init__(
        self,
        n_sites: int,
        out_features: int,
        bond_dim: int = 8,
        *,
        head_bond: int | None = None,
        channels: int = 8,
        kernel: int | Pair = 4,
        shared: bool = False,
        features: str | Mapping[str, Any] | Callable[[Tensor], Tensor] | FeatureMap = "linear",
        order: str | Sequence[int] = "raster",
        shape: Pair | None = None,
        noise: float | None = None,
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
        self.image = image_shape(self.n_sites, shape)
        sides = [min(k, s) for k, s in zip(pair("kernel", kernel), self.image, strict=True)]
        self.kernel, self.engine = (sides[0], sides[1]), engine
        self.channels = whole("channels", channels, 2)
        whole_blocks = [-(-s // k) * k for s, k in zip(self.image, self.kernel, strict=True)]
        options: dict[str, Any] = {"noise": noise, "dtype": dtype, "device": device, "engine": engine}
        self.blocks = PatchMPS(
            *(self.kernel, self.kernel, self.channels, bond_dim),
            shape=(whole_blocks[0], whole_blocks[1]),
            features=self._site_features(),
            shared=shared,
            seed=seed,
            **options,
        )
        self.head = MPSLayer(
            self.blocks.grid[0] * self.blocks.grid[1],
            self.out_features,
            bond_dim if head_bond is None else head_bond,
            features=feature_map("legendre", dim=self.channels),  # as many components, the first one constant
            seed=whole("seed", seed, -(2**63)) + 1,
            **options,
        )
        self.neutral = self.neutral.to(self.head.weight.device)
        self.order = self.order.to(self._place())
        self._pass_on()

    @torch.no_grad()
    def _pass_on(self) -> None:
        """Starts the blocks so that the first channel is the path's 1, and the others have order one."""
        for chain in self.blocks.layers:
            if not chain.label.is_meta:
                chain.label[:, 1:] *= _LOUD
                chain.label[:, 0] = 0
                chain.label[0, 0, 0] = 1

    def contract(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`value [b, c]` and `exponent [b]` of features `[b, n, d]`; the outputs are `value * 2^exponent`."""
        patches = self.blocks.patches(self._padded(features))
        batch, count = features.shape[0], patches.shape[1]
        if self.blocks.shared:
            value, exponent = _outputs(self.blocks.layers[0], patches.flatten(0, 1))
            value, exponent = value.view(batch, count, self.channels), exponent.view(batch, count)
        else:
            each = zip(self.blocks.layers, patches.unbind(1), strict=True)
            found = [_outputs(chain, own) for chain, own in each]
            value, exponent = (torch.stack(part, 1) for part in zip(*found, strict=True))
        own = power_of_two(value)
        vectors = value * torch.exp2(-own).unsqueeze(-1).to(value.dtype)
        last, power = self.head.contract(vectors)
        return last, power + (exponent + own).sum(1)

    def _padded(self, features: Tensor) -> Tensor:
        """The features of the image `[b, h, w, d]`, filled up to whole blocks."""
        found: Tensor = features.unflatten(1, self.image)
        if self.blocks.shape == self.image:
            return found
        pad = self._pad(features)
        rows, columns = (s - i for s, i in zip(self.blocks.shape, self.image, strict=True))
        right = pad.expand(*found.shape[:2], columns, -1)
        found = torch.cat([found, right], 2)
        return torch.cat([found, pad.expand(found.shape[0], rows, found.shape[2], -1)], 1)

    def _pad(self, like: Tensor) -> Tensor:
        return neutral_of(self.features, 1)[0].to(like.device, like.dtype)

    @torch.no_grad()
    def rescale_(self, x: Tensor, weight: Tensor | None = None) -> Self:
        """This layer, scaled so that the outputs of the samples `x` are of order one.

        For feature maps without identity weights the chains on blocks are fitted to the samples first.

        Example:
            >>> layer = BlockMPS(64, 10, features="rbf").rescale_(torch.rand(100, 64))
        """
        check_plain(self, "rescale it")
        if self._site_features().path(self.n_sites) is None:
            self.blocks.rescale_(self._padded(self.local_features(x)), weight)
        factor = torch.exp(-self.typical_log_norm(x, weight))
        self.head.label.mul_(factor.to(self.head.label.dtype))
        return self

    def own_config(self) -> dict[str, Any]:
        """Bonds, channels, blocks and engine."""
        return {
            "bond_dim": max(bond for chain in self.blocks.layers for bond in chain.bond_dims),
            "head_bond": max(self.head.bond_dims),
            "channels": self.channels,
            "kernel": list(self.kernel),
            "shared": self.blocks.shared,
            "engine": self.engine,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The cores of every block's chain and of the head, and "pad", what a site outside the image holds.

        Example:
            >>> [name for name in BlockMPS(4, 2, kernel=2, shape=(1, 4)).tensors() if "label" in name]
            ['block.0.label', 'block.1.label', 'head.label']
        """
        found = {
            f"block.{number}.{name}": tensor
            for number, chain in enumerate(self.blocks.layers)
            for name, tensor in chain.tensors().items()
        }
        found |= {f"head.{name}": tensor for name, tensor in self.head.tensors().items()}
        return {**found, "pad": self._pad(self.head.weight)}

    @property
    def bond_dims(self) -> list[int]:
        """The bond dimensions of the chains on blocks, and those of the head."""
        own = [bond for chain in self.blocks.layers for bond in chain.bond_dims]
        return own + self.head.bond_dims

    def bonds(self) -> list[Tensor]:
        """The Schmidt values `[k]` of the cuts between the first blocks and the others, along the head.

        Raises:
            InputError: the weight tensor is zero or not finite.
        """
        return [values.real for values in self._state()[0].schmidt_values()]

    def log_norm(self) -> float:
        """The logarithm of the 2-norm of the weight tensor, computed in double precision."""
        state, log = self._state()
        return float(state.log_norm()) + log

    @torch.no_grad()
    def _state(self) -> tuple[MatrixProductState, float]:
        """The head of orthonormal blocks: its cores times what is left of each block; and its logarithm."""
        wide = torch.complex128 if self.dtype.is_complex else torch.float64
        inside = torch.ones(self.n_sites, 1, device=self.head.weight.device).unflatten(0, self.image)
        spread = torch.zeros(self.blocks.shape, device=inside.device)
        spread[: self.image[0], : self.image[1]] = inside.squeeze(-1)
        masks = self.blocks.patches(spread[None, :, :, None])[0, :, :, 0] > 0
        pad = self._pad(self.head.weight).to(wide)
        log, cores = 0.0, []
        for place, core in enumerate(self.head.cores):
            chain = self.blocks.layers[0 if self.blocks.shared else place]
            rest = _rest(chain, masks[place].tolist(), pad)
            size = torch.linalg.vector_norm(rest)
            log += float(size.log())
            rest = rest / size.clamp_min(torch.finfo(torch.float64).tiny)
            cores.append(torch.einsum("kc,lcr->lkr", rest, core.to(wide)))
        cores.insert(self.head.label_site, self.head.label.to(wide))
        return MatrixProductState(cores, label_site=self.head.label_site).detach(), log

    def reset_parameters(self) -> None:
        """Starts again as a fresh layer does that has the same arguments and the present sizes."""
        check_plain(self, "reset it")
        self.blocks.reset_parameters()
        self.head.reset_parameters()
        self._pass_on()
        self.neutral.copy_(placed(neutral_of(self._site_features(), self.n_sites), self.neutral.device))

    def adopt_(self, state: Mapping[str, Any], prefix: str) -> None:
        """Does nothing: the chains adopt their bonds themselves."""


def _outputs(chain: MPSLayer, features: Tensor) -> tuple[Tensor, Tensor]:
    weight, label = chain.weights()
    return many_chains(features, weight, label, chain.chain_shape, chain.engine)


def _rest(chain: MPSLayer, inside: Sequence[bool], pad: Tensor) -> Tensor:
    """What is left `[k, c]` of a block once its sites have orthonormal bases; pads are contracted."""
    cores = [
        core.to(pad.dtype) if real else torch.einsum("ldr,d->lr", core.to(pad.dtype), pad).unsqueeze(1)
        for core, real in zip(chain.cores, inside, strict=True)
    ]
    left = right = torch.ones(1, 1, dtype=pad.dtype, device=pad.device)
    for core in cores[: chain.label_site]:
        left = torch.linalg.qr(torch.einsum("kl,ldr->kdr", left, core).flatten(0, 1), mode="r").R
    for core in reversed(cores[chain.label_site :]):
        right = torch.linalg.qr(torch.einsum("kr,ldr->kdl", right, core).flatten(0, 1), mode="r").R
    both = torch.einsum("kl,lcr,qr->kqc", left, chain.label.to(pad.dtype), right).flatten(0, 1)
    rest: Tensor = torch.linalg.qr(both, mode="r").R
    return rest
