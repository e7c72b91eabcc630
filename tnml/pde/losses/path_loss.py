"""A loss of a solution u(t, x) along paths: what all of them share."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from tnml.checks import whole
from tnml.errors import choose
from tnml.pde.derivatives import Function
from tnml.pde.paths.chunks import sum_over_chunks
from tnml.pde.paths.simulation import Paths
from tnml.pde.problem import Problem

_REDUCTIONS = {"mean": True, "sum": False}


class PathLoss(ABC):
    """A loss that is a mean over paths; a subclass says what one path costs.

    Args:
        chunk: most points of (t, x) at once, but at least those of one path, which bounds the memory; the
            gradients stay the same, see `tnml.pde.paths.chunks.sum_over_chunks`. None: all at once.
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
        if chunk is not None:
            chunk = whole("chunk", chunk, 1)
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
        total = sum_over_chunks(of_part, paths, size, [p for p in known if p.requires_grad])
        return total / len(paths) if _REDUCTIONS[self.reduction] else total
