"""The bias of a scheme of Euler steps at (0, x0), measured on the exact solution."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import torch

from tnml.pde import Problem
from tnml.pde.accuracy import fresh_paths
from tnml.pde.derivatives import reverse_gradient

FEWEST, MOST, PATHS = 8, 64, 256  # batches, whose spread gives the standard error, and paths in each
ENOUGH = 0.02  # of the value: a smaller error needs no more batches
DRAWS = 2  # pairs of opposite increments at each of their points
TINY = 1e-3  # of the step: the bias vanishes there, but the noise is the same


class Bias(NamedTuple):
    """Relative to the solution, with its standard error."""

    value: float
    error: float

    @property
    def clear(self) -> float | None:
        """The value, None where it is below twice the error and so lost in the noise."""
        return self.value if abs(self.value) >= 2 * self.error else None


def euler_bias(
    case: Problem, time_steps: int, step: float, *, most: int = MOST, seed: int = 11
) -> Bias | None:
    """The error of steps of length `step` at (0, x0), relative to the solution; None where unknown.

    The exact solution misses the equation of one Euler step by a residual of order step^2. Its mean over the
    paths, summed from 0 to the horizon, is the bias to first order in the step; the discount of the residuals
    on their way to time 0, some percent of the bias, is left out. It is sampled, in float64; that of a step a
    thousand times shorter with the same noise, whose mean is negligible, is subtracted.
    """
    if case.exact is None or case.coupled or case.inside is not None:
        return None
    truth = case.true_value()
    assert truth is not None
    scale = case.horizon / truth.value
    found: list[float] = []
    while len(found) < most:
        found.append(scale * _batch(case, time_steps, step, seed, len(found)))
        if len(found) >= FEWEST and _mean(found).error < ENOUGH * abs(_mean(found).value):
            break
    return _mean(found)


def _mean(found: Sequence[float]) -> Bias:
    return Bias(statistics.fmean(found), statistics.stdev(found) / math.sqrt(len(found)))


def _batch(case: Problem, time_steps: int, step: float, seed: int, number: int) -> float:
    """The mean residual of one step over fresh paths and increments, per unit of time."""
    exact = case.exact
    assert exact is not None
    paths = fresh_paths(case, PATHS, time_steps, seed=seed, number=number, dtype=torch.float64)
    t, x = paths.points(0, time_steps)
    y, z = exact(t, x).detach(), torch.zeros_like(x)
    if case.driver is not None or case.driver_direction is not None:
        y, z = (part.detach() for part in reverse_gradient(lambda point: exact(t, point), x))
    phi = case.phi(t, x, y, z)
    source = torch.Generator().manual_seed(1000 * seed + number)
    e = torch.randn(DRAWS, *x.shape, dtype=x.dtype, generator=source)
    total = 0.0
    for h, sign in ((step, 1), (TINY * step, -1)):
        for draw in torch.cat([e, -e]) * math.sqrt(h):
            ahead = exact(t + h, x + case.mu(t, x) * h + case.sigma(t, x, draw))
            total += sign * float(((ahead - y) / h - phi).mean()) / (2 * DRAWS)
    return total
