"""How many iterations a run has: those asked for, those a time limit allows, or those it began with."""

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tnml.errors import InputError
from tnml.loop.processes import device_of, started_outside
from tnml.pde.options import SolveOptions

_WARM = 2  # iterations before the clock counts
_STAGE = 1.0  # seconds of measuring; twice that if the times are noisy
_SHARE = 8  # parts of the time limit, of which measuring takes one at most
_NOISY = 0.1  # relative difference of the means of two halves


def iterations_of(
    options: SolveOptions, seconds: Callable[[float], float], checkpoint: Mapping[str, Any] | None = None
) -> int:
    """How many iterations a run has, so that the schedule ends with it.

    Args:
        options: with `iterations`, `reports` and `max_seconds`.
        seconds: measures the time of one iteration, for about as many seconds as its argument says.
        checkpoint: of a resumed run, which keeps its number.

    Raises:
        InputError: a time limit for a new run whose processes were started from outside, which would each
            find a different number.

    Example:
        >>> iterations_of(SolveOptions(iterations=1000, max_seconds=10.0), lambda longest: 0.25)
        40
        >>> iterations_of(SolveOptions(iterations=30, max_seconds=9.75), lambda longest: 0.25)
        20
    """
    if checkpoint is not None:
        try:
            return int(checkpoint["options"]["epochs"]) * int(checkpoint["identity"]["steps_per_epoch"])
        except (KeyError, TypeError, ValueError):
            return options.iterations  # it belongs to another kind of training, which the loop reports
    if options.max_seconds is None:
        return options.iterations
    if started_outside():
        raise InputError("max_seconds works with processes that tnml starts; under torchrun give iterations")
    loop, steps = options.loop()
    fit = max(1, int(options.max_seconds / seconds(min(_STAGE, options.max_seconds / _SHARE))))
    if fit >= loop.epochs * steps:
        return options.iterations
    return fit - fit % min(options.reports, fit)


def seconds_per_iteration(
    model: nn.Module,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
    options: SolveOptions,
    longest: float = _STAGE,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """The time of one iteration on a copy of the model; if there are several processes, of one's share.

    Args:
        model: left as it is.
        loss: a function of the model, the numbers of the paths and that of the step, as `LossOnPaths`.
        options: paths, device and devices.
        longest: seconds to measure; twice as long if the times are noisy.
        clock: gives the time.
    """
    device = device_of(options.device)
    index = torch.arange(-(-options.paths // options.devices), device=device)
    twin = copy.deepcopy(model).to(device).train()
    parameters = [p for p in twin.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.0, fused=True)

    def iteration(number: int) -> None:
        optimizer.zero_grad()
        value = loss(twin, index, torch.full_like(index, number))
        value.backward()
        optimizer.step()
        value.item()  # waits for the device

    return mean_time(iteration, longest, clock)


def mean_time(
    iteration: Callable[[int], object], longest: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The mean time of an iteration, measured for `longest` seconds, or twice that if its halves disagree.

    Args:
        iteration: called with 0, 1, 2, ..; the first two times do not count.
        longest: seconds.
        clock: gives the time.

    Example:
        >>> mean_time(lambda number: None, 1e-3) < 1
        True
    """
    for number in range(_WARM):
        iteration(number)
    times: list[float] = []
    spent, limit = 0.0, longest
    while spent < limit:
        begin = clock()
        iteration(_WARM + len(times))
        times.append(max(clock() - begin, 1e-9))
        spent += times[-1]
        if spent >= limit == longest and _noisy(times):
            limit = 2 * longest
    return spent / len(times)


def _noisy(times: list[float]) -> bool:
    half = len(times) // 2
    if not half:
        return True
    means = statistics.fmean(times[:half]), statistics.fmean(times[half:])
    return abs(means[0] - means[1]) > _NOISY * min(means)
