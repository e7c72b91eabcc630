"""The Allen-Cahn equation for a terminal value of |x|: one space coordinate, solved spectrally."""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import NDArray
from torch import Tensor

from tnml.errors import InputError

Matrix = NDArray[np.float64]

_SPACE, _TIME = 32, 16  # polynomials in space, and in time within one panel
_FLAT = 5.0  # 1 / (2 + .4 rho) has its pole at rho = -5: what sets the scales of time and space


class Panel(NamedTuple):
    """Chebyshev coefficients `[time, space]` of the solution for times to go from `begin` to `end`."""

    begin: float
    end: float
    coefficients: Tensor


def allen_cahn(
    t: Float[Tensor, "m 1"], x: Float[Tensor, "m d"], *, sigma2: float = 1.0, horizon: float = 0.3
) -> Float[Tensor, "m 1"]:
    """The solution with `phi = -y + y^3`, `sigma = sqrt(sigma2)` and the terminal value `1 / (2 + .4 |x|^2)`.

    The solution depends on `rho = |x|^2` and the time to go only; it is solved for once per dimension,
    diffusion and horizon, to about ten digits, and evaluated as a polynomial.

    Args:
        t: times up to the horizon; later ones are taken as the horizon.
        x: points.
        sigma2: squared diffusion coefficient: 1 in Raissi's convention, 2 in that of Han, Jentzen and E.
        horizon: final time.

    Cost: a second or less for the solution, then some hundred multiplications per point.

    Example:
        >>> round(float(allen_cahn(torch.zeros(1, 1), torch.zeros(1, 20))), 7)
        0.3086985
    """
    t, x = t.double(), x.double()
    d = x.shape[1]
    left = (horizon - t).clamp(min=0)  # float32's 0.3 lies beyond 0.3
    rho = x.square().sum(1, keepdim=True)
    scale, panels = _solved(d, float(sigma2), float(horizon))
    space = _chebyshev(2 * rho / (rho + scale) - 1, _SPACE)
    value = torch.zeros_like(rho)
    for panel in panels:
        time = _chebyshev(2 * (left - panel.begin) / (panel.end - panel.begin) - 1, _TIME)
        here = (time @ panel.coefficients.to(x.device) * space).sum(1, keepdim=True)
        value = torch.where(left >= panel.begin, here, value)
    return value


@functools.lru_cache(maxsize=16)
def _solved(d: int, sigma2: float, horizon: float) -> tuple[float, tuple[Panel, ...]]:
    """The scale L of the coordinate `s = rho / (rho + L)` and the solution, panel after panel in time to go.

    In time to go the equation is `u' = sigma2 / 2 (4 rho u_rr + 2 d u_r) + u - u^3`, derivatives by rho. In s
    the half line becomes [0, 1]; both ends are singular points of the operator, so no boundary condition is
    set. Panels double in length, as what the diffusion smooths varies over longer and longer times.
    """
    if not horizon > 0 or not sigma2 > 0:
        raise InputError(f"horizon and sigma2 must be positive, got {horizon} and {sigma2}")
    scale = math.sqrt(_FLAT * (_FLAT + d * sigma2 * horizon))
    nodes, slope = _collocation(_SPACE)
    s = (nodes + 1) / 2
    first, second = 2 * slope, 4 * slope @ slope
    keep = (1 - s)[:, None]
    curved = 4 * s[:, None] * keep**2 * (keep * second - 2 * first)
    operator = sigma2 / (2 * scale) * (curved + 2 * d * keep**2 * first)
    value = (1 - s) / (2 * (1 - s) + 0.4 * scale * s)
    doublings = max(0, math.ceil(math.log2(max(1.0, horizon * d * sigma2 / _FLAT))))
    ends = [horizon * 2.0 ** (k - doublings) for k in range(doublings + 1)]
    panels = []
    for begin, end in zip([0.0, *ends[:-1]], ends, strict=True):
        values = _advanced(value, operator, end - begin)
        coefficients = np.linalg.solve(chebvander(_collocation(_TIME)[0], _TIME - 1), values)
        coefficients = np.linalg.solve(chebvander(nodes, _SPACE - 1), coefficients.T).T
        panels.append(Panel(begin, end, torch.from_numpy(np.ascontiguousarray(coefficients))))
        value = values[-1]
    return scale, tuple(panels)


def _advanced(start: Matrix, operator: Matrix, length: float) -> Matrix:
    """Values `[time, space]` over one panel: Newton's method for all its times at once."""
    slope = _collocation(_TIME)[1] * (2 / length)
    size = start.size
    linear = np.kron(slope[1:, 1:], np.eye(size)) - np.kron(np.eye(_TIME - 1), operator)
    fixed = np.kron(slope[1:, :1], start[:, None])[:, 0]
    values = np.tile(start, _TIME - 1)
    for _ in range(20):
        residual = linear @ values + fixed - values + values**3
        change = np.linalg.solve(linear + np.diag(3 * values**2 - 1), residual)
        values = values - change
        if np.abs(change).max() < 1e-13:
            break
    return np.vstack([start, values.reshape(_TIME - 1, size)])


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
