"""The native engine on many equal chains: one call, each thread takes its share of the replicas.

The workers of `driver` run unchanged, each on one replica with all its lane vectors; replicas share nothing
but the tables of their common shape, so no barrier is needed.
"""

import ctypes

import numpy as np
import torch
from torch import Tensor

from tnml.contraction.chain import native, slots
from tnml.contraction.chain.pool import POOL
from tnml.contraction.chain.shape import ChainShape
from tnml.contraction.chain.workers import worker

REPLICAS = worker("replicas_worker")


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
        packed = POOL.take(count * sizes.packed)
        saved, factors = POOL.take(count * sizes.saved), POOL.take(count * sizes.factors)
        adjoints = POOL.take(self._threads * 4 * shape.widest * sizes.columns)
        self._passes = []
        self._alive: list[object] = [weight, gradient, packed, saved, factors, adjoints]
        for backward in (False, True)[: 1 + keep]:
            plan = native.plan(shape, batch, keep, 1, backward, False)
            stride = plan.start[slots.SCRATCH_STRIDE]
            scratch = POOL.take(self._threads * stride // 4 + 64)
            rows = np.tile(np.array(list(plan.start), dtype=np.int64), (count, 1))
            strides = self.features.stride()[1:]
            for slot, step in zip(
                (slots.FEATURES_B, slots.FEATURES_N, slots.FEATURES_D), strides, strict=True
            ):
                rows[:, slot] = 4 * step
            replica = np.arange(count, dtype=np.int64)
            part = ((replica + 1) * self._threads - 1) // count  # as `replicas_worker` shares them out
            for slot, tensor in (
                (slots.FEATURES, self.features), (slots.WEIGHT, weight),
                (slots.EXPONENTS, self._exponents),
                (slots.LEFT, self.grad_left if backward else self.left),
                (slots.RIGHT, self.grad_right if backward else self.right),
                *(((slots.GRADIENT, gradient),) if gradient is not None else ()),
            ):  # fmt: skip
                rows[:, slot] = tensor.data_ptr() + replica * tensor.stride(0) * tensor.element_size()
            for slot, buffer, size in (
                (slots.PACKED, packed, sizes.packed),
                (slots.SAVED, saved, sizes.saved),
                (slots.FACTORS, factors, sizes.factors),
            ):
                rows[:, slot] = buffer.data_ptr() + replica * (4 * size)
            rows[:, slots.SCRATCH] = scratch.data_ptr() + part * stride
            rows[:, slots.ADJOINTS] = adjoints.data_ptr() + part * (16 * shape.widest * sizes.columns)
            of = native.BACKWARD if backward else native.FORWARD
            self._passes.append(self._head(rows, of.address))
            self._alive += [rows, scratch, plan]

    def _head(self, rows: np.ndarray, address: int) -> "ctypes.Array[ctypes.c_int64]":
        head = native.Vector()
        head[slots.THREADS], head[slots.WORKER], head[slots.COUNT] = self._threads, address, len(rows)
        head[slots.FIRST], head[slots.STRIDE] = rows.ctypes.data, rows.strides[0]
        return head

    def forward(self) -> Tensor:
        """Sets `left` and `right`; the exponents `[k, b]` of two."""
        self._exponents.zero_()
        native.launch(REPLICAS, self._passes[0], self._threads)
        return self._exponents[:, :, : self._batch].sum(1, dtype=torch.float32)

    def backward(self) -> None:
        """Writes the gradients of the cores."""
        native.launch(REPLICAS, self._passes[1], self._threads)
