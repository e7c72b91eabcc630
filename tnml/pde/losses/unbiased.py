"""The unbiased loss of two groups of fresh increments."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError
from tnml.pde.derivatives import Function, value_and_gradient
from tnml.pde.losses.path_loss import PathLoss
from tnml.pde.paths.pilot import sample_paths, terminal_values
from tnml.pde.paths.simulation import Paths
from tnml.pde.problem import Problem

_SMALL = 1e-3  # of the mean size of u, below which |u| is too small to divide by


class UnbiasedLoss(PathLoss):
    """The loss of two groups (Un-EM-BSDE): its expectation is the mean square of the equation's residual.

    From every point (t, x) = (t_n, X_n) of the paths, and for each of two groups of fresh increments e,

        R_k = mean over group k of  u(t + h, x + mu h + sigma e) - u - phi h - Z' sigma e
        loss = mean over the points of  R_1 R_2 / h^2

    u, phi and Z are those at (t, x), and the gradient flows through all of them. The two groups are
    independent, so the noise of one is not multiplied by itself: there is no bias like the Euler loss's, only
    that of one step, O(h). The step h need not be that of the paths, which only say where to look: a fraction
    `ahead` of it costs the same and reduces the bias by that factor, until rounding, which grows as 1 / h,
    dominates. The loss can be negative; judge a run by its error, not by this number.

    The points looked ahead to are not mapped by `Problem.inside`: the residual is a difference of u over the
    equation's own step, and a fold of that step at the border would show as a residual which u does not
    have. The network continues smoothly across the border, and g must do so, too.

    Args:
        group: increments in a group. `paths.fresh` holds those of all groups at every point, with the
            variance dt of the paths' steps; if it is None, they are drawn as normal numbers from torch's
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

    Source: Un-EM-BSDE, as written down here; our own choice of what the two groups share.

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
        group = whole("group", group, 1)
        if groups not in (1, 2):
            raise InputError(f"groups must be 2, or 1 for increments without noise; got {groups}")
        if not 0 < ahead <= 1:
            raise InputError(f"ahead is a fraction of a time step, above 0 and at most 1; got {ahead}")
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
            residual = residual / _kept_from_zero(problem, y.detach().abs().view(m, n)).view(m * n, 1)
        product = residual[:, :1] * residual[:, -1:]
        return product.view(m, n).mean(1) / h**2

    def _increments(self, paths: Paths) -> Tensor:
        shape = (*paths.dw.shape[:2], self.fresh_increments, paths.dw.shape[2])
        if paths.fresh is None:
            return torch.randn(shape, dtype=paths.dw.dtype, device=paths.dw.device) * math.sqrt(paths.dt)
        if paths.fresh.shape != shape:
            raise InputError(f"this loss needs paths.fresh {list(shape)}, got {list(paths.fresh.shape)}")
        return paths.fresh


def _kept_from_zero(problem: Problem, u: Tensor) -> Tensor:
    """`u [m, n] >= 0` kept from zero by bounds that do not depend on the other paths of a batch or chunk."""
    least = _SMALL * u.mean(1, keepdim=True).clamp_min(_typical_terminal_value(problem))
    return torch.maximum(u, torch.where(least > 0, least, 1.0))


@lru_cache(maxsize=8)
def _typical_terminal_value(problem: Problem) -> float:
    """The mean of |g(X_T)|."""
    return float(terminal_values(problem, sample_paths(problem)).abs().mean())
