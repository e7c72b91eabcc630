"""The loss of all steps to the horizon together."""

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.pde.derivatives import Function, value_and_gradient
from tnml.pde.losses.path_loss import PathLoss
from tnml.pde.paths.simulation import Paths
from tnml.pde.problem import Problem

_SMALL = 1e-2  # exponents below which the weights are their series


class MultistepLoss(PathLoss):
    """The loss of all steps to the horizon together: what a path says about u from each of its points.

    From every point X_n of a path, with `Y = u(t, X)`, `Z = Du(t, X)` and the driver's slope b in y,

        C_n = D g(X_T) - int D (phi - b Y) dt - int D Z' sigma dW,    D = exp(-int b ds)
        loss = mean over the points of  (C_n - u(t_n, X_n))^2

    where sums run from t_n to T. It is the variance of the corrected value of `Solution.check`, zero only for
    the solution up to the time step, whose part is smaller than that of the Euler loss by the number of
    steps. The horizon is seen from every point, so that nothing has to travel backwards step by step. The
    steps of time are exponential, with the slope b taken as a constant: a stiff driver `b y` is integrated
    exactly.

    Args:
        chunk: see `PathLoss`.
        reduction: see `PathLoss`.

    Raises:
        InputError: an argument is out of range.

    Cost: one evaluation of u with its gradient at every point.

    Source: the sums are those of Germain, Pham, Warin, SIAM J. Sci. Comput. 44 (2022) A28, arXiv 2006.01496;
    one function for all times and exponential steps are our own.

    Example:
        >>> from tnml.pde import HeatEquation, euler_maruyama, increments
        >>> problem = HeatEquation(dim=2)
        >>> paths = euler_maruyama(problem, increments(8, 10, 2, problem.horizon / 10, seed=0, step=0))
        >>> exact = MultistepLoss()(problem.exact, problem, paths)
        >>> bool(exact < MultistepLoss()(lambda t, x: 0 * t, problem, paths))
        True
    """

    def per_path(self, solution: Function, problem: Problem, paths: Paths) -> Float[Tensor, " m"]:
        """The mean over the points of the squared difference for each path."""
        m, n, dt = len(paths), paths.steps, paths.dt
        t, x = paths.points(0, n + 1)
        y, z = value_and_gradient(solution, t, x)
        phi, b = _driver_and_slope(problem, t, x, y, z)
        source = (phi - b * y).view(m, n + 1)
        moved = (z.view(m, n + 1, -1)[:, :n] * paths.sdw).sum(2)
        y, b = y.view(m, n + 1), b.view(m, n + 1)
        later = problem.g(paths.x[:, -1])[:, 0]
        source, b = _finite_at_the_end(source), _finite_at_the_end(b)
        exponent = (b[:, :-1] + b[:, 1:]) * (dt / 2)
        first, last, factor = step_weights(exponent)
        costs = dt * (first * source[:, :-1] + last * source[:, 1:]) + moved
        found = [later]
        for k in range(n - 1, -1, -1):
            later = factor[:, k] * later - costs[:, k]
            found.append(later)
        return (torch.stack(found[::-1], 1) - y).square().mean(1)


def step_weights(exponent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The integral over (0, 1) of `exp(-k s)` times a line, as weights of its two ends; and `exp(-k)`.

    Args:
        exponent: k.

    Example:
        >>> [round(float(part), 6) for part in step_weights(torch.zeros(1))]
        [0.5, 0.5, 1.0]
    """
    factor = torch.exp(-exponent)
    small = exponent.abs() < _SMALL
    k = torch.where(small, 1.0, exponent)
    last = torch.where(small, 0.5 - exponent / 3 + exponent.square() / 8, (1 - (1 + k) * factor) / k.square())
    whole = torch.where(small, 1 - exponent / 2 + exponent.square() / 6, -torch.expm1(-k) / k)
    return whole - last, last, factor


def _driver_and_slope(problem: Problem, t: Tensor, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """The driver, and its derivative in y without a graph `[m, 1]`."""
    phi = problem.phi(t, x, y, z)
    with torch.enable_grad():
        at = y.detach().requires_grad_()
        value = problem.phi(t, x, at, z.detach())
        if not value.requires_grad:
            return phi, torch.zeros_like(y)
        (slope,) = torch.autograd.grad(value.sum(), at, materialize_grads=True)
    return phi, slope


def _finite_at_the_end(values: Tensor) -> Tensor:
    """The values `[m, n + 1]`, the last replaced by the one before where it is not finite."""
    last = torch.where(values[:, -1:].isfinite(), values[:, -1:], values[:, -2:-1])
    return torch.cat([values[:, :-1], last], 1)
