"""The start of a fit: a sum of functions of one coordinate each, with time, solved in one piece."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.pde.backward_tt.equations import Dual, Rows

_COLUMNS = 3000  # unknowns solved for at once
_RIDGES = 48
_SHOWN = 1e-12  # of the largest eigenvalue: directions below are rounding


class Ridged(NamedTuple):
    """The solution of a linear problem under the ridge of largest evidence, and the noise that is left.

    Example:
        >>> Ridged(torch.ones(2), 0.1).noise
        0.1
    """

    mean: Tensor
    noise: float


def ridged(
    design: Float[Tensor, "e m"], wanted: Float[Tensor, " e"], observations: float | None = None
) -> Ridged:
    """The mean of the posterior of `wanted = design mean + noise` under the ridge of largest evidence.

    It is `tnml.training.dmrg.evidence` for one target, with the ridge to a factor of two only: a fit solves
    thousands of such problems.

    Args:
        design: the matrix.
        wanted: the right sides.
        observations: how many independent ones they are worth; None: all.

    Cost: e m^2 + m^3.

    Example:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
        >>> found = ridged(x, 2 * x[:, 0] + 0.1 * torch.cos(50 * x[:, 0]))
        >>> print(f"{found.mean.item():.2f} {found.noise:.3f}")
        2.00 0.072
    """
    count, total = float(observations or len(wanted)), float(wanted.square().sum())
    values, vectors = torch.linalg.eigh(design.T @ design)
    largest = float(values[-1])
    if not largest > 0 or not total > 0:
        return Ridged(design.new_zeros(design.shape[1]), math.sqrt(total / len(wanted)))
    keep = values > _SHOWN * largest
    values, vectors = values[keep], vectors[:, keep]
    along = vectors.T @ (design.T @ wanted)
    shown = along.square() / values
    beyond = max(total - float(shown.sum()), 0.0)
    ridge = largest * torch.logspace(-14, 2, _RIDGES, dtype=values.dtype).unsqueeze(1)
    share = ridge / (values + ridge)
    left = (beyond + (share * shown).sum(1)).clamp_min(1e-26 * total)
    best = int((share.log().sum(1) - count * left.log()).argmax())
    mean = vectors @ (along / (values + ridge[best]))
    return Ridged(mean, math.sqrt(float(left[best]) / len(wanted)))


def additive(
    sites: list[Dual], wanted: Float[Tensor, " e"], rows: Rows, observations: float | None = None
) -> list[Tensor]:
    """The cores of the best `f(t) + sum_i f_i(t, x_i)`, of rank one more than there are functions of time.

    The function of time comes first and has a ridge of its own: it is large where the others are small.

    Args:
        sites: the features of every input at all points, time first; the first of the others is 1.
        wanted: the right sides of the equations.
        rows: their left sides.
        observations: see `ridged`.

    Source: own design.
    """
    n, d = len(sites), len(sites[1].value)
    times = len(sites[0].value)
    while times > 1 and times * (1 + (n - 1) * (d - 1)) > _COLUMNS:
        times -= 1
    time = Dual(*(part[:times] for part in sites[0]))
    alone = rows(*time).T
    constant = ridged(alone, wanted, observations).mean
    columns = [rows(*time.times(Dual(*(part[1:] for part in site)))).T for site in sites[1:]]
    found = ridged(torch.cat([alone, *columns], 1), wanted - alone @ constant, observations).mean
    constant, weights = constant + found[:times], found[times:].view(n - 1, times, d - 1)
    first = found.new_zeros(1, len(sites[0].value), times)
    first[0, :times] = torch.eye(times, dtype=found.dtype)
    cores = [first]
    for weight in weights:  # the functions of time go on, the last index adds up
        core = found.new_zeros(times + 1, d, times + 1)
        core[:, 0] = torch.eye(times + 1, dtype=found.dtype)
        core[:times, 1:, times] = weight
        cores.append(core)
    cores[1] = cores[1][:times]
    end = cores[-1][:, :, times:].clone()
    end[:times, 0, 0] += constant
    return [*cores[:-1], end]
