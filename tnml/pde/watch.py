"""What the history of a training says about the solution."""

import torch
from torch import Tensor, nn

from tnml.loop.results import Row
from tnml.pde.accuracy import exact_along, fresh_paths, relative_l2, values_along
from tnml.pde.losses.deep_bsde import DeepBSDE
from tnml.pde.paths.simulation import Paths
from tnml.pde.problem import Problem

_SET = 1000  # number of the set of paths that the error is measured on
_PATHS = 64


class Watch:
    """The numbers of each row: u(0, x0), its relative error, and that along a few fresh paths.

    Args:
        problem: with the truth, if it is known.
        time_steps: of the paths.
        dtype: of the model.

    Example:
        >>> from tnml.pde import BlackScholesBarenblatt, SolveOptions
        >>> problem = BlackScholesBarenblatt(2)
        >>> model = SolveOptions(width=8).make_model(problem)
        >>> sorted(Watch(problem, 5, torch.float32)(model))
        ['error', 'path_error', 'u0']
    """

    def __init__(self, problem: Problem, time_steps: int, dtype: torch.dtype) -> None:
        self._problem, self._time_steps, self._dtype = problem, time_steps, dtype
        self._truth = problem.true_value()
        self._paths: Paths | None = None
        self._exact: Tensor | None = None

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> Row:
        """The measured numbers of an `Ansatz` or a `DeepBSDE`."""
        device = next(iter(model.parameters())).device
        row: Row = {}
        if isinstance(model, DeepBSDE):
            row["u0"] = model.value
        else:
            x = self._problem.start(self._dtype, device)[None]
            row["u0"] = float(model(x.new_zeros(1, 1), x))
        if self._truth is not None and self._truth.value:
            row["error"] = abs(row["u0"] / self._truth.value - 1)
        if self._problem.exact is None or self._problem.coupled:
            return row
        paths, exact = self._measured_on(device)
        found = model(paths).double() if isinstance(model, DeepBSDE) else values_along(model, paths)
        row["path_error"] = relative_l2(found, exact)
        return row

    def _measured_on(self, device: torch.device) -> tuple[Paths, Tensor]:
        """The paths and the truth along them, made once for a device."""
        if self._paths is None or self._exact is None or self._paths.x.device != device:
            self._paths = fresh_paths(
                self._problem,
                _PATHS,
                self._time_steps,
                seed=0,
                number=_SET,
                dtype=self._dtype,
                device=device,
            )
            self._exact = exact_along(self._problem, self._paths)
        return self._paths, self._exact
