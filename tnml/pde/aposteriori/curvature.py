"""How far a driver is from linear near an approximation: the sign and the size of what its tangent misses."""

from typing import NamedTuple

import torch
from torch import Tensor

from tnml.pde.aposteriori.linearised import driver, has_driver, noise_of, tangent
from tnml.pde.problem import Problem
from tnml.randomness import seeded

_SAMPLES = 8  # perturbations of every point
_MATRICES = 4  # points at which all directions are examined
_WIDE = 128  # dimensions above which it is one point
_FACTORS = (0.25, 1.0, 2.0)
_ZERO = 1e-9  # of the size of the terms, what counts as rounding
_REACHED = 1e-6  # of a direction, below which noise reaches all of it
_QUADRATIC = 0.05  # relative change of the curvature between two radii, below which it counts as constant


class Curvature(NamedTuple):
    """What a driver is like around an approximation.

    Args:
        shape: "linear"; "convex" or "concave" if its tangents are below or above it; else "neither".
        of_y: how much its slope in y changes nearby.
        of_z: how much its slope in z changes nearby, in units of the noise: `|sigma^-1 (change of c)|`;
            infinite if the noise does not reach that direction.
        most: if the slope in z changes at a constant rate, the largest such rate, so that what the tangent
            misses is at most `most / 2 |sigma' Dz|^2`; else None.

    Example:
        >>> Curvature("linear", 0.0, 0.0, None).shape
        'linear'
    """

    shape: str
    of_y: float
    of_z: float
    most: float | None


def curvature(
    problem: Problem, t: Tensor, x: Tensor, y: Tensor, z: Tensor, near_y: float, near_z: float
) -> Curvature:
    """The curvature of the driver at some points of paths.

    Found by sampling: what lies between the samples is not seen.

    Args:
        problem: the equation; a coupled drift counts as part of the driver.
        t: times `[p, 1]`, in float64 as all that follow.
        x: points `[p, d]`.
        y: the approximation there.
        z: its gradient there.
        near_y: how far off y may be.
        near_z: how far off `|sigma' z|` may be.

    Cost: some thousand calls of the driver for single points; at d above 100 the d x d systems take longer.

    Example:
        >>> from tnml.pde import HamiltonJacobiBellman
        >>> problem = HamiltonJacobiBellman(3)
        >>> t, x = torch.zeros(5, 1, dtype=torch.float64), torch.ones(5, 3, dtype=torch.float64)
        >>> found = curvature(problem, t, x, x[:, :1], x, 0.1, 0.1)
        >>> found.shape, round(found.most, 6)
        ('convex', 1.0)
    """
    if not has_driver(problem):
        return Curvature("linear", 0.0, 0.0, None)
    size_z = float(noise_of(problem, t, x, z).norm(dim=1).square().mean().sqrt())
    size_y = float(y.square().mean().sqrt())
    far = _missed(problem, t, x, y, z, max(size_y, near_y), max(size_z, near_z))
    if far.abs().max() <= _ZERO:
        return Curvature("linear", 0.0, 0.0, None)
    near = _missed(problem, t, x, y, z, near_y, near_z)
    shape = "convex" if near.min() >= -_ZERO else "concave" if near.max() <= _ZERO else "neither"
    of_y = _change_in_y(problem, t, x, y, z, near_y, near_z)
    of_z, most = _change_in_z(problem, t, x, y, z, near_y, near_z)
    return Curvature(shape, of_y, of_z, most)


def sigma_matrix(problem: Problem, t: Tensor, x: Tensor) -> Tensor:
    """Sigma at one point, `[d, d]`.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> zero = torch.zeros(1, 2, dtype=torch.float64)
        >>> sigma_matrix(HeatEquation(2, sigma=3.0), zero[:, :1], zero).tolist()
        [[3.0, 0.0], [0.0, 3.0]]
    """
    unit = torch.eye(problem.dim, dtype=x.dtype)
    return problem.sigma(t.expand(problem.dim, 1), x.expand(problem.dim, -1), unit).T


def _directions(problem: Problem, t: Tensor, x: Tensor, seed: int) -> Tensor:
    """Random directions `[m, d]` with `|sigma' direction| = 1`; zero where no noise goes."""
    draw = torch.randn(x.shape, dtype=x.dtype, generator=seeded(seed))
    length = noise_of(problem, t, x, draw).norm(dim=1, keepdim=True)
    return torch.where(length > 0, draw / length, 0.0)


def _repeated(*parts: Tensor) -> list[Tensor]:
    return [part.repeat_interleave(_SAMPLES, 0) for part in parts]


def _missed(
    problem: Problem, t: Tensor, x: Tensor, y: Tensor, z: Tensor, near_y: float, near_z: float
) -> Tensor:
    """What the tangent misses of the driver at perturbed points, over the size of the terms."""
    t, x, y, z = _repeated(t, x, y, z)
    phi, b, c = tangent(problem, t, x, y, z)
    found = []
    for number, factor in enumerate(_FACTORS):
        move = torch.randn(len(y), 1, dtype=y.dtype, generator=seeded(100 + number))
        for along_y, along_z in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
            dy = factor * near_y * along_y * move
            dz = factor * near_z * along_z * _directions(problem, t, x, 200 + number)
            linear = b * dy + (c * dz).sum(1, keepdim=True)
            there = driver(problem, t, x, y + dy, z + dz)
            terms = torch.stack([there.abs(), phi.abs(), (b * dy).abs(), (c * dz).norm(dim=1, keepdim=True)])
            scale = terms.sum(0).clamp_min(1e-300)
            missed = (there - phi - linear) / scale
            found.append(missed[missed.isfinite()])
    return torch.cat(found) if found else torch.zeros(1, dtype=y.dtype)


def _change_in_y(
    problem: Problem, t: Tensor, x: Tensor, y: Tensor, z: Tensor, near_y: float, near_z: float
) -> float:
    t, x, y, z = _repeated(t, x, y, z)
    b = tangent(problem, t, x, y, z).b
    most = 0.0
    for sign in (-1.0, 1.0):
        dz = sign * near_z * _directions(problem, t, x, 300)
        for dy, moved in ((sign * near_y, z), (sign * near_y, z + dz), (0.0, z + dz)):
            change = (tangent(problem, t, x, y + dy, moved).b - b).abs()
            most = max(most, float(torch.nan_to_num(change).max()))
    return most


def _change_in_z(
    problem: Problem, t: Tensor, x: Tensor, y: Tensor, z: Tensor, near_y: float, near_z: float
) -> tuple[float, float | None]:
    """The largest change of the slope in z, and its largest rate if that is constant."""
    d = problem.dim
    places = torch.linspace(0, len(x) - 1, _MATRICES if d <= _WIDE else 1).long().unique()
    most, rates, constant = 0.0, [0.0], True
    for place in places.tolist():
        point = [part[place : place + 1] for part in (t, x, y, z)]
        sigma = sigma_matrix(problem, *point[:2])
        inverse = torch.linalg.pinv(sigma, rtol=1e-10)

        def change(dz: Tensor, dy: float = 0.0, point: list[Tensor] = point, inverse: Tensor = inverse,
                   sigma: Tensor = sigma) -> Tensor:  # fmt: skip
            """Changes of c in units of the noise, `[k, d]`; infinite where the noise does not reach."""
            a, b, c, e = (part.expand(len(dz), -1) for part in point)
            moved = tangent(problem, a, b, c + dy, e + dz).c - tangent(problem, a, b, c, e).c
            found = moved @ inverse.T
            lost = (found @ sigma.T - moved).norm(dim=1) > 1e-6 * moved.norm(dim=1)
            return torch.where(lost[:, None], torch.inf, found)

        units = near_z * inverse  # row j: the dz with sigma' dz = near_z e_j
        plus, minus, close = change(units), change(-units), change(units / 4)
        sides = change(units[:1] * 0, near_y), change(units[:1] * 0, -near_y)
        beyond = (
            torch.eye(d, dtype=sigma.dtype) - sigma @ inverse
        )  # where no noise goes, u may be off by any amount
        reach = max(near_z, float(point[3].norm()))
        hidden = [change(sign * reach * beyond) for sign in (-1, 1)] if beyond.norm() > _REACHED else []
        lengths = torch.cat([plus, minus, *sides, *hidden]).norm(dim=1)
        if not bool(lengths.isfinite().all()):
            return torch.inf, None
        rate = (plus + plus.T) / (2 * near_z)
        values, vectors = torch.linalg.eigh(rate)
        largest = values.abs().argmax()
        top = near_z * (inverse.T @ vectors[:, largest])[None]
        ends = torch.cat([change(top), change(-top)]).norm(dim=1)
        most = max(most, float(lengths.max()), float(ends.max()))
        uneven = max(float((plus - 4 * close).norm()), float((plus + minus).norm()))
        constant = constant and uneven <= _QUADRATIC * float(plus.norm())
        constant = constant and float(torch.cat(sides).norm()) <= 1e-9 * float(plus.norm())
        rates.append(float(values.abs().max()))
    return most, max(rates) if constant else None
