"""Where a function of a problem is not finite: checked on paths before training, and after it diverged."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from tnml.errors import InputError
from tnml.loop.results import TrainingDiverged
from tnml.pde.ansatz.ansatz import Ansatz
from tnml.pde.losses.deep_bsde import DeepBSDE
from tnml.pde.paths.simulation import Paths, euler_maruyama

_POINTS = 2**14  # points checked at once
_ON_THE_TERMINAL_VALUE = frozenset({"multiplicative", "additive", "quadratic"})  # u has g in it everywhere
_BEFORE = 50  # steps between two checks of the loss by the loop


class PathsOfStep(Protocol):
    """Gives the paths `first` to `first + count - 1` of a step, as `LossOnPaths.paths_of_step` does."""

    def __call__(self, step: int, first: int, count: int, device: torch.device) -> Paths:
        """The paths."""


@torch.no_grad()
def check_functions(model: Ansatz | DeepBSDE, paths: Paths) -> None:
    """Raises unless all functions of the problem are finite on paths; says which is not, and where.

    The driver is evaluated where the losses evaluate it: at the times before the horizon, with the model's
    own u and Du. Paths of coupled problems are made with the model.

    Args:
        model: with finite weights.
        paths: of its problem; for a coupled one their noise is enough.

    Raises:
        InputError: something is not finite.

    Example:
        >>> from tnml.pde import HeatEquation, SolveOptions, increments
        >>> problem = HeatEquation(2)
        >>> paths = euler_maruyama(problem, increments(4, 5, 2, 0.2, seed=0, step=0))
        >>> check_functions(SolveOptions(width=8).make_model(problem), paths)
    """
    if model.problem.coupled:
        u = model if isinstance(model, Ansatz) else None
        paths = euler_maruyama(model.problem, paths.dw, solution=u)
    rows = max(1, _POINTS // (paths.steps + 1))
    for first in range(0, len(paths), rows):
        _check_part(model, paths.part(first, first + rows))


def why_diverged(
    error: TrainingDiverged,
    model: Ansatz | DeepBSDE,
    start: Mapping[str, Any],
    paths_of_step: PathsOfStep,
    paths: int,
) -> InputError | None:
    """The error of a function that is not finite, if one is found to be the reason why training diverged.

    The paths of the last steps are made again. If the weights are no longer finite, those of the start take
    their place; a fault that only a later u would show is then not found.

    Args:
        error: of the loop, which names epoch and step.
        model: that was trained.
        start: its state before the training.
        paths_of_step: makes the paths again.
        paths: in a step.

    Example:
        >>> from tnml.pde import HeatEquation, SolveOptions, increments
        >>> problem = HeatEquation(2)
        >>> model = SolveOptions(width=8).make_model(problem)
        >>> def paths_of_step(step, first, count, device):
        ...     return euler_maruyama(problem, increments(count, 5, 2, 0.2, seed=0, step=step))
        >>> error = TrainingDiverged("NaN in epoch 1, at step 2 of 2")
        >>> why_diverged(error, model, model.state_dict(), paths_of_step, 4) is None
        True
    """
    place = re.search(r"in epoch (\d+), at step (\d+) of (\d+)", str(error))
    if place is None:
        return None
    epoch, step, steps = (int(part) for part in place.groups())
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        model.load_state_dict(start)
    device = next(model.parameters()).device
    for number in range(max(0, step - _BEFORE), step):
        try:
            check_functions(model, paths_of_step((epoch - 1) * steps + number, 0, paths, device))
        except InputError as reason:
            return InputError(f"{reason} (training diverged in epoch {epoch}, at step {step} of {steps})")
    return None


def _check_part(model: Ansatz | DeepBSDE, paths: Paths) -> None:
    problem, m, n = model.problem, len(paths), paths.steps
    t, x = paths.points(0, n + 1)
    at_end = torch.arange(n + 1, device=x.device).repeat(m) == n
    real = x.isfinite().all(1)

    def look(what: str, of: Callable[[Tensor], Tensor], rows: Tensor, more: str = "") -> None:
        """Raises for the earliest of the points `rows` at which `of` is not finite."""
        if not bool(rows.any()):
            return
        values = of(rows)
        bad = rows.nonzero()[:, 0][~values.isfinite().all(1)]
        if len(bad):
            first = bad[(bad % (n + 1)).argmin()]
            raise InputError(
                f"{what} is not finite at t = {float(t[first]):g} on a path from x0 (|x| = "
                f"{float(x[first].norm()):.4g}{more}); correct the problem's function"
            )

    soft, steps_y = not model.hard, isinstance(model, DeepBSDE)
    along = isinstance(model, Ansatz) and model.terminal in _ON_THE_TERMINAL_VALUE
    y, z = _value_and_gradient(model, paths, t, x)
    v = torch.cat([paths.dw, paths.dw.new_zeros(m, 1, problem.dim)], 1).flatten(0, 1)
    rows = real & ~at_end
    look("the diffusion", lambda rows: problem.sigma(t[rows], x[rows], v[rows]), rows)
    known = rows & y.isfinite()[:, 0] & z.isfinite().all(1)
    rows = known if problem.coupled else rows
    look("the drift", lambda rows: problem.mu(t[rows], x[rows], y[rows], z[rows]), rows)
    rows = real if along else real & at_end
    look("terminal", lambda rows: problem.g(x[rows]), rows)
    if along or (soft and not steps_y):
        rows = real & ~at_end if along else rows
        look("the gradient of terminal", lambda rows: problem.g_gradient(x[rows]), rows)
    more = ", with the model's own y and z"
    look("the driver", lambda rows: problem.phi(t[rows], x[rows], y[rows], z[rows]), known, more)
    if not steps_y:
        what = "u or its gradient, with the terminal value in it,"
        look(what, lambda rows: torch.cat([y, z], 1)[rows], real & ~at_end)
    look("x, from the drift and the diffusion,", lambda rows: x[rows], torch.ones_like(real))


def _value_and_gradient(
    model: Ansatz | DeepBSDE, paths: Paths, t: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """U and Du at all points; what `DeepBSDE` lacks at the horizon is zero there."""
    if isinstance(model, Ansatz):
        return model.value_and_gradient(t, x)
    z = model.gradients(paths)
    return model(paths).reshape(-1, 1), torch.cat([z, torch.zeros_like(z[:, :1])], 1).flatten(0, 1)
