"""The table of networks: what can be made by name, kept in model files and chosen on the command line.

To add a network, write a subclass of `TensorNetworkLayer` with a `network` name and its abstract members, and
put it into `NETWORKS`. Its constructor takes `n_sites` and `out_features` first; its other parameters are the
options of the network, with those of the base class where it ends in `**common`. From then on `make_layer`,
model files, resumed runs, diagnostics, estimators and the command line know it. Its test is a small
subclass of the suite in `tests/contract/network.py`.

Example:
    The smallest network: a vector at each site and one for the outputs, f_c(x) = l_c prod_i v_i . phi(x_i).

    >>> import torch
    >>> from torch import nn
    >>> from tnml.contraction.chain.reference import power_of_two
    >>> class Product(TensorNetworkLayer):
    ...     network = "product"
    ...
    ...     def __init__(self, n_sites, out_features, *, seed=0, **common):
    ...         super().__init__(n_sites, out_features, **common)
    ...         label = torch.randn(out_features, generator=torch.Generator().manual_seed(seed))
    ...         self.vectors = nn.Parameter(torch.ones(n_sites, self.features.dim))
    ...         self.label = nn.Parameter(label)
    ...
    ...     def contract(self, features):
    ...         value, exponent = features.new_ones(len(features), 1), features.new_zeros(len(features))
    ...         for site, vector in enumerate(self.vectors):
    ...             value = value * (features[:, site] @ vector).unsqueeze(1)
    ...             power = power_of_two(value)  # taken out of the value, so that no product overflows
    ...             value, exponent = value * torch.exp2(-power).unsqueeze(1), exponent + power
    ...         return value * self.label, exponent
    ...
    ...     def rescale_(self, x, weight=None):
    ...         self.label.data.mul_(torch.exp(-self.typical_log_norm(x, weight)))
    ...         return self
    ...
    ...     def own_config(self):
    ...         return {}
    ...
    ...     def tensors(self):
    ...         return {"vectors": self.vectors, "label": self.label}
    ...
    ...     bond_dims = property(lambda self: [1] * self.n_sites)
    ...
    ...     def bonds(self):
    ...         return [torch.ones(1, dtype=torch.float64) for _ in self.vectors]
    ...
    ...     def log_norm(self):
    ...         return float(sum(v.detach().double().norm().log() for v in (*self.vectors, self.label)))
    ...
    ...     def adopt_(self, state, prefix):
    ...         pass  # no size can differ
    >>> NETWORKS["product"] = Network(layer=Product)
    >>> layer = make_layer({"name": "product", "seed": 1}, 6, 2, order="snake", shape=(2, 3))
    >>> layer.rescale_(torch.rand(20, 6))(torch.rand(5, 6)).shape
    torch.Size([5, 2])
    >>> del NETWORKS["product"]
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from tnml.errors import InputError, choose
from tnml.nn.layer import Compressible, TensorNetworkLayer
from tnml.nn.mps.layer import MPSLayer
from tnml.nn.patch.blocks import BlockMPS
from tnml.nn.patch.deep import DeepMPS
from tnml.nn.ring.layer import RingMPS
from tnml.nn.tree.layer import TreeLayer
from tnml.nn.uniform.layer import UniformMPS

_SIZES = ("self", "n_sites", "out_features")  # what every constructor is given apart from the options
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A row of the table: the class of a network, and what can be done with it beyond training by gradients.

    Args:
        layer: its class.
        sweeps: whether `sweep_classifier` and `sweep_regressor` train it.
        replicas: whether `train_replicas` trains many of them at once.
        density: whether it can stand for a probability density.

    Example:
        >>> NETWORKS["mps"].sweeps, NETWORKS["mps"].options["bond_dim"]
        (True, 10)
    """

    layer: type[TensorNetworkLayer]
    sweeps: bool = False
    replicas: bool = False
    density: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Names and defaults of the options; `inspect.Parameter.empty` where one has to be given."""
        signature = inspect.signature(self.layer.__init__).parameters
        common: Mapping[str, inspect.Parameter] = {}
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.values()):
            common = inspect.signature(TensorNetworkLayer.__init__).parameters
        return {
            name: parameter.default
            for name, parameter in {**signature, **common}.items()
            if name not in _SIZES and parameter.kind not in _VARIADIC
        }


NETWORKS: dict[str, Network] = {
    "mps": Network(layer=MPSLayer, sweeps=True, replicas=True),
    "deep": Network(layer=DeepMPS),
    "patch": Network(layer=BlockMPS),
    "ring": Network(layer=RingMPS),
    "tree": Network(layer=TreeLayer),
    "uniform": Network(layer=UniformMPS),
}
"""Every network by name. A row may be added from outside; see the docstring of this module."""


def make_layer(
    spec: str | Mapping[str, Any],
    n_sites: int,
    out_features: int,
    *,
    usual: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> TensorNetworkLayer:
    """A new layer of the network that `spec` names.

    Args:
        spec: a name of `NETWORKS`, or a mapping with the "name" and options of the network.
        n_sites: number of sites n.
        out_features: number of outputs c.
        usual: what the caller gives as `arguments` where the user chose nothing; by default the defaults of
            the networks that take them.
        arguments: further options, for any network. One that this network does not take, or that
            `spec` gives, too, is left out if it is as usual.

    Raises:
        InputError: an unknown name or option; an argument that was chosen but would have no effect; or what
            the network itself refuses.

    Example:
        >>> make_layer("mps", 4, 2, bond_dim=3).bond_dims
        [1, 2, 3, 3, 2, 1]
        >>> make_layer({"name": "mps", "bond_dim": 2}, 4, 2).bond_dims
        [1, 2, 2, 2, 2, 1]
        >>> make_layer("mpo", 4, 2)
        Traceback (most recent call last):
        tnml.errors.InputError: unknown network 'mpo'; did you mean 'mps'? Choose from: mps, ...
    """
    name, chosen = _named(spec)
    row = NETWORKS[name]
    known = row.options
    for option in chosen:
        choose(f"option of network {name!r}", option, known)
    for argument, value in arguments.items():
        if argument in chosen:
            if not _as_usual(argument, value, usual) and value != chosen[argument]:
                raise InputError(
                    f"{argument} is given twice, as {chosen[argument]!r} with the network and as {value!r}; "
                    "give it once"
                )
        elif argument in known:
            chosen[argument] = value
        elif not _as_usual(argument, value, usual):
            raise InputError(
                f"network {name!r} has no {argument}, got {value!r}; leave it out, or choose an option "
                f"it has: {', '.join(known)}"
            )
    return row.layer(n_sites, out_features, **chosen)


def restored_layer(
    network: str, config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> TensorNetworkLayer:
    """The layer with this configuration and state dict, as a file has them.

    Args:
        network: its name.
        config: of the layer that was stored.
        state: its state dict.

    Raises:
        InputError: an unknown name, or what the network refuses.
        RuntimeError: torch's own, where the state does not fit.

    Example:
        >>> layer = MPSLayer(4, 2)
        >>> restored_layer("mps", layer.config, layer.state_dict()).n_sites
        4
    """
    layer = choose("network", network, NETWORKS).layer(**config)
    layer.load_state_dict(dict(state))
    return layer


def check_sweeps(spec: str | Mapping[str, Any], solver: str) -> None:
    """Raises unless sweeps train the network that `spec` names.

    Args:
        spec: as for `make_layer`.
        solver: how the user asks for sweeps.

    Raises:
        InputError: they do not, or there is no such network.

    Example:
        >>> check_sweeps({"name": "mps", "bond_dim": 3}, "solver='dmrg'")
    """
    name = _named(spec)[0]
    if not NETWORKS[name].sweeps:
        raise InputError(
            f"{solver} trains an {classes_with('sweeps')}, got network {name!r}; train it with gradients"
        )


def compressible(layer: TensorNetworkLayer) -> Compressible:
    """The layer itself, if it can be compressed.

    Raises:
        InputError: it cannot.

    Example:
        >>> compressible(MPSLayer(4, 2)).compressed(max_bond=1)[0].bond_dims
        [1, 1, 1, 1, 1, 1]
    """
    if not isinstance(layer, Compressible):
        names = " or ".join(
            row.layer.__name__ for row in NETWORKS.values() if hasattr(row.layer, "compressed")
        )
        raise InputError(f"compression needs an {names}, got {type(layer).__name__}; train a smaller one")
    return layer


def can(layer: object, capability: str) -> bool:
    """Whether `layer` is a network of the table that has this capability, one of the flags of `Network`.

    Example:
        >>> can(MPSLayer(4, 2), "sweeps"), can(None, "sweeps")
        (True, False)
    """
    row = NETWORKS.get(layer.network) if isinstance(layer, TensorNetworkLayer) else None
    return row is not None and bool(getattr(row, choose("capability", capability, _FLAGS)))


def classes_with(capability: str) -> str:
    """The names of the classes that have a capability, for error texts: "A or B".

    Example:
        >>> classes_with("replicas")
        'MPSLayer'
    """
    flag = choose("capability", capability, _FLAGS)
    return " or ".join(row.layer.__name__ for row in NETWORKS.values() if getattr(row, flag))


_FLAGS = {field.name: field.name for field in fields(Network) if field.name != "layer"}


def _named(spec: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A name of the table, and the options that come with it."""
    options = {"name": spec} if isinstance(spec, str) else spec
    if not isinstance(options, Mapping) or "name" not in options:
        raise InputError(
            f"a network is a name or a mapping with a 'name', got {spec!r}; names: {', '.join(NETWORKS)}"
        )
    name: str = options["name"]
    choose("network", name, NETWORKS)
    return name, {option: value for option, value in options.items() if option != "name"}


def _as_usual(argument: str, value: object, usual: Mapping[str, Any] | None) -> bool:
    """Whether an argument has its usual value, as if it had not been given."""
    if usual is not None and argument in usual:
        return bool(value == usual[argument])
    defaults = [row.options[argument] for row in NETWORKS.values() if argument in row.options]
    return any(value is default or value == default for default in defaults)
