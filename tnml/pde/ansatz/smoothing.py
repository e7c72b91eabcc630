"""A terminal value smoothed by the uncontrolled diffusion: the mean of g over a few fixed values of X_T."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.pde.paths.simulation import Paths
from tnml.pde.problem import Problem
from tnml.randomness import Stream, generator

_CLEAR = 0.5  # share of the mean in the mean square of the terminal's slope that makes a direction


def smoothing_nodes(problem: Problem, count: int, paths: Paths, seed: int = 0) -> Float[Tensor, "k d"]:
    """`count` fixed vectors, antithetic, that stand for a standard normal vector in means of g.

    Each has the length sqrt(d) that a normal vector has on average. If the terminal value has a slope in one
    direction for most paths, as that of a basket option has, the nodes are placed along it at the means of
    `count` slices of equal probability, so that the smoothing is right in that direction.

    Args:
        problem: gives g and sigma.
        count: even.
        paths: from `sample_paths`.
        seed: of the directions.

    Source: own design.

    Example:
        >>> from tnml.pde import BlackScholesBarenblatt
        >>> from tnml.pde.paths.pilot import sample_paths
        >>> problem = BlackScholesBarenblatt(4)
        >>> nodes = smoothing_nodes(problem, 8, sample_paths(problem))
        >>> nodes.shape, bool(nodes.sum(0).abs().max() < 1e-12)
        (torch.Size([8, 4]), True)
    """
    d, half = problem.dim, count // 2
    z = torch.randn(half, d, generator=generator(seed, 0, stream=Stream.NODES), dtype=torch.float64)
    slope = terminal_slope(problem, paths)
    mean = slope.mean(0)
    if mean.square().sum() > _CLEAR * slope.square().sum(1).mean():
        along = mean / mean.norm()
        z = z - (z @ along)[:, None] * along
        if d > 1:
            z = z * (math.sqrt(d - 1) / z.norm(dim=1, keepdim=True))
        z = z + _slices(half)[:, None] * along
    else:
        z = z * (math.sqrt(d) / z.norm(dim=1, keepdim=True))
    return torch.cat([z, -z])


def _slices(half: int) -> Tensor:
    """The positive ones of 2 `half` numbers, means of slices of equal probability, with mean square one."""
    edges = torch.special.ndtri(torch.linspace(0.5, 1.0, half + 1, dtype=torch.float64))
    density = torch.exp(-edges.square() / 2) / math.sqrt(2 * math.pi)
    means = (density[:-1] - density[1:]) * 2 * half
    scaled: Tensor = means / means.square().mean().sqrt()
    return scaled


def terminal_slope(problem: Problem, paths: Paths) -> Tensor:
    """Sigma' Dg at the ends of the paths, `[m, d]`.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> from tnml.pde.paths.pilot import sample_paths
        >>> terminal_slope(HeatEquation(2), sample_paths(HeatEquation(2))).shape
        torch.Size([256, 2])
    """
    x = paths.x[:, -1]
    t = x.new_full((len(x), 1), problem.horizon)
    v = torch.zeros_like(x).requires_grad_()
    with torch.enable_grad():
        moved = (problem.sigma(t, x, v) * problem.g_gradient(x)).sum()
        (slope,) = torch.autograd.grad(moved, v, materialize_grads=True)
    return slope


def smoothed(problem: Problem, nodes: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """The mean of `exp(-discount (T - t)) g(X_T)` over the nodes, X_T given X_t = x; equal to g at T.

    X_T is exact if sigma is constant and mu zero, and for geometric Brownian motion; otherwise it takes
    one step of Euler and Maruyama. A coupled drift is left out.

    Args:
        problem: gives g and the diffusion.
        nodes: `[k, d]`, from `smoothing_nodes`.
        t: `[m, 1]`.
        x: `[m, d]`.

    Cost: k evaluations of g and sigma at every point.

    Example:
        >>> from tnml.pde import HamiltonJacobiBellman
        >>> problem, x = HamiltonJacobiBellman(2), torch.ones(3, 2)
        >>> torch.allclose(smoothed(problem, torch.ones(2, 2), torch.ones(3, 1), x), problem.g(x))
        True
    """
    left = (problem.horizon - t).clamp_min(0)
    ends = later_states(problem, nodes, t, x)
    mean = problem.g(ends).view(len(x), len(nodes)).mean(1, keepdim=True)
    return torch.exp(-problem.discount * left) * mean if problem.discount else mean


def later_states(problem: Problem, nodes: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """X_T given X_t = x for every node in place of the noise, `[m k, d]`, the nodes of a point together.

    Args:
        problem: see `smoothed`.
        nodes: see there.
        t: see there.
        x: see there.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> one = torch.ones(1, 2)
        >>> later_states(HeatEquation(2, sigma=1.0), torch.ones(1, 2), 0 * one[:, :1], one).tolist()
        [[2.0, 2.0]]
    """
    k, m = len(nodes), len(x)
    left = (problem.horizon - t).clamp_min(0)
    far, since, left_k = (part.repeat_interleave(k, 0) for part in (x, t, left))
    dw = left_k.sqrt() * nodes.to(x).repeat(m, 1)
    if problem.log_normal is not None:
        return problem.step(since, far, left_k, dw)  # type: ignore[arg-type]  # one length for every row
    ends = far + problem.sigma(since, far, dw)
    return ends if problem.coupled else ends + problem.mu(since, far) * left_k
