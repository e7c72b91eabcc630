"""What a solution is built on where more than the terminal value is known: modules `(t, x) -> [m, 1]`."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from tnml.errors import InputError
from tnml.pde.ansatz.kinks import Kinks, coordinate_later, find_kinks, kinked, smoothed_kinks
from tnml.pde.ansatz.quadratic import Quadratic, quadratic_at, quadratic_of
from tnml.pde.ansatz.smoothing import later_states, smoothing_nodes, terminal_slope
from tnml.pde.derivatives import Function
from tnml.pde.losses.multistep import MultistepLoss
from tnml.pde.paths.pilot import sample_paths
from tnml.pde.paths.simulation import euler_maruyama
from tnml.pde.problem import Problem

_HERMITE = (6, 12, 20, 40)  # nodes along the one direction in which g varies: as few as do what the most do
_ENOUGH = 1e-4  # of the spread of g, by which they may differ
_RIDGE = 1e-4  # relative part of its slope in other directions that counts as none
_LEAST_SCALE = 1e-4  # of the spread of g, what is left to learn at least
_EVERY = 8  # of the steps and points of the paths, where rules are compared
_PATHS = 128  # on which what is left is measured


class KinkBase(nn.Module):
    """The terminal value smoothed by the diffusion, kinks and jumps across planes in closed form.

    The mean of g without its kinks is taken over a few values of X_T: along one direction by the rule of
    Gauss and Hermite if g varies in that one only, otherwise as for "smoothed".

    Args:
        problem: the equation, not coupled.
        nodes: see `tnml.pde.Ansatz`.

    Example:
        >>> problem = Problem(name="call", dim=1, horizon=1.0, x0=0.0, diffusion=1.0,
        ...     terminal=lambda x: x.clamp(min=0))
        >>> base = KinkBase(problem, 8)
        >>> zero = torch.zeros(1, 1, dtype=torch.float64)
        >>> round(base(zero, zero).item(), 6)
        0.398942
    """

    nodes: Tensor
    weights: Tensor

    def __init__(self, problem: Problem, nodes: int) -> None:
        super().__init__()
        self.problem = problem
        found, along = structure_of(problem)
        self._logarithms = found is not None and found.logarithms
        for name, part in zip(_PARTS, (None, None, None) if found is None else found[1:], strict=True):
            self.register_buffer(name, part)
        if along is None:
            fixed = smoothing_nodes(problem, nodes, sample_paths(problem))
            weights = torch.full((len(fixed),), 1 / len(fixed), dtype=torch.float64)
        else:
            fixed, weights = _rule(problem, found, along)
        self.register_buffer("nodes", fixed)
        self.register_buffer("weights", weights)

    @property
    def kinks(self) -> Kinks | None:
        """The planes; None if there are none."""
        parts = [getattr(self, name) for name in _PARTS]
        return None if parts[0] is None else Kinks(self._logarithms, *parts)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """The smoothed terminal value `[m, 1]`."""
        problem, kinks = self.problem, self.kinks
        left = (problem.horizon - t).clamp_min(0)
        ends = later_states(problem, self.nodes, t, x)
        value = problem.g(ends)
        if kinks is not None:
            value = value - kinked(kinks, ends)
        mean = value.view(len(x), -1) @ self.weights.to(x)[:, None]
        if kinks is not None:
            mean = mean + smoothed_kinks(kinks, *coordinate_later(problem, kinks, t, x, left))
        return torch.exp(-problem.discount * left) * mean if problem.discount else mean


_PARTS = ("normal", "places", "jumps")


def _rule(problem: Problem, kinks: Kinks | None, along: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes `[k, d]` and weights of the rule of Gauss and Hermite along a direction, as few as are enough."""
    rules = []
    for count in _HERMITE if bool(along.any()) else (1,):
        points, mass = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(count))
        rules.append((points[:, None] * along, mass / math.sqrt(2 * math.pi)))
    x = sample_paths(problem).x[:, ::_EVERY].flatten(0, 1)[::_EVERY]
    t = torch.zeros_like(x[:, :1])

    def means(nodes: Tensor, weights: Tensor) -> Tensor:
        ends = later_states(problem, nodes, t, x)
        values = problem.g(ends) if kinks is None else problem.g(ends) - kinked(kinks, ends)
        return values.view(len(x), -1) @ weights

    best = means(*rules[-1])
    allowed = _ENOUGH * float(problem.g(x).std()) + 1e-12 * float(best.abs().max())
    for rule in rules[:-1]:
        if float((means(*rule) - best).abs().max()) <= allowed:
            return rule
    return rules[-1]


class QuadraticBase(nn.Module):
    """The terminal value, moved by the solution among quadratic functions, see `ansatz.quadratic`.

    Args:
        problem: the equation, not coupled.

    Raises:
        InputError: there is no such solution.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> zero = torch.zeros(1, 2, dtype=torch.float64)
        >>> round(QuadraticBase(HeatEquation(2))(zero[:, :1], zero).item(), 6)
        4.0
    """

    middle: Tensor
    coefficients: Tensor

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        found = quadratic_solution(problem)
        if found is None:
            raise InputError(
                "terminal='quadratic' needs a terminal value with curvature, at most 256 dimensions and a "
                f"solution among quadratic functions; {problem.name!r} lacks one of them; use another"
            )
        self.register_buffer("middle", found.middle)
        self.register_buffer("coefficients", found.coefficients)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """`g(x) + q(t, x) - q(T, x)`, `[m, 1]`."""
        quadratic = Quadratic(self.middle.to(x), self.coefficients.to(x))
        horizon = self.problem.horizon
        return (
            self.problem.g(x)
            + quadratic_at(quadratic, t, x, horizon)
            - quadratic_at(quadratic, torch.full_like(t, horizon), x, horizon)
        )


@lru_cache(maxsize=8)
def quadratic_solution(problem: Problem) -> Quadratic | None:
    """`quadratic_of`, kept for the problems of late."""
    return quadratic_of(problem)


@lru_cache(maxsize=8)
def structure_of(problem: Problem) -> tuple[Kinks | None, Tensor | None]:
    """Planes on which the terminal value has kinks, and the one direction of noise that it varies in.

    Either is None if there is none; the direction is zero if the terminal value is constant between jumps.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> structure_of(HeatEquation(2))
        (None, None)
    """
    kinks = find_kinks(problem)
    slope = terminal_slope(problem, sample_paths(problem))
    if not bool(slope.isfinite().all()):
        return kinks, None
    if not bool(slope.any()):  # constant but for jumps
        return kinks, None if kinks is None else slope[0]
    _, sizes, rows = torch.linalg.svd(slope, full_matrices=False)
    one = len(sizes) == 1 or bool(sizes[1] <= _RIDGE * sizes[0])
    return kinks, rows[0] if one else None


def left_to_learn(problem: Problem, base: Function, spread: float) -> float:
    """How far off a base is along a few paths, in root mean square, and at least a part of `spread`.

    What the time steps leave is proportional to their length, and is removed by comparing two lengths.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> heat = HeatEquation(2)
        >>> left_to_learn(heat, heat.exact, 1.0) < 0.3
        True
    """
    fine = sample_paths(problem).part(0, _PATHS)
    fine, coarse = (euler_maruyama(problem, dw) for dw in (fine.dw, fine.dw[:, 0::2] + fine.dw[:, 1::2]))
    loss, twice = (float(MultistepLoss()(base, problem, paths).detach()) for paths in (fine, coarse))
    off = math.sqrt(max(0.0, 2 * loss - twice)) if math.isfinite(loss + twice) else math.inf
    found = max(off, _LEAST_SCALE * spread) if math.isfinite(off) else spread
    return found if found > 0 else 1.0
