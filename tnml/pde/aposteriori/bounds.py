"""Intervals for the solution from samples of its corrected value, by what the driver's tangent can miss.

With C the corrected value of a path, Y its solution, Z = Du, and Q what the tangent at (v, Dv) misses of phi,

    C = Y_0 + int D Q dt + int D (Z - Dv)' sigma dW

so the mean of C is off by that of `int D Q dt`. There are three bounds on it, of which the tightest counts:

1. If the slopes of phi change by at most k in z (in units of the noise) and l in y nearby, a change of
   measure and the inequality of Cauchy and Schwarz give `std(C) sqrt(exp(k^2 T) - 1)`, and a term of l.
2. If `0 <= Q <= most / 2 |sigma' (Z - Dv)|^2`, the exponential martingale of `int D (Z - Dv)' sigma dW`
   gives `Y_0 >= -1 / most ln E exp(-most C)`, about `E C - most / 2 Var C`. For the quadratic driver of a
   control whose cost is measured by the noise this is the solution itself, as the transform of Cole and Hopf.
3. If phi bends in y only, the equation solved backwards along each path is a bound on the other side, by
   Jensen's inequality.

Source: 3 is the dual bound of Bender, Schweizer, Zhuo, Math. Finance 27 (2017) 866, arXiv 1310.3694, and for
penalties that of Rogers for early exercise; 1 and 2 are our own.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.pde.aposteriori.curvature import Curvature
from tnml.pde.aposteriori.linearised import Walk, driver
from tnml.pde.problem import Problem

NORMAL = 1.959964  # of a 95 % interval
_NEWTON = 6  # steps of Newton's method for the implicit equation of a time step
_LARGEST = 40.0  # exponent beyond which a bound says nothing


class Sampled(NamedTuple):
    """A mean and its standard error.

    Example:
        >>> sampled(torch.tensor([1.0, 3.0]))
        Sampled(mean=2.0, error=1.0)
    """

    mean: float
    error: float


def sampled(values: Tensor) -> Sampled:
    """The mean of independent values `[m]`, and its standard error."""
    values = values.double()
    return Sampled(float(values.mean()), float(values.std()) / math.sqrt(len(values)))


def extrapolated(fine: Tensor, coarse: Tensor) -> Tensor:
    """The values of each path without the part of their error that is linear in the time step.

    Example:
        >>> extrapolated(torch.tensor([1.5]), torch.tensor([2.0]))
        tensor([1.])
    """
    return 2 * fine - coarse


def distance(values: Tensor, near: Curvature, horizon: float, missed: float) -> float:
    """How far the solution may be from the mean of the corrected values: bound 1 of this module.

    Args:
        values: of the paths.
        near: of the driver.
        horizon: T.
        missed: the root mean square of what v misses along the paths.

    Example:
        >>> distance(torch.tensor([1.0, 2.0]), Curvature("neither", 0.0, 0.0, None), 1.0, 0.1)
        0.0
    """
    growth, power = near.of_y * horizon, near.of_z**2 * horizon
    if not max(growth, power) < _LARGEST:
        return math.inf
    by_z = float(values.std()) * math.sqrt(math.expm1(power))
    return math.exp(growth) * (by_z + 2 * near.of_y * horizon * missed)


def entropic(values: Tensor, most: float) -> Sampled:
    """How far the mean of the values lies above `-1 / most ln E exp(-most value)`: bound 2 of this module.

    The larger of the sampled number and that of a normal law counts: the sampled one misses far tails.

    Example:
        >>> entropic(torch.tensor([0.0, 1.0]), 1e-6).mean < 1e-6
        True
    """
    away = (values - values.mean()).double()
    weights = torch.exp((-most * away).clamp(max=_LARGEST))
    direct = float(weights.mean().log()) / most
    error = float(weights.std() / weights.mean()) / most / math.sqrt(len(values))
    return Sampled(max(direct, most / 2 * float(away.var())), error)


@torch.no_grad()
def backwards(problem: Problem, kept: Walk) -> Tensor:
    """The equation solved along each path from the horizon, its gradient taken from v `[m]`: bound 3.

    Steps are those of the implicit trapezoidal rule; if it has no solution, the values are not finite.

    Args:
        problem: whose driver, with a coupled drift in it, bends in y only.
        kept: a walk with its points.
    """
    n = len(kept.moved)
    h = problem.horizon / n

    def slope(k: int, y: Tensor) -> Tensor:
        """The driver along the path, without its part in z."""
        own = driver(problem, kept.t[k], kept.x[k], y, kept.z[k])
        return own - (kept.c[k] * kept.z[k]).sum(1, keepdim=True)

    y = problem.g(kept.x[n])
    later = slope(n, y)
    for k in range(n - 1, -1, -1):
        known = y - kept.moved[k]
        share = torch.where(later.isfinite(), 0.5, 1.0)
        known = known - h * (1 - share) * torch.nan_to_num(later, posinf=0.0, neginf=0.0)
        y = known
        for _ in range(_NEWTON):
            with torch.enable_grad():
                at = y.detach().requires_grad_()
                value = slope(k, at)
                rise = (
                    torch.autograd.grad(value.sum(), at, materialize_grads=True)[0]
                    if value.requires_grad
                    else torch.zeros_like(at)
                )
            y = y - (y + h * share * value.detach() - known) / (1 + h * share * rise)
        later = slope(k, y)
    return y[:, 0]


def interval(
    near: Curvature,
    values: Tensor,
    fine: Tensor,
    dual: tuple[Tensor, Tensor] | None,
    *,
    horizon: float,
    missed: float,
    inflation: float,
) -> tuple[float, float]:
    """The 95 % interval of the solution at the start.

    Args:
        near: what the driver is like near v.
        values: corrected values `[m]`, extrapolated, whose mean counts.
        fine: those at the time step, with the whole martingale, whose deviation counts.
        dual: values of `backwards` at both steps, if they are a bound.
        horizon: T.
        missed: see `distance`.
        inflation: the largest 1 / D of the paths.

    Example:
        >>> flat = Curvature("linear", 0.0, 0.0, None)
        >>> values = torch.arange(10.0)
        >>> low, high = interval(flat, values, values, None, horizon=1.0, missed=0.1, inflation=1.0)
        >>> round(low, 2), round(high, 2)
        (2.62, 6.38)
    """
    found = sampled(values)
    room = NORMAL * found.error
    if near.shape == "linear":
        return found.mean - room, found.mean + room
    reach = distance(fine, near, horizon, missed)
    if near.shape == "neither":
        return found.mean - reach - room, found.mean + reach + room
    sign = 1.0 if near.shape == "convex" else -1.0  # convex: the values are above the solution
    others = [sign * found.mean - reach - room]
    if near.most is not None and near.most > 0:
        gap = entropic(sign * fine, near.most * inflation)
        by_y = distance(fine, near._replace(of_z=0.0), horizon, missed)
        others.append(sign * found.mean - gap.mean - by_y - NORMAL * (found.error + gap.error))
    if dual is not None:
        own = sampled(sign * extrapolated(*dual))
        if math.isfinite(own.mean):
            others.append(min(own.mean - NORMAL * own.error, sign * found.mean + room))
    far, close = sign * max(others), found.mean + sign * room
    return (far, close) if sign > 0 else (close, far)
