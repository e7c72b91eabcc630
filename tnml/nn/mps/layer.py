"""The matrix product state as a PyTorch layer."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from tnml.checks import whole
from tnml.contraction import ENGINES, ChainShape, chain_flat
from tnml.errors import InputError, choose
from tnml.features import FEATURE_NAMES, FeatureMap, feature_map, site_order
from tnml.files import FORMAT, write_model
from tnml.mps import MatrixProductState
from tnml.nn.dropout import BondDropout, SiteDropout
from tnml.nn.mps.convert import moments_of, truncated, weights_of
from tnml.nn.mps.initialise import fit_path, neutral_features, starting_cores, starting_path
from tnml.nn.mps.layout import chain_shape_of, layout_of
from tnml.randomness import seeded

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
}


class MPSLayer(nn.Module):
    """`[b, n]` inputs in [0, 1] (or `[b, n, d]` features) to `[b, c]` outputs, by a matrix product state.

        f_c(x) = A_1[phi(x_1)] .. A_p[phi(x_p)] L_c A_{p+1}[phi(x_{p+1})] .. A_n[phi(x_n)],
        A[phi] = sum_d phi_d A[d]

    The outputs are linear in every core; take them as logits. The cores are one flat parameter `weight`
    (fast to optimise; `cores` shows them one by one) and the label core is `label [l, c, r]`.

    Args:
        n_sites: number of sites n (pixels).
        out_features: number of outputs c.
        bond_dim: largest bond dimension; the bonds near the ends are `min(bond_dim, d^i)`. Or all of them:
            the bonds from the left end to the label core, then from it to the right end, n_sites + 2 numbers.
        features: a name, spec, callable or `FeatureMap`; see `tnml.features.feature_map`.
        order: site order, a name or a permutation; see `tnml.features.site_order`.
        shape: `(height, width)` of the image behind the sites, for the order.
        label_site: number of sites left of the label core, 0 to n; None takes the middle, which is fastest.
        noise: standard deviation of the noise on the starting path; None chooses it from n and bond_dim.
        bond_dropout: probability of dropping a bond index in training.
        site_dropout: probability of skipping a site of a sample in training.
        dtype: "float32", "float64", "complex64", "complex128" or the torch dtype. Complex layers give complex
            outputs: make them real (`abs`, `real`) before a loss.
        device: where the parameters live.
        engine: "auto", "torch", "native" or "reference".
        seed: seed of the initial noise.

    Raises:
        InputError: an argument is out of range; the text says which and what to do.

    Cost: n d chi^2 multiply-adds a sample forward, three times that with the gradient; no chi x chi matrix
    is made per sample.

    Source: Stoudenmire and Schwab, arXiv 1605.05775, eq. 5; gradient training as in arXiv 1906.06329.

    Example:
        >>> layer = MPSLayer(n_sites=64, out_features=10, bond_dim=8)
        >>> layer(torch.rand(5, 64)).shape
        torch.Size([5, 10])
    """

    layout: Tensor
    order: Tensor
    neutral: Tensor

    def __init__(
        self,
        n_sites: int,
        out_features: int,
        bond_dim: int | Sequence[int] = 10,
        *,
        features: str | Mapping[str, Any] | Callable[[Tensor], Tensor] | FeatureMap = "linear",
        order: str | Sequence[int] = "raster",
        shape: tuple[int, int] | None = None,
        label_site: int | None = None,
        noise: float | None = None,
        bond_dropout: float = 0.0,
        site_dropout: float = 0.0,
        dtype: str | torch.dtype = "float32",
        device: str | torch.device | None = None,
        engine: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.n_sites = whole("n_sites", n_sites, 1)
        self.out_features = whole("out_features", out_features, 1)
        self.features = feature_map(features)
        self.engine = choose("engine", engine, {name: name for name in ENGINES})
        self.chain_shape = chain_shape_of(self.n_sites, self.features.dim, bond_dim, label_site)
        self.bond_dropout = BondDropout(bond_dropout)
        self.site_dropout = SiteDropout(site_dropout)
        sites = site_order(order, shape, self.n_sites)
        self._arguments = {
            "order": order if isinstance(order, str) else [int(i) for i in order],
            "shape": shape if shape is None else tuple(map(int, shape)),
        }
        self.register_buffer("order", sites)
        self.register_buffer("layout", layout_of(self.chain_shape))
        self.register_buffer("neutral", neutral_features(self.features, self.chain_shape).float().clone())
        self._indices: tuple[ChainShape, Tensor] | None = None
        self._raster = bool(torch.equal(self.order, torch.arange(self.n_sites)))

        chosen = choose("dtype", str(dtype).removeprefix("torch."), DTYPES)
        self._noise, self._seed = noise, seed
        weight, generator = self._starting_weight(chosen)
        sizes = self.chain_shape.left[-1], self.out_features, self.chain_shape.right[0]
        label = torch.randn(sizes, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight)
        self.label = nn.Parameter(label.to(chosen))
        self.to(device)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs `[b, c]` of inputs `[b, n]` in [0, 1], or of features `[b, n, d]`.

        Raises:
            InputError: `x` has another shape.
        """
        value, exponent = self._contract(x)
        return value * torch.exp2(exponent).unsqueeze(-1).to(value.dtype)

    def log_forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`value [b, c]` and `log_scale [b]`, the outputs being `value * exp(log_scale)`.

        Nothing overflows or vanishes, however long the chain; only the gradient of `value` is recorded.

        Example:
            >>> value, log_scale = MPSLayer(4, 2).log_forward(torch.rand(3, 4))
            >>> value.shape, log_scale.shape
            (torch.Size([3, 2]), torch.Size([3]))
        """
        value, exponent = self._contract(x)
        return value, exponent * math.log(2)

    def _contract(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.local_features(x)
        if self.training and self.site_dropout.p > 0:
            features = self.site_dropout(features, self.neutral)
        weight: Tensor = self.weight
        label: Tensor = self.label
        if self.training and self.bond_dropout.p > 0:
            weight, label = self._dropped()
        left, right, exponent = chain_flat(features, weight, self.chain_shape, self.engine)
        both = (left @ label.reshape(label.shape[0], -1)).view(-1, self.out_features, label.shape[2])
        return torch.bmm(both, right.unsqueeze(-1)).squeeze(-1), exponent.sum(0)

    def local_features(self, x: Tensor) -> Tensor:
        """Features `[b, n, d]` in chain order, of inputs `[b, n]` or features `[b, n, d]` in the given order.

        Raises:
            InputError: the shape is not one of these.

        Example:
            >>> MPSLayer(4, 2).local_features(torch.zeros(1, 4))[0, 0]
            tensor([1., 0.])
        """
        featured = x.dim() == 3 and x.shape[2] == self.features.dim
        if x.shape[1:2] != (self.n_sites,) or not (x.dim() == 2 or featured):
            raise InputError(
                f"expected inputs [b, {self.n_sites}] or features [b, {self.n_sites}, {self.features.dim}], "
                f"got {list(x.shape)}; flatten images to one row per sample"
            )
        if not self._raster:
            x = x.index_select(1, self.order)
        return (x if featured else self.features(x)).to(self.weight.dtype)

    def _dropped(self) -> tuple[Tensor, Tensor]:
        """Weights and label core with dropped bond indices set to 0, survivors scaled at the label core."""
        shape = self.chain_shape
        first = 2 if starting_path(self.features, shape) == "rotation" else 1  # the path's own indices stay
        mask = self.bond_dropout(shape.widest, self.weight, first)
        kept = torch.full_like(mask, 1 - self.bond_dropout.p)
        kept[:first] = 1.0
        chance = torch.outer(kept, kept)
        chance.diagonal().copy_(kept)  # one mask serves both sides
        left, _, right = self.label.shape
        scale = (torch.outer(mask, mask) / chance)[:left, :right]
        return self.weight * mask[self._bond_index()], self.label * scale.unsqueeze(1)

    def _bond_index(self) -> Tensor:
        """For every weight `[n_weights]` its index on the bond towards the label core."""
        if self._indices is None or self._indices[0] is not self.chain_shape:
            shape = self.chain_shape
            pieces = []
            for site, (left, right) in enumerate(shape.bonds):
                inner = torch.arange(right).expand(left, right) if site < shape.label_site else None
                index = torch.arange(left).unsqueeze(1).expand(left, right) if inner is None else inner
                pieces.append(index.expand(shape.physical, left, right))
            self._indices = shape, shape.join(pieces)
        if self._indices[1].device != self.weight.device:
            self._indices = self._indices[0], self._indices[1].to(self.weight.device)
        return self._indices[1]

    def _starting_weight(self, dtype: torch.dtype) -> tuple[Tensor, torch.Generator]:
        """The cores that the seed and the noise of this layer give, and the generator behind them."""
        generator = seeded(self._seed)
        return starting_cores(self.features, self.chain_shape, self._noise, dtype, generator), generator

    @torch.no_grad()
    def rescale_(self, x: Tensor) -> "MPSLayer":
        """This layer, its starting cores set so that the outputs of the samples `x` are of order one.

        For feature maps that preserve the identity path only the label core is scaled. For the others the
        path itself is fitted to the samples (`initialise.fit_path`), which undoes what was trained so far.

        Args:
            x: a few hundred training samples, `[b, n]` or `[b, n, d]`.

        Example:
            >>> layer = MPSLayer(64, 10, features="rbf").rescale_(torch.rand(100, 64))
        """
        if starting_path(self.features, self.chain_shape) == "fitted":
            path = fit_path(self.local_features(x).real)
            self.neutral.copy_(neutral_features(self.features, self.chain_shape, path))
            weights = path.to(self.weight)
            fresh = self._starting_weight(self.weight.dtype)[0].to(self.weight)
            for core, w in zip(self.chain_shape.split(fresh), weights, strict=True):
                core.add_((w - 1)[:, None, None] * torch.eye(core.shape[1], core.shape[2]).to(core))
            self.weight.copy_(fresh)
        was_training = self.training
        value, log_scale = self.eval().log_forward(x)  # without dropout
        self.train(was_training)
        log_norm = value.abs().square().mean(-1).sqrt().log() + log_scale
        self.label.mul_(torch.exp(-log_norm.median()).to(self.label.dtype))
        return self

    @property
    def bond_dims(self) -> list[int]:
        """Bond dimensions, from the left end to the label core, then from it to the right end."""
        return list(self.chain_shape.left + self.chain_shape.right)

    @property
    def cores(self) -> list[Tensor]:
        """Every core as a view `(l, d, r)` of `weight`, without the label core."""
        return [core.transpose(0, 1) for core in self.chain_shape.split(self.weight)]

    @property
    def label_core(self) -> Tensor:
        """The label core `(l, c, r)`."""
        return self.label

    @property
    def label_site(self) -> int:
        """Number of sites left of the label core."""
        return self.chain_shape.label_site

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that rebuild this layer (not its weights), ready for JSON: `MPSLayer(**layer.config)`.

        Raises:
            InputError: the feature map is the user's own function, which no file can hold.
        """
        if self.features.name not in FEATURE_NAMES:
            raise InputError(
                f"the feature map {self.features.name!r} is a function, which no file can hold; "
                "save the state dict and rebuild the layer with the function"
            )
        return {
            "n_sites": self.n_sites,
            "out_features": self.out_features,
            "bond_dim": self.bond_dims,
            "features": self.features.spec,
            "label_site": self.label_site,
            "bond_dropout": self.bond_dropout.p,
            "site_dropout": self.site_dropout.p,
            "dtype": str(self.weight.dtype).removeprefix("torch."),
            "engine": self.engine,
            **self._arguments,
        }

    def to_state(self) -> MatrixProductState:
        """This layer as a matrix product state of n + 1 cores, in chain order, the label core among them.

        Gradients flow from the state into the layer.

        Example:
            >>> layer = MPSLayer(4, 3, bond_dim=2)
            >>> layer.to_state().label_site, layer.to_state().physical_dims
            (2, [2, 2, 3, 2, 2])
        """
        cores, place = self.cores, self.label_site
        return MatrixProductState([*cores[:place], self.label, *cores[place:]], label_site=place)

    @classmethod
    def from_state(cls, state: MatrixProductState, **settings: Any) -> "MPSLayer":
        """The layer whose outputs are the state's: site i of the state meets the features of chain site i.

        Args:
            state: with a label core, which gives `n_sites`, `out_features`, the bonds, dtype and device.
            settings: the other arguments of `MPSLayer`: features, order, shape, dropout, engine.

        Raises:
            InputError: the state has no label core, or its physical dimensions are not those of the features.

        Example:
            >>> state = MPSLayer(4, 3, bond_dim=2).to_state()
            >>> MPSLayer.from_state(state, order="snake").bond_dims
            [1, 2, 2, 2, 2, 1]
        """
        features = feature_map(settings.pop("features", "linear"))
        chain, weight, label = weights_of(state, features.dim)
        derived: dict[str, Any] = {
            "n_sites": chain.n_sites,
            "out_features": label.shape[1],
            "bond_dim": chain.left + chain.right,
            "label_site": chain.label_site,
            "dtype": label.dtype,
            "device": label.device,
        }
        twice = sorted(derived.keys() & settings.keys())
        if twice:
            raise InputError(f"{', '.join(twice)} is given by the state; leave it away")
        layer = cls(**derived, features=features, **settings)
        layer.weight.data.copy_(weight)
        layer.label.data.copy_(label)
        return layer

    @torch.no_grad()
    def compressed(
        self,
        *,
        max_bond: int | Sequence[int] | None = None,
        max_error: float | None = None,
        samples: Tensor | None = None,
    ) -> tuple["MPSLayer", float]:
        """A copy of this layer with smaller bonds, and its relative error.

        Without samples the error is `|W - W'| / |W|` in all entries of the weight tensor that the cores make
        up, which counts all inputs alike. With samples it counts what changes the outputs on inputs whose
        sites are independent, each with the samples' second moments: far fewer of the samples' labels change.

        Args:
            max_bond: largest bond, or one number for each of the n bonds between neighbouring cores.
            max_error: largest relative error. With both, `max_bond` holds whatever the error.
            samples: some thousand inputs `[b, n]` or `[b, n, d]`, as for training; None for none.

        Raises:
            InputError: neither limit is given, one is out of range, or the samples do not fit.

        Cost: O(n d chi^3), in double precision.

        Example:
            >>> layer = MPSLayer(16, 10, bond_dim=8)
            >>> smaller, error = layer.compressed(max_bond=4)
            >>> max(smaller.bond_dims), 0 <= error < 1
            (4, True)
        """
        given = None if samples is None else torch.as_tensor(samples, device=self.weight.device)
        moments = None if given is None else moments_of(self.local_features(given))
        state, error = truncated(self.to_state(), max_bond, max_error, moments)
        chain, weight, label = weights_of(state, self.features.dim)
        layer = copy.deepcopy(self)
        layer._adopt(chain)
        layer.weight.data.copy_(weight)
        layer.label.data.copy_(label)
        return layer, error

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the layer to one safetensors file; `tnml.load` reads it.

        Raises:
            InputError: the file cannot be written, or the feature map is a user's function.

        Example:
            >>> import tempfile, os, tnml
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     MPSLayer(4, 2).save(os.path.join(folder, "m.safetensors"))
            ...     tnml.load(os.path.join(folder, "m.safetensors")).n_sites
            4
        """
        write_model(path, self.state_dict(), {"format": FORMAT, "kind": "layer", "config": self.config})

    def extra_repr(self) -> str:
        """Sites, outputs, bond dimension and feature map."""
        return (
            f"n_sites={self.n_sites}, out_features={self.out_features}, bond_dim={max(self.bond_dims)}, "
            f"features={self.features.name!r}, label_site={self.label_site}, engine={self.engine!r}"
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Takes bonds and label site over from the state, so that a saved state loads into a fresh layer."""
        layout, label = state_dict.get(prefix + "layout"), state_dict.get(prefix + "label")
        if (
            isinstance(layout, Tensor)
            and isinstance(label, Tensor)
            and layout.shape == self.layout.shape
            and label.shape[1:2] == (self.out_features,)
            and not torch.equal(layout.cpu(), self.layout.cpu())
        ):
            label_site, *bonds = layout.tolist()
            shape = chain_shape_of(self.n_sites, self.features.dim, bonds, label_site)
            if state_dict.get(prefix + "weight", self.weight).shape == (shape.n_weights,):
                self._adopt(shape)
        before = self.order.clone()
        super()._load_from_state_dict(state_dict, prefix, *args)
        if not torch.equal(before, self.order):
            self._raster = bool(torch.equal(self.order.cpu(), torch.arange(self.n_sites)))
            self._arguments["order"] = self.order.tolist()

    def _adopt(self, shape: ChainShape) -> None:
        """Gives the parameters, zeroed, the sizes of another chain; they stay the same `nn.Parameter`s."""
        self.chain_shape = shape
        self.layout = layout_of(shape).to(self.weight.device)
        self.weight.data = self.weight.data.new_zeros(shape.n_weights)
        self.label.data = self.label.data.new_zeros(shape.left[-1], self.out_features, shape.right[0])
        self.weight.grad = self.label.grad = None
