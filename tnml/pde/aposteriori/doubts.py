"""Doubts about a solution that its equation and its training raise before any truth is known."""

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from tnml.loop.results import Row
from tnml.pde.aposteriori.linearised import driver, has_driver
from tnml.pde.aposteriori.result import Flag
from tnml.pde.problem import Problem
from tnml.randomness import seeded

_STIFF = 0.5  # slope of the driver in y times a time step
_FELL = 0.6  # of the loss a quarter earlier
_SUBSTEPS = 400  # of the equation without noise
_EXPLODED = 1e4  # times the size of the terminal value
_SUPERLINEAR = 1.2  # exponent with which a driver grows
_POINTS = 3  # at which a given solution is put into the equation
_OFF = 1e-2  # of the size of the terms, from which it does not solve it


def stiff(steepest: float, dt: float) -> Flag | None:
    """The driver's slope in y over a time step.

    Example:
        >>> stiff(50.0, 0.02).name
        'stiff'
    """
    if not steepest * dt > _STIFF:
        return None
    return Flag(
        "stiff",
        f"the driver is stiff: its slope in y times the time step is {steepest * dt:.2g}; take "
        f"{math.ceil(steepest * dt / _STIFF)} times as many time_steps",
    )


def still_falling(history: Sequence[Row]) -> Flag | None:
    """The loss of the last quarter of a training, compared with the quarter before.

    Example:
        >>> still_falling([{"loss": 2.0**-n} for n in range(8)]).name
        'training'
    """
    losses = [abs(row["loss"]) for row in history if "loss" in row]
    quarter = len(losses) // 4
    if quarter < 2:
        return None
    late, before = statistics.median(losses[-quarter:]), statistics.median(losses[-2 * quarter : -quarter])
    if not late < _FELL * before:
        return None
    return Flag(
        "training",
        f"the loss was still falling, by {100 * (1 - late / before):.0f} % in the last quarter; train longer",
    )


@torch.no_grad()
def may_blow_up(problem: Problem, ends: Tensor, *, largest: bool = False) -> Flag | None:
    """The equation without space, from the terminal values backwards: whether it explodes before time 0.

    Args:
        problem: the equation.
        ends: points X_T `[m, d]`, in float64.
        largest: from the largest of these values and not from their mean: before that time a solution exists,
            after it there may be none.

    Example:
        >>> cubic = Problem(name="cubic", dim=1, horizon=5.0, x0=0.0, diffusion=1.0,
        ...     terminal=lambda x: 1 + 0 * x, driver_value=lambda t, x, y: -(y**3))
        >>> may_blow_up(cubic, torch.zeros(4, 1, dtype=torch.float64)).name
        'blow-up'
    """
    if not has_driver(problem):
        return None
    g = problem.g(ends)
    size = float(g.abs().mean())
    if not size > 0:
        return None
    y = (g.flatten()[g.abs().argmax()] if largest else g.mean()).view(1, 1)
    x, z = ends[:1], torch.zeros_like(ends[:1])
    h = problem.horizon / _SUBSTEPS

    def slope(t: Tensor, y: Tensor) -> Tensor:
        return driver(problem, t, x, y, z)

    for k in range(_SUBSTEPS):
        t = y.new_full((1, 1), problem.horizon - (k + 0.5) * h)
        middle = y - h / 2 * slope(t, y)
        y = y - h * slope(t, middle)
        if not abs(float(y)) <= _EXPLODED * size:
            big = torch.full_like(y, 10 * size)
            far, near = slope(t, 4 * big), slope(t, big)
            power = torch.log((far / near).abs().clamp_min(1e-300)) / math.log(4)
            if bool((power > _SUPERLINEAR).any()):
                return Flag(
                    "blow-up",
                    f"the solution may blow up: without space the equation explodes {(k + 1) * h:.3g} before "
                    f"the horizon, T = {problem.horizon:g}; ask whether a solution exists",
                )
            return None
    return None


def wrong_sign(problem: Problem, t: Tensor, x: Tensor, y: Tensor) -> Flag | None:
    """A driver that is `-rate y` while the assets grow at exactly that rate.

    Args:
        problem: the equation.
        t: times `[m, 1]`.
        x: points `[m, d]`.
        y: values `[m, 1]`.

    Example:
        >>> from tnml.pde import LogNormal
        >>> call = Problem(name="call", dim=1, horizon=1.0, x0=1.0, log_normal=LogNormal(0.05, 0.2),
        ...     terminal=lambda x: (x - 1).clamp(min=0), driver_value=lambda t, x, y: -0.05 * y)
        >>> one = torch.ones(2, 1)
        >>> wrong_sign(call, one, one, one).name
        'sign'
    """
    if problem.log_normal is None or not has_driver(problem):
        return None
    rate = torch.as_tensor(problem.log_normal.rate, dtype=x.dtype)
    zero = torch.zeros_like(x)
    slope = driver(problem, t, x, y + 1, zero) - driver(problem, t, x, y, zero)
    if not bool((rate > 0).all() and torch.allclose(slope, -rate.flatten()[:1].expand_as(slope), rtol=1e-4)):
        return None
    if not bool(torch.allclose(driver(problem, t, x, 0 * y, zero), torch.zeros_like(y))):
        return None
    return Flag(
        "sign",
        f"the driver is {float(slope[0]):.4g} y while the assets grow at {float(rate.flatten()[0]):.4g}: "
        "here u_t + L u = phi, so that discounting is phi = + rate y; check the sign",
    )


def exact_is_another(problem: Problem, x: Tensor) -> Flag | None:
    """The given exact solution, put into the equation at a few points by differences in double precision.

    Args:
        problem: the equation.
        x: points `[m, d]` where paths have been, in float64.

    Example:
        >>> import dataclasses
        >>> from tnml.pde import HeatEquation
        >>> x = torch.ones(3, 2, dtype=torch.float64)
        >>> exact_is_another(HeatEquation(2), x) is None
        True
        >>> exact_is_another(dataclasses.replace(HeatEquation(2), diffusion=1.0), x).name
        'exact'
    """
    exact = problem.exact
    if exact is None:
        return None
    d, horizon = problem.dim, problem.horizon
    x = x[torch.randperm(len(x), generator=seeded(0))[:_POINTS]]
    worst = 0.0
    for place, point in enumerate(x.split(1)):
        t = point.new_full((1, 1), (0.2 + 0.3 * place / _POINTS) * horizon)
        with torch.enable_grad():
            inputs = point.detach().requires_grad_()
            value = exact(t, inputs)
            if not value.requires_grad:
                return None
            (z,) = torch.autograd.grad(value.sum(), inputs, materialize_grads=True)
        y = value.detach()
        step, h = 1e-3 * math.sqrt(horizon), 1e-4 * horizon
        rows = step * problem.sigma(t.expand(d, 1), point.expand(d, -1), torch.eye(d, dtype=x.dtype))
        many = t.expand(d, 1)
        bends = (exact(many, point + rows) + exact(many, point - rows) - 2 * y) / step**2
        parts = [
            (exact(t + h, point) - exact(t - h, point)) / (2 * h),
            bends.sum() / 2,
            -driver(problem, t, point, y, z),
        ]
        if not problem.coupled:
            parts.append((problem.mu(t, point) * z).sum())
        found = [float(part) for part in parts]
        size = max(*map(abs, found), 1e-3 * abs(float(y)) / horizon, 1e-12)
        worst = max(worst, abs(sum(found)) / size)
    if not worst > _OFF:
        return None
    return Flag(
        "exact",
        "the exact solution that was given does not solve the equation: u_t + L u - phi is "
        f"{100 * worst:.2g} % of its largest term; check signs and constants",
    )
