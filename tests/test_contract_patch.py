"""Chains on blocks and a chain over them, under the contract of networks: one dense tensor, exact answers."""

from typing import Any, ClassVar

import pytest
import torch
from contract.network import NetworkContract
from torch import Tensor

from tnml.errors import InputError
from tnml.nn import BlockMPS


class Blocks(NetworkContract):
    network = "patch"
    program = "from tnml.nn import BlockMPS as Layer"
    slots: ClassVar[list[list[int]]] = [[0, 1], [2, 3], [4, -1]]  # five sites in a row; -1 is outside
    shared: ClassVar = False
    middle: ClassVar = 1  # blocks before the head's label core

    def weight_tensor(self, layer: Any) -> Tensor:
        """Every block as a matrix from its sites to its channels, then the head's cores; outside, the pad."""
        tensors = layer.tensors()
        pad, found = tensors["pad"], torch.ones(1, 1, dtype=tensors["head.label"].dtype)
        for place, slots in enumerate(self.slots):
            if place == self.middle:
                found = torch.einsum("pl,lcr->pcr", found, tensors["head.label"]).flatten(0, 1)
            prefix = f"block.{0 if self.shared else place}."
            names = [name for name in tensors if name.startswith(prefix)]
            block, site = torch.ones(1, 1, 1, dtype=pad.dtype), 0
            for name in names:
                if name.endswith("label"):
                    block = torch.einsum("pxl,lcr->pcr", block, tensors[name])
                elif slots[site] < 0:
                    block, site = torch.einsum("pxl,ldr,d->pxr", block, tensors[name], pad), site + 1
                else:
                    block = torch.einsum("pxl,ldr->pdxr", block, tensors[name]).flatten(0, 1)
                    site += 1
            core = tensors[f"head.core.{place}"]
            found = torch.einsum("pl,qc,lcr->pqr", found, block.squeeze(-1), core).flatten(0, 1)
        dim, outputs = pad.shape[0], tensors["head.label"].shape[1]
        before = sum(slot >= 0 for slots in self.slots[: self.middle] for slot in slots)
        return found.reshape([dim] * before + [outputs] + [dim] * (5 - before)).movedim(before, -1)

    def cuts(self, layer: Any) -> list[list[int]]:
        groups = [[slot for slot in slots if slot >= 0] for slots in self.slots]
        groups.insert(self.middle, [5])
        return [[leg for group in groups[:cut] for leg in group] for cut in range(1, len(groups))]


class TestPatch(Blocks):
    options: ClassVar = {"bond_dim": 3, "channels": 3, "kernel": 2}
    others: ClassVar = [{"bond_dim": 2}]


def test_shared_blocks_and_a_fitted_path_keep_the_contract() -> None:
    class Shared(Blocks):
        shared: ClassVar = True
        options: ClassVar = {
            "bond_dim": 4,
            "head_bond": 2,
            "channels": 2,
            "kernel": 2,
            "shared": True,
            "features": {"name": "rbf", "dim": 3, "normalise": False},
        }

    other = Shared()
    other.test_outputs_are_those_of_the_dense_tensor("complex128")
    other.test_gradients_are_those_of_the_dense_tensor("float64", 1e-12)
    other.test_spectra_and_norm_are_those_of_the_dense_tensor("float64")
    other.test_rescaled_outputs_are_of_order_one()
    other.test_the_configuration_rebuilds_it()


def test_a_block_sees_its_own_pixels() -> None:
    """A change of one pixel changes the vector of its block alone."""
    layer = BlockMPS(24, 2, 2, kernel=(2, 3), shape=(4, 6), dtype="float64")
    assert layer.blocks.grid == (2, 2)
    places = layer.blocks.pixels[1].tolist()
    assert [divmod(place, 6) for place in places] == [(0, 3), (0, 4), (0, 5), (1, 3), (1, 4), (1, 5)]
    x = torch.rand(3, 24, dtype=torch.float64)
    images = layer.local_features(x).unflatten(1, (4, 6))
    vectors = layer.blocks(images)
    moved = images.clone()
    moved[:, 0, 0] += 1
    change = (layer.blocks(moved) - vectors).abs().amax((0, 3))
    assert bool(change[0, 0] > 0)
    assert change.flatten()[1:].max() == 0


def test_one_map_for_all_pixels() -> None:
    columns = [{"name": "linear"}, {"name": "legendre", "dim": 2}]
    with pytest.raises(InputError, match="channels must be a whole number, at least 2"):
        BlockMPS(4, 2, channels=1)
    with pytest.raises(InputError, match="one feature map for all pixels, got one for each column"):
        BlockMPS(2, 2, features={"name": "columns", "columns": columns})
