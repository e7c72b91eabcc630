"""Starting weights of a tree: a path that every sample keeps its size on, and what adds up along it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tnml.contraction.tree import TreeShape


def starting_nodes(
    shape: TreeShape,
    path: Tensor,
    squares: Tensor,
    noise: float | None,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> list[Tensor]:
    """Weights of every batch `[k, (l1 l2 ..), o]`.

    The first component of every node is the product of the first ones of its children, so it is 1 for all
    inputs if the path is preserved; the others are the sums of those of its children; and everything has
    Gaussian noise. So what a leaf says reaches the root from any depth, with its size.

    Args:
        shape: the tree.
        path: weights `[n, d]` with which the features of each leaf give 1.
        squares: `[n]`, the mean square norm of the features of each leaf.
        noise: its standard deviation; None takes 0.25 over the root of the number of nodes and of the mean
            square norms.
        dtype: floating or complex dtype.
        generator: CPU generator.

    Example:
        >>> shape = TreeShape.of((0, 1), 2, 2, 2, 1)
        >>> ones = torch.ones(2, 2)
        >>> starting_nodes(shape, ones, ones[:, 0], 0.0, torch.float32, torch.Generator())[0].shape
        torch.Size([1, 4, 1])
    """
    found = []
    for batch in shape.batches:
        sizes = len(batch.nodes), math.prod(batch.inner), batch.outer
        drawn = torch.randn(sizes, generator=generator, dtype=torch.float64)
        if dtype.is_complex:
            imaginary = torch.randn(sizes, generator=generator, dtype=torch.float64)
            drawn = torch.complex(drawn, imaginary) / math.sqrt(2)
        for place, node in enumerate(batch.nodes):
            children = shape.children[node]
            each = [squares[child].item() if child < shape.n_leaves else 1.0 for child in children]
            usual = 0.25 / math.sqrt(len(shape.children) * max(math.prod(each), 1e-6))
            drawn[place] *= usual if noise is None else noise
            clean = _clean(shape, node, path, generator)
            drawn[place] += clean.to(drawn.dtype)
        found.append(drawn.to(dtype))
    return found


def _clean(shape: TreeShape, node: int, path: Tensor, generator: torch.Generator) -> Tensor:
    """The weights `[(l1 l2 ..), o]` of a node without noise."""
    children, inner = shape.children[node], shape.inner(node)
    outer, root = shape.bonds[node], node + 1 == len(shape.children)
    firsts = [
        path[child].double() if child < shape.n_leaves else _unit(size, 0)
        for child, size in zip(children, inner, strict=True)
    ]
    kept = torch.randn(1, outer, generator=generator, dtype=torch.float64) if root else _unit(outer, 0)[None]
    found = torch.outer(_product(firsts), kept[0])
    for place, child in enumerate(children):
        if child < shape.n_leaves:
            continue
        size = inner[place]
        if root:
            passed = torch.randn(size, outer, generator=generator, dtype=torch.float64) / math.sqrt(size)
        else:
            passed = torch.eye(size, outer, dtype=torch.float64)
        passed[0] = 0
        before, after = _product(firsts[:place]), _product(firsts[place + 1 :])
        found += torch.kron(torch.kron(before[:, None], passed), after[:, None])
    return found


def _product(vectors: Sequence[Tensor]) -> Tensor:
    found = torch.ones(1, dtype=torch.float64)
    for vector in vectors:
        found = torch.outer(found, vector).flatten()
    return found


def _unit(size: int, place: int) -> Tensor:
    vector = torch.zeros(size, dtype=torch.float64)
    vector[place] = 1
    return vector
