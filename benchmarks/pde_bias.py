"""The bias of a scheme of Euler steps at (0, x0), measured on the exact solution."""

import math

import torch

from tnml.pde import Problem
from tnml.pde.accuracy import fresh_paths
from tnml.pde.derivatives import reverse_gradient

PATHS, DRAWS = 256, 8  # paths, and pairs of opposite increments at each of their points
TINY = 1e-3  # of the step: where the bias is nothing but the noise is the same


def euler_bias(case: Problem, time_steps: int, step: float) -> float | None:
    """What steps of length `step` get wrong at (0, x0), relative to the solution; None where not known.

    The exact solution misses the equation of one Euler step by a residual of order step^2. Its mean over the
    paths, summed from 0 to the horizon, is the bias to first order. It is sampled, in float64; that of
    a step a thousand times shorter with the same noise, whose mean is next to nothing, is taken away.
    """
    exact, truth = case.exact, case.true_value()
    if exact is None or truth is None or case.coupled or case.inside is not None:
        return None
    paths = fresh_paths(case, PATHS, time_steps, seed=11, dtype=torch.float64)
    t, x = paths.points(0, time_steps)
    y, z = exact(t, x).detach(), torch.zeros_like(x)
    if case.driver is not None or case.driver_direction is not None:
        y, z = (part.detach() for part in reverse_gradient(lambda point: exact(t, point), x))
    phi = case.phi(t, x, y, z)
    e = torch.randn(DRAWS, *x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for h, sign in ((step, 1), (TINY * step, -1)):
        for draw in torch.cat([e, -e]) * math.sqrt(h):
            ahead = exact(t + h, x + case.mu(t, x) * h + case.sigma(t, x, draw))
            total += sign * float(((ahead - y) / h - phi).mean()) / (2 * DRAWS)
    return total * case.horizon / truth.value
