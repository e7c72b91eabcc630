"""Parabolic equations in many dimensions, solved by networks along random paths."""

from tnml.pde import references
from tnml.pde.accuracy import Along, PathErrors
from tnml.pde.ansatz import Ansatz
from tnml.pde.deep_bsde import DeepBSDE, DeepBSDELoss
from tnml.pde.losses import EulerLoss, UnbiasedLoss
from tnml.pde.noise import increments
from tnml.pde.option_problems import ArithmeticBasketCall, GeometricBasketCall, HestonCall
from tnml.pde.options import SolveOptions, preset
from tnml.pde.paths import Paths, euler_maruyama
from tnml.pde.problem import LogNormal, Problem, Reference
from tnml.pde.problems import (
    PROBLEMS,
    AllenCahn,
    BlackScholesBarenblatt,
    HamiltonJacobiBellman,
    HeatEquation,
    problem,
)
from tnml.pde.references import monte_carlo
from tnml.pde.solution import Solution
from tnml.pde.solve import solve

__all__ = [
    "PROBLEMS",
    "AllenCahn",
    "Along",
    "Ansatz",
    "ArithmeticBasketCall",
    "BlackScholesBarenblatt",
    "DeepBSDE",
    "DeepBSDELoss",
    "EulerLoss",
    "GeometricBasketCall",
    "HamiltonJacobiBellman",
    "HeatEquation",
    "HestonCall",
    "LogNormal",
    "PathErrors",
    "Paths",
    "Problem",
    "Reference",
    "Solution",
    "SolveOptions",
    "UnbiasedLoss",
    "euler_maruyama",
    "increments",
    "monte_carlo",
    "preset",
    "problem",
    "references",
    "solve",
]
