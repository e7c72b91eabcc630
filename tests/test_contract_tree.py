"""Trees under the contract of networks: dense contractions, caterpillars that are chains, many leaves."""

import itertools
import math
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from contract.network import NetworkContract
from torch import Tensor

from tnml.contraction.tree import TreeShape
from tnml.errors import InputError
from tnml.nn import MPSLayer, TreeLayer
from tnml.nn.tree.shapes import image_tree, information_tree


def nested_sites(tree: Any) -> list[int]:
    return [tree] if isinstance(tree, int) else [site for part in tree for site in nested_sites(part)]


class Trees(NetworkContract):
    network = "tree"
    program = "from tnml.nn import TreeLayer as Layer"
    tree: ClassVar[Any] = (((0, 1), 2), (3, 4))  # what "binary" is for five sites in a row

    def weight_tensor(self, layer: Any) -> Tensor:
        """From the leaves up: every node as one matrix from all its leaves to its bond."""
        nodes = list(layer.tensors().values())
        physical, outputs, tensors = nodes[0].shape[0], nodes[-1].shape[-1], iter(nodes)

        def matrix(part: Any) -> Tensor:
            if isinstance(part, int):
                return torch.eye(physical, dtype=nodes[0].dtype)
            below = [matrix(child) for child in part]
            found = next(tensors)
            for child in below:  # the first leg is replaced by leaves that go to the end
                found = torch.tensordot(found, child, ([0], [1]))
            return found.movedim(0, -1).flatten(0, -2)

        sites = nested_sites(self.tree)
        found = matrix(self.tree).reshape([physical] * len(sites) + [outputs])
        return found.permute(*torch.tensor(sites).argsort().tolist(), len(sites))

    def cuts(self, layer: Any) -> list[list[int]]:
        found: list[list[int]] = []

        def walk(part: Any) -> None:
            if not isinstance(part, int):
                for child in part:
                    walk(child)
                found.append(nested_sites(part))

        walk(self.tree)
        return found[:-1]


class TestTree(Trees):
    options: ClassVar = {"bond_dim": 3}
    others: ClassVar = [{"bond_dim": 2}]


def test_other_trees_keep_the_contract() -> None:
    """A tree of three children in another order, features of a fitted path: numbers and states again."""

    class Given(Trees):
        tree: ClassVar = ((4, 0, 2), 1, (3,))
        options: ClassVar = {
            "bond_dim": 4,
            "tree": [[4, 0, 2], 1, [3]],
            "features": {"name": "rbf", "dim": 3, "normalise": False},
        }

    class Flat(Trees):
        tree: ClassVar = (0, 1, 2, 3, 4)
        options: ClassVar = {"tree": (0, 1, 2, 3, 4), "features": "trigonometric"}

    for other in (Given(), Flat()):
        other.test_outputs_are_those_of_the_dense_tensor("complex128")
        other.test_gradients_are_those_of_the_dense_tensor("float64", 1e-12)
        other.test_rescaled_outputs_are_of_order_one()
        other.test_the_configuration_rebuilds_it()
    Given().test_spectra_and_norm_are_those_of_the_dense_tensor("float64")


def test_a_caterpillar_is_a_matrix_product_state() -> None:
    """Site 0 and 1 in a node, then site by site; the root is the last core with the label core."""
    chain = MPSLayer(6, 3, 3, label_site=6, dtype="float64", noise=0.4)
    layer = TreeLayer(6, 3, 3, tree="chain", dtype="float64")
    first, *cores, label = chain.tensors().values()
    nodes = [torch.einsum("xdl,ler->der", first, cores[0])]
    nodes += list(cores[1:])
    nodes[-1] = torch.einsum("ldr,rcx->ldc", nodes[-1], label)
    with torch.no_grad():
        for weight, node in zip(layer.weights, nodes, strict=True):
            weight.copy_(node.reshape(weight.shape))
    x = torch.rand(7, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), chain(x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["binary", "quad"])
@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (1, 7), (6, 1)])
def test_every_node_of_an_image_is_a_rectangle(kind: str, shape: tuple[int, int]) -> None:
    def check(part: Any, depth: int) -> int:
        if isinstance(part, int):
            return depth
        rows, columns = (set(c) for c in zip(*(divmod(s, shape[1]) for s in nested_sites(part)), strict=True))
        assert len(rows) * len(columns) == len(nested_sites(part))
        assert max(rows) - min(rows) < len(rows)
        assert max(columns) - min(columns) < len(columns)
        return max(check(child, depth + 1) for child in part)

    tree = image_tree(shape, kind)
    assert sorted(nested_sites(tree)) == list(range(shape[0] * shape[1]))
    height = check(tree, 0)
    each = [math.ceil(math.log2(side)) for side in shape]
    assert height == (sum(each) if kind == "binary" else max(each))


def test_four_thousand_leaves() -> None:
    """Fresh, the path keeps its size; with nodes grown by 2^5 each, the logarithm grows with their number."""
    layer, x = TreeLayer(4096, 2, 4, shape=(64, 64), noise=0.0), torch.rand(2, 4096)
    before = layer(x).detach()
    assert bool((before.abs() > 1e-3).all())
    with torch.no_grad():
        for weight in layer.weights:
            weight.mul_(32.0)
    value, log_scale = layer.log_forward(x)
    grown = value.detach().abs().log() + log_scale.unsqueeze(1) - before.abs().log()
    torch.testing.assert_close(grown, torch.full_like(grown, 5 * 4095 * math.log(2)), rtol=1e-6, atol=0)
    value.sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in layer.parameters())
    assert math.isfinite(layer.log_norm())


def test_a_learned_tree_joins_what_depends_on_each_other() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.integers(0, 4, (400, 4))
    copies = np.where(rng.random((400, 4, 2)) < 0.9, hidden[:, :, None], rng.integers(0, 4, (400, 4, 2)))
    places = rng.permutation(8)
    codes = copies.reshape(400, 8)[:, places]
    tree = information_tree(codes)
    pairs = {frozenset(part) for half in tree for part in half}
    assert pairs == {
        frozenset(int(np.flatnonzero(places == 2 * k + i)[0]) for i in range(2)) for k in range(4)
    }
    assert TreeLayer(8, 2, tree=tree)(torch.rand(3, 8)).shape == (3, 2)


def test_nodes_are_batched_by_height_and_size() -> None:
    shape = TreeShape.of(image_tree((16, 16)), 256, 2, 10, 3)
    assert [len(batch.nodes) for batch in shape.batches] == [128, 64, 32, 16, 8, 4, 2, 1]
    for batch, source in ((b, s) for b in shape.batches for s in b.sources):
        assert len(source.places) == len(batch.nodes)
    children = list(itertools.chain.from_iterable(shape.children))
    assert sorted(children) == list(range(256 + 254))


@pytest.mark.usefixtures("unchecked")
def test_bad_trees() -> None:
    for bad, text in (
        ("ternary", "unknown tree 'ternary'"),
        ((0, 1, 2), "must hold each leaf 0..3 once, got 3 leaves"),
        (((0, 1), (2, 2)), "must hold each leaf 0..3 once"),
        (((0, 1), (2, 3), ()), "every node of a tree needs children"),
        (((0, 1), (2, "3")), "a tree is binary, quad, chain, or nested sequences of site numbers, got '3'"),
    ):
        with pytest.raises(InputError, match=text):
            TreeLayer(4, 2, tree=bad)
    with pytest.raises(InputError, match=r"expected codes \[b, n\]"):
        information_tree(np.zeros((0, 3), dtype=np.int64))
