"""What each way to multiply a batch by a tensor-train matrix costs: operations, bytes and calls."""

import itertools
import math
from dataclasses import dataclass, replace

from tnml.contraction.tt.core_by_core import copies_are_smaller, walk_steps
from tnml.contraction.tt.network import Pair, contraction_order, products
from tnml.contraction.tt.rates import Rates
from tnml.contraction.tt.shape import TTShape

NETWORKS = ("middle", "path")
LARGE = 32 * 2**20  # bytes beyond which the system hands out fresh memory at every allocation


@dataclass(frozen=True)
class Plan:
    """One way to compute `x W^T`, with its estimated cost; `tt_plans` makes them.

    Attributes:
        name: "dense" rebuilds W and multiplies once; "slices" rebuilds it in slices that stay in the cache;
            "left", "right" and "middle" carry the batch from core to core, beginning there; "path" takes the
            order that opt_einsum finds.
        groups: lengths of the runs of neighbouring cores that are multiplied together first.
        chunk: samples (of "slices": slices) at a time.
        keep: whether intermediates are kept for the backward pass; else they are recomputed.
        flops: operations of a call, of forward and backward pass where gradients are wanted.
        memory: bytes beyond the inputs and the parameters.
        seconds: estimated time.
        order: of the contractions of "middle" and "path".

    Example:
        >>> print(Plan("dense", (2,), 100, True, 2_000_000, 4_000_000, 1e-3))
        dense   cores 2          chunks of 100    kept              2.0 MFLOP      4.0 MB     1.000 ms
    """

    name: str
    groups: tuple[int, ...]
    chunk: int
    keep: bool
    flops: int
    memory: int
    seconds: float
    order: tuple[Pair, ...] = ()

    def __str__(self) -> str:
        """For human readers: name, groups and the estimates."""
        groups = "+".join(map(str, self.groups))
        kept = "kept" if self.keep else "recomputed"
        return (
            f"{self.name:7} cores {groups:10} chunks of {self.chunk:<6} {kept:10} {self.flops / 1e6:10.1f} "
            f"MFLOP {self.memory / 1e6:8.1f} MB {1e3 * self.seconds:9.3f} ms"
        )


class Bill:
    """Adds up what a plan costs."""

    def __init__(self, rates: Rates, itemsize: int) -> None:
        self.rates, self.itemsize = rates, itemsize
        self.flops, self.seconds = 0, 0.0

    def product(self, count: int, rows: int, inner: int, columns: int, times: float = 1) -> None:
        """`times` of `count` products `(rows, inner) @ (inner, columns)`."""
        self.flops += int(2 * times * count * rows * inner * columns)
        self.seconds += times * self.rates.product(count, rows, inner, columns, self.itemsize)

    def copy(self, elements: int, times: float = 1) -> None:
        """`times` of a copy of that many numbers."""
        self.seconds += times * self.rates.copy(elements, self.itemsize)

    def fresh(self, elements: int, times: float = 1) -> None:
        """Large tensors that are newly allocated."""
        size = elements * self.itemsize
        if size >= LARGE:
            self.seconds += times * size * self.rates.fresh

    def calls(self, number: float) -> None:
        """Calls that do next to nothing."""
        self.seconds += number * self.rates.call

    def plan(self, name: str, groups: tuple[int, ...], chunk: int, keep: bool, elements: float) -> Plan:
        """The plan with what has been added up, and the numbers that it keeps in memory."""
        return Plan(name, groups, chunk, keep, self.flops, int(elements * self.itemsize), self.seconds)


def merged(shape: TTShape, groups: tuple[int, ...]) -> TTShape:
    """The shape after neighbouring cores are multiplied together in runs of these lengths.

    Example:
        >>> merged(TTShape((2, 3, 5), (7, 2, 2), (1, 4, 6, 1)), (2, 1))
        TTShape(ins=(6, 5), outs=(14, 2), ranks=(1, 6, 1))
    """
    ends = tuple(itertools.accumulate(groups, initial=0))
    runs = tuple(itertools.pairwise(ends))
    return TTShape(
        tuple(math.prod(shape.ins[a:b]) for a, b in runs),
        tuple(math.prod(shape.outs[a:b]) for a, b in runs),
        tuple(shape.ranks[end] for end in ends),
    )


def _merging(bill: Bill, shape: TTShape, groups: tuple[int, ...], gradient: bool) -> None:
    """What it costs to multiply the cores of each group together, and to bring the gradients back."""
    first = 0
    for length in groups:
        for k in range(first + 1, first + length):
            done = math.prod(shape.ins[first:k]) * math.prod(shape.outs[first:k])
            left, rank, right = shape.ranks[first], shape.ranks[k], shape.ranks[k + 1]
            more = shape.ins[k] * shape.outs[k] * right
            bill.product(1, left * done, rank, more, 3 if gradient else 1)
            bill.copy(left * done * more, 2 if gradient else 1)
            bill.fresh(left * done * more, 4 if gradient else 2)
        first += length


def dense_cost(bill: Bill, shape: TTShape, batch: int, gradient: bool) -> Plan:
    """Building W, and one product with it."""
    weights = shape.in_size * shape.out_size
    groups = (shape.n_cores,)
    _merging(bill, shape, groups, gradient)
    bill.product(1, batch, shape.in_size, shape.out_size)
    if gradient:
        bill.product(1, batch, shape.out_size, shape.in_size)
        bill.product(1, shape.out_size, batch, shape.in_size)
    copies = 1 + (gradient or shape.n_cores > 1)  # W and its gradient, or either and its permuted copy
    return bill.plan("dense", groups, batch, True, copies * weights)


def slices_cost(
    bill: Bill,
    shape: TTShape,
    groups: tuple[int, ...],
    keep: bool,
    batch: int,
    gradient: bool,
    cached: int,
) -> Plan:
    """`groups` holds two numbers: cores in A and cores in S; `cached` is the size of some slices in bytes."""
    pair = merged(shape, groups)
    (i1, i2), (o1, o2), rank = pair.ins, pair.outs, pair.ranks[1]
    _merging(bill, shape, groups, gradient)
    slice_size = o1 * i1 * i2
    block = max(1, min(o2, cached // (slice_size * bill.itemsize)))
    blocks = math.ceil(o2 / block)
    built = 1 + (gradient and not keep)
    bill.product(block, o1 * i1, rank, i2, built * blocks)
    bill.product(1, batch, shape.in_size, block * o1, blocks)
    if gradient:
        bill.product(1, batch, block * o1, shape.in_size, blocks)
        bill.product(1, block * o1, batch, shape.in_size, blocks)
        bill.product(block, rank, o1 * i1, i2, blocks)
        bill.product(block, o1 * i1, i2, rank, blocks)
        bill.copy(block * o1 * i1 * rank, blocks)
    bill.calls(blocks * (4 + 6 * gradient))
    bill.copy(batch * shape.out_size, 1 + gradient)
    halves = (1 + gradient) * (o2 * rank * i2 + o1 * i1 * rank)
    kept = o2 if keep and gradient else block
    bill.fresh(kept * slice_size)
    working = (kept + gradient * block) * slice_size + gradient * block * o1 * i1 * rank
    return bill.plan("slices", groups, block, keep, working + halves + batch * shape.out_size)


def walk_cost(
    bill: Bill,
    shape: TTShape,
    groups: tuple[int, ...],
    name: str,
    keep: bool,
    batch: int,
    gradient: bool,
    cached: int,
) -> Plan:
    """`cached`: bytes that the largest intermediate of a chunk may take."""
    _merging(bill, shape, groups, gradient)
    steps = walk_steps(merged(shape, groups), left=name == "left")
    largest = max(n * max(p, a) * c for n, p, a, c in steps)
    chunk = min(batch, max(1, cached // (largest * bill.itemsize)))
    chunk = math.ceil(batch / math.ceil(batch / chunk))  # of equal size
    parts = math.ceil(batch / chunk)
    working = 0
    for number, (n, p, a, c) in enumerate(steps):
        count = n * chunk
        passes = 1 + (gradient and not keep and number < len(steps) - 1)
        if c == 1:
            bill.product(1, count, a, p, passes * parts)
        else:
            bill.product(count, p, a, c, passes * parts)
        aside = 0
        if gradient and c == 1:
            bill.product(1, count, p, a, parts)
            bill.product(1, p, count, a, parts)
        elif gradient:
            bill.product(count, a, p, c, parts)
            copied = copies_are_smaller(count, p, a, c)
            aside = count * (c * (p + a) if copied else p * a)
            bill.copy(aside, parts)
            if copied:
                bill.product(1, p, count * c, a, parts)
            else:
                bill.product(count, p, c, a, parts)
        bill.calls(parts * (3 + 8 * gradient))
        working = max(working, count * p * c + max(count * a * c, aside))
    if name == "left":
        bill.copy(sum(p * a for _, p, a, _ in steps), 1 + gradient)  # the order of a core's indices
    states = sum(n * a * c for n, _, a, c in steps[1:]) if gradient else 0
    cores = (2 + gradient) * (_merged_size(shape, groups) if len(groups) < shape.n_cores else 0)
    return bill.plan(name, groups, chunk, keep, working + cores + states * (batch if keep else chunk))


def _merged_size(shape: TTShape, groups: tuple[int, ...]) -> int:
    """Weights of the cores that are products of several."""
    pair = merged(shape, groups)
    sizes = zip(groups, pair.ranks, pair.outs, pair.ins, pair.ranks[1:], strict=False)
    return sum(left * o * i * right for length, left, o, i, right in sizes if length > 1)


def network_cost(bill: Bill, shape: TTShape, name: str, batch: int, gradient: bool) -> Plan:
    """Pair by pair: every pair permutes its operands, and autograd keeps what it makes."""
    made = largest = 0
    order = contraction_order(shape, batch, name)
    for rows, inner, columns in products(shape, batch, order):
        bill.product(1, rows, inner, columns, 3 if gradient else 1)
        bill.copy(rows * inner + inner * columns + rows * columns, 3 if gradient else 1)
        bill.calls(10 if gradient else 5)
        made += rows * columns
        largest = max(largest, rows * columns)
    bill.fresh(made, 3 if gradient else 1)
    memory = made - batch * shape.out_size + largest if gradient else 2 * largest
    return replace(bill.plan(name, (1,) * shape.n_cores, batch, True, memory), order=order)
