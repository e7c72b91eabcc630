"""An equation in one file, as a page of tnml/pde/equations: a wave that the heat flattens."""

import math
from functools import partial

import torch

from tnml.pde import Problem
from tnml.pde.equations.equation import Equation


def FlatteningWave(dim: int = 2, *, horizon: float = 0.5) -> Problem:  # noqa: N802 - as the makers of tnml
    """The heat equation with `g = 2 + cos(k . x)`, `|k| = 1`, from `x0 = 0`.

    Args:
        dim: space coordinates.
        horizon: final time.
    """
    return Problem(
        name="wave",
        dim=dim,
        horizon=horizon,
        x0=0.0,
        terminal=_wave,
        diffusion=1.0,
        exact=partial(flattening_wave, horizon=horizon),
        options={"dim": dim, "horizon": horizon},
    )


def flattening_wave(t, x, *, horizon=0.5):
    """`2 + exp(-(T - t) / 2) cos(k . x)`."""
    wave = torch.cos(x.double().sum(1, keepdim=True) / math.sqrt(x.shape[1]))
    return 2 + torch.exp((t.double() - horizon) / 2) * wave


def _wave(x):
    return 2 + torch.cos(x.sum(1, keepdim=True) / math.sqrt(x.shape[1]))


EQUATION = Equation(
    problem=FlatteningWave,
    truth=flattening_wave,
    recipe={"iterations": 60, "reports": 3, "time_steps": 5, "width": 8, "lr": 0.01, "terminal": "additive"},
)
