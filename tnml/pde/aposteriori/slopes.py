"""Whether the gradient of a solution is right: its share of the randomness, its size, and jumps."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.pde.aposteriori.bounds import Sampled
from tnml.pde.aposteriori.linearised import noise_of
from tnml.pde.derivatives import Function, value_and_gradient
from tnml.pde.problem import Problem

_PLACES = 129  # on a line, and twice as many gaps on the finer one
_REACH = 1.5  # deviations of X_T on either side of x0
_JUMP = 0.05  # of the range of a slope, what counts as a jump
_STAYS = 0.75  # share of a jump that is left on the finer line
_TIMES = (0.0, 0.5)  # of the horizon


class Gradient(NamedTuple):
    """What the paths say about the gradient.

    Args:
        error: root mean square of `sigma' (Z - Dv)` along the paths over that of `sigma' Z`, both estimated.
        size: the factor by which Dv had to be multiplied to explain most; 1 is right.

    Example:
        >>> Gradient(0.01, Sampled(1.0, 0.002)).size.mean
        1.0
    """

    error: float
    size: Sampled


def gradient_of(raw: Tensor, fine: Tensor, coarse: Tensor) -> Gradient:
    """The error of the gradient from what it leaves of the variance.

    What the steps leave as well is proportional to their length, and is removed by comparing the two.

    Args:
        raw: values of the paths without the martingale `[m]`.
        fine: with it.
        coarse: the same at twice the time step.

    Example:
        >>> raw = torch.tensor([0.0, 1.0, 2.0, 3.0])
        >>> found = gradient_of(raw, raw / 2, raw / 2)
        >>> round(found.error, 6), round(found.size.mean, 6)
        (0.5, 2.0)
    """
    all_, left = float(raw.var()), float(fine.var())
    own = max(0.0, 2 * left - float(coarse.var()))
    martingale = (raw - fine) - (raw - fine).mean()
    power = float(martingale.square().sum())
    if all_ <= 0 or power <= 0:
        return Gradient(0.0 if all_ <= 0 else 1.0, Sampled(1.0, math.inf))
    factor = float((martingale * raw).sum()) / power
    rest = raw - raw.mean() - factor * martingale
    error = math.sqrt(float((martingale * rest).square().sum())) / power
    return Gradient(math.sqrt(own / all_), Sampled(factor, error))


@torch.no_grad()
def jump_of(problem: Problem, v: Function, dtype: torch.dtype) -> tuple[float, float, float] | None:
    """The largest jump of the slope of v on a line through x0: time, size, and size over the slope's range.

    The line goes where the noise moves v most. A jump is a difference between neighbours that remains when
    they are twice as close. None if there is no jump.

    Args:
        problem: the equation.
        v: the solution.
        dtype: its dtype.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> jump_of(HeatEquation(2), lambda t, x: x.square().sum(1, keepdim=True), torch.float64) is None
        True
        >>> kinked = lambda t, x: (x - 0.3).abs().sum(1, keepdim=True)
        >>> jump_of(HeatEquation(2), kinked, torch.float64)[1] > 1
        True
    """
    start = problem.start(dtype)[None]
    inside = problem.inside or (lambda state: state)
    found = None
    for part in _TIMES:
        t = start.new_full((1, 1), part * problem.horizon)
        z = value_and_gradient(v, t, start)[1]
        if not bool(z.norm() > 1e-6 * problem.g_gradient(start).norm().clamp_min(1e-30)):
            z = torch.ones_like(z)
        back = noise_of(problem, t, start, z)
        if not float(back.norm()) > 0:
            return None
        along = problem.sigma(t, start, back / back.norm()) * math.sqrt(problem.horizon)
        differences = []
        for places in (_PLACES, 2 * _PLACES - 1):
            s = torch.linspace(-_REACH, _REACH, places, dtype=dtype)[:, None]
            x = (
                start + s * along
                if problem.log_normal is None
                else start * torch.exp(s * torch.where(start != 0, along / start, 0.0))
            )
            slope = (value_and_gradient(v, t.expand(places, 1), inside(x))[1] * along).sum(1)
            differences.append((slope.diff().abs(), slope.max() - slope.min()))
        (wide, _), (close, range_) = differences
        jump, before = float(close.max()), float(wide.max())
        if range_ > 0 and jump > _JUMP * float(range_) and jump > _STAYS * before:
            share = jump / float(range_)
            if found is None or share > found[2]:
                found = part * problem.horizon, jump / float(along.norm()), share
    return found
