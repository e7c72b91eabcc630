"""Linear-quadratic control with dense matrices."""

import functools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from scipy.integrate import solve_ivp
from torch import Tensor

from tnml.checks import whole
from tnml.pde.checks import as_number
from tnml.pde.equations.equation import Equation
from tnml.pde.equations.terms import time_to_go
from tnml.pde.problem import Problem

Matrix = npt.NDArray[np.float64]
_PRECISE = {"rtol": 1e-10, "atol": 1e-12}


class Plant(NamedTuple):
    """The matrices of `dX = (A X + B a) dt + S dW` and of the cost `X'QX + a'Ra`, in the end `X'GX`.

    Example:
        >>> plant(2, 0).q.shape
        (2, 2)
    """

    a: Matrix
    b: Matrix
    s: Matrix
    q: Matrix
    r: Matrix
    g: Matrix


def LinearQuadraticControl(  # noqa: N802
    dim: int = 10, *, seed: int = 0, horizon: float = 1.0
) -> Problem:
    """The cost of controlling a linear plant with dense random matrices, `phi = z' B R^-1 B' z / 4 - x'Qx`.

    `mu = A x`, `sigma = S`, `g = x'Gx`, `x0 = .5`; the best control is `-R^-1 B' z / 2`. The solution is
    `x'P(t)x + p(t)` with P from the Riccati equation.

    Args:
        dim: coordinates of the plant and of the control.
        seed: of the matrices, see `plant`.
        horizon: final time.

    Raises:
        InputError: a value is out of range.

    Source:
        The Riccati equation is textbook, for example Yong, Zhou, Stochastic Controls (1999), chapter 6; the
        matrices are our own.

    Example:
        >>> round(LinearQuadraticControl(10).true_value().value, 4)
        6.7294
    """
    dim, seed = whole("dim", dim, 1), whole("seed", seed)
    horizon = as_number("horizon", horizon, above=0.0)
    made = plant(dim, seed)
    gain = made.b @ np.linalg.solve(made.r, made.b.T)
    return Problem(
        name="linear-quadratic",
        dim=dim,
        horizon=horizon,
        x0=0.5,
        terminal=partial(_form, matrix=torch.tensor(made.g)),
        drift=partial(_times, matrix=torch.tensor(made.a)),
        diffusion=torch.tensor(made.s),
        driver=partial(_costs, gain=torch.tensor(gain), q=torch.tensor(made.q)),
        exact=partial(linear_quadratic, seed=seed, horizon=horizon),
        options={"dim": dim, "seed": seed, "horizon": horizon},
    )


def plant(dim: int, seed: int) -> Plant:
    """Matrices of a seed: all dense, A nearly stable, R and the noise well conditioned."""
    source, eye = np.random.default_rng(seed), np.eye(dim)

    def draw() -> Matrix:
        return np.asarray(source.standard_normal((dim, dim)) / np.sqrt(dim))

    a, b = 0.3 * draw() - 0.2 * eye, eye + 0.3 * draw()
    s, m = 0.5 * (eye + 0.4 * draw()), draw()
    q, r = 0.5 * eye + 0.5 * m @ m.T, eye + 0.2 * np.ones((dim, dim)) / dim
    m = draw()
    return Plant(a, b, s, q, r, eye + m @ m.T)


def linear_quadratic(
    t: Float[Tensor, "m 1"], x: Float[Tensor, "m d"], *, seed: int = 0, horizon: float = 1.0
) -> Float[Tensor, "m 1"]:
    """`x'P(t)x + p(t)`; one Riccati equation is solved for each dimension and seed.

    Cost: a second at d = 100; then d^2 operations for every point, and an interpolation for every time.

    Example:
        >>> round(float(linear_quadratic(torch.zeros(1, 1), torch.full((1, 10), 0.5))), 4)
        6.7294
    """
    d = x.shape[1]
    left, place = torch.unique(time_to_go(t, horizon)[:, 0].detach().cpu(), return_inverse=True)
    found = torch.from_numpy(_riccati(d, seed, float(horizon))(left.numpy()).T).to(x.device)[place]
    matrix = found[:, :-1].view(-1, d, d)
    return torch.einsum("mi,mij,mj->m", x.double(), matrix, x.double())[:, None] + found[:, -1:]


@functools.lru_cache(maxsize=8)
def _riccati(dim: int, seed: int, horizon: float) -> Callable[[Matrix], Matrix]:
    """P and p `[d d + 1, k]` at times to go `[k]`."""
    a, b, s, q, r, g = plant(dim, seed)
    gain, noise = b @ np.linalg.solve(r, b.T), s @ s.T

    def slope(_: float, state: Matrix) -> Matrix:
        p = state[:-1].reshape(dim, dim)
        change = a.T @ p + p @ a + q - p @ gain @ p
        return np.append(change.ravel(), np.trace(noise @ p))

    start = np.append(g.ravel(), 0.0)
    solved = solve_ivp(slope, (0.0, horizon), start, dense_output=True, **_PRECISE)
    return solved.sol  # type: ignore[no-any-return]


def _form(x: Tensor, *, matrix: Tensor) -> Tensor:
    return (x * (x @ matrix.to(x))).sum(1, keepdim=True)


def _times(t: Tensor, x: Tensor, *, matrix: Tensor) -> Tensor:
    return x @ matrix.to(x).T


def _costs(t: Tensor, x: Tensor, y: Tensor, z: Tensor, *, gain: Tensor, q: Tensor) -> Tensor:
    return _form(z, matrix=gain) / 4 - _form(x, matrix=q)


_RECIPE = {"terminal": "quadratic", "iterations": 300}
EQUATION = Equation(problem=LinearQuadraticControl, truth=linear_quadratic, recipe=_RECIPE)
