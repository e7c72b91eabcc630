"""Deep BSDE: the starting value and a gradient network for every time step, stepped to the horizon."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tnml.checks import whole
from tnml.errors import InputError, choose
from tnml.nn.tt.network import ACTIVATIONS
from tnml.pde.losses.path_loss import PathLoss
from tnml.pde.paths.pilot import sample_paths, terminal_values
from tnml.pde.paths.simulation import Paths
from tnml.pde.problem import Problem


def hidden_widths(dim: int) -> tuple[int, int]:
    """The hidden layers of each network if none are given: two of d + 10, as in the paper.

    Example:
        >>> hidden_widths(100)
        (110, 110)
    """
    return dim + 10, dim + 10


class DeepBSDE(nn.Module):
    """u(0, x0) and Du along paths from x0: one number, one vector, and n - 1 networks Z_k(x).

    What is learnt is scaled, as in `tnml.pde.Ansatz`: u(0, x0) is the mean of g(X_T) plus its deviation times
    a parameter that starts at zero, and Du(0, x0) the mean of Dg(X_T) plus its size times another; the mean
    and deviations are those of a few simulated paths. The networks give Du over the size of Dg.

    The networks of all steps are evaluated at once, as one product per layer. The solution is known at
    (0, x0) and along paths that start there, not at any (t, x).

    Args:
        problem: not coupled.
        steps: n, those of the paths it is trained on.
        hidden: widths of each network; None: `hidden_widths`. In place of the paper's batch norm the inputs
            are standardised by fixed numbers.
        activation: "sin", "tanh", "silu", ..

    Raises:
        InputError: an argument is out of range, or the problem is coupled.

    Source: Han, Jentzen, E, PNAS 115 (2018) 8505, arXiv 1707.02568.

    Example:
        >>> from tnml.pde import HeatEquation, euler_maruyama, increments
        >>> problem = HeatEquation(dim=2)
        >>> model = DeepBSDE(problem, 5)
        >>> paths = euler_maruyama(problem, increments(4, 5, 2, problem.horizon / 5, seed=0, step=0))
        >>> model(paths).shape
        torch.Size([4, 6])
    """

    shift: Tensor
    factor: Tensor
    scale: Tensor
    mean: Tensor
    spread: Tensor
    mean_slope: Tensor
    hard = False

    def __init__(
        self,
        problem: Problem,
        steps: int,
        *,
        hidden: Sequence[int] | None = None,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        if problem.coupled:
            raise InputError(f"{problem.name!r} is coupled; Deep BSDE here is for paths known in advance")
        steps = whole("steps", steps, 1)
        d = problem.dim
        widths = (d, *(hidden_widths(d) if hidden is None else hidden), d)
        if min(widths) < 1:
            raise InputError(f"hidden widths must be positive, got {hidden}")
        make, _ = choose("activation", activation, ACTIVATIONS)
        self.problem = problem
        self.steps = steps
        self.activation = make(1.0)
        paths = sample_paths(problem)
        ends = paths.x[:, -1]
        x = paths.x[:, 1:].flatten(0, 1)
        deviation = x.std(0)
        slope = problem.g_gradient(ends)
        values = terminal_values(problem, paths)
        spread = values.std()
        varies = bool(spread > 1e-9 * values.abs().mean())
        self.register_buffer("shift", x.mean(0).float())
        self.register_buffer("factor", (1 / torch.where(deviation > 1e-12, deviation, 1.0)).float())
        self.register_buffer("scale", slope.square().mean().sqrt().clamp_min(1e-12).float())
        self.register_buffer("mean", values.mean().float())
        self.register_buffer("spread", (spread if varies else torch.ones_like(spread)).float())
        self.register_buffer("mean_slope", slope.mean(0).float())
        self.first_y = nn.Parameter(torch.zeros(()))
        self.first_z = nn.Parameter(torch.zeros(d))
        counts = [(steps - 1, i, o) for i, o in itertools.pairwise(widths)]
        self.weights = nn.ParameterList(torch.randn(k, i, o) / math.sqrt(i) for k, i, o in counts)
        self.biases = nn.ParameterList(torch.zeros(k, 1, o) for k, _, o in counts)

    @property
    def y0(self) -> Float[Tensor, ""]:
        """u(0, x0), with its graph."""
        return self.mean + self.spread * self.first_y

    @property
    def z0(self) -> Float[Tensor, " d"]:
        """Du(0, x0), with its graph."""
        return self.mean_slope + self.scale * self.first_z

    @property
    def value(self) -> float:
        """u(0, x0)."""
        return float(self.y0.detach())

    def gradients(self, paths: Paths) -> Float[Tensor, "m n d"]:
        """Z_k at the points of the paths, before the horizon."""
        first = self.z0.expand(len(paths), 1, -1)
        h = ((paths.x[:, 1:-1] - self.shift) * self.factor).transpose(0, 1)  # step, path, space
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if place < len(self.weights) - 1:
                h = self.activation(h)
        return torch.cat([first, (h * self.scale).transpose(0, 1)], 1)

    def forward(self, paths: Paths) -> Float[Tensor, "m _"]:
        """Y along the paths, `[m, n + 1]`: `Y_{n+1} = Y_n + phi dt + Z' sigma dW` from Y_0 = y0.

        Raises:
            InputError: the paths have another number of steps, or do not start at (0, x0).
        """
        if paths.steps != self.steps or float(paths.times[0]) != 0.0:
            raise InputError(
                f"this model is for {self.steps} steps from time 0, got {paths.steps} from "
                f"{float(paths.times[0]):g}"
            )
        z = self.gradients(paths)
        moved = (z * paths.sdw).sum(2, keepdim=True)
        y = self.y0.expand(len(paths), 1)
        values = [y]
        for k in range(self.steps):
            t = paths.times[k].expand(len(paths), 1)
            y = y + self.problem.phi(t, paths.x[:, k], y, z[:, k]) * paths.dt + moved[:, k]
            values.append(y)
        return torch.cat(values, 1)


class DeepBSDELoss(PathLoss):
    """The loss of Deep BSDE: `|Y_N - g(X_N)|^2`, for a `DeepBSDE`.

    Args:
        chunk: see `PathLoss`.
        reduction: see `PathLoss`.

    Raises:
        InputError: an argument is out of range.

    Source: Han, Jentzen, E, PNAS 115 (2018) 8505, arXiv 1707.02568.

    Example:
        >>> from tnml.pde import HeatEquation, euler_maruyama, increments
        >>> problem = HeatEquation(dim=2)
        >>> paths = euler_maruyama(problem, increments(4, 5, 2, problem.horizon / 5, seed=0, step=0))
        >>> bool(DeepBSDELoss()(DeepBSDE(problem, 5), problem, paths) >= 0)
        True
    """

    def per_path(self, solution: object, problem: Problem, paths: Paths) -> Float[Tensor, " m"]:
        """What each path misses at the horizon, squared."""
        if not isinstance(solution, DeepBSDE):
            raise InputError(f"this loss is for a DeepBSDE, got {type(solution).__name__}")
        miss: Tensor = solution(paths)[:, -1:] - problem.g(paths.x[:, -1])
        return miss[:, 0].square()
