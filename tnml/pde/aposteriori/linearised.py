"""Paths of an equation whose driver is replaced by its tangent at an approximation, and sums along them.

Let v be any approximation, and b, c the derivatives of the driver with respect to y and z at (v, Dv). Along

    dX = (mu - c) dt + sigma dW,    D_t = exp(-int_0^t b ds)

the mean of `D_T g(X_T) - int D (phi - b v - c . Dv) dt` is the solution at the start of the equation whose
driver is the tangent at (v, Dv). If phi is linear in (y, z), that is the solution itself, whatever v is. If
phi is convex, it is an upper bound: for a control problem, the cost of the policy that v stands for. If phi
is concave, it is a lower bound. Otherwise it is one step of Newton's method from v. The martingale
`int D Dv' sigma dW`, whose mean is zero, is subtracted, which leaves little noise where v is close.

Source: the primal bound of Bender, Schweizer, Zhuo, Math. Finance 27 (2017) 866, arXiv 1310.3694, in
continuous time; the discretisation is our own.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.pde.derivatives import Function, value_and_gradient
from tnml.pde.problem import LogNormal, Problem
from tnml.randomness import seeded


class Tangent(NamedTuple):
    """A driver and its derivatives with respect to y and z at some points.

    Example:
        >>> from tnml.pde import HamiltonJacobiBellman
        >>> one = torch.ones(1, 1)
        >>> found = tangent(HamiltonJacobiBellman(2), one, torch.ones(1, 2), one, torch.ones(1, 2))
        >>> found.phi.item(), found.b.item(), found.c.tolist()
        (2.0, 0.0, [[2.0, 2.0]])
    """

    phi: Tensor
    b: Tensor
    c: Tensor


class Walk(NamedTuple):
    """Sums along paths of the linearised equation, in float64, and what was found on the way.

    Args:
        raw: `D_T g - int D (phi - b v - c . Dv) dt` for each path `[m]`.
        martingale: `int D Dv' sigma dW` `[m]`, to the second order in dW where v bends.
        missed: mean square over the paths, at each time, of what v misses of the equation before `[n + 1]`.
        size: mean of |v| at each time `[n + 1]`.
        steepest: the largest |b|.
        inflation: the largest 1 / D.
        t: times of the points that were kept `[n + 1, m, 1]`, in float64 as all that follow.
        x: points `[n + 1, m, d]`.
        y: v there `[n + 1, m, 1]`.
        z: Dv there `[n + 1, m, d]`.
        c: derivatives with respect to z `[n + 1, m, d]`.
        moved: the part of the martingale of each step `[n, m, 1]`, without D.
        discount: D at each time `[n + 1, m, 1]`.
        so_far: `raw - martingale` up to each time `[n + 1, m, 1]`, without g.

    Example:
        >>> from tnml.pde import HeatEquation, increments
        >>> heat = HeatEquation(2)
        >>> found = walk(heat, heat.exact, increments(50, 100, 2, 0.01, seed=0, step=0, dtype=torch.float64))
        >>> abs(float(found.value.mean()) - 4.0) < 0.2
        True
    """

    raw: Tensor
    martingale: Tensor
    missed: Tensor
    size: Tensor
    steepest: float
    inflation: float
    t: Tensor
    x: Tensor
    y: Tensor
    z: Tensor
    c: Tensor
    moved: Tensor
    discount: Tensor
    so_far: Tensor

    @property
    def value(self) -> Float[Tensor, " m"]:
        """A sample of the corrected value for each path, little noise left."""
        return self.raw - self.martingale


def driver(problem: Problem, t: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """The driver `[m, 1]` of the same equation without a coupled drift: `phi - mu(t, x, y, z) . z`.

    Example:
        >>> from tnml.pde import HamiltonJacobiBellman
        >>> one = torch.ones(1, 1)
        >>> driver(HamiltonJacobiBellman(1), one, one, one, 3 * one).item()
        9.0
    """
    phi = problem.phi(t, x, y, z)
    return phi - (problem.mu(t, x, y, z) * z).sum(1, keepdim=True) if problem.coupled else phi


def has_driver(problem: Problem) -> bool:
    """Whether there is any driver once a coupled drift has moved into it.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> has_driver(HeatEquation(2))
        False
    """
    parts = (problem.driver, problem.driver_value, problem.driver_direction, problem.coupled_drift)
    return any(part is not None for part in parts)


def tangent(problem: Problem, t: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tangent:
    """The driver of `driver` with its derivatives: phi `[m, 1]`, b `[m, 1]`, c `[m, d]`.

    A driver that autograd cannot see counts as constant.
    """
    if not has_driver(problem):
        return Tangent(torch.zeros_like(y), torch.zeros_like(y), torch.zeros_like(z))
    with torch.enable_grad():
        y, z = y.detach().requires_grad_(), z.detach().requires_grad_()
        phi = driver(problem, t, x, y, z)
        if not phi.requires_grad:
            return Tangent(phi, torch.zeros_like(y), torch.zeros_like(z))
        b, c = torch.autograd.grad(phi.sum(), (y, z), materialize_grads=True)
    return Tangent(phi.detach(), b, c)


@torch.no_grad()
def walk(
    problem: Problem, v: Function, dw: Float[Tensor, "m n d"], *, keep: bool = False, heun: bool = False
) -> Walk:
    """Paths of the linearised equation from (0, x0) with these increments, and the sums along them.

    The drivers are integrated by the trapezoidal rule; one that is not finite at the horizon counts there as
    before it. Geometric Brownian motion takes steps that are exact if c is a constant times x.

    Args:
        problem: the equation.
        v: the approximation, evaluated by `value_and_gradient`.
        dw: increments of variance horizon / n.
        keep: whether the points are kept.
        heun: whether a step takes the mean of the drift before it and after it, which makes its error of
            second order in dt if sigma is constant, for n calls of v more.

    Cost: 3 n + 1 calls of v with its gradient for m points, one after the other.
    """
    m, n, _ = dw.shape
    dt = problem.horizon / n
    inside = problem.inside or (lambda state: state)
    free = dataclasses.replace(problem, coupled_drift=None) if problem.coupled else problem
    x = problem.start(dw.dtype, dw.device).expand(m, -1)
    discount = dw.new_ones(m, 1, dtype=torch.float64)
    raw, martingale = torch.zeros_like(discount), torch.zeros_like(discount)
    missed, size, kept = [], [], []
    before: tuple[Tensor, Tensor] | None = None
    steepest, inflation, start = 0.0, 1.0, torch.zeros_like(discount)
    for k in range(n + 1):
        t = x.new_full((m, 1), problem.horizon if k == n else k * dt)
        seen = inside(x)
        y, z = value_and_gradient(v, t, seen)
        phi, b, c = tangent(problem, t, seen, y, z)
        source = (phi.double() - b.double() * y.double()) - (c.double() * z.double()).sum(1, keepdim=True)
        b = b.double()
        if before is not None:
            if k == n:
                fine = source.isfinite() & b.isfinite()
                source, b = torch.where(fine, source, before[0]), torch.where(fine, b, before[1])
            raw = raw - discount * before[0] * dt / 2
            discount = discount * torch.exp(-(before[1] + b) * dt / 2)
            raw = raw - discount * source * dt / 2
        else:
            start = y.double()
        before = source, b
        steepest = max(steepest, float(b.abs().max()))
        inflation = max(inflation, float((1 / discount).max()))
        missed.append((discount * y.double() + raw - martingale - start).square().mean())
        size.append(y.double().abs().mean())
        moved, here = discount.new_zeros(m, 1), (discount, raw - martingale)
        if k < n:
            sdw = problem.sigma(t, x, dw[:, k])
            moved = (z.double() * sdw.double()).sum(1, keepdim=True)
            moved = moved + _second_order(problem, v, t, x, z, dt, dw[:, k], inside)
            martingale = martingale + discount * moved
            after = _stepped(free, t, x, c, dt, dw[:, k], sdw)
            if heun:
                after = _corrected(problem, free, v, t, x, c, dt, after)
            x = after
        if keep:
            kept.append((t.double(), seen.double(), y.double(), z.double(), c.double(), moved, *here))
    raw = raw + discount * problem.g(seen).double()
    columns = [torch.stack(part) for part in zip(*kept, strict=True)] if keep else [discount[:0]] * 8
    columns[5] = columns[5][:n]
    return Walk(
        raw[:, 0], martingale[:, 0], torch.stack(missed), torch.stack(size), steepest, inflation, *columns
    )


def _second_order(
    problem: Problem,
    v: Function,
    t: Tensor,
    x: Tensor,
    z: Tensor,
    dt: float,
    dw: Tensor,
    inside: Callable[[Tensor], Tensor],
) -> Tensor:
    """What the curvature of v adds to `Dv' sigma dW` in a step, its mean subtracted exactly `[m, 1]`.

    With e the unit vector along `sigma' Dv` and f any vector across it, the second differences of v along
    `sigma e` and `sigma f` are known before the step, so

        1/2 v_ee ((e . dW)^2 - dt) + 1/2 v_ff / |f|^2 (|dW across e|^2 - (d - 1) dt)

    has the mean zero whatever they are. It takes most of the noise that finite steps leave.
    """
    along = noise_of(problem, t, x, z)
    length = along.norm(dim=1, keepdim=True)
    along = torch.where(length > 0, along / length, 1 / math.sqrt(problem.dim))
    bends = []
    any_ = torch.randn(problem.dim, dtype=torch.float64, generator=seeded(0)).to(dw)
    across = any_ - (any_ * along).sum(1, keepdim=True) * along
    for direction in (along, across)[: 1 + (problem.dim > 1)]:
        moved = problem.sigma(t, x, math.sqrt(dt) * direction)
        there = value_and_gradient(v, t, inside(x + moved))[1]
        bend = ((there - z).double() * moved.double()).sum(1, keepdim=True) / dt
        bends.append(torch.where(bend.isfinite(), bend, 0.0))
    dw, along = dw.double(), along.double()
    first = (along * dw).sum(1, keepdim=True).square()
    found = bends[0] / 2 * (first - dt)
    if problem.dim > 1:
        size = across.double().square().sum(1, keepdim=True).clamp_min(1e-12)
        rest = dw.square().sum(1, keepdim=True) - first - (problem.dim - 1) * dt
        found = found + bends[1] / size / 2 * rest
    return found


def noise_of(problem: Problem, t: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """`sigma(t, x)' z [m, d]`.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> one = torch.ones(1, 2)
        >>> noise_of(HeatEquation(2, sigma=3.0), one[:, :1], one, one).tolist()
        [[3.0, 3.0]]
    """
    with torch.enable_grad():
        v = torch.zeros_like(x).requires_grad_()
        (found,) = torch.autograd.grad((problem.sigma(t, x, v) * z).sum(), v, materialize_grads=True)
    return found


def _stepped(problem: Problem, t: Tensor, x: Tensor, c: Tensor, dt: float, dw: Tensor, sdw: Tensor) -> Tensor:
    """One step of `dX = (mu - c) dt + sigma dW`."""
    if problem.log_normal is not None:
        return problem.step(t, x, dt, dw) * torch.exp(-dt * torch.where(x != 0, c / x, 0.0))
    return x + (problem.mu(t, x) - c) * dt + sdw


def _corrected(
    problem: Problem, free: Problem, v: Function, t: Tensor, x: Tensor, c: Tensor, dt: float, after: Tensor
) -> Tensor:
    """Where a step ends if its drift is the mean of those before it and `after` it."""
    later = (t + dt).clamp_max(problem.horizon)
    seen = after if problem.inside is None else problem.inside(after)
    there = tangent(problem, later, seen, *value_and_gradient(v, later, seen)).c
    if problem.log_normal is not None:
        rates = [torch.where(at != 0, part / at, 0.0) for part, at in ((there, after), (c, x))]
        return after * torch.exp(-dt / 2 * (rates[0] - rates[1]))
    return after + dt / 2 * (free.mu(later, after) - there - free.mu(t, x) + c)


def coarser(dw: Float[Tensor, "m n d"]) -> Float[Tensor, "m _ d"]:
    """The increments of the same Brownian paths over steps twice as long; n is even.

    Example:
        >>> coarser(torch.arange(4.0).view(1, 4, 1)).flatten().tolist()
        [1.0, 5.0]
    """
    return dw[:, 0::2] + dw[:, 1::2]


def steps_are_exact(problem: Problem) -> bool:
    """Whether the steps of `walk` leave no error but that of the driver's integral.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> steps_are_exact(HeatEquation(3))
        True
    """
    drift = problem.drift is not None or problem.coupled
    nonlinear = problem.driver is not None
    exact = problem.log_normal is not None or (problem.constant_diffusion is not None and not drift)
    return exact and not nonlinear and problem.driver_direction is None


def volatility_moved(problem: Problem, by: float) -> Problem:
    """The problem of geometric Brownian motion with every volatility larger by `by`.

    Example:
        >>> from tnml.pde import BlackScholesBarenblatt
        >>> volatility_moved(BlackScholesBarenblatt(2, sigma=0.4), 0.1).log_normal.factor
        0.5
    """
    known = problem.log_normal or LogNormal(0.0, 0.0)
    factor = known.factor
    if not isinstance(factor, Tensor):
        moved: float | Tensor = factor + by if factor >= 0 else factor - by
    elif factor.dim() == 2:
        moved = factor * (1 + by / factor.norm(dim=1, keepdim=True))
    else:
        moved = factor + by * torch.where(factor >= 0, 1.0, -1.0)
    return dataclasses.replace(problem, log_normal=LogNormal(known.rate, moved))
