"""Memory that is used again: fresh pages cost as much as the arithmetic of a training step."""

import threading
import weakref

import numpy as np
import torch
from torch import Tensor

KEEP_BYTES = 2**31  # idle memory kept at most
ALIGNMENT = 64


class Pool:
    """Float32 CPU tensors on blocks that return here when the last tensor on them is gone.

    A block is handed out once at a time, so two forward passes before a backward pass never share one.

    Example:
        >>> pool = Pool()
        >>> pool.take(1000).shape
        torch.Size([1000])
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._idle: list[np.ndarray] = []

    def take(self, size: int) -> Tensor:
        """An uninitialised tensor `[size]`, aligned to 64 bytes."""
        block = self._reuse(size)
        start = (-block.ctypes.data) % ALIGNMENT // block.itemsize
        view = block[start : start + size]
        weakref.finalize(view, self._give, block).atexit = False
        return torch.from_numpy(view)

    def _reuse(self, size: int) -> np.ndarray:
        """An idle block of the size asked for, at most twice as large, or a new one."""
        needed = size + ALIGNMENT // 4
        with self._lock:
            fitting = [i for i, block in enumerate(self._idle) if needed <= block.size <= 2 * needed]
            if fitting:
                return self._idle.pop(min(fitting, key=lambda i: self._idle[i].size))
        return np.empty(needed, dtype=np.float32)

    def _give(self, block: np.ndarray) -> None:
        with self._lock:
            self._idle.append(block)
            while sum(idle.nbytes for idle in self._idle) > KEEP_BYTES:
                self._idle.pop(0)


POOL = Pool()
