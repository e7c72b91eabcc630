"""Memory that is reused: fresh pages cost as much as the arithmetic of a training step."""

import threading
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

KEEP_BYTES = 2**31  # idle memory kept at most
SMALL = 2**15  # numbers that the allocator gives out again and again without fresh pages
ALIGNMENT = 64


class Pool:
    """Float32 CPU tensors on blocks that return to the pool when the last tensor on them is gone.

    A block is handed out once at a time, so two forward passes before a backward pass never share one.

    Example:
        >>> pool = Pool()
        >>> pool.take(1000).shape
        torch.Size([1000])
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._returned: deque[np.ndarray] = deque()
        self._idle: list[np.ndarray] = []

    def take(self, size: int) -> Tensor:
        """An uninitialised tensor `[size]`, aligned to 64 bytes."""
        if size < SMALL:
            return torch.empty(size, dtype=torch.float32, device="cpu")
        needed = size + ALIGNMENT // 4
        with self._lock:
            block = self._reuse(needed)
        if block is None:
            block = np.empty(needed, dtype=np.float32)
        start = (-block.ctypes.data) % ALIGNMENT // block.itemsize
        view = block[start : start + size]
        # The finaliser may run in the middle of anything, this class included: it only appends (atomic).
        weakref.finalize(view, self._returned.append, block).atexit = False
        return torch.from_numpy(view)

    def _reuse(self, needed: int) -> np.ndarray | None:
        """An idle block of the size needed, at most twice as large; None if there is none."""
        while self._returned:
            self._idle.append(self._returned.popleft())
        while sum(idle.nbytes for idle in self._idle) > KEEP_BYTES:
            self._idle.pop(0)
        fitting = [i for i, block in enumerate(self._idle) if needed <= block.size <= 2 * needed]
        return self._idle.pop(min(fitting, key=lambda i: self._idle[i].size)) if fitting else None


POOL = Pool()
