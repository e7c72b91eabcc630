"""Matrix product states on patches, and stacks of them: the contract of networks, and image by image."""

import itertools
from typing import Any, ClassVar

import pytest
import torch
from contract.network import StackContract
from contract.network_member import EPS
from torch import Tensor, nn
from torch.nn.functional import unfold

from tnml.diagnostics.spectra import networks_in, singular_values
from tnml.errors import InputError
from tnml.explain import counterfactual, partial_dependence, shapley
from tnml.nn import DeepMPS, MPSLayer, PatchMPS

_LARGE = (
    2.0**20
)  # errors are followed as if the machine's precision were that many times coarser, to first order


def patches_of(shape: tuple[int, int], kernel: list[int], stride: list[int]) -> list[list[int]]:
    """Pixels of every patch, one loop after the other."""
    sides = [min(k, s) for k, s in zip(kernel, shape, strict=True)]
    corners = [
        [*range(0, size - side, step), size - side]
        for size, side, step in zip(shape, sides, stride, strict=True)
    ]
    return [
        [(top + i) * shape[1] + left + j for i in range(sides[0]) for j in range(sides[1])]
        for top, left in itertools.product(*corners)
    ]


def one_chain(tensors: dict[str, Tensor], prefix: str, features: Tensor) -> Tensor:
    """Outputs `[b, c]` of a chain on `[b, k, d]`, core by core."""
    names = [name for name in tensors if name.startswith(prefix)]
    found, site = torch.ones(len(features), 1, 1, dtype=features.dtype), 0
    for name in names:
        if name.endswith("label"):
            found = torch.einsum("bxl,lcr->bcr", found, tensors[name])
        else:
            found = torch.einsum("bxl,bd,ldr->bxr", found, features[:, site], tensors[name])
            site += 1
    return found.squeeze(-1)


class Stacks(StackContract):
    network = "deep"
    program = "from tnml.nn import DeepMPS as Layer"

    def stack(self, layer: Any, features: Tensor, eps: float | None = None) -> Tensor:
        """The outputs, patch by patch; with `eps` how far roundings can move them, to first order."""
        config, tensors = layer.config, layer.tensors()
        sizes = {name: tensor.detach().abs() for name, tensor in tensors.items()}
        shape, found = (1, 5), features
        wrong = torch.zeros_like(features.detach().abs())
        for place in range(len(config["channels"])):
            patches = patches_of(shape, config["kernel"][place], config["stride"][place])
            vectors, errors = [], []
            for number, pixels in enumerate(patches):
                prefix = f"stage.{place}.{0 if config['shared'] else number}."
                own = found[:, pixels]
                vectors.append(one_chain(tensors, prefix, own))
                if eps is not None:
                    terms = one_chain(sizes, prefix, own.detach().abs())
                    moved = one_chain(sizes, prefix, own.detach().abs() + wrong[:, pixels]) - terms
                    errors.append(moved + _LARGE * eps * 8 * len(pixels) * max(layer.bond_dims) * terms)
            found = torch.stack(vectors, 1)
            shape = layer.stages[place].grid
            if eps is not None:
                wrong = torch.stack(errors, 1)
            if config["norm"] == "rms":
                root = found.abs().square().mean(-1, keepdim=True).sqrt()
                found = found / root
                if eps is not None:
                    share = (wrong / root.detach()).square().sum(-1, keepdim=True).sqrt()
                    wrong = wrong / root.detach() + found.detach().abs() * share
            if place + 1 < len(config["channels"]):
                found = torch.cat([torch.ones_like(found[..., :1]), found], -1)
                wrong = torch.cat([torch.zeros_like(wrong[..., :1]), wrong], -1) if eps is not None else wrong
        flat = found.flatten(1)
        if eps is None:
            return flat @ tensors["head"].T + tensors["bias"]
        terms = flat.detach().abs() @ sizes["head"].T + sizes["bias"]
        return (wrong.flatten(1) @ sizes["head"].T) / _LARGE + 2 * eps * flat.shape[1] * terms

    def dense(self, layer: Any, features: Tensor) -> Tensor:
        return self.stack(layer, features)

    def bound(self, layer: Any, features: Tensor) -> Tensor:
        wide = self.widened(layer)
        return self.stack(wide, features.to(wide.dtype), EPS[layer.dtype.to_real()]).detach()


class TestDeep(Stacks):
    options: ClassVar = {"bond_dim": 3, "channels": [4, 3], "kernel": [3, 2], "stride": [2, 1]}
    others: ClassVar = [{"bond_dim": [2, 3]}]


def test_a_stage_without_sharing_or_norm_keeps_the_contract() -> None:
    """One stage, weights of each position, features that need a fitted path: numbers and states once more."""

    class Other(Stacks):
        options: ClassVar = {
            "bond_dim": 2,
            "channels": 3,
            "kernel": 2,
            "norm": "none",
            "shared": False,
            "features": {"name": "rbf", "dim": 3, "normalise": False},
        }

    other = Other()
    other.test_outputs_are_those_of_the_dense_tensor("complex128")
    other.test_gradients_are_those_of_the_dense_tensor("float64", 1e-12)
    other.test_rescaled_outputs_are_of_order_one()
    other.test_the_configuration_rebuilds_it()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_a_patch_layer_is_an_mps_layer_on_unfolded_patches(dtype: torch.dtype) -> None:
    layer = PatchMPS((3, 2), (2, 3), 4, 3, shape=(7, 8), dtype=dtype, seed=1)
    images = torch.rand(5, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    chain = MPSLayer(6, 4, 3, dtype=dtype)
    chain.load_state_dict(layer.chains[0].state_dict())
    pieces = unfold(images.unsqueeze(1), (3, 2), stride=(2, 3)).transpose(1, 2)
    expected = chain(pieces).reshape(5, 3, 3, 4)
    assert layer.grid == (3, 3)
    torch.testing.assert_close(layer(images), expected, rtol=1e-12, atol=1e-14)
    own = PatchMPS((3, 2), (2, 3), 4, 3, shape=(7, 8), dtype=dtype, shared=False)
    each = torch.stack([own.chains[p](pieces[:, p]) for p in range(9)], 1).reshape(5, 3, 3, 4)
    torch.testing.assert_close(own(images), each, rtol=1e-12, atol=1e-14)
    assert not torch.equal(own.chains[0].weight, own.chains[1].weight)


def test_the_last_patch_ends_at_the_border() -> None:
    layer = PatchMPS(3, 2, 2, shape=(4, 6), dtype="float64")
    images = torch.rand(1, 4, 6, dtype=torch.float64).requires_grad_()
    assert layer.grid == (2, 3)
    layer(images).sum().backward()
    assert images.grad is not None
    assert bool((images.grad != 0).all()), "every pixel counts"


def test_curves_leave_the_pixels_in_their_places() -> None:
    layer = DeepMPS(12, 2, order="snake", shape=(3, 4))
    assert layer.config["order"] == "raster"
    assert layer.stages[0].shape == (3, 4)


def test_chains_inside_count_once() -> None:
    """Diagnostics see the network, not the chains that it is made of, and what stands beside it."""
    model = nn.ModuleDict({"net": DeepMPS(9, 2, 2), "net2": nn.Linear(3, 2), "chain": MPSLayer(4, 2)})
    assert list(networks_in(model)) == ["net", "chain"]
    found = list(singular_values(model))
    assert "net2.weight" in found
    assert not [name for name in found if name.startswith("net.") and not name.startswith("net.bond.")]


def test_what_needs_linear_outputs_refuses_it() -> None:
    layer, x = DeepMPS(9, 2, 2, kernel=2), torch.rand(3, 9)
    for ask in (
        lambda: shapley(layer, x, x),
        lambda: partial_dependence(layer, 0, torch.rand(4), x),
        lambda: counterfactual(layer, x[0], target=int(layer(x[:1]).argmin())),
    ):
        with pytest.raises(InputError, match=r"linear in every site's features, got a DeepMPS"):
            ask()


@pytest.mark.usefixtures("unchecked")
def test_bad_input() -> None:
    for bad, text in (
        ({"kernel": (2, 2, 2)}, "expected one kernel or 2"),
        ({"kernel": 0}, "kernel must be a whole number, at least 1"),
        ({"stride": [(1, 2, 3), 1]}, "stride must be a whole number or two"),
        ({"bond_dim": [2, 2, 2]}, "expected one bond_dim or 2"),
        ({"norm": "batch"}, "unknown norm 'batch'"),
        ({"channels": [2, 0]}, "channels must be a whole number, at least 1"),
    ):
        with pytest.raises(InputError, match=text):
            DeepMPS(16, 2, **bad)
    with pytest.raises(InputError, match=r"expected images \[b, 3, 3\] or their features \[b, 3, 3, 2\]"):
        PatchMPS(2, 1, 2, shape=(3, 3))(torch.rand(2, 9))
