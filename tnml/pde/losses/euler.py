"""The loss of Euler steps."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.checks import one_of
from tnml.errors import InputError
from tnml.pde.derivatives import Function, value_and_gradient, value_and_slope
from tnml.pde.losses.path_loss import PathLoss
from tnml.pde.paths.simulation import Paths
from tnml.pde.problem import Problem

_MODES = ("auto", "forward", "reverse")


class EulerLoss(PathLoss):
    """The loss of Euler steps (EM-BSDE, FBSNN): the squared residuals of a path, summed over its steps.

        sum_n |Y_{n+1} - Y_n - phi dt - Z_n' sigma dW_n|^2  +  |Y_N - g(X_N)|^2 + |Z_N - Dg(X_N)|^2

    with Y = u(t, X) and Z = Du(t, X). The gradient flows through Z. The terms at T are there for solutions
    that do not meet the terminal condition by construction (`Ansatz.hard`).

    All points are evaluated in one call if the paths do not depend on the solution. For drivers linear in
    z only a directional derivative `Z . (sigma dW + direction dt)` is taken, by forward mode if the network's
    layers are known; the last points, where the terms at T need the full gradient, are then a second call.
    Coupled problems are stepped one after the other, with gradients through the steps; u and phi are
    evaluated at `Problem.inside` of the states, as along other paths; the steps continue from the states.

    Its minimum is not the solution: a residual of the exact solution has the variance
    `dt^2 / 2 tr((sigma' D2u sigma)^2)`, which a solution of smaller curvature makes smaller.

    Args:
        terminal_weight: of the terms at T.
        mode: of derivatives: "forward" (directional), "reverse" (full gradients), or "auto": forward if phi
            is linear in z.
        chunk: see `PathLoss`.
        reduction: "sum" is the loss of the paper.

    Raises:
        InputError: an argument is out of range.

    Source: Raissi, Forward-backward stochastic neural networks, arXiv 1804.07010.

    Example:
        >>> from tnml.pde import HeatEquation, euler_maruyama, increments
        >>> problem = HeatEquation(dim=2)
        >>> paths = euler_maruyama(problem, increments(8, 10, 2, problem.horizon / 10, seed=0, step=0))
        >>> exact = EulerLoss()(problem.exact, problem, paths)
        >>> bool(exact < EulerLoss()(lambda t, x: 0 * t, problem, paths))
        True
    """

    def __init__(
        self,
        *,
        terminal_weight: float = 1.0,
        mode: str = "auto",
        chunk: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(chunk=chunk, reduction=reduction)
        if not 0 <= terminal_weight < math.inf:
            raise InputError(f"terminal_weight must not be negative, got {terminal_weight}")
        self.terminal_weight = terminal_weight
        self.mode = one_of("mode", mode, _MODES)

    def per_path(self, solution: Function, problem: Problem, paths: Paths) -> Float[Tensor, " m"]:
        """The sum over steps and terminal terms for each path."""
        forward = _forward(problem, self.mode)
        if problem.coupled:
            return self._stepped(solution, problem, paths)
        return (
            self._by_slopes(solution, problem, paths)
            if forward
            else self._by_gradients(solution, problem, paths)
        )

    def _by_slopes(self, solution: Function, problem: Problem, paths: Paths) -> Tensor:
        m, n, dt = len(paths), paths.steps, paths.dt
        t, x = paths.points(0, n)
        v = paths.sdw.reshape(m * n, -1)
        if problem.driver_direction is not None:
            v = v + problem.driver_direction(t, x) * dt
        y, slope = value_and_slope(solution, t, x, v)
        predicted = (y + slope + _driver_value(problem, t, x, y) * dt).view(m, n)
        last_t, last_x = paths.points(n, n + 1)
        if getattr(solution, "hard", False):
            return _squared_residuals(y.view(m, n), predicted, problem.g(last_x))
        last, z = value_and_gradient(solution, last_t, last_x)
        return _squared_residuals(y.view(m, n), predicted, last) + self._terminal(problem, last_x, last, z)

    def _by_gradients(self, solution: Function, problem: Problem, paths: Paths) -> Tensor:
        m, n = len(paths), paths.steps
        hard = getattr(solution, "hard", False)
        count = n if hard else n + 1
        t, x = paths.points(0, count)
        y, z = value_and_gradient(solution, t, x)
        ys, zs = y.view(m, count), z.view(m, count, -1)
        t, x = paths.points(0, n)
        y, z = ys[:, :n].reshape(-1, 1), zs[:, :n].reshape(m * n, -1)
        moved = (z * paths.sdw.reshape(m * n, -1)).sum(1, keepdim=True)
        predicted = (y + problem.phi(t, x, y, z) * paths.dt + moved).view(m, n)
        last_x = paths.x[:, -1]
        if hard:
            return _squared_residuals(ys, predicted, problem.g(last_x))
        last = ys[:, n:]
        return _squared_residuals(ys[:, :n], predicted, last) + self._terminal(
            problem, last_x, last, zs[:, n]
        )

    def _stepped(self, solution: Function, problem: Problem, paths: Paths) -> Tensor:
        """Coupled problems: the path is made while u is evaluated on it, and depends on the parameters."""
        x = paths.x[:, 0]
        inside = problem.inside or (lambda state: state)
        cost = x.new_zeros(len(paths))
        predicted = None
        for k in range(paths.steps + 1):
            t = paths.times[k].expand(len(paths), 1)
            seen = inside(x)
            y, z = value_and_gradient(solution, t, seen)
            if predicted is not None:
                cost = cost + (y - predicted)[:, 0].square()
            if k < paths.steps:
                sdw = problem.sigma(t, x, paths.dw[:, k])
                predicted = y + problem.phi(t, seen, y, z) * paths.dt + (z * sdw).sum(1, keepdim=True)
                x = x + problem.mu(t, x, y, z) * paths.dt + sdw
        return cost if getattr(solution, "hard", False) else cost + self._terminal(problem, seen, y, z)

    def _terminal(self, problem: Problem, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        miss = (y - problem.g(x))[:, 0].square() + (z - problem.g_gradient(x)).square().sum(1)
        return self.terminal_weight * miss


def _forward(problem: Problem, mode: str) -> bool:
    if mode == "forward" and not problem.linear_in_z:
        raise InputError(
            f"mode='forward' is for drivers linear in z; give that of {problem.name!r} as driver_value and "
            "driver_direction, or use mode='auto'"
        )
    return mode == "forward" or (mode == "auto" and problem.linear_in_z)


def _driver_value(problem: Problem, t: Tensor, x: Tensor, y: Tensor) -> Tensor | float:
    return 0.0 if problem.driver_value is None else problem.driver_value(t, x, y)


def _squared_residuals(y: Tensor, predicted: Tensor, last: Tensor) -> Tensor:
    """The squared residuals of each path, summed over its steps; y, predicted `[m, n]`, last `[m, 1]`."""
    return (torch.cat([y[:, 1:], last], 1) - predicted).square().sum(1)
