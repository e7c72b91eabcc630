"""Small equations and solutions that the tests of losses and ansatz share."""

import dataclasses
from types import SimpleNamespace

import torch
from torch import nn

from tnml.nn import TNN
from tnml.pde import (
    AllenCahn,
    ArithmeticBasketCall,
    BlackScholesBarenblatt,
    GeometricBasketCall,
    HamiltonJacobiBellman,
    HeatEquation,
    HestonCall,
    Problem,
)

D = 3
MATRIX = torch.tensor([[0.5, 0.1, 0.0], [0.2, 0.4, 0.1], [0.0, -0.3, 0.6]], dtype=torch.float64)


def square(x):
    return 1 + x.square().sum(1, keepdim=True)


def linear_in_z():
    """Drift, a diffusion that depends on t and x, and a driver linear in z but not in y."""
    return Problem(
        name="linear",
        dim=D,
        horizon=0.8,
        x0=[0.3, -0.2, 0.5],
        terminal=lambda x: torch.log(square(x)) + x[:, :1],
        drift=lambda t, x: 0.3 * torch.sin(x) + t,
        diffusion=lambda t, x, v: (1 + 0.2 * torch.cos(x)) * (v @ MATRIX.to(v).T) + 0.1 * t * v,
        driver_value=lambda t, x, y: torch.sin(y) - 0.5 * t,
        driver_direction=lambda t, x: 0.4 * x - t,
    )


def curved_in_z():
    """A constant full diffusion and a driver quadratic in z."""
    return Problem(
        name="curved",
        dim=D,
        horizon=0.8,
        x0=0.4,
        terminal=square,
        drift=lambda t, x: -0.5 * x,
        diffusion=MATRIX,
        driver=lambda t, x, y, z: z.square().sum(1, keepdim=True) * y - y**3 + t,
    )


def coupled():
    """A drift that depends on y and z."""
    return Problem(
        name="coupled",
        dim=D,
        horizon=0.8,
        x0=0.4,
        terminal=square,
        coupled_drift=lambda t, x, y, z: 0.2 * y * torch.cos(x) - 0.3 * z,
        diffusion=lambda t, x, v: 0.4 * x * v,
        driver=lambda t, x, y, z: 0.1 * y * z.sum(1, keepdim=True),
    )


def held():
    """Coupled, on the half space where no coordinate is below .2: most states are outside of it."""
    return dataclasses.replace(coupled(), inside=lambda x: x.clamp(min=0.2), diffusion=0.5)


PROBLEMS = {
    "linear": linear_in_z,
    "curved": curved_in_z,
    "bsb": lambda: BlackScholesBarenblatt(D),
    "hjb": lambda: HamiltonJacobiBellman(D),
    "allen-cahn": lambda: AllenCahn(D),
    "heat": lambda: HeatEquation(D),
    "heston": HestonCall,
    "geometric": lambda: GeometricBasketCall(D),
    "arithmetic": lambda: ArithmeticBasketCall(D),
}


class OwnModule(nn.Module):
    """A network that tnml knows nothing of, with a layer norm: its forward derivative in torch misleads."""

    def __init__(self, d):
        super().__init__()
        self.first, self.last = nn.Linear(d + 1, 6).double(), nn.Linear(6, 1).double()
        self.norm = nn.LayerNorm(6).double()

    def forward(self, x):
        return self.last(torch.sin(self.norm(self.first(x))))


def network(kind, d=D):
    """A network of `d` coordinates in double precision."""
    if kind == "own module":
        return OwnModule(d)
    if kind == "sequential":
        layers = nn.Linear(d + 1, 6), nn.Tanh(), nn.Linear(6, 6), nn.Softplus(), nn.Linear(6, 1)
        return nn.Sequential(*layers).double()
    options = {
        "dense": {"rank": None},
        "dense silu": {"rank": None, "activation": "silu", "skip": True},
        "tnn": {"rank": 2},
        "tnn tanh": {"rank": 2, "activation": "tanh", "skip": True, "last": "tt"},
        "tnn gelu": {"rank": 3, "activation": "gelu", "n_cores": 3},
        "tnn layer norm": {"rank": 2, "norm": "layer"},
    }
    made = TNN((d + 1, 6, 6, 1), dtype=torch.float64, **options[kind])
    with torch.no_grad():  # so that biases count
        for layer in made.layers:
            layer.bias.normal_()
    return made


NETWORKS = [
    "sequential",
    "own module",
    "dense",
    "dense silu",
    "tnn",
    "tnn tanh",
    "tnn gelu",
    "tnn layer norm",
]


def equation(problem):
    """The problem as the oracles take it: coefficients as plain functions."""
    return SimpleNamespace(
        horizon=problem.horizon,
        g=problem.terminal,
        mu=problem.mu,
        sigma=problem.sigma,
        phi=problem.phi,
    )
