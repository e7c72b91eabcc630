"""The `native` engine: float32 on the CPU, loops compiled by numba around LLVM register tiles.

Its threads are those of PyTorch's own OpenMP pool, so they do not compete with PyTorch's operators for cores;
where that pool cannot be found (macOS, Windows) two Python threads take one half of the chain each.
"""

import ctypes
import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tnml.contraction.chain import slots, tiles
from tnml.contraction.chain.fork import FORKED
from tnml.contraction.chain.pool import POOL
from tnml.contraction.chain.reference import RESCALE_EVERY
from tnml.contraction.chain.shape import ChainShape
from tnml.contraction.chain.workers import Worker, worker

CHUNK = 16  # rows between two barriers
ALONE = 5e4  # operations of a pass that one thread has done before a second one is awake
FORWARD, BACKWARD = worker("forward_worker"), worker("backward_worker")
Vector = ctypes.c_int64 * slots.N_SLOTS


class Sizes(NamedTuple):
    """Sizes of the buffers that one batch needs; the first three lie one after the other in its state."""

    packed: int
    saved: int
    factors: int
    vectors: int
    columns: int

    @staticmethod
    def of(shape: ChainShape, batch: int, keep: int) -> "Sizes":
        """Buffers of a batch, which may be symbolic; `keep` as in `forward`."""
        lanes = tiles.machine().lanes
        vectors = -(-batch // lanes)
        columns = vectors * lanes
        numbers = shape.n_bond_indices if keep else 4 * shape.widest
        packed = shape.n_sites * shape.physical * columns
        factors = (shape.n_sites if keep > 1 else 1) * columns
        return Sizes(packed, numbers * columns, factors, vectors, columns)

    @property
    def state(self) -> int:
        """Numbers that the backward pass needs of the forward pass."""
        return self.packed + self.saved + self.factors


@functools.lru_cache(maxsize=64)
def _table(shape: ChainShape) -> np.ndarray:
    """The driver's table of rows, in the order of processing."""
    table = np.zeros((max(1, shape.n_sites), slots.N_COLUMNS), dtype=np.int64)
    label, offset = shape.label_site, 0
    order = list(range(label)) + list(range(shape.n_sites - 1, label - 1, -1))
    for row, site in enumerate(order):
        left, right = shape.bonds[site]
        k, j, of_k, of_j = (left, right, 4 * right, 4) if site < label else (right, left, 4, 4 * right)
        if row == label:
            offset += shape.left[-1] if label else 0
        table[row, : slots.N_COLUMNS] = (
            4 * shape.offsets[site], k, j, of_k, of_j, 4 * left * right, site, offset, offset + k,
        )  # fmt: skip
        offset += k
    return table


@functools.lru_cache(maxsize=64)
def _kernels(shape: ChainShape, vectors: int, backward: bool, features: bool) -> tuple[np.ndarray, ...]:
    """Tables of kernel addresses, with every kernel that this shape and batch can need compiled."""
    machine = tiles.machine()
    groups = set(range(1, min(machine.max_vectors, vectors) + 1))
    expands = np.zeros(machine.max_vectors + 1, dtype=np.int64)
    tile_table = np.zeros((machine.max_vectors + 1, slots.TILE_COLUMNS), dtype=np.int64)
    gradients = np.zeros((5, 5), dtype=np.int64)
    dimensions = {bond for pair in shape.bonds for bond in pair}
    for n in groups:
        expands[n] = tiles.expand(n)
        most = machine.accumulators // n
        for outputs in dimensions:
            blocks = -(-outputs // most)
            for size in {outputs // blocks, -(-outputs // blocks)}:
                tile_table[n, size] = tiles.tile(size, n)
    if backward:
        heights = {size for dimension in dimensions for size in _gradient_sizes(dimension)}
        for rows in heights:
            for columns in heights:
                gradients[rows, columns] = tiles.gradient(rows, columns)
    pullback = np.array([tiles.pullback() if features else 0])
    return expands, tile_table, gradients, np.array([tiles.rescale()]), pullback


def _gradient_sizes(dimension: int) -> set[int]:
    """Heights of the gradient tiles that cover a dimension: of similar size, at most 4."""
    sizes, left = set(), dimension
    while left:
        groups = -(-left // 4)
        size = -(-left // groups)
        sizes.add(size)
        left -= size
    return sizes


@functools.lru_cache(maxsize=64)
def _partition(shape: ChainShape, vectors: int, threads: int) -> np.ndarray:
    """Lane vectors `[left first, left last, right first, right last)` of each thread, by cost."""
    label = shape.label_site
    costs = sum(shape.sizes[:label]), sum(shape.sizes[label:])
    marks = [vectors * sum(costs) * thread / threads for thread in range(threads + 1)]
    cuts = []
    for mark in marks:
        left = round(mark / costs[0]) if costs[0] else vectors
        right = round((mark - vectors * costs[0]) / costs[1]) if costs[1] else vectors
        cuts.append((min(vectors, left), min(vectors, max(0, right))))
    if not costs[0]:
        cuts = [(0, right) for _, right in cuts]
    cuts[0], cuts[-1] = (0, 0), (vectors, vectors)
    rows = [(a, b, c, d) for (a, c), (b, d) in itertools.pairwise(cuts)]
    return np.array(rows, dtype=np.int64)


def _balanced(shape: ChainShape) -> bool:
    """Whether both halves cost about the same, so that two threads can take one each."""
    left, total = sum(shape.sizes[: shape.label_site]), max(1, shape.n_weights)
    return 0.42 <= left / total <= 0.58


@functools.cache
def _openmp() -> ctypes.CDLL | None:
    """PyTorch's own OpenMP library (GNU), or None."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        library = ctypes.CDLL(str(path))
        library.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        library.GOMP_parallel.restype = None
        return library
    return None


@functools.cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="tnml-native")


def _threads(shape: ChainShape, batch: int) -> int:
    """Threads to use: PyTorch's setting; one after a fork and for little work; two at most without OpenMP."""
    if batch * shape.flops_forward < ALONE or FORKED.is_set():
        return 1
    wanted = torch.get_num_threads()
    return wanted if _openmp() is not None else min(2, wanted)


def launch(of: Worker, q: "ctypes.Array[ctypes.c_int64]", threads: int) -> None:
    """Runs a worker on every thread and waits; its vector says how many threads there are, too."""
    if threads == 1:
        q[slots.THREAD] = 0
        of.call(q)
        return
    library = _openmp()
    if library is not None:
        q[slots.THREAD] = -1
        q[slots.THREAD_NUMBER] = ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p).value or 0
        q[slots.TEAM_SIZE] = ctypes.cast(library.omp_get_num_threads, ctypes.c_void_p).value or 0
        q[slots.BARRIER] = ctypes.cast(library.GOMP_barrier, ctypes.c_void_p).value or 0
        library.GOMP_parallel(of.address, ctypes.addressof(q), threads, 0)
    else:
        copies = [Vector.from_buffer_copy(q) for _ in range(threads)]
        for thread, copy in enumerate(copies):
            copy[slots.THREAD] = thread
        list(_executor().map(of.call, copies))


class Plan(NamedTuple):
    """What is the same in every pass over batches of one size.

    Attributes:
        sizes: of the buffers.
        scratch: numbers of working memory, of all threads and for the adjoints.
        shared: of those, how many come before the adjoints.
        rescales: whether exponents can be other than 0.
        start: the parameter vector, all but the addresses that change.
        alive: tables that the vector points to.
    """

    sizes: Sizes
    scratch: int
    shared: int
    rescales: bool
    start: "ctypes.Array[ctypes.c_int64]"
    alive: tuple[np.ndarray, ...]


@functools.lru_cache(maxsize=256)
def plan(shape: ChainShape, batch: int, keep: int, threads: int, backward: bool, barriers: bool) -> Plan:
    """The plan of a forward pass that keeps what `forward` says, or of a backward pass after it.

    `barriers` says whether threads can wait for one another.
    """
    machine, sizes, d = tiles.machine(), Sizes.of(shape, batch, keep), shape.physical
    kernels = _kernels(shape, sizes.vectors, backward, backward and keep > 1)
    expands, tile_table, gradients, rescale, pullback = kernels
    table, partition = _table(shape), _partition(shape, sizes.vectors, threads)
    inputs = max(d * min(sizes.vectors, slots.GRADIENT_VECTORS), (d + 1) * machine.max_vectors)
    stride = machine.lanes * shape.widest * inputs
    shared = threads * stride + 64
    alone = threads == 1 or (threads == 2 and (_balanced(shape) or not barriers))
    chunk = 1 if alone else CHUNK
    adjoints = 2 * (chunk + 1) * shape.widest * sizes.columns if backward else 0
    q = Vector()
    for slot, value in (
        (slots.THREADS, threads), (slots.ROWS_LEFT, shape.label_site), (slots.ROWS, shape.n_sites),
        (slots.D, d), (slots.VECTORS, sizes.vectors), (slots.LANES, machine.lanes), (slots.BATCH, batch),
        (slots.TABLE, table.ctypes.data), (slots.KEEP, int(keep > 0)), (slots.WIDEST, shape.widest),
        (slots.FACTORS_STRIDE, 4 * sizes.columns * int(keep > 1)), (slots.SCRATCH_STRIDE, 4 * stride),
        (slots.PARTITION, partition.ctypes.data), (slots.MAX_VECTORS, machine.max_vectors),
        (slots.ACCUMULATORS, machine.accumulators), (slots.EXPANDS, expands.ctypes.data),
        (slots.TILES, tile_table.ctypes.data), (slots.GRADIENTS, gradients.ctypes.data),
        (slots.RESCALE, int(rescale[0])), (slots.PULLBACK, int(pullback[0])), (slots.CHUNK, chunk),
    ):  # fmt: skip
        q[slot] = value
    longest = max(shape.label_site, shape.n_sites - shape.label_site)
    alive = (table, partition, *kernels)
    return Plan(sizes, shared + adjoints, shared, longest > RESCALE_EVERY, q, alive)


def vector(
    of: Plan, features: Tensor, weight: Tensor, state: Tensor, scratch: Tensor
) -> "ctypes.Array[ctypes.c_int64]":
    """The parameter vector of one pass."""
    q, sizes = Vector.from_buffer_copy(of.start), of.sizes
    of_b, of_n, of_d = features.stride()
    packed = state.data_ptr()
    q[slots.FEATURES], q[slots.WEIGHT] = features.data_ptr(), weight.data_ptr()
    q[slots.FEATURES_B], q[slots.FEATURES_N], q[slots.FEATURES_D] = 4 * of_b, 4 * of_n, 4 * of_d
    q[slots.PACKED], q[slots.SAVED] = packed, packed + 4 * sizes.packed
    q[slots.FACTORS] = packed + 4 * (sizes.packed + sizes.saved)
    q[slots.SCRATCH] = scratch.data_ptr()
    return q


def forward(features: Tensor, weight: Tensor, shape: ChainShape, keep: int) -> tuple[Tensor, ...]:
    """`left [b, l]`, `right [b, r]`, `exponent [2, b]`, and what the backward pass needs, in one tensor.

    Args:
        features: `[b, n, d]`, float32 on the CPU, any strides.
        weight: flat contiguous weights.
        shape: bonds and label site.
        keep: 0 for no backward pass, 1 for one to the weights, 2 for one to the features too.
    """
    batch = features.shape[0]
    left, right = features.new_ones(batch, shape.left[-1]), features.new_ones(batch, shape.right[0])
    if not batch:
        return left, right, features.new_zeros(2, 0), features.new_empty(0)
    threads = _threads(shape, batch)
    found = plan(shape, batch, keep, threads, False, _openmp() is not None)
    sizes, exponents = found.sizes, None
    state, scratch = POOL.take(sizes.state), POOL.take(found.scratch)
    q = vector(found, features, weight, state, scratch)
    if keep > 1:
        state[sizes.packed + sizes.saved :].fill_(1.0)
    if found.rescales:
        exponents = features.new_zeros(2, sizes.columns, dtype=torch.int32)
        q[slots.EXPONENTS] = exponents.data_ptr()
    q[slots.LEFT], q[slots.RIGHT] = left.data_ptr(), right.data_ptr()
    launch(FORWARD, q, threads)
    exponent = features.new_zeros(2, batch) if exponents is None else exponents[:, :batch].float()
    return left, right, exponent, state


def backward(
    grad_left: Tensor,
    grad_right: Tensor,
    features: Tensor,
    weight: Tensor,
    shape: ChainShape,
    state: Tensor,
    want_features: bool,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the weights and, if wanted, of the features; `state` is what `forward` kept."""
    batch = features.shape[0]
    gradient = POOL.take(shape.n_weights)
    if not batch:
        return gradient.zero_(), torch.zeros_like(features) if want_features else None
    threads = _threads(shape, batch)
    keep = 2 if want_features else 1
    found = plan(shape, batch, keep, threads, True, _openmp() is not None)
    scratch = POOL.take(found.scratch)
    q = vector(found, features, weight, state, scratch)
    per_site = POOL.take(found.sizes.packed) if want_features else None
    grad_left, grad_right = grad_left.contiguous(), grad_right.contiguous()
    q[slots.LEFT], q[slots.RIGHT] = grad_left.data_ptr(), grad_right.data_ptr()
    q[slots.GRADIENT] = gradient.data_ptr()
    q[slots.ADJOINTS] = scratch.data_ptr() + 4 * found.shared
    if per_site is None:
        launch(BACKWARD, q, threads)
        return gradient, None
    q[slots.FEATURE_GRADIENT] = per_site.data_ptr()
    launch(BACKWARD, q, threads)
    factors = state[found.sizes.packed + found.sizes.saved :]
    return gradient, _features_gradient(per_site, factors, shape, batch, found.sizes.columns)


def _features_gradient(
    per_site: Tensor, factors: Tensor, shape: ChainShape, batch: int, columns: int
) -> Tensor:
    """Rows in processing order back to sites `[b, n, d]`, with the rescaling undone."""
    rows = per_site.view(shape.n_sites, shape.physical, columns) * factors.view(shape.n_sites, 1, columns)
    label = shape.label_site
    sites = torch.cat([rows[:label], rows[label:].flip(0)])
    return sites[:, :, :batch].permute(2, 0, 1).contiguous()
