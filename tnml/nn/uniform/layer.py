"""The uniform matrix product state as a PyTorch layer: one core for all sites of a sequence."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from jaxtyping import Inexact, Int
from torch import Tensor, nn

from tnml.checks import whole
from tnml.contraction import ENGINES
from tnml.contraction.uniform import uniform_chain, uniform_shape, with_padding
from tnml.errors import InputError, choose
from tnml.features import FeatureMap
from tnml.mps import MatrixProductState
from tnml.nn.computed import check_plain
from tnml.nn.entry import check_input, on_the_cpu, placed
from tnml.nn.layer import DTYPES, TensorNetworkLayer, neutral_of
from tnml.nn.mps.initialise import fit_path
from tnml.nn.ordered import whole_numbers
from tnml.nn.sample_weights import check_weight
from tnml.randomness import seeded


class UniformMPS(TensorNetworkLayer):
    """`[b, n]` sequences in [0, 1] (or `[b, n, d]` features) to `[b, c]` outputs, by one core for all sites.

        f_c(x) = s A[phi(x_1)] A[phi(x_2)] .. A[phi(x_n)] L_c,        A[phi] = sum_d phi_d A[d]

    With one-hot features this is a weighted automaton: s its initial weights, A[d] the transitions at symbol
    d, L the final weights; see `from_automaton`. `sequences` takes samples of any length.

    Args:
        n_sites: length n of the sequences that `forward` takes.
        out_features: number of outputs c.
        bond_dim: bond dimension chi, the number of states.
        features: a name, spec, callable or `FeatureMap`; "one-hot" of dimension d for d symbols, which are
            the numbers 0, 1/(d - 1), .., 1.
        padding: a component of the features that stands for no symbol at all: its A[d] is the identity and is
            not trained. So sequences of different lengths are filled up with it.
        order: a permutation of the sites. Names of curves through an image leave a sequence as it is.
        shape: as for any network; without effect.
        label_site: number of sites before the label core; None takes the end.
        noise: standard deviation of the noise on the starting core; None chooses it from n and bond_dim.
        site_dropout: probability of skipping a site of a sample in training.
        dtype: "float32", .. or the torch dtype; None: torch's default.
        device: where the parameters live; None: torch's default.
        engine: "auto", "torch", "native" or "reference".
        seed: of the starting weights.

    Raises:
        InputError: an argument is out of range; the text says which and what to do.

    Cost: that of an `MPSLayer`, n d chi^2 multiply-adds a sample; d chi^2 parameters.

    Source: Stokes and Terilla, arXiv 1902.06888 (uniform chains for sequences); Rabusseau, Li and Precup,
    arXiv 1807.01406 (they are weighted automata).

    Example:
        >>> layer = UniformMPS(20, 2, bond_dim=4)
        >>> layer(torch.rand(5, 20)).shape, layer.sequences(torch.rand(3, 70)).shape
        (torch.Size([5, 2]), torch.Size([3, 2]))
    """

    network = "uniform"
    may_change = frozenset({"engine"})
    layout: Tensor  # label site and bond dimension: a plain attribute, as the order is
    core: nn.Parameter
    start: nn.Parameter
    label: nn.Parameter
    end: nn.Parameter | None

    def __init__(
        self,
        n_sites: int,
        out_features: int,
        bond_dim: int = 10,
        *,
        features: str | Mapping[str, Any] | Callable[[Tensor], Tensor] | FeatureMap = "linear",
        padding: int | None = None,
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
            n_sites,
            out_features,
            features=features,
            order="raster" if isinstance(order, str) else order,
            shape=shape,
            site_dropout=site_dropout,
        )
        if self.features.n_columns is not None:
            raise InputError("one core for all sites needs one feature map for all, got one for each column")
        self.engine = choose("engine", engine, {name: name for name in ENGINES})
        dim, bond = self.features.dim, whole("bond_dim", bond_dim, 1)
        self.padding = None if padding is None else whole("padding", padding, 0, dim - 1)
        place = self.n_sites if label_site is None else whole("label_site", label_site, 0, self.n_sites)
        self._adopt(place, bond)
        chosen = choose("dtype", str(dtype or torch.get_default_dtype()).removeprefix("torch."), DTYPES)
        where = torch.get_default_device() if device is None else torch.device(device)
        self._noise, self._seed = noise, seed
        sizes = self._sizes(bond)
        for name, size in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(size, dtype=chosen, device=where)))
        if "end" not in sizes:
            self.register_parameter("end", None)
        self.neutral = self.neutral.to(where)
        self.order = self.order.to(self._place())
        self.reset_parameters()

    def _sizes(self, bond: int) -> dict[str, tuple[int, ...]]:
        """The sizes of the parameters."""
        after = self.label_site < self.n_sites
        symbols = self.features.dim - (self.padding is not None)
        sizes: dict[str, tuple[int, ...]] = {
            "core": (symbols, bond, bond),
            "start": (bond,),
            "label": (bond, self.out_features, bond if after else 1),
        }
        return {**sizes, "end": (bond,)} if after else sizes

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Starts again from the seed, with the present bond dimension; what `rescale_` fitted is undone.

        Raises:
            InputError: pruning or a parametrization computes a parameter.
        """
        check_plain(self, "reset it")
        if not self.core.is_meta:
            self._start(None)

    def _start(self, path: Tensor | None) -> None:
        """Starting weights on the path of the feature map, or on weights `[d]` that were fitted.

        All cores have the same noise, which adds up along the chain: it falls like 1 / n.
        """
        with on_the_cpu():
            bond, generator = self.bond_dim, seeded(self._seed)
            square = max(self.features.square_norms(1).item(), 1e-6)
            noise = 1 / (self.n_sites * math.sqrt(bond * square)) if self._noise is None else self._noise
            own = self.features.path(1) if path is None else path.cpu().unsqueeze(0)
            kept = torch.ones(1, self.features.dim) if own is None else own
            drawn = self._drawn((self.features.dim, bond, bond), generator) * noise
            core = drawn + kept[0].double()[:, None, None] * torch.eye(bond, dtype=torch.float64)
            starts = {
                "core": core[self._symbols()],
                "start": self._drawn((bond,), generator) / math.sqrt(bond),
            }
            starts["label"] = self._drawn(tuple(self.label.shape), generator)
            if self.end is not None:
                starts["end"] = self._drawn((bond,), generator) / math.sqrt(bond)
            starts = {name: start.to(self.dtype) for name, start in starts.items()}
            neutral = neutral_of(
                self.features, self.n_sites, None if own is None else kept.expand(self.n_sites, -1)
            )
        for name, start in starts.items():
            parameter = getattr(self, name)
            parameter.copy_(placed(start, parameter.device))
        self.neutral.copy_(placed(neutral, self.neutral.device))

    def _drawn(self, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        drawn = torch.randn(size, generator=generator, dtype=torch.float64)
        if not self.dtype.is_complex:
            return drawn
        return torch.complex(drawn, torch.randn(size, generator=generator, dtype=torch.float64)) / math.sqrt(
            2
        )

    def _symbols(self) -> list[int]:
        return [place for place in range(self.features.dim) if place != self.padding]

    def whole_core(self) -> Tensor:
        """The core `[d, l, r]` of all components of the features, the identity of the padding among them."""
        if self.padding is None:
            return self.core
        eye = torch.eye(self.bond_dim, dtype=self.dtype, device=self.core.device).unsqueeze(0)
        return torch.cat([self.core[: self.padding], eye, self.core[self.padding :]])

    def contract(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`value [b, c]` and `exponent [b]` of features `[b, n, d]`; the outputs are `value * 2^exponent`."""
        return uniform_chain(
            features, self.whole_core(), self.start, self.label, self.end, self.label_site, self.engine
        )

    def sequences(
        self, x: Inexact[Tensor, "b t *d"], lengths: Int[Tensor, " b"] | None = None
    ) -> Inexact[Tensor, "b c"]:
        """Outputs of sequences of any length t, not only of `n_sites`; without dropout.

        Args:
            x: `[b, t]` in [0, 1], or `[b, t, d]` features, in the order of the sequence.
            lengths: `[b]` from 1 to t: of each sample only so many first entries count; None counts all.

        Raises:
            InputError: a shape or length does not fit; or the label core is not at the end, or the sites have
                an order of their own.

        Example:
            >>> layer, x = UniformMPS(3, 2), torch.rand(1, 9)
            >>> padded = torch.cat([x, torch.zeros(1, 5)], 1)
            >>> torch.allclose(layer.sequences(padded, torch.tensor([9])), layer.sequences(x))
            True
        """
        check_input(x)
        if self.label_site < self.n_sites or not self._as_given:
            raise InputError(
                "sequences of any length need the label core at the end and the sites as they come; make the "
                "layer without label_site and order"
            )
        features = (x if x.dim() == 3 else self.features(x)).to(self.dtype)
        if features.shape[1:] != (x.shape[1], self.features.dim) or not x.shape[1]:
            raise InputError(
                f"expected sequences [b, t] or features [b, t, {self.features.dim}] of at least one site, "
                f"got {list(x.shape)}"
            )
        core = self.whole_core()
        if lengths is not None:
            if (
                lengths.shape != x.shape[:1]
                or bool((lengths < 1).any())
                or bool((lengths > x.shape[1]).any())
            ):
                raise InputError(
                    f"expected one length from 1 to {x.shape[1]} for each of {len(x)} samples, "
                    f"got {lengths.tolist()}"
                )
            absent = torch.arange(x.shape[1], device=x.device) >= lengths.to(x.device).unsqueeze(1)
            features, core = with_padding(features, core, absent)
        value, exponent = uniform_chain(features, core, self.start, self.label, None, x.shape[1], self.engine)
        return value * torch.exp2(exponent).unsqueeze(-1).to(value.dtype)

    @torch.no_grad()
    def rescale_(self, x: Tensor, weight: Tensor | None = None) -> Self:
        """This layer, scaled so that its outputs of the samples `x` are of order one; see `MPSLayer`.

        For feature maps without identity weights the path is fitted to the samples first.

        Example:
            >>> layer = UniformMPS(64, 10, features="rbf").rescale_(torch.rand(100, 64))
        """
        check_plain(self, "rescale it")
        if self.features.path(1) is None:
            given, each = self.local_features(x).real, None
            if weight is not None:
                check_weight(weight, len(given))
                each = weight.repeat_interleave(self.n_sites)
            self._start(fit_path(given.flatten(0, 1).unsqueeze(1), each)[0])
        self.label.mul_(torch.exp(-self.typical_log_norm(x, weight)).to(self.label.dtype))
        return self

    @classmethod
    def from_automaton(
        cls,
        initial: Inexact[Tensor, " l"],
        transitions: Inexact[Tensor, "d l r"],
        final: Inexact[Tensor, "l c"],
        *,
        n_sites: int = 1,
        **settings: Any,
    ) -> "UniformMPS":
        """The layer that is a weighted automaton; symbol k is the input k / (d - 1).

        Args:
            initial: weight of every state at the start.
            transitions: for every symbol the weights from a state to the next.
            final: for every state its weights in the outputs.
            n_sites: length of the sequences that `forward` takes.
            settings: other arguments of `UniformMPS`; features are one-hot unless given.

        Raises:
            InputError: the sizes do not fit each other.

        Example:
            >>> flip = torch.stack([torch.eye(2), torch.eye(2).flip(0)])  # is the number of 1s even?
            >>> layer = UniformMPS.from_automaton(torch.tensor([1.0, 0.0]), flip, torch.eye(2))
            >>> layer.sequences(torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
            tensor([[1., 0.],
                    [0., 1.]], grad_fn=<MulBackward0>)
        """
        dim, bond = transitions.shape[0], len(initial)
        if transitions.shape[1:] != (bond, bond) or final.shape[:1] != (bond,):
            raise InputError(
                f"expected transitions [d, {bond}, {bond}] and final weights [{bond}, c], got "
                f"{list(transitions.shape)} and {list(final.shape)}"
            )
        settings = {"features": {"name": "one-hot", "dim": dim}, "dtype": transitions.dtype, **settings}
        layer = cls(n_sites, final.shape[1], bond, **settings)
        layer.core.data.copy_(transitions[layer._symbols()])
        layer.start.data.copy_(initial)
        layer.label.data.copy_(final.unsqueeze(-1))
        return layer

    @property
    def bond_dim(self) -> int:
        """The dimension of every inner bond."""
        return self.start.shape[0]

    @property
    def label_site(self) -> int:
        """Number of sites before the label core."""
        return self._label_site

    @property
    def bond_dims(self) -> list[int]:
        """Bond dimensions, from the left end to the label core, then from it to the right end."""
        shape = uniform_shape(self.features.dim, self.bond_dim, self.n_sites, self.label_site)
        return list(shape.left + shape.right)

    def own_config(self) -> dict[str, Any]:
        """Bond dimension, padding, label site and engine."""
        return {
            "bond_dim": self.bond_dim,
            "padding": self.padding,
            "label_site": None if self.label_site == self.n_sites else self.label_site,
            "engine": self.engine,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The "start" `[l]`, "core" `[d, l, r]`, "label" `(l, c, r)` and, if sites follow it, "end" `[r]`.

        Example:
            >>> list(UniformMPS(4, 2).tensors())
            ['start', 'core', 'label']
        """
        found = {"start": self.start, "core": self.whole_core(), "label": self.label}
        return found if self.end is None else {**found, "end": self.end}

    def to_state(self) -> MatrixProductState:
        """This layer as a matrix product state of n + 1 cores, its label core marked.

        Example:
            >>> UniformMPS(4, 3, bond_dim=2).to_state().physical_dims
            [2, 2, 2, 2, 3]
        """
        core, place = self.whole_core().transpose(0, 1), self.label_site
        cores = [core] * place + [self.label] + [core] * (self.n_sites - place)
        cores[0] = torch.einsum("l,ldr->dr", self.start, cores[0]).unsqueeze(0)
        if self.end is not None:
            cores[-1] = torch.einsum("ldr,r->ld", cores[-1], self.end).unsqueeze(-1)
        return MatrixProductState(cores, label_site=place)

    def bonds(self) -> list[Tensor]:
        """The Schmidt values `[k]` of the n inner bonds of the weight tensor of `n_sites` sites.

        Raises:
            InputError: the weight tensor is zero or not finite.

        Cost: n d chi^3.
        """
        return [values.real for values in self._wide_state().schmidt_values()]

    def log_norm(self) -> float:
        """The logarithm of the 2-norm of the weight tensor, computed in double precision."""
        return float(self._wide_state().log_norm())

    def _wide_state(self) -> MatrixProductState:
        state = self.to_state().detach()
        return state.to("complex128" if state.dtype.is_complex else "float64")

    def adopt_(self, state: Mapping[str, Any], prefix: str) -> None:
        """Adopts bond dimension and label site from the state, where its label core is as this layer's."""
        layout = state.get(prefix + "layout")
        numbers = whole_numbers(layout) if isinstance(layout, Tensor) else None
        if numbers is None or len(numbers) != 2 or numbers == self.layout.tolist():
            return
        place, bond = numbers
        ends = [site == self.n_sites for site in (place, self.label_site)]
        sizes = self._sizes(bond)
        given = {name: state.get(prefix + name) for name in sizes}
        fits = all(isinstance(t, Tensor) and t.shape == sizes[name] for name, t in given.items())
        if not fits or ends[0] != ends[1] or place > self.n_sites:
            return
        for name, size in sizes.items():
            parameter = getattr(self, name)
            parameter.data, parameter.grad = parameter.data.new_zeros(size), None
        self._adopt(place, bond)

    def _adopt(self, label_site: int, bond: int) -> None:
        self._label_site = label_site  # a number that torch.compile can read
        with on_the_cpu():
            self.layout = torch.tensor([label_site, bond])

    def whole_state(self) -> dict[str, Tensor]:
        """Site order and layout: label site and bond dimension."""
        return {**super().whole_state(), "layout": self.layout}

    def extra_repr(self) -> str:
        """Sites, outputs, bond dimension and feature map."""
        return (
            f"n_sites={self.n_sites}, out_features={self.out_features}, bond_dim={self.bond_dim}, "
            f"features={self.features.name!r}, padding={self.padding}, engine={self.engine!r}"
        )
