"""Every network of tnml, and one that it does not know, under the contract of networks."""

from typing import Any, ClassVar

import pytest
import torch
from contract.network import NetworkContract
from torch import Tensor
from toy_network import TOY

from tnml.errors import InputError
from tnml.nn import NETWORKS, MPSLayer, make_layer
from tnml.nn.sample_weights import weighted_median


class Chains(NetworkContract):
    network = "mps"

    def weight_tensor(self, layer: Any) -> Tensor:
        """Core by core; every leg in the place of its core, then the label's at the end."""
        tensors = layer.tensors()
        found = torch.ones(1, 1, dtype=tensors["label"].dtype)
        for core in tensors.values():
            found = torch.einsum("pl,ldr->pdr", found, core).flatten(0, 1)
        legs = [core.shape[1] for core in tensors.values()]
        return found.reshape(legs).movedim(list(tensors).index("label"), -1)

    def cuts(self, layer: Any) -> list[list[int]]:
        legs = [*range(layer.n_sites)]
        legs.insert(list(layer.tensors()).index("label"), layer.n_sites)
        return [legs[:cut] for cut in range(1, len(legs))]


class TestMPS(Chains):
    options: ClassVar = {"bond_dim": 3}
    others: ClassVar = [{"bond_dim": 2}, {"label_site": 1}]


class TestMPSOfRotations(Chains):
    options: ClassVar = {"bond_dim": 3, "features": "trigonometric", "label_site": 0}
    others: ClassVar = [{"bond_dim": 4}]


class TestMPSOnAFittedPath(Chains):
    options: ClassVar = {
        "bond_dim": 2,
        "features": {"name": "rbf", "dim": 3, "normalise": False},
        "label_site": 3,
    }
    others: ClassVar = [{"bond_dim": 4}]


class TestToy(NetworkContract):
    network, row = "toy", TOY
    options: ClassVar = {"rank": 3}
    others: ClassVar = [{"rank": 2}]
    program = "from toy_network import ToyLayer as Layer"

    def weight_tensor(self, layer: Any) -> Tensor:
        """Term by term the products of all vectors, then the label matrix mixes the terms."""
        vectors, label = layer.tensors().values()
        found = torch.ones(1, label.shape[1], dtype=label.dtype)
        for own in vectors:
            found = torch.einsum("pr,dr->pdr", found, own).flatten(0, 1)
        return (found @ label.T).reshape([own.shape[0] for own in vectors] + [label.shape[0]])

    def cuts(self, layer: Any) -> list[list[int]]:
        return [[site] for site in range(layer.n_sites)]


def test_a_row_taken_out_leaves_the_table_as_it_was() -> None:
    assert "toy" not in NETWORKS
    with pytest.raises(InputError, match="unknown network 'toy'"):
        make_layer("toy", 5, 3)
    with pytest.raises(InputError, match="a network is a name or a mapping with a 'name', got 3"):
        make_layer(3, 5, 3)  # type: ignore[arg-type]


def test_the_weighted_median_is_that_of_repetitions() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 5, 8, 31):
        values = torch.randn(count, generator=generator).round(decimals=1)  # some are equal
        times = torch.randint(1, 4, (count,), generator=generator)
        repeated = values.repeat_interleave(times).median()
        assert torch.equal(weighted_median(values, times), repeated)
        assert torch.equal(weighted_median(values, times / times.sum()), repeated)
        assert torch.equal(weighted_median(values, torch.ones(count)), values.median())
    assert weighted_median(torch.tensor([1.0, torch.nan]), torch.ones(2)).isnan()


def test_arguments_for_any_network_reach_those_that_take_them() -> None:
    layer = make_layer("mps", 4, 2, bond_dim=3, seed=2)
    assert torch.equal(layer.weight, MPSLayer(4, 2, 3, seed=2).weight)
