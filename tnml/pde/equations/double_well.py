"""Control out of a double well: separate wells, and wells that are coupled."""

import functools
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError
from tnml.pde.checks import as_number
from tnml.pde.equations.equation import Equation
from tnml.pde.equations.terms import time_to_go
from tnml.pde.problem import Problem, Reference

_GRID, _EDGE = 240, 3.2  # of the one-dimensional Schroedinger equation


def DoubleWell(  # noqa: N802
    dim: int = 50, *, height: float = 0.1, weight: float = 0.05, horizon: float = 0.5
) -> Problem:
    """Control from one side of `dim` separate double wells to the other, `phi = |z|^2 / 2`.

    `mu = -grad sum height (x_i^2 - 1)^2`, `sigma = 1`, `g = sum weight (x_i - 1)^2`, `x0 = -1`. By the
    transform of Cole and Hopf the solution is a sum of one-dimensional ones.

    Args:
        dim: wells.
        height: of the barrier.
        weight: of the cost in the end.
        horizon: final time.

    Raises:
        InputError: a value is out of range.

    Source:
        Richter, Sallandt, Nuesken, ICML 2021, arXiv 2102.11830, section 4.2.

    Example:
        >>> round(DoubleWell().true_value().value, 4)
        9.6872
    """
    dim = whole("dim", dim, 1)
    raw = {"height": height, "weight": weight, "horizon": horizon}
    given: dict[str, Any] = {name: as_number(name, value, above=0.0) for name, value in raw.items()}
    return Problem(
        name="double-well",
        dim=dim,
        horizon=given["horizon"],
        x0=-1.0,
        terminal=partial(_distance, weight=given["weight"]),
        drift=partial(_slide, height=given["height"]),
        diffusion=1.0,
        driver=_half_square_of_z,
        exact=partial(double_well, **given),
        options={"dim": dim, **given},
    )


def double_well(
    t: Float[Tensor, "m 1"],
    x: Float[Tensor, "m d"],
    *,
    height: float = 0.1,
    weight: float = 0.05,
    horizon: float = 0.5,
) -> Float[Tensor, "m 1"]:
    """`-sum ln E exp(-g(X_T^i))`: eigenfunctions of a Schroedinger equation in one dimension for each term.

    Args:
        t: times.
        x: points, within -2.5 to 2.5; others are taken as the nearest of these.
        height: see `DoubleWell`.
        weight: see there.
        horizon: see there.

    Example:
        >>> round(float(double_well(torch.zeros(1, 1), torch.full((1, 1), -1.0))), 5)
        0.19374
    """
    well = _spectrum(float(height), float(weight))
    left = time_to_go(t, horizon)
    z = x.double().clamp(-2.5, 2.5)
    energies, modes = (part.to(x.device) for part in (well.energies, well.modes))
    amplitudes = torch.exp(-left * energies) * well.start.to(x.device)  # [m, k]
    places = well.places.to(x.device)
    waves = torch.sinc((z[..., None] - places) / (places[1] - places[0]))  # [m, d, n]
    values = torch.einsum("mdn,nk,mk->md", waves, modes, amplitudes)
    return -(values.log() + height * (z.square() - 1).square()).sum(1, keepdim=True)


class _Well(NamedTuple):
    places: Tensor
    energies: Tensor
    modes: Tensor
    start: Tensor


@functools.lru_cache(maxsize=8)
def _spectrum(height: float, weight: float) -> _Well:
    """Of `-1/2 d2 + 1/2 (V'^2 - V'')`, the generator after a factor exp(-V), by sinc functions."""
    x = np.linspace(-_EDGE, _EDGE, _GRID)
    step, index = x[1] - x[0], np.arange(_GRID)
    apart = index[:, None] - index[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        kinetic = np.where(apart == 0, np.pi**2 / 6, (-1.0) ** apart / apart**2) / step**2
    slope, bend = 4 * height * x * (x**2 - 1), 4 * height * (3 * x**2 - 1)
    energies, modes = np.linalg.eigh(kinetic + np.diag((slope**2 - bend) / 2))
    end = np.exp(-height * (x**2 - 1) ** 2 - weight * (x - 1) ** 2)
    parts = (x, energies, modes, modes.T @ end)
    return _Well(*(torch.from_numpy(part) for part in parts))


def CoupledDoubleWell(  # noqa: N802
    dim: int = 20, *, weight: float = 0.5, seed: int = 42, horizon: float = 0.3
) -> Problem:
    """Control from one side of `dim` coupled double wells to the other, `phi = |z|^2 / 2`.

    `mu = -grad sum_ij C_ij (x_i^2 - 1) (x_j^2 - 1)`, `C = 1 + .1 N` with a matrix N of normal numbers, else
    as `DoubleWell`. There is no formula; the value for 20 wells is that of the source.

    Args:
        dim: wells.
        weight: of the cost in the end.
        seed: of the coupling, by NumPy's older generator, as the source draws it.
        horizon: final time.

    Raises:
        InputError: a value is out of range.

    Source:
        Richter, Sallandt, Nuesken, ICML 2021, arXiv 2102.11830, section 4.2; the matrix and the value are
        those of the authors' experiments.

    Example:
        >>> CoupledDoubleWell().true_value().value
        34.2687
    """
    dim, seed = whole("dim", dim, 1), whole("seed", seed)
    weight, horizon = as_number("weight", weight, above=0.0), as_number("horizon", horizon, above=0.0)
    coupling = np.eye(dim) + 0.1 * np.random.RandomState(seed).randn(dim, dim)
    known = (dim, weight, seed, horizon) == (20, 0.5, 42, 0.3)
    return Problem(
        name="coupled-double-well",
        dim=dim,
        horizon=horizon,
        x0=-1.0,
        terminal=partial(_distance, weight=weight),
        drift=partial(_slide_together, coupling=torch.tensor(coupling + coupling.T)),
        diffusion=1.0,
        driver=_half_square_of_z,
        reference=partial(coupled_double_well, dim) if known else None,
        options={"dim": dim, "weight": weight, "seed": seed, "horizon": horizon},
    )


def coupled_double_well(dim: int = 20) -> Reference:
    """The value at the start for 20 wells, from 10^7 paths of Euler steps of .01, whose bias is left in it.

    Args:
        dim: 20.

    Raises:
        InputError: another number of wells.

    Example:
        >>> coupled_double_well().value
        34.2687
    """
    if dim != 20:
        raise InputError(f"the value is known for 20 wells, got {dim}")
    return Reference(34.2687, 0.1, "published: Monte Carlo, Euler steps of .01")


def _distance(x: Tensor, *, weight: float) -> Tensor:
    return weight * (x - 1).square().sum(1, keepdim=True)


def _half_square_of_z(t: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return z.square().sum(1, keepdim=True) / 2


def _slide(t: Tensor, x: Tensor, *, height: float) -> Tensor:
    return -4 * height * x * (x.square() - 1)


def _slide_together(t: Tensor, x: Tensor, *, coupling: Tensor) -> Tensor:
    return -2 * x * ((x.square() - 1) @ coupling.to(x))


EQUATION = Equation(problem=DoubleWell, truth=double_well, recipe={"terminal": "quadratic"})
COUPLED = Equation(problem=CoupledDoubleWell, truth=coupled_double_well, recipe={"terminal": "quadratic"})
