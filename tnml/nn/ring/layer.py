"""The matrix product state with periodic boundary as a PyTorch layer."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tnml.checks import whole
from tnml.contraction import ENGINES
from tnml.contraction.ring import ring, ring_ends
from tnml.errors import choose
from tnml.features import FeatureMap
from tnml.nn.computed import check_plain
from tnml.nn.entry import on_the_cpu, placed
from tnml.nn.layer import DTYPES, TensorNetworkLayer, neutral_of
from tnml.nn.ordered import whole_numbers
from tnml.nn.ring.start import follow_samples_, starting_stack
from tnml.randomness import seeded


class RingMPS(TensorNetworkLayer):
    """`[b, n]` inputs in [0, 1] (or `[b, n, d]` features) to `[b, c]` outputs, by a periodic chain.

        f_c(x) = tr( A_1[phi(x_1)] .. A_p[phi(x_p)] L_c A_{p+1}[phi(x_{p+1})] .. A_n[phi(x_n)] )

    All bonds are equal. First and last site are neighbours, and every site is within n / 2 of every other.

    Args:
        n_sites: number of sites n.
        out_features: number of outputs c.
        bond_dim: bond dimension chi.
        features: a name, spec, callable or `FeatureMap`; see `tnml.features.feature_map`.
        order: site order, a name or a permutation; see `tnml.features.site_order`.
        shape: `(height, width)` of the image behind the sites, for the order.
        label_site: number of sites before the label core; None takes the middle.
        noise: standard deviation of the noise on the starting path; None chooses it from n and bond_dim.
        site_dropout: probability of skipping a site of a sample in training.
        dtype: "float32", .. or the torch dtype; None: torch's default.
        device: where the parameters live; None: torch's default.
        engine: "auto", "torch", "native" or "reference".
        seed: seed of the starting weights.

    Raises:
        InputError: an argument is out of range; the text says which and what to do.

    Cost: that of chi open chains, n d chi^3 multiply-adds a sample forward, three times that with the
    gradient. A chain of bond dimension chi^2 represents every ring.

    Source: Perez-Garcia, Verstraete, Wolf and Cirac, quant-ph/0608197, section 3.

    Example:
        >>> layer = RingMPS(n_sites=64, out_features=10, bond_dim=4)
        >>> layer(torch.rand(5, 64)).shape
        torch.Size([5, 10])
    """

    network = "ring"
    may_change = frozenset({"engine"})
    layout: Tensor  # label site and bond dimension: a plain attribute, as the order is

    def __init__(
        self,
        n_sites: int,
        out_features: int,
        bond_dim: int = 6,
        *,
        features: str | Mapping[str, Any] | Callable[[Tensor], Tensor] | FeatureMap = "linear",
        order: str | Sequence[int] = "raster",
        shape: tuple[int, int] | None = None,
        label_site: int | None = None,
        noise: float | None = None,
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
        bond = whole("bond_dim", bond_dim, 1)
        middle = self.n_sites // 2 if label_site is None else whole("label_site", label_site, 0, self.n_sites)
        chosen = choose("dtype", str(dtype or torch.get_default_dtype()).removeprefix("torch."), DTYPES)
        place = torch.get_default_device() if device is None else torch.device(device)
        self._noise, self._seed = noise, seed
        sizes = self.n_sites, self.features.dim, bond, bond
        self.weight = nn.Parameter(torch.empty(sizes, dtype=chosen, device=place))
        self.label = nn.Parameter(torch.empty((bond, self.out_features, bond), dtype=chosen, device=place))
        self.neutral = self.neutral.to(place)
        self.order = self.order.to(self._place())
        self._adopt(middle, bond)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Starts again from the seed, with the present bond dimension; what `rescale_` fitted is undone.

        Raises:
            InputError: pruning or a parametrization computes a parameter.
        """
        check_plain(self, "reset it")
        if self.weight.is_meta:
            return
        with on_the_cpu():
            generator, bond = seeded(self._seed), self.bond_dim
            weight = self._start(generator)
            label = torch.randn(self.label.shape, generator=generator, dtype=torch.float64) / math.sqrt(bond)
            neutral = neutral_of(self._site_features(), self.n_sites)
        for tensor, start in ((self.weight, weight), (self.label, label), (self.neutral, neutral)):
            tensor.copy_(placed(start, tensor.device))

    def _start(self, generator: torch.Generator) -> Tensor:
        own = self._site_features()
        return starting_stack(own, self.n_sites, self.bond_dim, self._noise, self.dtype, generator)

    def contract(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`value [b, c]` and `exponent [b]` of features `[b, n, d]`; the outputs are `value * 2^exponent`."""
        before, after, address = (end.to(self.weight.device, self.weight.dtype) for end in self._ends)
        return ring(features, self.weight, self.label, (before, after, address), self.label_site, self.engine)

    @torch.no_grad()
    def rescale_(self, x: Tensor, weight: Tensor | None = None) -> Self:
        """This layer, its starting cores set so that the outputs of the samples `x` are of order one.

        See `MPSLayer.rescale_`; for features without identity weights it undoes what was trained so far.

        Example:
            >>> layer = RingMPS(64, 10, features="rbf").rescale_(torch.rand(100, 64))
        """
        check_plain(self, "rescale it")
        own = self._site_features()
        if own.path(self.n_sites) is None:
            with on_the_cpu():
                start = self._start(seeded(self._seed))
            self.weight.copy_(start)
        path = follow_samples_(self.weight, own, self.local_features(x), weight, self._noise is None)
        if path is not None:
            self.neutral.copy_(neutral_of(own, self.n_sites, path))
        self.label.mul_(torch.exp(-self.typical_log_norm(x, weight)).to(self.label.dtype))
        return self

    @property
    def bond_dim(self) -> int:
        """The dimension of every bond."""
        return self.label.shape[0]

    @property
    def label_site(self) -> int:
        """Number of cores before the label core."""
        return self._label_site

    @property
    def bond_dims(self) -> list[int]:
        """The dimensions of the n + 1 bonds."""
        return [self.bond_dim] * (self.n_sites + 1)

    def own_config(self) -> dict[str, Any]:
        """Bond dimension, label site and engine."""
        return {"bond_dim": self.bond_dim, "label_site": self.label_site, "engine": self.engine}

    def tensors(self) -> dict[str, Tensor]:
        """The cores `(l, d, r)` as "core.0", .. and, in its place, the "label" core `(l, c, r)`.

        Example:
            >>> {name: tuple(t.shape) for name, t in RingMPS(2, 3, 2).tensors().items()}
            {'core.0': (2, 2, 2), 'label': (2, 3, 2), 'core.1': (2, 2, 2)}
        """
        named = [(f"core.{site}", core.transpose(0, 1)) for site, core in enumerate(self.weight)]
        named.insert(self.label_site, ("label", self.label))
        return dict(named)

    def bonds(self) -> list[Tensor]:
        """Matrices `[k, k']` of the n cuts that part the first cores from the others, both joins cut.

        Cost: n d chi^6, in double precision.

        Example:
            >>> [tuple(found.shape) for found in RingMPS(2, 3, 2).bonds()]
            [(2, 4), (4, 2)]
        """
        cores = self._wide_cores()
        left = [part for part, _ in _from_the_left(cores[:-1])]
        mirrored = [core.permute(2, 1, 0) for core in reversed(cores[1:])]
        right = [part for part, _ in _from_the_left(mirrored)]  # [k, a, l], a and l from the right end
        pairs = zip(left, reversed(right), strict=True)
        return [torch.einsum("kal,qal->kq", one, other) for one, other in pairs]

    def log_norm(self) -> float:
        """The logarithm of the 2-norm of the weight tensor, computed in double precision."""
        *_, (last, log) = _from_the_left(self._wide_cores())
        return float(torch.linalg.vector_norm(torch.einsum("kaa->k", last)).log() + log)

    def _wide_cores(self) -> list[Tensor]:
        wide = torch.complex128 if self.dtype.is_complex else torch.float64
        return [core.detach().to(wide) for core in self.tensors().values()]

    def adopt_(self, state: Mapping[str, Any], prefix: str) -> None:
        """Adopts bond dimension and label site from the state, where it is one of this layer's outputs."""
        layout, label = state.get(prefix + "layout"), state.get(prefix + "label")
        if not isinstance(layout, Tensor) or not isinstance(label, Tensor):
            return
        numbers = whole_numbers(layout)
        if numbers is None or len(numbers) != 2 or numbers == [self.label_site, self.bond_dim]:
            return
        label_site, bond = numbers
        weight = state.get(prefix + "weight", self.weight)
        sizes = (bond, self.out_features, bond), (*self.weight.shape[:2], bond, bond)
        if label_site <= self.n_sites and (label.shape, weight.shape) == sizes:
            for parameter, size in ((self.label, sizes[0]), (self.weight, sizes[1])):
                parameter.data, parameter.grad = parameter.data.new_zeros(size), None
            self._adopt(label_site, bond)

    def whole_state(self) -> dict[str, Tensor]:
        """Site order and layout: label site and bond dimension."""
        return {**super().whole_state(), "layout": self.layout}

    def _adopt(self, label_site: int, bond: int) -> None:
        self._label_site = label_site
        with on_the_cpu():
            self.layout = torch.tensor([label_site, bond])
            ends = ring_ends(self.features.dim, bond, torch.float32)
        # Plain attributes that always hold numbers: no buffers, which a meta device would empty.
        self._ends = tuple(placed(end, "cpu") for end in ends)

    def extra_repr(self) -> str:
        """Sites, outputs, bond dimension and feature map."""
        return (
            f"n_sites={self.n_sites}, out_features={self.out_features}, bond_dim={self.bond_dim}, "
            f"features={self.features.name!r}, label_site={self.label_site}, engine={self.engine!r}"
        )


def _from_the_left(cores: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """After each core the part before it as `[k, a, r]` in an orthonormal basis of its legs, and its log."""
    bond = cores[0].shape[0]
    part = torch.eye(bond, dtype=cores[0].dtype, device=cores[0].device).unsqueeze(0)
    log = torch.zeros((), dtype=torch.float64)
    for core in cores:
        grown = torch.einsum("kal,ldr->kdar", part, core).flatten(0, 1)
        rest = torch.linalg.qr(grown.flatten(1), mode="r").R
        size = torch.linalg.vector_norm(rest)
        log = log + size.log()
        part = (rest / size.clamp_min(torch.finfo(torch.float64).tiny)).view(-1, bond, bond)
        yield part, log
