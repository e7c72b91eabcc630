"""A few simulated paths, always the same ones, from which constants are taken before there is a solution."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.errors import InputError
from tnml.pde.paths.noise import increments
from tnml.pde.paths.simulation import Paths, euler_maruyama
from tnml.pde.problem import Problem

_PATHS, _STEPS = 256, 32


def sample_paths(problem: Problem, seed: int = 0) -> Paths:
    """A few paths of the problem without its coupling, in double precision; the same ones every time.

    Raises:
        InputError: they are not finite.

    Example:
        >>> from tnml.pde import HamiltonJacobiBellman
        >>> len(sample_paths(HamiltonJacobiBellman(3)))
        256
    """
    free = dataclasses.replace(problem, coupled_drift=None) if problem.coupled else problem
    dt = problem.horizon / _STEPS
    noise = increments(
        _PATHS, _STEPS, problem.dim, dt, seed=seed, step=0, antithetic=True, dtype=torch.float64
    )
    paths = euler_maruyama(free, noise)
    if not bool(paths.x.isfinite().all()):
        raise InputError(f"paths of {problem.name!r} are not finite; check its drift and diffusion")
    return paths


def terminal_values(problem: Problem, paths: Paths) -> Float[Tensor, "m 1"]:
    """The terminal value at the ends of these paths.

    Raises:
        InputError: one is not finite.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> problem = HeatEquation(3)
        >>> terminal_values(problem, sample_paths(problem)).shape
        torch.Size([256, 1])
    """
    ends = paths.x[:, -1]
    found = problem.g(ends)
    bad = ~found.isfinite()[:, 0]
    if bool(bad.any()):
        raise InputError(
            f"terminal is not finite at t = {problem.horizon:g}, |x| = {float(ends[bad][0].norm()):.4g}, "
            "where a path from x0 ends; correct the problem's function"
        )
    return found
