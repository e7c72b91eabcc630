"""Kinks and jumps of a terminal value across planes: found on sample paths, and smoothed in closed form.

A call on a basket has a kink where the basket is at the strike: on a plane in x, or, for geometric means and
single log-normal assets, in ln x. Segments between ends of sample paths are searched for places where g or
its slope jumps; if all of them lie on a few parallel planes `a . l(x) = q` and the jumps of g, of its slope
and of its curvature are the same along each of them, they are known functions of one number, whose mean
under the diffusion is a formula.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.pde.paths.pilot import sample_paths
from tnml.pde.problem import Problem
from tnml.randomness import seeded

_BENT, _BROKEN = 1, 2  # kinds of places: a kink, a jump
_SEGMENTS, _BEYOND = 96, 0.5  # how many, and how far they go beyond the ends of paths
_CELLS, _FINER, _ZOOMS = 64, 16, 6  # of a segment, of each refinement by a factor of 8, and how often
_KINK, _JUMP = 0.035, 0.5  # factors of the second difference at a refinement: 1/64 if smooth, 1/8, 1
_ROUNDING = 1e-12  # of g
_FEWEST = 12  # places that make a plane
_PARALLEL = 1e-5  # relative deviation from a common direction
_SIDES = 1e-4  # distance on either side of a kink, over the length of a segment
_APART = 1e-5  # distance of two planes over the spread of the coordinate
_SIDE = 1e-3  # the same for the points that jumps are taken from
_SAME, _NONE = 1e-3, 1e-6  # relative deviation of what jumps along a plane, and its least size
_PLANES = 6  # at most
_LEAST = 1e-14  # variance that counts as none


class Kinks(NamedTuple):
    """Parallel planes `a . l(x) = places` with what jumps there.

    Args:
        logarithms: whether l is ln x; else it is x.
        normal: a `[d]`.
        places: `[k]`.
        jumps: of g, of its derivative in `a . l`, and of the second derivative `[k, 3]`.

    Example:
        >>> Kinks(False, torch.ones(1), torch.zeros(1), torch.tensor([[0.0, 1.0, 0.0]])).places.tolist()
        [0.0]
    """

    logarithms: bool
    normal: Tensor
    places: Tensor
    jumps: Tensor


def find_kinks(problem: Problem) -> Kinks | None:
    """The planes across which the terminal value or its slope jumps; None if they are not such planes.

    Cost: some 20,000 evaluations of g.

    Example:
        >>> from tnml.pde import LogNormal
        >>> call = Problem(name="call", dim=1, horizon=1.0, x0=100.0, log_normal=LogNormal(0.05, 0.2),
        ...     terminal=lambda x: (x - 100).clamp(min=0), driver_value=lambda t, x, y: 0.05 * y)
        >>> found = find_kinks(call)
        >>> found.logarithms, [round(value, 3) for value in found.jumps[0].tolist()]
        (True, [0.0, 100.0, 100.0])
    """
    ends = sample_paths(problem).x[:, -1]
    positive = problem.log_normal is not None and bool((ends > 0).all())
    for logarithms in (True, False) if positive else (False,):
        found = _planes(problem, ends.log() if logarithms else ends, logarithms)
        if found is not None:
            return found
    return None


def kinked(kinks: Kinks, x: Tensor) -> Tensor:
    """The kinks and jumps alone: a function of x with those of g, `[m, 1]`."""
    q = coordinate(kinks, x)
    away = q - kinks.places.to(x)
    above = (away > 0).to(x)
    jumps = kinks.jumps.to(x)
    parts = above * (jumps[:, 0] + away * (jumps[:, 1] + away * jumps[:, 2] / 2))
    return parts.sum(1, keepdim=True)


def smoothed_kinks(kinks: Kinks, mean: Tensor, variance: Tensor) -> Tensor:
    """The mean of `kinked` if the coordinate is normal, `[m, 1]`.

    Args:
        kinks: from `find_kinks`.
        mean: of the coordinate `[m, 1]`.
        variance: of it `[m, 1]`.

    Example:
        >>> call = Kinks(False, torch.ones(1), torch.zeros(1), torch.tensor([[0.0, 1.0, 0.0]]))
        >>> round(smoothed_kinks(call, torch.zeros(1, 1), torch.ones(1, 1)).item(), 6)
        0.398942
    """
    away = mean - kinks.places.to(mean)
    width = variance.clamp_min(_LEAST).sqrt()
    z = away / width
    above = torch.special.ndtr(z)
    density = width * torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    jumps = kinks.jumps.to(mean)
    first = away * above + density
    second = (away.square() + width.square()) * above + away * density
    parts: Tensor = jumps[:, 0] * above + jumps[:, 1] * first + jumps[:, 2] / 2 * second
    return parts.sum(1, keepdim=True)


def coordinate(kinks: Kinks, x: Tensor) -> Tensor:
    """`a . l(x) [m, 1]`."""
    seen = x.clamp_min(1e-30).log() if kinks.logarithms else x
    return seen @ kinks.normal.to(x)[:, None]


def coordinate_later(
    problem: Problem, kinks: Kinks, t: Tensor, x: Tensor, left: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the coordinate after the time `left`, `[m, 1]` each; differentiable in x.

    They are exact for logarithms of geometric Brownian motion and for constant coefficients; otherwise the
    coefficients are taken as constant.

    Args:
        problem: the equation, not coupled.
        kinks: from `find_kinks`.
        t: `[m, 1]`.
        x: `[m, d]`.
        left: `[m, 1]`.
    """
    a, q = kinks.normal.to(x), coordinate(kinks, x)
    if problem.log_normal is None:
        mean = q + problem.mu(t, x) @ a[:, None] * left
        with torch.enable_grad():
            v = torch.zeros_like(x).requires_grad_()
            along = problem.sigma(t, x, v) @ a
            (back,) = torch.autograd.grad(
                along.sum(), v, create_graph=x.requires_grad, materialize_grads=True
            )
        return mean, back.square().sum(1, keepdim=True) * left
    rate, factor = (torch.as_tensor(part, dtype=x.dtype, device=x.device) for part in problem.log_normal)
    own = factor.square().sum(1) if factor.dim() == 2 else factor.square()
    if kinks.logarithms:
        mean = q + ((rate - own / 2) * a).sum() * left
        moved = a @ factor if factor.dim() == 2 else a * factor
        return mean, moved.square().sum() * left
    later = x * torch.exp(rate * left)
    weighted = later * a
    moved = weighted @ factor if factor.dim() == 2 else weighted * factor
    return weighted.sum(1, keepdim=True), moved.square().sum(1, keepdim=True) * left


def _planes(problem: Problem, ends: Tensor, logarithms: bool) -> Kinks | None:
    """The planes in one coordinate system, from the ends of paths `[m, d]` in it."""

    def value(points: Tensor) -> Tensor:
        rows = points.flatten(0, -2)
        return problem.g(rows.exp() if logarithms else rows).view(points.shape[:-1]).detach()

    one, two = (ends[torch.randint(len(ends), (_segments(ends),), generator=seeded(k))] for k in (0, 1))
    one, two = one + _BEYOND * (one - two), two + _BEYOND * (two - one)
    along = two - one
    place, kind = _places(value, one, along)
    rows = (kind > 0).nonzero()[:, 0]
    if len(rows) < _FEWEST:
        return None
    points = one[rows] + place[rows, None] * along[rows]
    bent = kind[rows] == _BENT
    if bool(bent.any()):
        sides = along[rows][bent] * _SIDES
        normal = _direction(_slope(problem, points[bent] + sides, logarithms)
                            - _slope(problem, points[bent] - sides, logarithms))  # fmt: skip
    else:
        normal = _plane_through(points)
    if normal is None:
        return None
    places = _distinct(points @ normal, float((ends @ normal).std()))
    if places is None:
        return None
    jumps = _jumps(value, points, normal, places, float((ends @ normal).std()))
    return None if jumps is None else Kinks(logarithms, normal, places, jumps)


def _segments(ends: Tensor) -> int:
    return max(_SEGMENTS, 3 * ends.shape[1])


def _places(value: Callable[[Tensor], Tensor], start: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Where the strongest kink or jump of each segment is, and its kind."""
    count = len(start)
    low, high = torch.zeros(count).double(), torch.ones(count).double()
    before, kind = None, torch.full((count,), _BROKEN)
    row = torch.arange(count)
    for zoom in range(_ZOOMS + 1):
        cells = _FINER if zoom else _CELLS
        s = low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, cells + 1, dtype=torch.float64)
        g = value(start[:, None] + s[..., None] * along[:, None])
        most, cell = (g[:, 2:] - 2 * g[:, 1:-1] + g[:, :-2]).abs().max(1)
        if before is not None:
            ratio = most / before.clamp_min(1e-300)
            real = most > _ROUNDING * g.abs().amax(1)
            now = torch.where((ratio > _JUMP) & real, _BROKEN, torch.where((ratio > _KINK) & real, _BENT, 0))
            kind = torch.minimum(kind, now)
        before = most
        low, high = s[row, cell], s[row, cell + 2]
    return (low + high) / 2, kind


def _slope(problem: Problem, points: Tensor, logarithms: bool) -> Tensor:
    """The gradient of g in these coordinates."""
    if not logarithms:
        return problem.g_gradient(points)
    x = points.exp()
    return problem.g_gradient(x) * x


def _direction(vectors: Tensor) -> Tensor | None:
    """The unit vector that all vectors `[m, d]` are multiples of, if there is one."""
    if not bool(vectors.isfinite().all()):
        return None
    _, sizes, rows = torch.linalg.svd(vectors, full_matrices=False)
    if not float(sizes[0]) > 0 or (len(sizes) > 1 and sizes[1] > _PARALLEL * sizes[0]):
        return None
    return _pointing_up(rows[0])


def _plane_through(points: Tensor) -> Tensor | None:
    """The normal of the one plane that all points `[m, d]` lie on."""
    m, d = points.shape
    if d == 1:
        return points.new_ones(1)
    if m <= d:
        return None
    _, sizes, rows = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    if not sizes[-1] < _PARALLEL * sizes[-2]:
        return None
    return _pointing_up(rows[-1])


def _pointing_up(vector: Tensor) -> Tensor:
    """The vector or its negative, whichever has the larger sum."""
    return -vector if float(vector.sum()) < 0 else vector


def _distinct(places: Tensor, spread: float) -> Tensor | None:
    """The few different numbers among these."""
    ordered = places.sort().values
    first = torch.cat([torch.tensor([True]), ordered.diff() > _APART * spread])
    group = first.cumsum(0) - 1
    if int(group[-1]) >= _PLANES:
        return None
    sums = torch.zeros(int(group[-1]) + 1, dtype=places.dtype)
    return sums.index_add(0, group, ordered) / torch.bincount(group)


def _jumps(
    value: Callable[[Tensor], Tensor], points: Tensor, normal: Tensor, places: Tensor, spread: float
) -> Tensor | None:
    """What jumps across each plane `[k, 3]`, if it is the same all along it."""
    q, h = points @ normal, _SIDE * spread
    nearest = (q[:, None] - places).abs().argmin(1)
    found = []
    steps = torch.arange(1, 5, dtype=torch.float64) * h
    powers = torch.linalg.inv(steps[:, None] ** torch.arange(4))  # values to coefficients
    for k, place in enumerate(places):
        base = points[nearest == k]
        base = base + (place - base @ normal)[:, None] * normal
        sides = [
            value(base[:, None] + sign * steps[:, None] * normal) @ powers.T
            * torch.tensor([1.0, sign, 2.0, 6.0 * sign])
            for sign in (1.0, -1.0)
        ]  # fmt: skip
        jump = (sides[0] - sides[1])[:, :3] * torch.tensor([1.0, spread, spread**2])
        size = sides[0][:, 0].abs().max() + sides[1][:, 0].abs().max() + jump.abs().max()
        mean, off = jump.mean(0), (jump - jump.mean(0)).abs().amax(0)
        if bool((off[:2] > _SAME * size).any()):
            return None
        kept = (mean.abs() > _NONE * size) & (off <= _SAME * size)
        found.append(torch.where(kept, mean, 0.0) / torch.tensor([1.0, spread, spread**2]))
    return torch.stack(found)
