"""A drift that depends on the solution, moved into the driver, so that paths are known in advance."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tnml.pde.comparisons import points_around
from tnml.pde.problem import Problem

_ROWS = 3  # points at which the drift without the solution is tried


def decoupled(problem: Problem) -> Problem:
    """The same equation with a drift that does not depend on the solution; others are returned as they are.

    With `mu_0 = mu(t, x, 0, 0)` the equation `u_t + mu . Du + 1/2 Tr(sigma sigma' D2u) = phi` is that of the
    drift `mu_0` and the driver `phi - (mu - mu_0) . Du`. Where `mu_0` is not finite, zero takes its place.

    Args:
        problem: any equation.

    Example:
        >>> problem = Problem(name="mine", dim=2, horizon=1.0, x0=1.0, terminal=lambda x: x[:, :1],
        ...     diffusion=1.0, coupled_drift=lambda t, x, y, z: -x - z)
        >>> found, one = decoupled(problem), torch.ones(1, 2)
        >>> found.mu(one[:, :1], one).tolist(), found.phi(one[:, :1], one, one[:, :1], 3 * one).item()
        ([[-1.0, -1.0]], 18.0)
    """
    mu = problem.coupled_drift
    if mu is None:
        return problem
    start = problem.start(torch.float64).expand(_ROWS, -1)
    t, x = points_around(start, problem.sigma, problem.horizon)
    free: Callable[[Tensor, Tensor], Tensor] | None = partial(_without_solution, mu=mu)
    if not bool(_without_solution(t, x, mu=mu).isfinite().all()):
        free = None
    parts: dict[str, Any] = {
        "driver": problem.driver,
        "value": problem.driver_value,
        "direction": problem.driver_direction,
    }
    return dataclasses.replace(
        problem,
        coupled_drift=None,
        drift=free,
        driver=partial(_moved, mu=mu, free=free, **parts),
        driver_value=None,
        driver_direction=None,
    )


def _without_solution(t: Tensor, x: Tensor, *, mu: Callable[..., Tensor]) -> Tensor:
    return mu(t, x, torch.zeros_like(t), torch.zeros_like(x))


def _moved(
    t: Tensor,
    x: Tensor,
    y: Tensor,
    z: Tensor,
    *,
    mu: Callable[..., Tensor],
    free: Callable[..., Tensor] | None,
    driver: Callable[..., Tensor] | None,
    value: Callable[..., Tensor] | None,
    direction: Callable[..., Tensor] | None,
) -> Tensor:
    """The driver, whichever way it was given, without what the solution adds to the drift."""
    drift = mu(t, x, y, z) if free is None else mu(t, x, y, z) - free(t, x)
    phi = -(drift * z).sum(1, keepdim=True)
    if driver is not None:
        return phi + driver(t, x, y, z)
    if value is not None:
        phi = phi + value(t, x, y)
    return phi if direction is None else phi + (z * direction(t, x)).sum(1, keepdim=True)
