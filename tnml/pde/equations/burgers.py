"""An equation of Burgers type."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.checks import whole
from tnml.pde.checks import as_number
from tnml.pde.equations.equation import Equation
from tnml.pde.problem import Problem


def Burgers(dim: int = 20, *, horizon: float = 1.0) -> Problem:  # noqa: N802
    """An equation of Burgers type, whose solution is a moving front `1 / (1 + exp(-t - mean x))`.

    `phi = -(y - (2 + d) / (2 d)) d sum z`, `sigma = d`, `x0 = 0`.

    Args:
        dim: space coordinates.
        horizon: final time.

    Raises:
        InputError: a value is out of range.

    Source:
        Chassagneux, SIAM J. Numer. Anal. 52 (2014) 2815, example 4.6; E, Han, Jentzen, Commun. Math. Stat. 5
        (2017) 349, arXiv 1706.04702, section 4.5.

    Example:
        >>> Burgers().true_value().value
        0.5
    """
    dim, horizon = whole("dim", dim, 1), as_number("horizon", horizon, above=0.0)
    return Problem(
        name="burgers",
        dim=dim,
        horizon=horizon,
        x0=0.0,
        terminal=partial(_front, time=float(horizon)),
        driver=_burgers_driver,
        diffusion=float(dim),
        exact=partial(burgers),
        options={"dim": dim, "horizon": horizon},
    )


def burgers(t: Float[Tensor, "m 1"], x: Float[Tensor, "m d"]) -> Float[Tensor, "m 1"]:
    """`1 / (1 + exp(-t - mean x))`.

    Example:
        >>> burgers(torch.zeros(1, 1), torch.zeros(1, 3)).item()
        0.5
    """
    return torch.sigmoid(t.double() + x.double().mean(1, keepdim=True))


def _front(x: Tensor, *, time: float) -> Tensor:
    return torch.sigmoid(time + x.mean(1, keepdim=True))


def _burgers_driver(t: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    d = x.shape[1]
    return -(y - (2 + d) / (2 * d)) * d * z.sum(1, keepdim=True)


EQUATION = Equation(problem=Burgers, truth=burgers, recipe={"terminal": "kinks"})
