"""The Allen-Cahn equation for a terminal value of |x|: one space coordinate, solved spectrally."""

import functools
import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import NDArray
from torch import Tensor

from tnml.errors import InputError

Matrix = NDArray[np.float64]

_SPACE, _TIME = 48, 16  # polynomials in space, and in time within one panel
_FLAT = 5.0  # 1 / (2 + .4 rho) has its pole at rho = -5: what sets the first scales of time and space
_LONGEST_PANEL = 0.5  # the reaction's own time is 1
_LONGEST_HORIZON = 100.0
_NEWTON = 20  # steps of Newton's method, at most; it takes four to six
_TAIL = 2e-9  # the last coefficients of a panel, at most; the error was up to 5 times this


class Panel(NamedTuple):
    """Chebyshev coefficients `[time, space]` of `w = u / (1 - s)` for times to go from `begin` to `end`.

    The coordinate of space is `s = rho / (rho + scale)`.
    """

    begin: float
    end: float
    scale: float
    coefficients: Matrix


def radial_solution(
    left: Float[Tensor, "m 1"], rho: Float[Tensor, "m 1"], *, dim: int, sigma2: float, horizon: float
) -> Float[Tensor, "m 1"]:
    """The solution as a function of the time to go and `rho = |x|^2`, see `tnml.pde.references.allen_cahn`.

    Args:
        left: times to go, from 0 to the horizon; float64.
        rho: squared lengths of the points.
        dim: their space coordinates.
        sigma2: squared diffusion coefficient.
        horizon: final time, at most 100.

    Raises:
        InputError: the horizon or sigma2 is out of range, or eight digits are out of reach.

    Example:
        >>> left, rho = torch.full((1, 1), 0.3, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
        >>> round(float(radial_solution(left, rho, dim=20, sigma2=1.0, horizon=0.3)), 7)
        0.3086985
    """
    panels = _solved(dim, sigma2, horizon)
    ends = torch.tensor([panel.end for panel in panels[:-1]], dtype=torch.float64, device=rho.device)
    places = torch.bucketize(left.detach()[:, 0], ends)
    value = torch.zeros_like(rho)
    for place in places.unique().tolist():
        rows = (places == place).nonzero()[:, 0]
        value = value.index_put((rows,), _evaluated(panels[place], left[rows], rho[rows]))
    return value


def _evaluated(panel: Panel, left: Float[Tensor, "m 1"], rho: Float[Tensor, "m 1"]) -> Float[Tensor, "m 1"]:
    """The solution within one panel."""
    space = _chebyshev(2 * rho / (rho + panel.scale) - 1, _SPACE)
    time = _chebyshev(2 * (left - panel.begin) / (panel.end - panel.begin) - 1, _TIME)
    coefficients = torch.from_numpy(panel.coefficients).to(rho.device)
    return panel.scale / (rho + panel.scale) * (time @ coefficients * space).sum(1, keepdim=True)


@functools.lru_cache(maxsize=16)
def _solved(d: int, sigma2: float, horizon: float) -> tuple[Panel, ...]:
    """The solution, panel after panel in time to go.

    In time to go the equation is `u' = sigma2 / 2 (4 rho u_rr + 2 d u_r) + u - u^3`, derivatives by rho. In
    `s = rho / (rho + L)` the half line becomes [0, 1]; both ends are singular points of the operator, so no
    boundary condition is set. Solved for is `w = u / (1 - s)`: far out u falls as 1 / rho and grows as
    exp(t), so an error of u there would grow with it, while L, and with it w, follows. Panels grow in length
    up to that of the reaction's time, as what the diffusion smooths varies over longer and longer times.

    Raises:
        InputError: a value is out of range, or the last coefficients say that digits are lost.
    """
    if not 0 < horizon <= _LONGEST_HORIZON or not 0 < sigma2 < math.inf:
        raise InputError(
            f"horizon must be positive and at most {_LONGEST_HORIZON:g} and sigma2 positive, "
            f"got {horizon} and {sigma2}"
        )
    nodes, _ = _collocation(_SPACE)
    s = (nodes + 1) / 2
    panels: list[Panel] = []
    for begin, end in pairwise(_ends(d, sigma2, horizon)):
        scale = math.sqrt(_width(begin, d, sigma2) * _width(end, d, sigma2))
        value = 1 / (2 * (1 - s) + 0.4 * scale * s)
        if panels:
            before = panels[-1]
            joint = scale * s + before.scale * (1 - s)
            value = chebvander(2 * scale * s / joint - 1, _SPACE - 1) @ before.coefficients.sum(0)
            value *= before.scale / joint
        values = _advanced(value, _operator(d, sigma2, scale), 1 - s, end - begin)
        coefficients = np.linalg.solve(chebvander(_collocation(_TIME)[0], _TIME - 1), values)
        coefficients = np.linalg.solve(chebvander(nodes, _SPACE - 1), coefficients.T).T
        tail = max(np.abs(coefficients[-2:]).max(), np.abs(coefficients[:, -2:]).max())
        if not tail < _TAIL:
            raise InputError(
                f"the Allen-Cahn equation with d = {d}, sigma2 = {sigma2:g} and horizon = {horizon:g} cannot "
                f"be solved to eight digits (polynomials end at {tail:.1g}); use a shorter horizon"
            )
        panels.append(Panel(begin, end, scale, np.ascontiguousarray(coefficients)))
    return tuple(panels)


def _ends(d: int, sigma2: float, horizon: float) -> list[float]:
    """Where panels end, from 0 to the horizon."""
    length = min(_LONGEST_PANEL, _FLAT / ((d + 4) * sigma2))
    found = [0.0]
    while found[-1] + length < horizon * (1 - 1e-9):
        found.append(found[-1] + length)
        length = min(_LONGEST_PANEL, found[-1])
    return [*found, horizon]


def _width(left: float, d: int, sigma2: float) -> float:
    """The rho over which u varies: the pole moves away by diffusion; u = 1 spreads as the tail grows."""
    return max(_FLAT + d * sigma2 * left, _FLAT / 2 * math.exp(left))


def _operator(d: int, sigma2: float, scale: float) -> Matrix:
    """The diffusion of w, from values at the nodes of space to values there."""
    nodes, slope = _collocation(_SPACE)
    s = (nodes + 1) / 2
    first, second = 2 * slope, 4 * slope @ slope
    s, keep = s[:, None], 1 - s[:, None]
    curved = keep**2 * second - 4 * keep * first + 2 * np.eye(_SPACE)
    found: Matrix = sigma2 / (2 * scale) * keep * (4 * s * curved + 2 * d * (keep * first - np.eye(_SPACE)))
    return found


def _advanced(start: Matrix, operator: Matrix, keep: Matrix, length: float) -> Matrix:
    """Values `[time, space]` of w over one panel: Newton's method for all its times at once; keep is 1 - s.

    Raises:
        InputError: it does not converge.
    """
    slope = _collocation(_TIME)[1] * (2 / length)
    size = start.size
    linear = np.kron(slope[1:, 1:], np.eye(size)) - np.kron(np.eye(_TIME - 1), operator)
    fixed = np.kron(slope[1:, :1], start[:, None])[:, 0]
    values, cubes = np.tile(start, _TIME - 1), np.tile(keep**2, _TIME - 1)
    for _ in range(_NEWTON):
        residual = linear @ values + fixed - values + cubes * values**3
        change = np.linalg.solve(linear + np.diag(3 * cubes * values**2 - 1), residual)
        values = values - change
        if np.abs(change).max() < 1e-11:
            return np.vstack([start, values.reshape(_TIME - 1, size)])
    raise InputError(
        f"the Allen-Cahn equation is not solved within a panel of length {length:g}: Newton's method still "
        f"moves by {np.abs(change).max():.1g}; use a shorter horizon"
    )


@functools.cache
def _collocation(count: int) -> tuple[Matrix, Matrix]:
    """Chebyshev's points from -1 to 1, and the matrix from values there to their polynomial's slopes."""
    points = -np.cos(np.pi * np.arange(count) / (count - 1))
    weights = np.where(np.isin(np.arange(count), (0, count - 1)), 0.5, 1.0) * (-1.0) ** np.arange(count)
    gaps = points[:, None] - points[None, :] + np.eye(count)
    matrix = weights[None, :] / weights[:, None] / gaps
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return points, matrix


def _chebyshev(z: Float[Tensor, "m 1"], count: int) -> Float[Tensor, "m k"]:
    """The first Chebyshev polynomials at z."""
    found = [torch.ones_like(z), z]
    while len(found) < count:
        found.append(2 * z * found[-1] - found[-2])
    return torch.cat(found, 1)
