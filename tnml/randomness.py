"""Randomness of a run: every number follows from (seed, epoch, step), so a resumed run repeats it exactly."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_MASK = (1 << 64) - 1
_PART: ContextVar[tuple[int, int, int] | None] = ContextVar("part of a batch", default=None)


def step_seed(seed: int, epoch: int, step: int = 0, stream: int = 0) -> int:
    """A well mixed 63-bit seed for one step; other arguments give unrelated seeds.

    Args:
        seed: the seed of the run.
        epoch: from 0.
        step: from 0, within the epoch.
        stream: separates uses that need their own numbers at one step (order of samples, shifts, dropout).

    Source:
        The finaliser is splitmix64's (Steele, Lea, Flood, OOPSLA 2014).

    Example:
        >>> step_seed(0, 1, 2) != step_seed(0, 2, 1)
        True
    """
    state = 0
    for word in (seed, epoch, step, stream):
        state = (state + word + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def generator(seed: int, epoch: int, step: int = 0, stream: int = 0) -> torch.Generator:
    """A CPU generator seeded by `step_seed`.

    Example:
        >>> first = torch.rand(2, generator=generator(0, 3, 5))
        >>> torch.equal(first, torch.rand(2, generator=generator(0, 3, 5)))
        True
    """
    return torch.Generator().manual_seed(step_seed(seed, epoch, step, stream))


def reseed(device: torch.device, seed: int) -> None:
    """Seeds torch's default generators of the CPU and of `device`.

    `torch.manual_seed` does the same for all devices at a hundred times the cost where CUDA is not started.

    Example:
        >>> with forked_rng(torch.device("cpu")):
        ...     reseed(torch.device("cpu"), 7)
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


@contextmanager
def forked_rng(device: torch.device) -> Iterator[None]:
    """Inside the block torch's default generators may be used at will; afterwards they are as before.

    Example:
        >>> before = torch.get_rng_state()
        >>> with forked_rng(torch.device("cpu")):
        ...     _ = torch.rand(3)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        yield


@contextmanager
def part_of_batch(first: int, count: int, total: int) -> Iterator[None]:
    """Inside, random layers treat their samples as `first` to `first + count - 1` of a whole batch.

    They draw the masks of all `total` samples, so processes with equal seeds that each take a part of a batch
    drop together what one process drops, and their generators stay in step.

    Args:
        first: the part's first sample.
        count: samples in the part; a tensor with another number of samples gets masks of its own.
        total: samples in the whole batch.

    Example:
        >>> with part_of_batch(2, 1, 3):
        ...     batch_part()
        (2, 1, 3)
    """
    token = _PART.set((first, count, total))
    try:
        yield
    finally:
        _PART.reset(token)


def batch_part() -> tuple[int, int, int] | None:
    """First sample, samples and total of the part that `part_of_batch` has named; None outside of it.

    Example:
        >>> batch_part() is None
        True
    """
    return _PART.get()
