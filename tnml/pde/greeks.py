"""Derivatives of a solved equation by the names of finance, and second derivatives."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tnml.errors import InputError
from tnml.pde.ansatz.ansatz import Ansatz
from tnml.pde.aposteriori.bounds import sampled
from tnml.pde.aposteriori.linearised import volatility_moved, walk
from tnml.pde.paths.noise import increments
from tnml.pde.problem import Problem, Reference
from tnml.randomness import Noise

Values = npt.ArrayLike | Tensor
_BUMP = 0.005  # of a volatility, to either side
_FIRST = 11_000  # number of the set of increments


class Greeks(ABC):
    """The derivatives of a solution; a subclass gives u as a module and evaluates it at points of any shape.

    Example:
        >>> from tnml.pde import HeatEquation, Solution, SolveOptions
        >>> problem, options = HeatEquation(2), SolveOptions(width=8)
        >>> solution = Solution(problem=problem, model=options.make_model(problem), options=options)
        >>> solution.gamma(0.0, np.zeros((5, 2))).shape
        (5, 2)
    """

    problem: Problem

    @property
    @abstractmethod
    def ansatz(self) -> Ansatz:
        """The function u as a module."""

    @abstractmethod
    def gradient(self, t: Values, x: Values) -> npt.NDArray[np.floating[Any]]:
        """Du at any points."""

    @abstractmethod
    def _mapped(self, function: Callable[[Tensor, Tensor], Tensor], t: Values, x: Values) -> Tensor: ...

    def delta(self, t: Values, x: Values) -> npt.NDArray[np.floating[Any]]:
        """Du at any points, `[..., d]`; another name of `gradient`.

        Raises:
            InputError: as `u`.
        """
        return self.gradient(t, x)

    def theta(self, t: Values, x: Values) -> npt.NDArray[np.floating[Any]]:
        """The derivative of u with respect to time at any points, `[...]`.

        Raises:
            InputError: as `u`.
        """
        u = self.ansatz

        def slope(t: Tensor, x: Tensor) -> Tensor:
            with torch.enable_grad():
                t = t.detach().requires_grad_()
                (found,) = torch.autograd.grad(u(t, x).sum(), t, materialize_grads=True)
            return found[:, 0]

        return self._mapped(slope, t, x).numpy()

    def hessian_product(self, t: Values, x: Values, v: Values) -> npt.NDArray[np.floating[Any]]:
        """The Hessian of u in space times a vector, `D2u(t, x) v [..., d]`.

        Args:
            t: times, as for `u`.
            x: points `[..., d]`.
            v: one vector `[d]` for all points.

        Raises:
            InputError: as `u`; or v is not a vector of d numbers.

        Cost: two passes backward through the network.
        """
        direction = torch.as_tensor(v)
        if tuple(direction.shape) != (self.problem.dim,):
            raise InputError(f"v must be one vector [{self.problem.dim}], got {list(direction.shape)}")
        return self._mapped(lambda t, x: _bend(self.ansatz, t, x, direction.to(x)), t, x).numpy()

    def gamma(self, t: Values, x: Values) -> npt.NDArray[np.floating[Any]]:
        """The second derivative of u in each coordinate, the diagonal of D2u, `[..., d]`.

        Raises:
            InputError: as `u`.

        Cost: d times that of `hessian_product`.
        """

        def diagonal(t: Tensor, x: Tensor) -> Tensor:
            units = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
            columns = [_bend(self.ansatz, t, x, unit)[:, i] for i, unit in enumerate(units)]
            return torch.stack(columns, 1)

        return self._mapped(diagonal, t, x).numpy()

    @torch.no_grad()
    def vega(self, *, paths: int = 2048, steps: int = 50, seed: int = 0) -> Reference:
        """How u(0, x0) changes with the volatilities, per unit of all of them, with its standard error.

        It compares the corrected values of `check` at slightly higher and lower volatilities, on the same
        noise; u stays as it is, since it need not be the solution at those volatilities.

        Args:
            paths: how many.
            steps: of each.
            seed: of the noise.

        Raises:
            InputError: the problem is not one of geometric Brownian motion.
        """
        problem = self.problem
        if problem.log_normal is None:
            raise InputError(
                f"vega is for problems with log_normal, whose volatilities are known; {problem.name!r} has "
                "none: solve it at two diffusions and take the difference"
            )
        u = self.ansatz
        like = next(u.parameters())
        dw = increments(
            paths, steps, problem.dim, problem.horizon / steps, seed=seed, step=_FIRST,
            stream=Noise.ACCURACY, dtype=like.dtype, device=like.device,
        )  # fmt: skip
        up, down = (walk(volatility_moved(problem, by), u, dw).value for by in (_BUMP, -_BUMP))
        mean, error = sampled((up - down) / (2 * _BUMP))
        return Reference(mean, error, f"corrected values on {paths:,} paths")


def _bend(u: Ansatz, t: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """`D2u v [m, d]`."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(u(t, x).sum(), x, create_graph=True, materialize_grads=True)
        if not slope.requires_grad:
            return torch.zeros_like(x)
        (found,) = torch.autograd.grad((slope * v).sum(), x, materialize_grads=True)
    return found
