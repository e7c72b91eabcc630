"""The `native` engine: float32 on the CPU, numba loops around LLVM register tiles.

Its threads are those of PyTorch's own OpenMP pool, so they do not compete with PyTorch's operators for cores;
where that pool cannot be found (macOS, Windows) two Python threads take one half of the chain each.
"""

import ctypes
import functools
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tnml.contraction.chain import driver, tiles
from tnml.contraction.chain.fork import FORKED
from tnml.contraction.chain.pool import POOL
from tnml.contraction.chain.shape import ChainShape

CHUNK = 16  # rows between two barriers


class Sizes(NamedTuple):
    """Sizes of the buffers that one batch needs."""

    vectors: int
    columns: int
    saved: int
    packed: int
    factors: int

    @staticmethod
    def of(shape: ChainShape, batch: int, keep: int) -> "Sizes":
        """Buffers of a batch, which may be symbolic; `keep` as in `forward`."""
        lanes = tiles.machine().lanes
        vectors = -(-batch // lanes)
        columns = vectors * lanes
        numbers = shape.n_bond_indices if keep else 4 * shape.widest
        packed = shape.n_sites * shape.physical * columns
        return Sizes(
            vectors, columns, numbers * columns, packed, (shape.n_sites if keep > 1 else 1) * columns
        )


@functools.lru_cache(maxsize=64)
def _table(shape: ChainShape) -> np.ndarray:
    """The driver's table of rows, in the order of processing."""
    table = np.zeros((max(1, shape.n_sites), driver.N_COLUMNS), dtype=np.int64)
    label, offset = shape.label_site, 0
    order = list(range(label)) + list(range(shape.n_sites - 1, label - 1, -1))
    for row, site in enumerate(order):
        left, right = shape.bonds[site]
        k, j, of_k, of_j = (left, right, 4 * right, 4) if site < label else (right, left, 4, 4 * right)
        if row == label:
            offset += shape.left[-1] if label else 0
        table[row, : driver.N_COLUMNS] = (
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
    tile_table = np.zeros((machine.max_vectors + 1, driver.TILE_COLUMNS), dtype=np.int64)
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


def _threads() -> int:
    """Threads to use: PyTorch's setting; one after a fork; two at most without OpenMP."""
    if FORKED.is_set():
        return 1
    wanted = torch.get_num_threads()
    return wanted if _openmp() is not None else min(2, wanted)


def _launch(worker: Any, parameters: np.ndarray, threads: int) -> None:
    """Runs a worker on every thread and waits."""
    library = _openmp()
    if threads == 1:
        parameters[driver.THREAD] = 0
        worker.ctypes(parameters.ctypes.data_as(ctypes.POINTER(ctypes.c_int64)))
    elif library is not None:
        parameters[driver.THREAD] = -1
        parameters[driver.THREAD_NUMBER] = ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p).value
        parameters[driver.TEAM_SIZE] = ctypes.cast(library.omp_get_num_threads, ctypes.c_void_p).value
        parameters[driver.BARRIER] = ctypes.cast(library.GOMP_barrier, ctypes.c_void_p).value
        library.GOMP_parallel(worker.address, parameters.ctypes.data, threads, 0)
    else:
        copies = [parameters.copy() for _ in range(threads)]
        for thread, copy in enumerate(copies):
            copy[driver.THREAD] = thread
        pointers = [copy.ctypes.data_as(ctypes.POINTER(ctypes.c_int64)) for copy in copies]
        list(_executor().map(worker.ctypes, pointers))


def _parameters(
    features: Tensor,
    weight: Tensor,
    shape: ChainShape,
    keep: int,
    buffers: Sequence[Tensor],
    backward: bool,
    want_features: bool = False,
) -> tuple[np.ndarray, int, list[object]]:
    """The parameter vector common to both passes, the number of threads, and what must stay alive."""
    machine = tiles.machine()
    sizes = Sizes.of(shape, features.shape[0], keep)
    expands, tile_table, gradients, rescale, pullback = _kernels(
        shape, sizes.vectors, backward, want_features
    )
    table = _table(shape)
    threads = _threads()
    d = shape.physical
    stride = (
        machine.lanes
        * shape.widest
        * max(d * min(sizes.vectors, driver.GRADIENT_VECTORS), (d + 1) * machine.max_vectors)
    )
    scratch = POOL.take(threads * stride + 64)
    partition = _partition(shape, sizes.vectors, threads)
    packed, saved, factors = buffers
    q = np.zeros(driver.N_SLOTS, dtype=np.int64)
    of_b, of_n, of_d = (4 * s for s in features.stride())
    for slot, value in (
        (driver.THREADS, threads), (driver.ROWS_LEFT, shape.label_site), (driver.ROWS, shape.n_sites),
        (driver.D, d), (driver.VECTORS, sizes.vectors), (driver.LANES, machine.lanes),
        (driver.BATCH, features.shape[0]), (driver.FEATURES, features.data_ptr()), (driver.FEATURES_B, of_b),
        (driver.FEATURES_N, of_n), (driver.FEATURES_D, of_d), (driver.WEIGHT, weight.data_ptr()),
        (driver.TABLE, table.ctypes.data), (driver.PACKED, packed.data_ptr()),
        (driver.SAVED, saved.data_ptr()), (driver.KEEP, int(keep > 0)), (driver.WIDEST, shape.widest),
        (driver.FACTORS, factors.data_ptr()), (driver.FACTORS_STRIDE, 4 * sizes.columns * int(keep > 1)),
        (driver.SCRATCH, scratch.data_ptr()), (driver.SCRATCH_STRIDE, 4 * stride),
        (driver.PARTITION, partition.ctypes.data), (driver.MAX_VECTORS, machine.max_vectors),
        (driver.ACCUMULATORS, machine.accumulators), (driver.EXPANDS, expands.ctypes.data),
        (driver.TILES, tile_table.ctypes.data), (driver.GRADIENTS, gradients.ctypes.data),
        (driver.RESCALE, rescale[0]), (driver.PULLBACK, pullback[0]),
    ):  # fmt: skip
        q[slot] = value
    return q, threads, [table, partition, scratch, expands, tile_table, gradients]


def forward(features: Tensor, weight: Tensor, shape: ChainShape, keep: int) -> tuple[Tensor, ...]:
    """`left [b, l]`, `right [b, r]`, `exponent [2, b]`, and what the backward pass needs.

    Args:
        features: `[b, n, d]`, float32 on the CPU, any strides.
        weight: flat contiguous weights.
        shape: bonds and label site.
        keep: 0 for no backward pass, 1 for one to the weights, 2 for one to the features too.
    """
    batch = features.shape[0]
    sizes = Sizes.of(shape, batch, keep)
    buffers = POOL.take(sizes.packed), POOL.take(sizes.saved), torch.ones(sizes.factors)
    left, right = features.new_ones(batch, shape.left[-1]), features.new_ones(batch, shape.right[0])
    exponents = torch.zeros(2, sizes.columns, dtype=torch.int32)
    if batch:
        q, threads, alive = _parameters(features, weight, shape, keep, buffers, backward=False)
        q[driver.EXPONENTS] = exponents.data_ptr()
        q[driver.LEFT], q[driver.RIGHT] = left.data_ptr(), right.data_ptr()
        _launch(driver.forward_worker, q, threads)
        del alive
    return left, right, exponents[:, :batch].float(), *buffers


def backward(
    grad_left: Tensor,
    grad_right: Tensor,
    features: Tensor,
    weight: Tensor,
    shape: ChainShape,
    state: Sequence[Tensor],
    want_features: bool,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the weights and, if wanted, of the features; `state` is what `forward` kept."""
    batch = features.shape[0]
    gradient = POOL.take(shape.n_weights)
    if not batch:
        return gradient.zero_(), torch.zeros_like(features) if want_features else None
    keep = 2 if want_features else 1
    q, threads, alive = _parameters(features, weight, shape, keep, state, True, want_features)
    alone = threads == 1 or (threads == 2 and (_balanced(shape) or _openmp() is None))
    chunk = 1 if alone else CHUNK
    sizes = Sizes.of(shape, batch, keep)
    adjoints = POOL.take(2 * (chunk + 1) * shape.widest * sizes.columns)
    per_site = POOL.take(sizes.packed) if want_features else None
    grad_left, grad_right = grad_left.contiguous(), grad_right.contiguous()
    q[driver.LEFT], q[driver.RIGHT] = grad_left.data_ptr(), grad_right.data_ptr()
    q[driver.GRADIENT], q[driver.ADJOINTS], q[driver.CHUNK] = gradient.data_ptr(), adjoints.data_ptr(), chunk
    q[driver.FEATURE_GRADIENT] = 0 if per_site is None else per_site.data_ptr()
    _launch(driver.backward_worker, q, threads)
    del alive
    if per_site is None:
        return gradient, None
    return gradient, _features_gradient(per_site, state[2], shape, batch, sizes.columns)


def _features_gradient(
    per_site: Tensor, factors: Tensor, shape: ChainShape, batch: int, columns: int
) -> Tensor:
    """Rows in processing order back to sites `[b, n, d]`, with the rescaling undone."""
    rows = per_site.view(shape.n_sites, shape.physical, columns) * factors.view(shape.n_sites, 1, columns)
    label = shape.label_site
    sites = torch.cat([rows[:label], rows[label:].flip(0)])
    return sites[:, :, :batch].permute(2, 0, 1).contiguous()
