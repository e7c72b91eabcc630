"""Networks beyond the open chain, and the same functions by the methods of comparable libraries.

Every contender of a case is a function from inputs to outputs with the numbers of tnml's own layer, so its
answer can be checked: outputs, and the gradient to the inputs. "matrices" makes a matrix for each sample and
site and multiplies neighbours pairwise, "nodes" contracts one node after the other.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tnml.nn import PatchMPS, RingMPS, TreeLayer, TTConv2d, UniformMPS


class Made(NamedTuple):
    """A contender ready to run.

    Attributes:
        call: from inputs to outputs.
        parameters: whose gradients a step computes.
    """

    call: Callable[[Tensor], Tensor]
    parameters: Sequence[Tensor]


class Case(NamedTuple):
    """A network of a size.

    Attributes:
        network: which.
        sizes: of `own`.
        inputs: `[b, ..]` for a step.
        peers: contenders beside "tnml" by name.
    """

    network: str
    sizes: Mapping[str, Any]
    inputs: tuple[int, ...]
    peers: tuple[str, ...]

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.network}, {', '.join(f'{k} {v}' for k, v in self.sizes.items())}"


_LAYERS: Mapping[str, Callable[..., nn.Module]] = {
    "ring": RingMPS,
    "uniform": UniformMPS,
    "tree": TreeLayer,
    "patch": PatchMPS,
    "conv": TTConv2d,
}
CASES = (
    Case(
        "ring", {"n_sites": 196, "out_features": 10, "bond_dim": 10}, (100, 196), ("matrices", "tensorkrowch")
    ),
    Case("uniform", {"n_sites": 784, "out_features": 10, "bond_dim": 10}, (100, 784), ("matrices",)),
    Case("tree", {"n_sites": 784, "out_features": 10, "bond_dim": 10}, (100, 784), ("nodes",)),
    Case(
        "patch",
        {"kernel": 4, "stride": 2, "channels": 16, "bond_dim": 8, "shape": (28, 28)},
        (100, 28, 28),
        ("matrices", "tensorkrowch"),
    ),
    *(
        Case(
            "conv",
            {"in_channels": 128, "out_channels": 128, "kernel_size": 3, "padding": 1, "rank": rank},
            (32, 128, 14, 14),
            ("Conv2d", "tensorly-torch"),
        )
        for rank in (16, 64)
    ),
)
SMOKE = (
    Case("ring", {"n_sites": 6, "out_features": 3, "bond_dim": 3}, (4, 6), ("matrices",)),
    Case("uniform", {"n_sites": 6, "out_features": 3, "bond_dim": 3}, (4, 6), ("matrices",)),
    Case("tree", {"n_sites": 6, "out_features": 3, "bond_dim": 3}, (4, 6), ("nodes",)),
    Case(
        "patch",
        {"kernel": 2, "stride": 1, "channels": 2, "bond_dim": 3, "shape": (4, 4)},
        (4, 4, 4),
        ("matrices",),
    ),
    Case(
        "conv", {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "rank": 2}, (2, 4, 6, 6), ("Conv2d",)
    ),
)


def make(case: Case, contender: str) -> Made:
    """The contender of a case, with the numbers that tnml's layer has for seed 0."""
    torch.manual_seed(0)
    layer: Any = _LAYERS[case.network](**case.sizes)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    if contender == "tnml":
        return Made(layer, list(layer.parameters()))
    return _PEERS[case.network, contender](layer, case)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def _embed(x: Tensor) -> Tensor:
    return torch.stack([1 - x, x], -1)


def _product(matrices: Tensor) -> Tensor:
    """The product of `[b, n, l, r]` over n, neighbours pairwise: one batched product for each level."""
    while matrices.shape[1] > 1:
        odd = matrices[:, -1:] if matrices.shape[1] % 2 else matrices[:, :0]
        even = matrices.shape[1] // 2 * 2
        matrices = torch.cat([matrices[:, 0:even:2] @ matrices[:, 1:even:2], odd], 1)
    return matrices[:, 0]


def _ring_matrices(layer: RingMPS, case: Case) -> Made:
    weight, label, place = _leaf(layer.weight), _leaf(layer.label), layer.label_site

    def call(x: Tensor) -> Tensor:
        matrices = torch.einsum("bnd,ndlr->bnlr", _embed(x), weight)
        left, right = _product(matrices[:, :place]), _product(matrices[:, place:])
        return torch.einsum("bal,lcr,bra->bc", left, label, right)

    return Made(call, [weight, label])


def _uniform_matrices(layer: UniformMPS, case: Case) -> Made:
    core, start, label = _leaf(layer.core), _leaf(layer.start), _leaf(layer.label)

    def call(x: Tensor) -> Tensor:
        matrices = torch.einsum("bnd,dlr->bnlr", _embed(x), core)
        return torch.einsum("l,blr,rcx->bc", start, _product(matrices), label)

    return Made(call, [core, start, label])


def _tree_nodes(layer: TreeLayer, case: Case) -> Made:
    nodes = [_leaf(tensor) for tensor in layer.tensors().values()]
    children, leaves = layer.tree_shape.children, layer.n_sites

    def call(x: Tensor) -> Tensor:
        vectors = list(_embed(x).unbind(1))
        for tensor, (left, right) in zip(nodes, children, strict=True):
            vectors.append(torch.einsum("bl,br,lro->bo", vectors[left], vectors[right], tensor))
        return vectors[leaves + len(nodes) - 1]

    return Made(call, nodes)


def _patch_matrices(layer: PatchMPS, case: Case) -> Made:
    chain = layer.layers[0]
    tensors = {name: _leaf(tensor) for name, tensor in chain.tensors().items()}
    names = list(tensors)
    place, (kernel, stride) = names.index("label"), (layer.kernel, layer.stride)

    def half(features: Tensor, own: Sequence[str]) -> Tensor:
        each = [
            torch.einsum("bd,ldr->blr", features[:, site], tensors[name]) for site, name in enumerate(own)
        ]
        return functools.reduce(torch.matmul, each)

    def call(x: Tensor) -> Tensor:
        pieces = functional.unfold(x.unsqueeze(1), kernel, stride=stride).transpose(1, 2)
        features = _embed(pieces.flatten(0, 1))
        left = half(features[:, :place], names[:place]).squeeze(1)
        right = half(features[:, place:], names[place + 1 :]).squeeze(2)
        value = torch.einsum("bl,lcr,br->bc", left, tensors["label"], right)
        return value.view(len(x), *layer.grid, -1)

    return Made(call, list(tensors.values()))


def _tensorkrowch() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a SyntaxWarning of one of its modules
        return import_module("tensorkrowch")


def _traced(network: Any, example: Tensor) -> None:
    """The settings that its documentation advises for speed, which were the fastest of `chain`'s trials."""
    network.auto_stack, network.auto_unbind = True, False
    network.trace(example, inline_input=False, inline_mats=True)


def _ring_krowch(layer: RingMPS, case: Case) -> Made:
    tensors = [tensor.detach().clone() for tensor in layer.tensors().values()]
    network = _tensorkrowch().models.MPSLayer(tensors=tensors, out_position=layer.label_site, boundary="pbc")
    _traced(network, torch.zeros(1, layer.n_sites, 2))
    return Made(
        lambda x: network(_embed(x), inline_input=False, inline_mats=True), list(network.parameters())
    )


def _patch_krowch(layer: PatchMPS, case: Case) -> Made:
    chain = layer.layers[0]
    bond = max(chain.bond_dims)
    tensors = []
    for tensor in chain.tensors().values():
        sizes = (bond, tensor.shape[1], bond)
        padded = torch.zeros(sizes)
        padded[: tensor.shape[0], :, : tensor.shape[2]] = tensor.detach()
        tensors.append(padded)
    tensors[0], tensors[-1] = tensors[0][0], tensors[-1][..., 0]
    network = _tensorkrowch().models.ConvMPSLayer(
        in_channels=2,
        out_channels=layer.channels,
        bond_dim=bond,
        kernel_size=layer.kernel,
        stride=layer.stride,
        out_position=chain.label_site,
        tensors=tensors,
    )
    _traced(network, torch.zeros(1, 2, *layer.shape))

    def call(x: Tensor) -> Tensor:
        found: Tensor = network(_embed(x).movedim(-1, 1), inline_input=False, inline_mats=True)
        return found.movedim(1, -1)

    return Made(call, list(network.parameters()))


def _dense_conv(layer: TTConv2d, case: Case) -> Made:
    conv = layer.to_conv()
    return Made(conv, list(conv.parameters()))


def _tensorly_conv(layer: TTConv2d, case: Case) -> Made:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tltorch = import_module("tltorch")
        conv = tltorch.FactorizedConv.from_conv(
            layer.to_conv(), rank=layer.rank, factorization="tucker", implementation="factorized"
        )
    return Made(conv, [p for p in conv.parameters() if p.requires_grad])


_PEERS: Mapping[tuple[str, str], Callable[[Any, Case], Made]] = {
    ("ring", "matrices"): _ring_matrices,
    ("ring", "tensorkrowch"): _ring_krowch,
    ("uniform", "matrices"): _uniform_matrices,
    ("tree", "nodes"): _tree_nodes,
    ("patch", "matrices"): _patch_matrices,
    ("patch", "tensorkrowch"): _patch_krowch,
    ("conv", "Conv2d"): _dense_conv,
    ("conv", "tensorly-torch"): _tensorly_conv,
}
OTHER_NUMBERS = frozenset({"tensorly-torch"})
"""Contenders whose factors differ: timed on their own numbers, of as many parameters or more."""
