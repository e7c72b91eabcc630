"""Randomness of a run: every number follows from (seed, epoch, step), so a resumed run repeats it exactly."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum, unique

import torch

from tnml.checks import whole

_MASK = (1 << 64) - 1
_PART: ContextVar[tuple[int, int, int] | None] = ContextVar("part of a batch", default=None)


# The streams: what separates the numbers of one use from those of another at one seed, epoch and step. Two
# uses that meet in one run need different numbers, and a number, once assigned, stays: stored runs need it.


@unique
class Stream(IntEnum):
    """Streams of `step_seed` in a run of the training loop.

    Example:
        >>> step_seed(7, 0, stream=Stream.ORDER) != step_seed(7, 0, stream=Stream.SPLIT)
        True
    """

    ORDER = 0  # of the samples in an epoch
    SHIFT = 1  # of the training images
    DROPOUT = 2  # whatever the module and the loss draw in a step
    SPLIT = 3  # which samples are held out; sweeps use it, too
    READ = 4  # what a Dataset draws while it is read
    WEIGHTS = 7  # the starting weights of the ansatz of a differential equation
    NORMAL = 11  # increments of Brownian motion; those of a set of noise: 11 + 16 x `Noise`
    SOBOL = 12  # the shift of a Sobol sequence; that of a set of noise: 12 + 16 x `Noise`
    SITES = 14  # the order of the sites of further networks of an ensemble
    NODES = 13  # directions that smoothed terminal values are averaged over


@unique
class Noise(IntEnum):
    """Sets of increments of Brownian motion at one step, each with numbers of its own.

    Example:
        >>> Stream.NORMAL + 16 * Noise.ACCURACY
        91
    """

    PATHS = 0  # of the run
    AHEAD = 1  # of losses that look ahead from every point
    ACCURACY = 5  # that errors are measured with


@unique
class SweepStream(IntEnum):
    """Streams of `step_seed` in a run of sweeps, whose epochs are sweeps or half sweeps.

    Example:
        >>> SweepStream.DRAW.value
        0
    """

    DRAW = 0  # the samples of a half sweep
    NOISE = 1  # added to the product of the tensors of a bond
    SHIFT = 2  # of the training images


@unique
class TableStream(IntEnum):
    """Streams of `tnml.data.random_table`, whose generators are NumPy's.

    Example:
        >>> list(TableStream)[-1].name
        'CLASSES'
    """

    INPUTS = 0  # of samples
    NOISE = 1  # on targets
    WEIGHTS = 2  # of teachers and random networks
    PERMUTATION = 3  # of the sites of a teacher
    FLIPS = 4  # of labels, once for all
    STEPS = 5  # of labels, afresh at every step
    CLASSES = 6  # of a mixture


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
        state = (state + int(word) + 0x9E3779B97F4A7C15) & _MASK
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


def seeded(seed: int) -> torch.Generator:
    """A CPU generator that starts from a seed as it is.

    Args:
        seed: what torch takes: 64 bits, with or without a sign.

    Raises:
        InputError: it is not a whole number, or needs more bits.

    Example:
        >>> torch.equal(torch.rand(2, generator=seeded(7)), torch.rand(2, generator=seeded(7)))
        True
    """
    return torch.Generator().manual_seed(whole("seed", seed, -(2**63), 2**64 - 1))


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
def forked_rng(*devices: torch.device) -> Iterator[None]:
    """Inside the block torch's default generators may be used freely; afterwards they are as before.

    Args:
        devices: those in use besides the CPU, which always counts.

    Example:
        >>> before = torch.get_rng_state()
        >>> with forked_rng(torch.device("cpu")):
        ...     _ = torch.rand(3)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    indices = sorted({device.index or 0 for device in devices if device.type == "cuda"})
    with torch.random.fork_rng(devices=indices, device_type="cuda"):
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
    """First sample, samples and total of the part that `part_of_batch` has named; None outside one.

    Example:
        >>> batch_part() is None
        True
    """
    return _PART.get()
