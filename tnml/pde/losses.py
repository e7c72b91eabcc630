"""Losses of a solution u(t, x) along paths: that of Euler steps, and the unbiased one of two groups."""

import math
from abc import ABC, abstractmethod
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tnml.errors import InputError, choose
from tnml.pde.chunks import summed
from tnml.pde.derivatives import Function, value_and_gradient, value_and_slope
from tnml.pde.paths import Paths
from tnml.pde.problem import Problem
from tnml.pde.smoothing import sample_paths, terminal_values

_SMALL = 1e-3  # of the size of u, below which it is no measure
_REDUCTIONS = {"mean": True, "sum": False}
_MODES = {name: name for name in ("auto", "forward", "reverse")}


class PathLoss(ABC):
    """A loss that is a mean over paths; a subclass says what one path costs.

    Args:
        chunk: most points of (t, x) at once, but at least those of one path, which bounds the memory; the
            gradients stay the same, see `tnml.pde.chunks.summed`. None: all at once.
        reduction: "mean" or "sum" over the paths.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> class Ends(PathLoss):
        ...     def per_path(self, solution, problem, paths):
        ...         t, x = paths.points(paths.steps, paths.steps + 1)
        ...         return (solution(t, x) - problem.g(x)).square()[:, 0]
        >>> Ends(chunk=100).reduction
        'mean'
    """

    fresh_increments = 0  # of a point, that `Paths.fresh` must hold

    def __init__(self, *, chunk: int | None = None, reduction: str = "mean") -> None:
        if chunk is not None and chunk < 1:
            raise InputError(f"chunk is a number of points, at least 1, or None; got {chunk}")
        choose("reduction", reduction, _REDUCTIONS)
        self.chunk = chunk
        self.reduction = reduction

    @abstractmethod
    def per_path(self, solution: Function, problem: Problem, paths: Paths) -> Float[Tensor, " m"]:
        """What each path costs."""

    def points_per_path(self, paths: Paths) -> int:
        """Evaluations of u on one path, for the size of the chunks."""
        return paths.steps + 1

    def __call__(self, solution: Function, problem: Problem, paths: Paths) -> Float[Tensor, ""]:
        """The loss of a solution u(t, x), a scalar; differentiable in the solution's parameters.

        Args:
            solution: an `Ansatz`, or any function of `t [m, 1]` and `x [m, d]`.
            problem: the equation.
            paths: from `euler_maruyama`.
        """

        def of_part(part: Paths) -> Tensor:
            return self.per_path(solution, problem, part).sum()

        size = len(paths)
        if self.chunk is not None and not paths.x.requires_grad:
            size = max(1, self.chunk // self.points_per_path(paths))
        known = solution.parameters() if isinstance(solution, nn.Module) else ()
        total = summed(of_part, paths, size, [p for p in known if p.requires_grad])
        return total / len(paths) if _REDUCTIONS[self.reduction] else total


class EulerLoss(PathLoss):
    """The loss of Euler steps (EM-BSDE, FBSNN): the squared residuals of a path, summed over its steps.

        sum_n |Y_{n+1} - Y_n - phi dt - Z_n' sigma dW_n|^2  +  |Y_N - g(X_N)|^2 + |Z_N - Dg(X_N)|^2

    with Y = u(t, X) and Z = Du(t, X). The gradient flows through Z. The terms at T are there for solutions
    that do not meet the terminal condition by construction (`Ansatz.hard`).

    All points are evaluated in one call where the paths do not depend on the solution. For drivers linear in
    z only a directional derivative `Z . (sigma dW + direction dt)` is taken, by forward mode where the
    network's layers are known; the last points, of which the terms at T need the full gradient, are then a
    second call. Coupled problems are stepped one after the other, with gradients through the steps; u and
    phi are asked at `Problem.inside` of the states, as along other paths, the steps go on from the states.

    Its minimum is not the solution: a residual of the exact solution has the variance
    `dt^2 / 2 tr((sigma' D2u sigma)^2)`, which a solution of smaller curvature makes smaller.

    Args:
        terminal_weight: of the terms at T.
        mode: of derivatives: "forward" (directional), "reverse" (full gradients), or "auto": forward where
            phi is linear in z.
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
        self.mode = choose("mode", mode, _MODES)

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
            return _misses(y.view(m, n), predicted, problem.g(last_x))
        last, z = value_and_gradient(solution, last_t, last_x)
        return _misses(y.view(m, n), predicted, last) + self._terminal(problem, last_x, last, z)

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
            return _misses(ys, predicted, problem.g(last_x))
        last = ys[:, n:]
        return _misses(ys[:, :n], predicted, last) + self._terminal(problem, last_x, last, zs[:, n])

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


class UnbiasedLoss(PathLoss):
    """The loss of two groups (Un-EM-BSDE): its expectation is the mean square of the equation's residual.

    From every point (t, x) = (t_n, X_n) of the paths, and for each of two groups of fresh increments e,

        R_k = mean over group k of  u(t + h, x + mu h + sigma e) - u - phi h - Z' sigma e
        loss = mean over the points of  R_1 R_2 / h^2

    u, phi and Z are those at (t, x), and the gradient flows through all of them. The two groups are
    independent, so the noise of one does not meet itself: there is no bias of the Euler loss's kind, only
    that of one step, O(h). The step h need not be that of the paths, which only say where to look: a part
    `ahead` of it costs the same and takes the bias down by that factor, until rounding, which grows as 1 / h,
    is met. The loss can be negative; judge a run by its error, not by this number.

    The points looked ahead to are not mapped by `Problem.inside`: the residual is a difference of u over the
    equation's own step, and a fold of that step at the border would show as a residual which u does not
    have. The network goes on smoothly across the border, and g has to, too.

    Args:
        group: increments in a group. `paths.fresh` holds those of all groups at every point, with the
            variance dt of the paths' steps; where it is None they are drawn as normal numbers from torch's
            global random state. Increments of the method "signs" leave less noise where the curvature of u
            is about diagonal.
        groups: 2; or 1, whose R is squared: right for increments that leave no noise, see `sign_design`.
        ahead: h over the time step dt of the paths, above 0 and at most 1.
        relative: R is divided by |u|, which is taken as a constant: for solutions far from zero. Where |u| is
            below a thousandth of its mean along the path, or of the mean of |g(X_T)| over a few simulated
            paths, the larger of the two takes its place.
        chunk: see `PathLoss`.
        reduction: see `PathLoss`.

    Raises:
        InputError: an argument is out of range, or the problem is coupled.

    Cost: of each point, groups x group evaluations of u, and one with its gradient.

    Source: Un-EM-BSDE, as written down here; own choice of what the two groups share.

    Example:
        >>> from tnml.pde import HeatEquation, euler_maruyama, increments
        >>> problem, loss = HeatEquation(dim=2), UnbiasedLoss(group=2)
        >>> dt = problem.horizon / 10
        >>> dw = increments(8, 10, 2, dt, seed=0, step=0)
        >>> fresh = increments(8, 10 * loss.fresh_increments, 2, dt, seed=0, step=0, stream=1)
        >>> paths = euler_maruyama(problem, dw, fresh=fresh.view(8, 10, -1, 2))
        >>> loss(problem.exact, problem, paths).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        group: int = 3,
        groups: int = 2,
        ahead: float = 1.0,
        relative: bool = False,
        chunk: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(chunk=chunk, reduction=reduction)
        if group < 1:
            raise InputError(f"group is a number of increments, at least 1; got {group}")
        if groups not in (1, 2):
            raise InputError(f"groups must be 2, or 1 for increments without noise; got {groups}")
        if not 0 < ahead <= 1:
            raise InputError(f"ahead is a part of a time step, above 0 and at most 1; got {ahead}")
        self.group = group
        self.groups = groups
        self.ahead = ahead
        self.relative = relative
        self.fresh_increments = groups * group

    def points_per_path(self, paths: Paths) -> int:
        """Evaluations of u on one path."""
        return paths.steps * (1 + self.fresh_increments)

    def per_path(self, solution: Function, problem: Problem, paths: Paths) -> Float[Tensor, " m"]:
        """The mean over the steps of R_1 R_2 / h^2 for each path."""
        if problem.coupled:
            raise InputError(f"the paths of {problem.name!r} depend on its solution; use loss 'euler'")
        m, n, h, k = len(paths), paths.steps, paths.dt * self.ahead, self.fresh_increments
        e = self._increments(paths) * math.sqrt(self.ahead)
        t, x = paths.points(0, n)
        far_t, far_x = (part.repeat_interleave(k, 0) for part in (t, x))
        sigma_e = problem.sigma(far_t, far_x, e.reshape(m * n * k, -1))
        y, z = value_and_gradient(solution, t, x)
        drifted = (x + problem.mu(t, x) * h).repeat_interleave(k, 0)
        later = paths.times[1:].to(x) if self.ahead == 1 else paths.times[:-1].to(x) + h
        later = later[None, :, None].expand(m, n, k).reshape(-1, 1)
        ahead = solution(later, drifted + sigma_e).view(m * n, self.groups, self.group).mean(2)
        moved = (sigma_e.view(m * n, self.groups, self.group, -1).mean(2) * z[:, None]).sum(2)
        residual = ahead - y - problem.phi(t, x, y, z) * h - moved
        if self.relative:
            residual = residual / _size(problem, y.detach().abs().view(m, n)).view(m * n, 1)
        product = residual[:, :1] * residual[:, -1:]
        return product.view(m, n).mean(1) / h**2

    def _increments(self, paths: Paths) -> Tensor:
        shape = (*paths.dw.shape[:2], self.fresh_increments, paths.dw.shape[2])
        if paths.fresh is None:
            return torch.randn(shape, dtype=paths.dw.dtype, device=paths.dw.device) * math.sqrt(paths.dt)
        if paths.fresh.shape != shape:
            raise InputError(f"this loss needs paths.fresh {list(shape)}, got {list(paths.fresh.shape)}")
        return paths.fresh


def _size(problem: Problem, u: Tensor) -> Tensor:
    """`u [m, n] >= 0` kept from zero by bounds that do not depend on the other paths of a batch or chunk."""
    least = _SMALL * u.mean(1, keepdim=True).clamp_min(_typical(problem))
    return torch.maximum(u, torch.where(least > 0, least, 1.0))


@lru_cache(maxsize=8)
def _typical(problem: Problem) -> float:
    """The mean of |g(X_T)|."""
    return float(terminal_values(problem, sample_paths(problem)).abs().mean())


def _forward(problem: Problem, mode: str) -> bool:
    if mode == "forward" and not problem.linear_in_z:
        raise InputError(
            f"mode='forward' is for drivers linear in z; give that of {problem.name!r} as driver_value and "
            "driver_direction, or use mode='auto'"
        )
    return mode == "forward" or (mode == "auto" and problem.linear_in_z)


def _driver_value(problem: Problem, t: Tensor, x: Tensor, y: Tensor) -> Tensor | float:
    return 0.0 if problem.driver_value is None else problem.driver_value(t, x, y)


def _misses(y: Tensor, predicted: Tensor, last: Tensor) -> Tensor:
    """The squared residuals of each path, summed over its steps; y, predicted `[m, n]`, last `[m, 1]`."""
    return (torch.cat([y[:, 1:], last], 1) - predicted).square().sum(1)
