"""How fast a device multiplies matrices and moves bytes: what the cost of a plan is made of."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from tnml.contraction.tt.kept import keep, machine, recall
from tnml.torch_private import dispatch_mode_at_work

T = TypeVar("T")
ROUNDS, SECONDS = 15, 0.4
QUIET = 0.8  # share of the time that a thread has to get for a measurement to count as undisturbed
AGREEMENT = 1.15  # times that differ by less than this factor are the same
MOST_RUNS = 6  # measurements, after which their best is taken as it is
_LARGE, _LARGE_GPU = 640, 4096
FRESH = 2**23 + 2**10  # numbers: more memory than allocators keep for the next request


class Rates(NamedTuple):
    """What a device can do.

    Attributes:
        flops: floating point operations a second of a large matrix product.
        thin: smallest dimension of a product at which half of that is reached.
        bandwidth: bytes a second, read plus written, of copies that fit in the last cache.
        fresh: seconds that a byte of a permuted copy to newly allocated large memory costs.
        matrix: seconds that each small matrix of a batched product costs beyond its arithmetic.
        call: seconds of a call that does next to nothing.
    """

    flops: float
    thin: float
    bandwidth: float
    fresh: float
    matrix: float
    call: float

    def product(self, count: int, rows: int, inner: int, columns: int, itemsize: int) -> float:
        """Seconds of `count` products `(rows, inner) @ (inner, columns)`.

        Example:
            >>> rates = Rates(1e11, 0.0, 1e12, 0.0, 0.0, 0.0)
            >>> rates.product(1, 1000, 1000, 1000, 4)
            0.02
        """
        narrow = min(rows, inner, columns)
        arithmetic = 2 * count * rows * inner * columns * (1 + self.thin / narrow) / self.flops
        moved = itemsize * count * (inner * columns + rows * columns + (rows * inner if count == 1 else 0))
        each = self.matrix * count if count > 1 else 0.0
        return self.call + each + max(arithmetic, moved / self.bandwidth)

    def copy(self, elements: int, itemsize: int) -> float:
        """Seconds of moving `elements` numbers once.

        Example:
            >>> Rates(1e11, 0.0, 8.0, 0.0, 0.0, 1.0).copy(2, 4)
            3.0
        """
        return self.call + 2 * elements * itemsize / self.bandwidth


TYPICAL = Rates(flops=2e11, thin=10.0, bandwidth=5e10, fresh=3e-10, matrix=3e-8, call=6e-6)
"""Of a laptop's two cores: for devices that are not measured."""


class Measurement(NamedTuple):
    """The shortest times of some pieces of work, and whether they can be trusted.

    Attributes:
        seconds: of each piece.
        quiet: whether the processor was this process's own meanwhile; of a GPU that is not known.
    """

    seconds: dict[str, float]
    quiet: bool


def measure(device: torch.device, dtype: torch.dtype) -> Measurement:
    """Times that tell a device's rates, taken now, in well under a second.

    The measurements take turns and the fastest of each counts, since other work can only slow one down.

    Args:
        device: whose rates.
        dtype: of the numbers.

    Example:
        >>> sorted(measure(torch.device("cpu"), torch.float32).seconds)
        ['call', 'copy', 'fresh', 'large', 'small', 'thin']
    """
    cpu = device.type == "cpu"
    large = _LARGE if cpu else _LARGE_GPU

    def ones(*sizes: int) -> Tensor:
        return torch.ones(sizes, dtype=dtype, device=device)

    square, result, tiny, one = ones(large, large), ones(large, large), ones(4, 4), ones(4, 4)
    source, target = ones(2**21), ones(2**21)
    wide, narrow, thinner = ones(64, 64).expand(512, 64, 64), ones(512, 64, 16), ones(512, 64, 16)
    small, few, fewer = ones(8, 8).expand(4096, 8, 8), ones(4096, 8, 8), ones(4096, 8, 8)
    rows = ones(256, FRESH // 2**12, 16)
    works: dict[str, Callable[[], object]] = {
        "large": lambda: torch.mm(square, square, out=result),
        "call": lambda: [torch.mm(tiny, tiny, out=one).view(16) for _ in range(20)],
        "copy": lambda: target.copy_(source),
        "thin": lambda: torch.bmm(wide, narrow, out=thinner),
        "small": lambda: torch.bmm(small, few, out=fewer),
        "fresh": lambda: rows.transpose(0, 1).contiguous() if cpu else None,
    }
    own, wall = time.thread_time(), time.perf_counter()
    seconds = fastest(works, device)
    share = (time.thread_time() - own) / (time.perf_counter() - wall)
    return Measurement(seconds, not cpu or share > QUIET)


def rates_from(seconds: Mapping[str, float], device: torch.device, dtype: torch.dtype) -> Rates:
    """The rates behind the times of `measure`; on a CPU ratios that none has are cut.

    Example:
        >>> cpu = torch.device("cpu")
        >>> rates = rates_from(measure(cpu, torch.float32).seconds, cpu, torch.float32)
        >>> 1e8 < rates.flops < 1e16 and rates.call < 1e-2
        True
    """
    cpu = device.type == "cpu"
    large = _LARGE if cpu else _LARGE_GPU
    call = 2 * seconds["call"] / 20
    flops = 2 * large**3 / seconds["large"]
    bandwidth = 2 * 2**21 * dtype.itemsize / max(seconds["copy"] - call, 1e-9)
    thin = 16 * (seconds["thin"] - call) * flops / (2 * 512 * 64 * 64 * 16) - 16
    if cpu:
        bandwidth = min(max(bandwidth, 0.1 * flops), 0.4 * flops)
        thin, call = min(max(thin, 2.0), 12.0), min(call, 1e-5)
    thin = max(thin, 0.0)
    matrix = (seconds["small"] - call) / 4096 - 2 * 512 * (1 + thin / 8) / flops
    matrix = min(max(matrix, 0.0), 1e-7)
    fresh = seconds["fresh"] / (256 * (FRESH // 2**12) * 16 * dtype.itemsize) if cpu else 0.0
    return Rates(flops, thin, bandwidth, fresh, matrix, call)


def fastest(
    works: Mapping[T, Callable[[], object]],
    device: torch.device,
    rounds: int = ROUNDS,
    limit: float = SECONDS,
) -> dict[T, float]:
    """The shortest time of each piece of work, over several rounds of all of them.

    On a CPU it is the time on the wall or the process's own, whichever is less: while other programs have
    the processor the first says nothing, and where several threads work the second counts them all.

    Args:
        works: what to time.
        device: where it runs.
        rounds: how many at most; at least three, or fewer where these are.
        limit: seconds after which no further round begins.

    Example:
        >>> fastest({"nothing": lambda: None}, torch.device("cpu"))["nothing"] < 1.0
        True
    """
    best = dict.fromkeys(works, float("inf"))
    end = time.perf_counter() + limit
    for number in range(rounds):
        if number > 2 and time.perf_counter() > end:
            break
        for name, work in works.items():
            start, own = time.perf_counter(), time.process_time()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent = time.perf_counter() - start
            if device.type == "cpu":
                spent = min(spent, time.process_time() - own)
            best[name] = min(best[name], spent)
    return best


def rates_of(device: torch.device, dtype: torch.dtype) -> Rates:
    """The rates of a device, kept in the user's cache folder.

    A measurement on a busy machine is rather too slow than too fast. So each process measures again and the
    shortest times count, until two measurements on a quiet machine agree, or six were made; after a
    month it begins again. Where the folder cannot be written the rates hold for this process only.

    Example:
        >>> rates_of(torch.device("cpu"), torch.float32) is rates_of(torch.device("cpu"), torch.float32)
        True
    """
    known = device.type == "cuda" or (device.type == "cpu" and dtype in (torch.float32, torch.float64))
    if not known or dispatch_mode_at_work():  # such a mode may compute nothing
        return TYPICAL
    return _look_up(device, dtype, torch.get_num_threads())


@functools.cache
def _look_up(device: torch.device, dtype: torch.dtype, threads: int) -> Rates:
    """The rates for that many threads: kept, or measured now."""
    question = f"rates of {machine(device, threads)}, {dtype}, by wall and own time"
    before = recall(question) or {}
    try:
        seconds = {name: float(value) for name, value in before["seconds"].items()}
        if before["runs"] >= MOST_RUNS or before["agreed"] >= 2:
            return rates_from(seconds, device, dtype)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        before, seconds = {}, {}  # none yet, or damaged
    found = measure(device, dtype)
    best = {name: min(value, seconds.get(name, value)) for name, value in found.seconds.items()}
    agreed = int(found.quiet and found.seconds["large"] < AGREEMENT * best["large"])
    if seconds and seconds["large"] < AGREEMENT * best["large"]:
        agreed += before["agreed"]
    keep(question, {"seconds": best, "runs": before.get("runs", 0) + 1, "agreed": agreed})
    return rates_from(best, device, dtype)
