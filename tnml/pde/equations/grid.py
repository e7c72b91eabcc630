"""Equations of one log-normal asset by finite differences, for true values."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_banded

from tnml.errors import InputError
from tnml.pde.problem import Reference

Vector = npt.NDArray[np.float64]

_DEVIATIONS, _ITERATIONS = 8.0, 4
_IMPLICIT = 4  # first steps, in quarters, that smooth a kink


def one_asset(
    terminal: Callable[[Vector], Vector],
    driver: Callable[[Vector, Vector], Vector],
    *,
    rate: float,
    volatility: float,
    start: float,
    horizon: float,
    cells: int = 1600,
    steps: int = 400,
) -> float:
    """u(0, start) of `u_t + rate x u_x + volatility^2 / 2 x^2 u_xx = driver(u, x u_x)`.

    Central differences in ln x, and the trapezoidal rule in time with iterations for the driver.

    Args:
        terminal: of x.
        driver: of y and of x times its derivative.
        rate: of growth.
        volatility: of the asset.
        start: x at time 0.
        horizon: T.
        cells: in space.
        steps: in time.

    Cost: some tenths of a second.

    Example:
        >>> asset = {"rate": 0.1, "volatility": 0.2, "start": 1.0, "horizon": 1.0}
        >>> round(one_asset(lambda x: x, lambda y, e: 0 * y, **asset), 5)
        1.10517
    """
    width = _DEVIATIONS * volatility * horizon**0.5
    y = np.log(start) + np.linspace(-width, width, cells + 1)
    h, x = y[1] - y[0], np.exp(y)
    bend, slope = volatility**2 / 2 / h**2, (rate - volatility**2 / 2) / (2 * h)
    u = np.asarray(terminal(x), dtype=np.float64)

    def generator(u: Vector) -> Vector:
        found = np.zeros_like(u)
        found[1:-1] = (bend + slope) * u[2:] + (bend - slope) * u[:-2] - 2 * bend * u[1:-1]
        return found

    def along(u: Vector) -> Vector:
        return np.asarray(np.gradient(u, h))

    def step(u: Vector, dt: float, share: float) -> Vector:
        """One step backwards, of which `share` is implicit."""
        bands = np.zeros((3, len(u)))
        bands[0, 2:], bands[2, :-2] = -share * dt * (bend + slope), -share * dt * (bend - slope)
        bands[1] = 1.0
        bands[1, 1:-1] += share * dt * 2 * bend
        known = u + (1 - share) * dt * generator(u)
        later = u
        for _ in range(_ITERATIONS):
            middle = share * later + (1 - share) * u
            right = known - dt * driver(middle, along(middle))
            right[[0, -1]] = u[[0, -1]] - dt * driver(middle, along(middle))[[0, -1]]
            right[[0, -1]] += dt * rate * along(middle)[[0, -1]]  # the curvature vanishes in x there
            later = solve_banded((1, 1), bands, right)
        return np.asarray(later)

    dt = horizon / steps
    for _ in range(_IMPLICIT):
        u = step(u, dt / _IMPLICIT, 1.0)
    for _ in range(steps - 1):
        u = step(u, dt, 0.5)
    return float(np.interp(np.log(start), y, u))


def published(dim: int, value: float) -> Reference:
    """A value for 100 assets that Han, Jentzen and E, arXiv 1707.02568, compare with, to half its last digit.

    Raises:
        InputError: another number of assets.

    Example:
        >>> published(100, 57.300).value
        57.3
    """
    if dim != 100:
        raise InputError(f"the value is known for 1 and 100 assets, got {dim}")
    return Reference(value, 0.0005, "published: multilevel Picard iteration")
