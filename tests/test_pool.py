"""The memory pool hands a block to one tensor at a time and takes it back when the tensor is gone."""

import gc
import sys

import torch

from tnml.contraction.chain.pool import ALIGNMENT, SMALL, Pool


def test_a_block_comes_back_only_when_its_last_tensor_is_gone():
    pool = Pool()
    first = pool.take(2 * SMALL)
    address = first.data_ptr()
    assert address % ALIGNMENT == 0
    view = first[10:20]
    del first
    gc.collect()
    second = pool.take(2 * SMALL)
    assert second.data_ptr() != address  # the view still holds the block
    del view
    gc.collect()
    assert pool.take(2 * SMALL).data_ptr() == address


def test_blocks_of_quite_another_size_are_not_taken():
    pool = Pool()
    big = pool.take(100_000)
    address = big.data_ptr()
    del big
    gc.collect()
    assert pool.take(100).data_ptr() != address
    assert pool.take(90_000).data_ptr() == address


def test_idle_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(sys.modules[Pool.__module__], "KEEP_BYTES", 10_000)
    pool = Pool()
    held = [pool.take(2000) for _ in range(5)]
    del held
    gc.collect()
    pool.take(10)
    assert sum(block.nbytes for block in pool._idle) <= 10_000


def test_tensors_are_ordinary():
    tensor = Pool().take(6).fill_(2.0).view(2, 3)
    assert torch.equal(tensor + 1, torch.full((2, 3), 3.0))
