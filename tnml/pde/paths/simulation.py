"""Paths of the forward process, from given noise."""

import dataclasses
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.checks import number, one_of
from tnml.errors import InputError
from tnml.pde.derivatives import Function, value_and_gradient
from tnml.pde.problem import Problem

_STEPS = ("auto", "euler", "exact")


@dataclass(frozen=True, kw_only=True)
class Paths:
    """A batch of paths on one grid of times.

    For a coupled problem, whose paths depend on the solution, `euler_maruyama` gives the start only: then x
    is `[m, 1, d]` and sdw `[m, 0, d]`, and a loss makes the steps.

    Args:
        times: `[n + 1]`.
        dt: length of a time step.
        x: `[m, n + 1, d]`.
        dw: Brownian increments `[m, n, d]`.
        sdw: sigma(t_n, X_n) dW_n `[m, n, d]`.
        fresh: more increments `[m, n, k, d]` from every point, for losses that look ahead from there.

    Example:
        >>> x, dw = torch.zeros(2, 3, 1), torch.ones(2, 2, 1)
        >>> Paths(times=torch.arange(3), dt=1.0, x=x, dw=dw, sdw=dw).part(1, 2).x.shape
        torch.Size([1, 3, 1])
    """

    times: Tensor
    dt: float
    x: Tensor
    dw: Tensor
    sdw: Tensor
    fresh: Tensor | None = None

    def __len__(self) -> int:
        return self.dw.shape[0]

    @property
    def steps(self) -> int:
        """Time steps n."""
        return self.dw.shape[1]

    def part(self, first: int, end: int) -> Self:
        """The paths `first` to `end - 1`."""
        cut = {
            name: getattr(self, name)[first:end]
            for name in ("x", "dw", "sdw", "fresh")
            if getattr(self, name) is not None
        }
        return dataclasses.replace(self, **cut)

    def points(self, first: int, end: int) -> tuple[Tensor, Tensor]:
        """`t [m k, 1]` and `x [m k, d]` of all paths at the times `first` to `end - 1`, path after path."""
        x = self.x[:, first:end]
        t = self.times[first:end, None].expand(x.shape[0], -1, -1)
        return t.reshape(-1, 1), x.reshape(-1, x.shape[2])


def euler_maruyama(
    problem: Problem,
    dw: Float[Tensor, "m n d"],
    t0: float = 0.0,
    x0: Tensor | None = None,
    *,
    steps: str = "auto",
    solution: Function | None = None,
    fresh: Tensor | None = None,
) -> Paths:
    """Paths from (t0, x0) to the horizon in equal steps, `X_{n+1} = X_n + mu dt + sigma dW_n`.

    Args:
        problem: gives drift and diffusion.
        dw: increments of variance (horizon - t0) / n, such as those of `increments`.
        t0: when the paths start.
        x0: where they start: `[d]`, or `[m, d]` for a separate start of every path; None: the problem's.
        steps: "euler"; "exact" for a geometric Brownian motion, whose steps are known; "auto": exact if they
            are known.
        solution: u(t, x), which coupled problems need to be stepped; their drift takes u and Du from it,
            and gradients flow through both. It is evaluated at `problem.inside` of the states.
        fresh: passed on, see `Paths`.

    Raises:
        InputError: shapes do not fit, t0 is outside [0, horizon), or exact steps are not known.

    Cost: n sequential steps of O(m d) work, plus what the problem's functions cost.

    Example:
        >>> from tnml.pde import HeatEquation, increments
        >>> problem = HeatEquation(dim=2)
        >>> paths = euler_maruyama(problem, increments(4, 5, 2, problem.horizon / 5, seed=0, step=0))
        >>> paths.x.shape, paths.times[-1].item() == problem.horizon
        (torch.Size([4, 6, 2]), True)
    """
    m, n, d = dw.shape
    t0 = number("t0", t0)
    if d != problem.dim:
        raise InputError(
            f"the increments have {d} dimensions, the problem {problem.name!r} has {problem.dim}"
        )
    if not 0 <= t0 < problem.horizon:
        raise InputError(f"t0 must lie in [0, {problem.horizon}), the time before the horizon, got {t0}")
    if one_of("steps", steps, _STEPS) == "exact" and problem.log_normal is None:
        raise InputError("exact steps are known for geometric Brownian motion only; use steps='euler'")
    times, dt = _times(problem.horizon, n, t0, dw)
    x = _start(problem, m, x0, dw)
    if problem.coupled and solution is None:
        return Paths(times=times, dt=dt, x=x[:, None], dw=dw, sdw=dw[:, :0], fresh=fresh)
    inside = problem.inside or (lambda state: state)
    visited, moved = [x], []
    for k in range(n):
        t = times[k].expand(m, 1)
        sdw = problem.sigma(t, x, dw[:, k])
        if solution is not None and problem.coupled:
            y, z = value_and_gradient(solution, t, inside(x))
            x = x + problem.mu(t, x, y, z) * dt + sdw
        elif problem.log_normal is not None and steps != "euler":
            x = problem.step(t, x, dt, dw[:, k])
        else:
            x = x + problem.mu(t, x) * dt + sdw
        visited.append(inside(x))
        moved.append(sdw)
    path, sdw = torch.stack(visited, 1), torch.stack(moved, 1)
    return Paths(times=times, dt=dt, x=path, dw=dw, sdw=sdw, fresh=fresh)


def _times(horizon: float, n: int, t0: float, like: Tensor) -> tuple[Tensor, float]:
    """`[n + 1]` times, the last being the horizon to the last digit, and the length of a step."""
    dt = (horizon - t0) / n
    times = t0 + dt * torch.arange(n + 1, dtype=torch.float64)
    times[-1] = horizon
    return times.to(like), dt


def _start(problem: Problem, m: int, x0: Tensor | None, like: Tensor) -> Tensor:
    """`[m, d]`."""
    if x0 is None:
        return problem.start(like.dtype, like.device).expand(m, -1)
    if x0.shape not in ((problem.dim,), (m, problem.dim)):
        raise InputError(f"x0 must be [{problem.dim}] or [{m}, {problem.dim}], got {list(x0.shape)}")
    return x0.to(like).expand(m, -1)
