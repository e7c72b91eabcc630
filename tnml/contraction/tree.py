"""The batched tree: nodes of one height and size are one batched product, from the leaves to the root.

             c
             │
          ┌─root─┐            value[b, c]
          │      │
       ┌node┐  ┌node┐         Z[b, (l r)] = left[b, l] right[b, r],   out[b, o] = Z[b, (l r)] W[(l r), o]
       │    │  │    │
       f    f  f    f         features [b, d] of the leaves

At every second height each sample's vectors are divided by powers of two, whose exponents add up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.contraction.chain.reference import power_of_two
from tnml.errors import InputError

Nested = int | Sequence["Nested"]


class Source(NamedTuple):
    """Where the children of a batch of nodes are: in which batches, and which vectors of these together."""

    batches: tuple[int, ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class TreeBatch:
    """Nodes that are contracted together: as many children each, of the same sizes.

    Attributes:
        nodes: their numbers in the tree, children before parents.
        sources: of the first children, the second ones, and so on; batch 0 are the leaves.
        inner: dimensions of the children.
        outer: dimension of the vectors that come out.
        rescaled: whether their scale is taken out: at every second height, and of the root.
    """

    nodes: tuple[int, ...]
    sources: tuple[Source, ...]
    inner: tuple[int, ...]
    outer: int
    rescaled: bool


@dataclass(frozen=True)
class TreeShape:
    """A tree with its bond dimensions, ready to be contracted batch by batch.

    Args:
        children: of every node: leaves i as i, node k as n + k; children before parents, the root last.
        n_leaves: number of leaves n.
        physical: dimension d of the leaves.
        bond_dim: largest bond dimension.
        outputs: dimension c of the root.

    Example:
        >>> shape = TreeShape.of(((0, 1), (2, 3)), 4, 2, 3, 5)
        >>> shape.children, shape.bonds
        (((0, 1), (2, 3), (4, 5)), (3, 3, 5))
        >>> [(batch.inner, batch.outer) for batch in shape.batches]
        [((2, 2), 3), ((3, 3), 5)]
    """

    children: tuple[tuple[int, ...], ...]
    n_leaves: int
    physical: int
    bond_dim: int
    outputs: int
    bonds: tuple[int, ...] = field(init=False)
    batches: tuple[TreeBatch, ...] = field(init=False)

    def __post_init__(self) -> None:
        sizes = [self.physical] * self.n_leaves
        heights = [0] * self.n_leaves
        for place, own in enumerate(self.children):
            product = 1
            for child in own:
                product = min(product * sizes[child], self.bond_dim)
            sizes.append(self.outputs if place + 1 == len(self.children) else product)
            heights.append(1 + max(heights[child] for child in own))
        object.__setattr__(self, "bonds", tuple(sizes[self.n_leaves :]))
        object.__setattr__(self, "batches", tuple(_batched(self, sizes, heights)))

    @staticmethod
    def of(tree: Nested, n_leaves: int, physical: int, bond_dim: int, outputs: int) -> "TreeShape":
        """The shape of a nested sequence of leaf numbers.

        Raises:
            InputError: it does not hold every leaf once, or a node has no children.

        Example:
            >>> TreeShape.of(((1, 0), 2), 3, 2, 4, 1).children
            ((1, 0), (3, 2))
        """
        children: list[tuple[int, ...]] = []
        leaves: list[int] = []

        def number(part: Nested) -> int:
            if isinstance(part, int):
                leaves.append(part)
                return part
            own = tuple(number(each) for each in part)
            if not own:
                raise InputError("every node of a tree needs children, got an empty one")
            children.append(own)
            return n_leaves + len(children) - 1

        number((tree,) if isinstance(tree, int) else tree)
        if sorted(leaves) != list(range(n_leaves)):
            raise InputError(f"a tree must hold each leaf 0..{n_leaves - 1} once, got {len(leaves)} leaves")
        return TreeShape(tuple(children), n_leaves, physical, bond_dim, outputs)

    def inner(self, node: int) -> tuple[int, ...]:
        """The dimensions of a node's children.

        Example:
            >>> TreeShape.of(((0, 1), 2), 3, 2, 4, 1).inner(1)
            (4, 2)
        """
        return tuple(
            self.physical if child < self.n_leaves else self.bonds[child - self.n_leaves]
            for child in self.children[node]
        )


def _batched(shape: TreeShape, sizes: Sequence[int], heights: Sequence[int]) -> Iterator[TreeBatch]:
    """Nodes by height and sizes; every batch reads only batches before it."""
    leaves = shape.n_leaves
    groups: dict[tuple[int, tuple[int, ...], int], list[int]] = {}
    for node in range(len(shape.children)):
        key = heights[leaves + node], shape.inner(node), sizes[leaves + node]
        groups.setdefault(key, []).append(node)
    where = {leaf: (0, leaf) for leaf in range(leaves)}
    counts = [leaves]
    for number, key in enumerate(sorted(groups, key=lambda key: key[0])):
        nodes = groups[key]
        sources = []
        for child in range(len(key[1])):
            found = [where[shape.children[node][child]] for node in nodes]
            used = sorted({batch for batch, _ in found})
            first = {batch: sum(counts[b] for b in used[:i]) for i, batch in enumerate(used)}
            sources.append(Source(tuple(used), tuple(first[batch] + place for batch, place in found)))
        where |= {leaves + node: (number + 1, place) for place, node in enumerate(nodes)}
        counts.append(len(nodes))
        last = nodes[-1] + 1 == len(shape.children)
        yield TreeBatch(tuple(nodes), tuple(sources), key[1], key[2], key[0] % 2 == 0 or last)


def tree_outputs(features: Tensor, weights: Sequence[Tensor], shape: TreeShape) -> tuple[Tensor, Tensor]:
    """`value [b, c]` and `exponent [b]` of a tree; the outputs are `value * 2^exponent`.

    Args:
        features: `[b, n, d]`.
        weights: of every batch `[k, (l1 l2 ..), o]`, k its nodes.
        shape: the tree.

    Cost: `k l1 l2 .. o` multiply-adds a sample for every batch; memory `k l1 l2 ..` numbers a sample.

    Source: Shi, Duan and Vidal, quant-ph/0511070 (trees of tensors); the batches and scales are our own.

    Example:
        >>> shape = TreeShape.of((0, 1), 2, 2, 3, 1)
        >>> value, exponent = tree_outputs(torch.ones(5, 2, 2), [torch.ones(1, 4, 1)], shape)
        >>> value[0] * torch.exp2(exponent[0])
        tensor([4.])
    """
    # The samples lie along the last axis of all vectors [k, l, b], where elementwise products are fast.
    levels = [features.permute(1, 2, 0).contiguous()]
    exponent = torch.zeros_like(features[:, 0, 0].real)
    for batch, weight in zip(shape.batches, weights, strict=True):
        children = [_taken(levels, source) for source in batch.sources]
        product = children[0]
        for child in children[1:]:
            product = (product.unsqueeze(2) * child.unsqueeze(1)).flatten(1, 2)
        found = torch.bmm(weight.mT, product)
        if batch.rescaled:
            power = power_of_two(found.mT)
            found = found * torch.exp2(-power).unsqueeze(1).to(found.dtype)
            exponent = exponent + power.sum(0)
        levels.append(found)
    return levels[-1][0].T, exponent


def _taken(levels: Sequence[Tensor], source: Source) -> Tensor:
    """The vectors `[k, l, b]` that a source names."""
    parts = [levels[batch] for batch in source.batches]
    found = parts[0] if len(parts) == 1 else torch.cat(parts)
    places = source.places
    step = places[1] - places[0] if len(places) > 1 else 1
    if step > 0 and places == tuple(range(places[0], places[-1] + 1, step)):
        return found[places[0] : places[-1] + 1 : step]
    return found.index_select(0, torch.tensor(places, device=found.device))
