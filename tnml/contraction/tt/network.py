"""The product with a tensor-train matrix as a small network, contracted pair by pair in any order."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.contraction.einsum import find_path
from tnml.contraction.tt.shape import TTShape


class Pair(NamedTuple):
    """One contraction: which operands leave the list (the result is appended), and the einsum they take."""

    positions: tuple[int, int]
    expression: str


def _terms(shape: TTShape) -> tuple[list[str], str]:
    """Indices of the batch and the cores, and those of the result; b is the batch."""
    count = shape.n_cores
    names = iter("acdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    ins, outs, ranks = ([next(names) for _ in range(size)] for size in (count, count, count + 1))
    cores = [ranks[k] + outs[k] + ins[k] + ranks[k + 1] for k in range(count)]
    return ["b" + "".join(ins), *cores], "b" + "".join(outs) + ranks[0] + ranks[-1]


@functools.lru_cache(maxsize=1024)
def contraction_order(shape: TTShape, batch: int, name: str) -> tuple[Pair, ...]:
    """The pairs of "middle" (its middle core first, then those to its right, then to its left) or "path".

    Example:
        >>> shape = TTShape((2, 2, 2), (2, 2, 2), (1, 2, 2, 1))
        >>> [pair.positions for pair in contraction_order(shape, 5, "middle")]
        [(0, 2), (2, 1), (1, 0)]
    """
    terms, output = _terms(shape)
    if name == "path":
        sizes = [(batch, *shape.ins), *_core_sizes(shape)]
        steps = find_path(f"{','.join(terms)}->{output}", tuple(sizes), None, "auto").steps
        order = [tuple(step.positions) for step in steps]
    else:
        middle = shape.n_cores // 2
        cores = [*range(middle, shape.n_cores), *reversed(range(middle))]
        order = []
        left = list(range(shape.n_cores + 1))  # of the operands: 0 the batch, then the cores, then results
        state = 0
        for core in cores:
            order.append((left.index(state), left.index(core + 1)))
            state = -1 - core
            left = [operand for place, operand in enumerate(left) if place not in order[-1]] + [state]
    return tuple(_pairs(terms, output, order))


def _pairs(terms: Sequence[str], output: str, order: Sequence[tuple[int, ...]]) -> Iterator[Pair]:
    operands = list(terms)
    for first, second in order:
        one, other = operands[first], operands[second]
        operands = [term for place, term in enumerate(operands) if place not in (first, second)]
        needed = set(output).union(*operands)
        result = "".join(index for index in dict.fromkeys(one + other) if index in needed)
        if not operands:
            result = output
        operands.append(result)
        yield Pair((first, second), f"{one},{other}->{result}")


def _core_sizes(shape: TTShape) -> list[tuple[int, ...]]:
    return list(zip(shape.ranks, shape.outs, shape.ins, shape.ranks[1:], strict=False))


def contract_in_order(x: Tensor, cores: Sequence[Tensor], order: Sequence[Pair]) -> Tensor:
    """The outputs `[b, o]` of inputs `[b, i]`; torch.einsum is differentiated in every way.

    Example:
        >>> cores = [torch.ones(1, 2, 3, 4), torch.ones(4, 2, 2, 1)]
        >>> order = contraction_order(TTShape.of_cores(cores), 5, "path")
        >>> contract_in_order(torch.ones(5, 6), cores, order)[0]
        tensor([24., 24., 24., 24.])
    """
    operands = [x.reshape(x.shape[0], *(core.shape[2] for core in cores)), *cores]
    for (first, second), expression in order:
        made = torch.einsum(expression, operands[first], operands[second])
        for place in sorted((first, second), reverse=True):
            del operands[place]
        operands.append(made)
    return operands[0].flatten(1)


def products(shape: TTShape, batch: int, order: Sequence[Pair]) -> Iterator[tuple[int, int, int]]:
    """Rows, summed and columns of the matrix product that each pair is.

    Example:
        >>> shape = TTShape((3, 2), (2, 2), (1, 4, 1))
        >>> sum(2 * math.prod(sizes) for sizes in products(shape, 5, contraction_order(shape, 5, "path"))) > 0
        True
    """
    terms, _ = _terms(shape)
    sizes = {"b": batch}
    for term, numbers in zip(terms[1:], _core_sizes(shape), strict=True):
        sizes.update(zip(term, numbers, strict=True))
    for _, expression in order:
        inputs = expression.partition("->")[0]
        one, _, other = inputs.partition(",")
        summed = set(one).intersection(other)
        yield (
            math.prod(sizes[index] for index in one if index not in summed),
            math.prod(sizes[index] for index in summed),
            math.prod(sizes[index] for index in other if index not in summed),
        )
