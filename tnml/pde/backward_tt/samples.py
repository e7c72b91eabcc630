"""What paths say about the solution: one linear equation for it at every chosen point of every path."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tnml.pde.ansatz.ansatz import Ansatz
from tnml.pde.aposteriori.linearised import walk
from tnml.pde.paths.noise import increments
from tnml.pde.problem import Problem
from tnml.randomness import Noise, Stream, generator

_BATCH = 512  # paths walked together


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Paths of the equation whose driver is the tangent at v, and what v misses along them; in float64.

    Let `rest` at a point be the terminal value less the integral of the driver from there and less the
    martingale of v, discounted to the point. Then for the solution u of the tangent equation

        u(t_n, X_n) + sum_(k >= n) D_k / D_n (Du - Dv)(t_k, X_k) . sigma dW_k = rest_n

    up to the second order in what v misses.

    Args:
        t: `[m, n, 1]`, before the horizon.
        x: `[m, n, d]`.
        noise: `sigma dW` of the step from there `[m, n, d]`.
        discount: D `[m, n]`.
        rest: `[m, n]`.
        chosen: numbers of the points of each path that get an equation, `[m, e]`.
    """

    t: Tensor
    x: Tensor
    noise: Tensor
    discount: Tensor
    rest: Tensor
    chosen: Tensor

    @property
    def spread(self) -> float:
        """Standard deviation of `rest` at the start."""
        return float(self.rest[:, 0].std())

    def rows(self, value: Tensor, slope: Tensor) -> Tensor:
        """`w_n + sum_(k >= n) D_k / D_n dw_k` at the chosen points `[q, m e]`, of functions w at all points.

        Args:
            value: w `[q, m n]`.
            slope: its derivative along the noise `[q, m n]`.
        """
        # What is left from k on is the whole less what was before.
        steps = slope.view(-1, *self.discount.shape) * self.discount
        rest = steps.sum(2, keepdim=True) - steps.cumsum(2) + steps
        return self.at_chosen((value.view_as(steps) + rest / self.discount).flatten(1))

    def at_chosen(self, of_points: Tensor) -> Tensor:
        """What `[.., m n]` has at the chosen points, `[.., m e]`."""
        m, n = self.discount.shape
        return of_points.index_select(-1, (torch.arange(m).unsqueeze(1) * n + self.chosen).flatten())


def samples(
    problem: Problem, v: Ansatz, *, paths: int, time_steps: int, points: int, seed: int, number: int
) -> Samples:
    """New paths and their equations; see `tnml.pde.aposteriori.linearised`.

    Args:
        problem: the equation.
        v: an approximation.
        paths: how many.
        time_steps: of each.
        points: of each path, beside its start, that get an equation.
        seed: of the run.
        number: of the pass; every pass has paths of its own.

    Source: multi-step regression: Gobet, Turkedjiev, Math. Comp. 85 (2016); the tangent: Bender, Schweizer,
    Zhuo, arXiv 1310.3694; the martingale of the unknown among the equations: Richter, Sallandt, Nüsken,
    arXiv 2102.11830, equation (10).

    Example:
        >>> from tnml.pde import HeatEquation
        >>> from tnml.pde.backward_tt.options import TTOptions
        >>> heat = HeatEquation(2)
        >>> found = samples(
        ...     heat, TTOptions().make_model(heat), paths=64, time_steps=4, points=2, seed=0, number=0
        ... )
        >>> found.x.shape, bool((found.rest[:, 0].mean() - 4).abs() < 0.5)
        (torch.Size([64, 4, 2]), True)
    """
    like = v.shift
    parts: list[list[Tensor]] = []
    for first in range(0, paths, _BATCH):
        count = min(_BATCH, paths - first)
        dw = increments(
            count, time_steps, problem.dim, problem.horizon / time_steps, seed=seed, step=number,
            first=first, stream=Noise.PATHS, dtype=like.dtype, device=like.device,
        )  # fmt: skip
        made = walk(problem, v, dw, keep=True, heun=True)
        rest = ((made.value[:, None] - made.so_far) / made.discount)[:-1, :, 0].T
        t, x = made.t[:-1].transpose(0, 1), made.x[:-1].transpose(0, 1)
        noise = problem.sigma(t.flatten(0, 1), x.flatten(0, 1), dw.double().flatten(0, 1)).view_as(x)
        parts.append([t, x, noise, made.discount[:-1, :, 0].T, rest])
    t, x, noise, discount, rest = (torch.cat(part) for part in zip(*parts, strict=True))
    drawn = torch.rand(paths, time_steps - 1, generator=generator(seed, number, stream=Stream.ORDER))
    chosen = torch.cat([torch.zeros(paths, 1, dtype=torch.long), drawn.argsort(1)[:, :points] + 1], 1)
    return Samples(t=t, x=x, noise=noise, discount=discount, rest=rest, chosen=chosen)
