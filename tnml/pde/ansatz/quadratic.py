"""The equation solved among quadratic functions of x: exact for linear-quadratic problems.

Among functions `q(t, x) = c + p . (x - m) + 1/2 (x - m)' H (x - m)` the equation

    q_t = F(t, x) = phi(t, x, q, Dq) - mu . Dq - 1/2 Tr(sigma sigma' H)

is followed backwards from the terminal value; after every step F is replaced by the quadratic function with
its mean curvature and slope over a few fixed points. If F is quadratic whenever q is, as in linear-quadratic
control, where these are the Riccati equations, nothing is lost.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.pde.paths.pilot import sample_paths
from tnml.pde.problem import Problem
from tnml.randomness import seeded

_PAIRS = 4  # pairs of points over which curvature and slope are means
_STEPS = 32  # of the Runge-Kutta method
_DEGREE = 12  # of the polynomials in time
_MOST = 256  # dimensions: beyond, the matrices are too large
_BEND = 1e-3  # of the slope over the spread of the points, below which there is no curvature
_LARGEST = 1e8  # times the terminal value, what counts as an explosion


class Quadratic(NamedTuple):
    """A quadratic function of x whose coefficients are polynomials in time.

    Args:
        middle: m `[d]`.
        coefficients: of Chebyshev polynomials in `2 t / T - 1`, `[k, 1 + d + d d]`: c, p, H.

    Example:
        >>> flat = Quadratic(torch.zeros(2), torch.tensor([[1.0, 0, 0, 2.0, 0, 0, 2.0]]))
        >>> quadratic_at(flat, torch.zeros(1, 1), torch.ones(1, 2), 1.0).item()
        3.0
    """

    middle: Tensor
    coefficients: Tensor


def quadratic_at(
    quadratic: Quadratic, t: Float[Tensor, "m 1"], x: Float[Tensor, "m d"], horizon: float
) -> Float[Tensor, "m 1"]:
    """The quadratic function at points.

    Cost: k products of x with a d x d matrix.
    """
    d, (k, _) = x.shape[1], quadratic.coefficients.shape
    away = x - quadratic.middle
    s = 2 * t / horizon - 1
    parts = [torch.ones_like(s), s]
    while len(parts) < k:
        parts.append(2 * s * parts[-1] - parts[-2])
    weights = torch.cat(parts[:k], 1)
    c = quadratic.coefficients
    bent = (away @ c[:, 1 + d :].reshape(k * d, d).T).view(-1, k, d)
    slope = weights @ c[:, 1 : 1 + d] + torch.einsum("mk,mkd->md", weights, bent) / 2
    return weights @ c[:, :1] + (slope * away).sum(1, keepdim=True)


def quadratic_of(problem: Problem, *, bend: bool = True) -> Quadratic | None:
    """The solution among quadratic functions, in float64; None if there is none or it explodes.

    Args:
        problem: the equation, not coupled.
        bend: whether a terminal value without curvature has none, too.

    Cost: some 128 evaluations of the driver and its second derivatives at `8 d` points; at most 256
    dimensions.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> heat = HeatEquation(3)
        >>> found = quadratic_of(heat)
        >>> zero = torch.zeros(1, 3, dtype=torch.float64)
        >>> round(quadratic_at(found, zero[:, :1], zero, 1.0).item(), 9)
        6.0
    """
    if problem.coupled or problem.dim > _MOST:
        return None
    points, horizon = _points(problem), problem.horizon
    middle = points.mean(0)
    end = _projected(problem.g, points, middle)
    if not bool(end.isfinite().all()) or (bend and not _is_bent(end, points - middle)):
        return None
    times = torch.linspace(0, 1, _STEPS + 1, dtype=torch.float64)
    times = (horizon * (1 - torch.cos(math.pi / 2 * times))).flip(0)  # from T, where it changes most, to 0
    times = horizon - (horizon - times).clamp(0, horizon)
    size = float(end.abs().max())

    def rate(t: float, state: Tensor) -> Tensor:
        return _projected(lambda x: _rate(problem, t, x, state, middle), points, middle)

    state, kept = end, [end]
    for now, then in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        h = then - now
        one = rate(now if now < horizon else horizon * (1 - 1e-9), state)
        two = rate(now + h / 2, state + h / 2 * one)
        three = rate(now + h / 2, state + h / 2 * two)
        four = rate(then, state + h * three)
        state = state + h / 6 * (one + 2 * two + 2 * three + four)
        if not bool(state.abs().max() <= _LARGEST * size):
            return None
        kept.append(state)
    basis = torch.cos(torch.acos((2 * times / horizon - 1).clamp(-1, 1))[:, None] * torch.arange(_DEGREE + 1))
    fitted = torch.linalg.lstsq(basis, torch.stack(kept)).solution
    return Quadratic(middle, fitted)


def _points(problem: Problem) -> Tensor:
    """A few points around the mean of the paths, in pairs opposite to each other."""
    x = sample_paths(problem).x.flatten(0, 1)
    draw = torch.randn(_PAIRS, problem.dim, dtype=torch.float64, generator=seeded(0))
    return x.mean(0) + torch.cat([draw, -draw]) * x.std(0)


def _is_bent(state: Tensor, away: Tensor) -> bool:
    d = away.shape[1]
    slope, hessian = state[1 : 1 + d], state[1 + d :].view(d, d)
    return bool((away @ hessian).norm(dim=1).mean() > _BEND * slope.norm())


def _projected(f: Callable[[Tensor], Tensor], points: Tensor, middle: Tensor) -> Tensor:
    """The quadratic function with the mean curvature, slope and value of f over the points."""
    m, d = points.shape
    rows = points.repeat_interleave(d, 0).requires_grad_()
    with torch.enable_grad():
        y = f(rows)
        if y.requires_grad:
            (z,) = torch.autograd.grad(y.sum(), rows, create_graph=True, materialize_grads=True)
        else:
            z = torch.zeros_like(rows)
        own = (z.view(m, d, d).diagonal(dim1=1, dim2=2)).sum()  # row i of a point gives row i of its Hessian
        hessian = torch.zeros_like(rows)
        if own.requires_grad:
            (hessian,) = torch.autograd.grad(own, rows, materialize_grads=True)
    hessians = hessian.view(m, d, d)
    values, slopes = y.detach().view(m, d)[:, 0], z.detach().view(m, d, d)[:, 0]
    away = points - middle
    bend = (hessians.mean(0) + hessians.mean(0).T) / 2
    slope = slopes.mean(0) - bend @ away.mean(0)
    value = values.mean() - (away @ slope).mean() - ((away @ bend) * away).sum(1).mean() / 2
    return torch.cat([value.view(1), slope, bend.flatten()])


def _rate(problem: Problem, t: float, x: Tensor, state: Tensor, middle: Tensor) -> Tensor:
    """F at points `[m, 1]`, differentiable in x."""
    m, d = x.shape
    time = x.new_full((m, 1), t)
    slope, bend = state[1 : 1 + d], state[1 + d :].view(d, d)
    away = x - middle
    bent = away @ bend
    y = state[0] + (away * (slope + bent / 2)).sum(1, keepdim=True)
    z = slope + bent
    constant = problem.constant_diffusion
    if constant is not None and problem.log_normal is None:
        unit = torch.eye(d, dtype=x.dtype)
        moved = problem.sigma(time[:1].expand(d, 1), x[:1].detach().expand(d, -1), unit)
        noise = (moved * (moved @ bend)).sum()
    else:  # sigma depends on x: its columns at every point
        unit = torch.eye(d, dtype=x.dtype).repeat(m, 1)
        moved = problem.sigma(time.repeat_interleave(d, 0), x.repeat_interleave(d, 0), unit)
        noise = (moved * (moved @ bend)).sum(1).view(m, d).sum(1, keepdim=True)
    return problem.phi(time, x, y, z) - (problem.mu(time, x) * z).sum(1, keepdim=True) - noise / 2
