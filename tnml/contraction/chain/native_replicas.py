"""The native engine on many equal chains: one call, each thread takes its share of the replicas.

The workers of `driver` run unchanged, each on one replica with all its lane vectors; replicas share nothing
but the tables of their common shape, so no barrier is needed.
"""

import numpy as np
import torch
from numba import carray, cfunc, types  # type: ignore[attr-defined]
from torch import Tensor

from tnml.contraction.chain import driver, native
from tnml.contraction.chain.machine_code import call, call_for_int
from tnml.contraction.chain.pool import POOL
from tnml.contraction.chain.shape import ChainShape

# Slots of the dispatcher's vector beyond those of the driver that `native.launch` sets: which worker, where
# the replicas' parameters begin, bytes between them, how many there are.
WORKER, FIRST, STRIDE, COUNT = driver.D, driver.FEATURES, driver.FEATURES_B, driver.BATCH


@cfunc(types.void(types.CPointer(types.int64)), cache=True)  # type: ignore[no-untyped-call]
def dispatch(parameters):  # type: ignore[no-untyped-def]
    """Runs the worker on the replicas of one thread."""
    q = carray(parameters, (driver.N_SLOTS,))
    alone = q[driver.THREAD] >= 0
    thread = q[driver.THREAD] if alone else call_for_int(q[driver.THREAD_NUMBER])  # type: ignore[call-arg]
    team = q[driver.THREADS] if alone else call_for_int(q[driver.TEAM_SIZE])  # type: ignore[call-arg]
    parts = q[driver.THREADS]
    for part in range(thread, parts, team):
        for replica in range(q[COUNT] * part // parts, q[COUNT] * (part + 1) // parts):
            call(q[WORKER], (q[FIRST] + replica * q[STRIDE],))  # type: ignore[call-arg]


class NativeReplicas:
    """The native engine of `replica_chains`: float32 on the CPU.

    Args:
        shape: bonds and label site.
        weight: `[k, p]`, its rows contiguous.
        batch: samples of each replica.
        gradient: `[k, p]` or None.
    """

    def __init__(self, shape: ChainShape, weight: Tensor, batch: int, gradient: Tensor | None) -> None:
        count, keep = len(weight), int(gradient is not None)
        sizes = native.Sizes.of(shape, batch, keep)
        self._threads = max(1, min(torch.get_num_threads(), count))
        self.features = POOL.take(count * batch * shape.n_sites * shape.physical).view(
            count, batch, shape.n_sites, shape.physical
        )
        self.left, self.right = (torch.ones(count, batch, bond) for bond in (shape.left[-1], shape.right[0]))
        self.grad_left, self.grad_right = torch.zeros_like(self.left), torch.zeros_like(self.right)
        self._exponents = torch.zeros(count, 2, sizes.columns, dtype=torch.int32)
        self._batch = batch
        buffers = POOL.take(sizes.packed), POOL.take(sizes.saved), POOL.take(sizes.factors)
        packed = POOL.take(count * sizes.packed)
        saved, factors = POOL.take(count * sizes.saved), POOL.take(count * sizes.factors)
        adjoints = POOL.take(self._threads * 4 * shape.widest * sizes.columns)
        partition = native._partition(shape, sizes.vectors, 1)
        self._passes = []
        self._alive: list[object] = [weight, gradient, packed, saved, factors, adjoints, partition]
        for backward in (False, True)[: 1 + keep]:
            template, _, alive = native._parameters(
                self.features[0], weight[0], shape, keep, buffers, backward
            )
            stride = int(template[driver.SCRATCH_STRIDE])
            scratch = POOL.take(self._threads * stride // 4 + 64)
            rows = np.tile(template, (count, 1))
            replica = np.arange(count, dtype=np.int64)
            part = ((replica + 1) * self._threads - 1) // count  # as `dispatch` shares them out
            for slot, tensor in (
                (driver.FEATURES, self.features), (driver.WEIGHT, weight),
                (driver.EXPONENTS, self._exponents),
                (driver.LEFT, self.grad_left if backward else self.left),
                (driver.RIGHT, self.grad_right if backward else self.right),
                *(((driver.GRADIENT, gradient),) if gradient is not None else ()),
            ):  # fmt: skip
                rows[:, slot] = tensor.data_ptr() + replica * tensor.stride(0) * tensor.element_size()
            for slot, buffer, size in (
                (driver.PACKED, packed, sizes.packed),
                (driver.SAVED, saved, sizes.saved),
                (driver.FACTORS, factors, sizes.factors),
            ):
                rows[:, slot] = buffer.data_ptr() + replica * (4 * size)
            rows[:, driver.SCRATCH] = scratch.data_ptr() + part * stride
            rows[:, driver.ADJOINTS] = adjoints.data_ptr() + part * (16 * shape.widest * sizes.columns)
            rows[:, driver.PARTITION] = partition.ctypes.data
            rows[:, driver.THREAD], rows[:, driver.THREADS], rows[:, driver.CHUNK] = 0, 1, 1
            worker = driver.backward_worker if backward else driver.forward_worker
            self._passes.append(self._head(rows, int(worker.address or 0)))
            self._alive += [rows, scratch, *alive]

    def _head(self, rows: np.ndarray, worker: int) -> np.ndarray:
        head = np.zeros(driver.N_SLOTS, dtype=np.int64)
        head[driver.THREADS], head[WORKER], head[COUNT] = self._threads, worker, len(rows)
        head[FIRST], head[STRIDE] = rows.ctypes.data, rows.strides[0]
        return head

    def forward(self) -> Tensor:
        """Sets `left` and `right`; the exponents `[k, b]` of two."""
        self._exponents.zero_()
        native._launch(dispatch, self._passes[0], self._threads)
        return self._exponents[:, :, : self._batch].sum(1, dtype=torch.float32)

    def backward(self) -> None:
        """Writes the gradients of the cores."""
        native._launch(dispatch, self._passes[1], self._threads)
