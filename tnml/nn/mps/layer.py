"""The matrix product state as a PyTorch layer."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tnml.contraction import ENGINES, ChainShape, labelled_chain
from tnml.contraction.transforms import traced
from tnml.errors import InputError, choose
from tnml.features import FeatureMap, feature_map
from tnml.mps import MatrixProductState
from tnml.nn.computed import check_plain
from tnml.nn.dropout import BondDropout, SiteDropout, scale_of_pairs
from tnml.nn.entry import on_the_cpu, placed
from tnml.nn.layer import DTYPES, TensorNetworkLayer
from tnml.nn.mps.convert import moments_of, truncated, weights_of
from tnml.nn.mps.grow import grown_shape, padded
from tnml.nn.mps.initialise import (
    calm_for_,
    fit_path,
    follow_,
    neutral_features,
    noiseless_cores,
    starting_cores,
    starting_path,
)
from tnml.nn.mps.layout import bond_index, chain_shape_of, layout_of
from tnml.nn.native import LabelledChain
from tnml.nn.ordered import whole_numbers
from tnml.randomness import seeded


class MPSLayer(TensorNetworkLayer):
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
        dtype: "float32", .. or the torch dtype; None: torch's default. Complex layers give complex outputs:
            make them real (`abs`, `real`) before a loss.
        device: where the parameters live; None: torch's default.
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

    network = "mps"
    may_change = frozenset({"engine"})
    layout: Tensor  # a plain attribute, as the order is

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
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        engine: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(
            n_sites, out_features, features=features, order=order, shape=shape, site_dropout=site_dropout
        )
        self.engine = choose("engine", engine, {name: name for name in ENGINES})
        self.chain_shape = chain_shape_of(self.n_sites, self.features.dim, bond_dim, label_site)
        self.layout = layout_of(self.chain_shape)
        # Registered again after the layer's own: printed layers and stored runs' identities have this order.
        del self.site_dropout
        self.bond_dropout = BondDropout(bond_dropout)
        self.site_dropout = SiteDropout(site_dropout)
        self._indices: tuple[ChainShape, Tensor] | None = None

        chosen = choose("dtype", str(dtype or torch.get_default_dtype()).removeprefix("torch."), DTYPES)
        place = torch.get_default_device() if device is None else torch.device(device)
        self._noise, self._seed = noise, seed
        self.weight = nn.Parameter(torch.empty(self.chain_shape.n_weights, dtype=chosen, device=place))
        sizes = self.chain_shape.left[-1], self.out_features, self.chain_shape.right[0]
        self.label = nn.Parameter(torch.empty(sizes, dtype=chosen, device=place))
        self.neutral = self.neutral.to(place)
        self.order = self.order.to(self._place())
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Starts again from the seed: with the starting cores of the present bonds, and the label core.

        What `rescale_` fitted is undone.

        Raises:
            InputError: pruning or a parametrization computes a parameter.
        """
        check_plain(self, "reset it")
        if self.weight.is_meta:
            return
        with on_the_cpu():
            weight, generator = self._starting_weight(self.dtype)
            label = torch.randn(self.label.shape, generator=generator, dtype=torch.float64)
            neutral = neutral_features(self._site_features(), self.chain_shape)
        for tensor, start in ((self.weight, weight), (self.label, label), (self.neutral, neutral)):
            tensor.copy_(placed(start, tensor.device))

    def contract(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`value [b, c]` and `exponent [b]` of features `[b, n, d]`; the outputs are `value * 2^exponent`."""
        return labelled_chain(features, *self.weights(), self.chain_shape, self.engine)

    def native_chain(self) -> LabelledChain | None:
        """What the native engine can train without autograd; None with dropout or another engine."""
        whole = not self.bond_dropout.p and not self.site_dropout.p and self.engine in ("auto", "native")
        return LabelledChain(self.chain_shape, self.weight, self.label) if whole else None

    def weights(self) -> tuple[Tensor, Tensor]:
        """Weights and label core; dropped bond indices are 0, survivors scaled at the label core."""
        shape = self.chain_shape
        if not self.training or self.bond_dropout.p == 0:
            return self.weight, self.label
        first = 2 if starting_path(self.features, shape) == "rotation" else 1  # the path's own indices stay
        mask = self.bond_dropout(shape.widest, self.weight, first)
        left, _, right = self.label.shape
        scale = scale_of_pairs(mask, self.bond_dropout.p, first)[:left, :right]
        return self.weight * mask[self._bond_index()], self.label * scale.unsqueeze(1)

    def _bond_index(self) -> Tensor:
        """For every weight `[n_weights]` its index on the bond towards the label core."""
        kept = self._indices
        if kept is None or kept[0] is not self.chain_shape or kept[1].device != self.weight.device:
            kept = self.chain_shape, bond_index(self.chain_shape, self.weight.device)
            if traced():  # what is made now may be fake, or part of a graph
                return kept[1]
            self._indices = kept
        return kept[1]

    def _starting_weight(self, dtype: torch.dtype) -> tuple[Tensor, torch.Generator]:
        """The cores that the seed and the noise of this layer give, and the generator behind them."""
        with on_the_cpu():
            generator, features = seeded(self._seed), self._site_features()
            return starting_cores(features, self.chain_shape, self._noise, dtype, generator), generator

    @torch.no_grad()
    def rescale_(self, x: Tensor, weight: Tensor | None = None) -> Self:
        """This layer, its starting cores set so that the outputs of the samples `x` are of order one.

        For feature maps that preserve the identity path the label core is scaled, and where the samples'
        features are much larger than those of values spread evenly over [0, 1], as at the ends of high
        polynomials, so is what differs from the path (unless `noise` was given). For the other maps the
        path itself is fitted to the samples (`initialise.fit_path`), which undoes what was trained so far.

        Args:
            x: a few hundred training samples, `[b, n]` or `[b, n, d]`.
            weight: `[b]`, at least 0: how often each sample counts; None counts all alike.

        Raises:
            InputError: the weights do not fit, or all are zero.

        Example:
            >>> layer = MPSLayer(64, 10, features="rbf").rescale_(torch.rand(100, 64))
        """
        check_plain(self, "rescale it")
        if starting_path(self.features, self.chain_shape) == "fitted":
            path = fit_path(self.local_features(x).real, weight)
            self.neutral.copy_(neutral_features(self.features, self.chain_shape, path))
            fresh = self._starting_weight(self.weight.dtype)[0].to(self.weight)
            follow_(self.chain_shape.split(fresh), path.to(self.weight))
            self.weight.copy_(fresh)
        elif self._noise is None:
            calm_for_(
                self.chain_shape.split(self.weight), self._site_features(), self.local_features(x), weight
            )
        self.label.mul_(torch.exp(-self.typical_log_norm(x, weight)).to(self.label.dtype))
        return self

    @torch.no_grad()
    def path(self) -> dict[str, Tensor]:
        """Where `decay_to="path"` pulls: the starting cores without noise, and a label core of zeros."""
        with on_the_cpu():
            weight = noiseless_cores(self._site_features(), self.chain_shape, self.neutral.cpu(), self.dtype)
        return {"weight": placed(weight, self.weight.device), "label": torch.zeros_like(self.label)}

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

    def own_config(self) -> dict[str, Any]:
        """Bonds, label site, bond dropout and engine."""
        return {
            "bond_dim": self.bond_dims,
            "label_site": self.label_site,
            "bond_dropout": self.bond_dropout.p,
            "engine": self.engine,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The cores `(l, d, r)` as "core.0", .. and, in its place in the chain, the "label" core `(l, c, r)`.

        Example:
            >>> {name: tuple(t.shape) for name, t in MPSLayer(2, 3, 2).tensors().items()}
            {'core.0': (1, 2, 2), 'label': (2, 3, 2), 'core.1': (2, 2, 1)}
        """
        named = [(f"core.{site}", core) for site, core in enumerate(self.cores)]
        named.insert(self.label_site, ("label", self.label))
        return dict(named)

    def bonds(self) -> list[Tensor]:
        """The Schmidt values `[k]` of the n inner bonds of the weight tensor, in chain order, float64.

        Raises:
            InputError: the weight tensor is zero or not finite.

        Cost: n d chi^3.

        Example:
            >>> [len(values) for values in MPSLayer(4, 2, 3).bonds()]
            [2, 3, 3, 2]
        """
        return [values.real for values in self._wide_state().schmidt_values()]

    def log_norm(self) -> float:
        """The logarithm of the 2-norm of the weight tensor, computed in double precision.

        Example:
            >>> layer = MPSLayer(1, 1, 1, noise=0.0)  # a core (1, 1), times the label core
            >>> round(layer.log_norm() - layer.label.abs().log().item(), 4)
            0.3466
        """
        return float(self._wide_state().log_norm())

    def _wide_state(self) -> MatrixProductState:
        state = self.to_state().detach()
        return state.to("complex128" if state.dtype.is_complex else "float64")

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
            raise InputError(f"{', '.join(twice)} is given by the state; leave it out")
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
        check_plain(self, "compress it")
        given = None if samples is None else torch.as_tensor(samples, device=self.weight.device)
        moments = None if given is None else moments_of(self.local_features(given))
        state, error = truncated(self.to_state(), max_bond, max_error, moments)
        chain, weight, label = weights_of(state, self.features.dim)
        layer = copy.deepcopy(self)
        layer._adopt(chain)
        layer.weight.data.copy_(weight)
        layer.label.data.copy_(label)
        return layer, error

    @torch.no_grad()
    def grown(self, bond_dim: int, *, noise: float | None = None, seed: int = 0) -> "MPSLayer":
        """A copy with larger bonds, up to `bond_dim`, and the same outputs; see the class for the others.

        Example:
            >>> MPSLayer(6, 2, bond_dim=2).grown(4).bond_dims
            [1, 2, 4, 4, 4, 4, 2, 1]
        """
        shape = grown_shape(self.chain_shape, bond_dim)
        before = self.chain_shape, self.weight, self.label
        weight, label = padded(self.features, before, shape, noise, seeded(seed))
        layer = copy.deepcopy(self)
        layer._adopt(shape)
        layer.weight.data.copy_(weight)
        layer.label.data.copy_(label)
        return layer

    def extra_repr(self) -> str:
        """Sites, outputs, bond dimension and feature map."""
        return (
            f"n_sites={self.n_sites}, out_features={self.out_features}, bond_dim={max(self.bond_dims)}, "
            f"features={self.features.name!r}, label_site={self.label_site}, engine={self.engine!r}"
        )

    def adopt_(self, state: Mapping[str, Any], prefix: str) -> None:
        """Adopts bonds and label site from the state, where it is one of this layer's sites and outputs."""
        layout, label = state.get(prefix + "layout"), state.get(prefix + "label")
        if not isinstance(layout, Tensor) or not isinstance(label, Tensor):
            return
        numbers = whole_numbers(layout)
        fits = layout.shape == self.layout.shape and label.shape[1:2] == (self.out_features,)
        if numbers is None or not fits or numbers == [self.label_site, *self.bond_dims]:
            return
        label_site, *bonds = numbers
        shape = chain_shape_of(self.n_sites, self.features.dim, bonds, label_site)
        if state.get(prefix + "weight", self.weight).shape == (shape.n_weights,):
            self._adopt(shape)

    def whole_state(self) -> dict[str, Tensor]:
        """Site order and layout: the label site and the bonds."""
        return {**super().whole_state(), "layout": self.layout}

    def _adopt(self, shape: ChainShape) -> None:
        """Gives the parameters, zeroed, the sizes of another chain; they stay the same `nn.Parameter`s."""
        self.chain_shape = shape
        self.layout = layout_of(shape)
        self.weight.data = self.weight.data.new_zeros(shape.n_weights)
        self.label.data = self.label.data.new_zeros(shape.left[-1], self.out_features, shape.right[0])
        self.weight.grad = self.label.grad = None
