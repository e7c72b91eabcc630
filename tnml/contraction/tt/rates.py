"""How fast a device multiplies matrices and moves bytes: what the cost of a plan is made of."""

import functools
import json
import os
import platform
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.errors import InputError
from tnml.files import cache_folder, write_text
from tnml.torch_private import dispatch_mode_at_work

ROUNDS, SECONDS = 15, 0.4
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


def measure_rates(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Rates:
    """The rates of a device, measured now, in well under a second.

    The measurements take turns and the fastest of each counts, since other work can only slow one down. On a
    CPU the remaining influence of such work is bounded: rates whose ratios no CPU has are cut.

    Args:
        device: whose rates.
        dtype: of the numbers.

    Example:
        >>> rates = measure_rates()
        >>> 1e8 < rates.flops < 1e16 and rates.call < 1e-2
        True
    """
    device = torch.device(device)
    cpu = device.type == "cpu"
    large = 640 if cpu else 4096

    def ones(*sizes: int) -> Tensor:
        return torch.ones(sizes, dtype=dtype, device=device)

    square, result, tiny, one = ones(large, large), ones(large, large), ones(4, 4), ones(4, 4)
    source, target = ones(2**21), ones(2**21)
    wide, narrow, thinner = ones(64, 64).expand(512, 64, 64), ones(512, 64, 16), ones(512, 64, 16)
    small, few, fewer = ones(8, 8).expand(4096, 8, 8), ones(4096, 8, 8), ones(4096, 8, 8)
    rows = ones(256, FRESH // 2**12, 16)
    seconds = _fastest(
        {
            "large": lambda: torch.mm(square, square, out=result),
            "call": lambda: [torch.mm(tiny, tiny, out=one).view(16) for _ in range(20)],
            "copy": lambda: target.copy_(source),
            "thin": lambda: torch.bmm(wide, narrow, out=thinner),
            "small": lambda: torch.bmm(small, few, out=fewer),
            "fresh": lambda: rows.transpose(0, 1).contiguous() if cpu else None,
        },
        device,
    )
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
    fresh = seconds["fresh"] / (rows.numel() * dtype.itemsize) if cpu else 0.0
    return Rates(flops, thin, bandwidth, fresh, matrix, call)


def _fastest(works: dict[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """The shortest time of each piece of work, over several rounds of all of them."""
    best = dict.fromkeys(works, float("inf"))
    end = time.perf_counter() + SECONDS
    for number in range(ROUNDS):
        if number > 2 and time.perf_counter() > end:
            break
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def rates_of(device: torch.device, dtype: torch.dtype) -> Rates:
    """The rates of a device as first measured: kept in the user's cache folder, so that plans stay the same.

    Where that folder cannot be written they hold for this process only.

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
    """The rates for that many threads: known, stored, or measured now."""
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        where = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {os.cpu_count()} cores"
    name = f"{where}, {threads} threads, {dtype}, torch {torch.__version__}"
    path = cache_folder() / "rates.json"
    stored: dict[str, list[float]] = {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Rates(*map(float, stored[name]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        rates = measure_rates(device, dtype)  # none yet, or damaged
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        known = stored if isinstance(stored, dict) else {}
        write_text(path, json.dumps({**known, name: list(rates)}, indent=1))
    except (OSError, InputError):
        pass
    return rates
