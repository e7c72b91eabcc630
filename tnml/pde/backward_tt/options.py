"""The options of `solve(..., method="tt")`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tnml.checks import keep_number, keep_whole, one_of
from tnml.pde.ansatz.ansatz import Ansatz
from tnml.pde.backward_tt.network import FunctionalTrain
from tnml.pde.options import DTYPES, SolveOptions
from tnml.pde.problem import Problem

METHOD = "tt"
_TERMINALS = ("auto", "smoothed", "additive", "multiplicative")  # all meet the terminal condition
_MAY_CHANGE = frozenset({"passes", "max_seconds"})  # when a run is resumed


@dataclass(frozen=True, kw_only=True)
class TTOptions:
    """The options of solving an equation by regression with a tensor train; wrong values raise.

    Args:
        passes: how often paths are made and the tensor train is fitted to them. Each pass solves the equation
            whose driver is the tangent at the solution of the pass before.
        paths: in a pass, new ones each time.
        time_steps: from 0 to the horizon.
        points: of each path, at times drawn at random, that the fit sees beside its start.
        degree: of the polynomials in every coordinate and in time.
        rank: largest rank of the tensor train.
        cutoff: relative singular value below which a rank is cut; what the noise of the samples explains is
            cut anyway.
        sweeps: of a fit, through all coordinates and back.
        terminal: what u is built on, "smoothed", "additive" or "multiplicative", see `SolveOptions`; or
            "auto": smoothed where the smoothing is exact or given, otherwise additive.
        dtype: of the solution, "float32" or "float64"; the fit is in double precision.
        seed: of paths, drawn times and directions.
        max_seconds: no further pass is begun that would end after this time; None sets no limit.

    Raises:
        InputError: a value is out of its range or a name is unknown.

    Example:
        >>> TTOptions(rank=4).passes
        2
    """

    passes: int = 2
    paths: int = 256
    time_steps: int = 40
    points: int = 6
    degree: int = 3
    rank: int = 8
    cutoff: float = 1e-3
    sweeps: int = 1
    terminal: str = "auto"
    dtype: str = "float32"
    seed: int = 0
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        keep_whole(self, "passes", "time_steps", "points", "degree", "rank", "sweeps", least=1)
        keep_whole(self, "seed")
        keep_whole(self, "paths", least=16)
        keep_number(self, "cutoff", least=0.0, below=1.0)
        if self.max_seconds is not None:
            keep_number(self, "max_seconds", above=0.0)
        one_of("dtype", self.dtype, DTYPES)
        one_of("terminal", self.terminal, _TERMINALS)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the solution."""
        return DTYPES[self.dtype]

    def make_model(self, problem: Problem, network: nn.Module | None = None) -> Ansatz:
        """What is fitted, in the options' dtype: the terminal value with a tensor train that is zero.

        Args:
            problem: the equation.
            network: instead of a tensor train.

        Example:
            >>> from tnml.pde import HeatEquation
            >>> TTOptions(degree=2).make_model(HeatEquation(5)).network
            FunctionalTrain(...)
        """
        made = FunctionalTrain(problem.dim + 1, self.degree) if network is None else network
        terminal = self.terminal
        if terminal == "auto":
            given = problem.smoothed_terminal is not None or problem.log_normal is not None
            exact = problem.constant_diffusion is not None and problem.drift is None
            terminal = "smoothed" if given or exact else "additive"
        model = Ansatz(made.to(self.torch_dtype), problem, terminal)
        if model.a is not None:
            nn.init.zeros_(model.a)  # the train has a constant of its own
        return model

    def record(self) -> dict[str, Any]:
        """The options as a flat dictionary of numbers, strings and None, with the method's name.

        Example:
            >>> TTOptions().record()["method"]
            'tt'
        """
        return {"method": METHOD, **dataclasses.asdict(self)}

    def identity(self) -> dict[str, str | int | float]:
        """What has to be the same when a run is resumed.

        Example:
            >>> "passes" in TTOptions().identity()
            False
        """
        return {
            name: value if isinstance(value, str | int | float) else str(value)
            for name, value in self.record().items()
            if name not in _MAY_CHANGE
        }


def options_of(record: Mapping[str, Any]) -> SolveOptions | TTOptions:
    """The options that `record` wrote, of either method.

    Example:
        >>> options_of(TTOptions(rank=3).record()).rank
        3
    """
    if record.get("method") != METHOD:
        return SolveOptions(**record)
    return TTOptions(**{name: value for name, value in record.items() if name != "method"})
