"""The paths of a run: a batch holds the numbers of its paths and of a step, which determine their noise."""

import torch
from torch import Tensor, nn

from tnml.pde.losses.named import Loss
from tnml.pde.options import SolveOptions
from tnml.pde.paths.noise import increments, sign_design
from tnml.pde.paths.simulation import Paths, euler_maruyama
from tnml.pde.problem import Problem
from tnml.randomness import Noise


class PathBatches:
    """The numbers of the paths of each step, and of the step itself.

    Args:
        paths: in a batch.
        steps_per_epoch: steps between two reports.

    Example:
        >>> PathBatches(3, 10)(2, 5)
        (tensor([0, 1, 2]), tensor([25, 25, 25]))
    """

    def __init__(self, paths: int, steps_per_epoch: int) -> None:
        self.paths, self.steps_per_epoch = paths, steps_per_epoch

    def __call__(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Both, for all paths."""
        number = epoch * self.steps_per_epoch + step
        return torch.arange(self.paths), torch.full((self.paths,), number)


class LossOnPaths:
    """A loss on the paths of one step, as the loop calls it: every process makes its own part of the paths.

    Args:
        problem: gives the process.
        options: paths, steps, noise, seed and dtype.
        loss: of an ansatz on paths.
    """

    def __init__(self, problem: Problem, options: SolveOptions, loss: Loss) -> None:
        self.problem, self.options, self.loss = problem, options, loss

    def __call__(self, model: nn.Module, index: Tensor, step: Tensor) -> Tensor:
        """The mean of the loss over the paths with these numbers."""
        paths = self.paths_of_step(int(step[0]), int(index[0]), len(index), index.device)
        return self.loss(model, self.problem, paths)

    def paths_of_step(self, step: int, first: int, count: int, device: torch.device | str = "cpu") -> Paths:
        """The paths `first` to `first + count - 1` of a step."""
        options, problem = self.options, self.problem
        n, d, dt = options.time_steps, problem.dim, problem.horizon / options.time_steps
        shared = {"seed": options.seed, "step": step, "dtype": options.torch_dtype, "device": device}
        dw = increments(
            count,
            n,
            d,
            dt,
            antithetic=options.antithetic,
            method=options.noise,
            first=first,
            **shared,  # type: ignore[arg-type]
        )
        per_point = getattr(self.loss, "fresh_increments", 0)
        if not per_point:
            return euler_maruyama(problem, dw)
        asked = options.group_noise == "design"
        design = asked and getattr(self.loss, "groups", None) == 1
        noise = increments(
            count,
            n if design else n * per_point,
            d,
            dt,
            method="signs" if asked else options.group_noise,
            first=first,
            stream=Noise.AHEAD,
            **shared,  # type: ignore[arg-type]
        )
        fresh = noise.view(count, n, -1, d)
        return euler_maruyama(problem, dw, fresh=fresh * sign_design(d).to(fresh) if design else fresh)
