"""Parabolic equations in many dimensions, solved by networks along random paths."""

from tnml.pde.ansatz import Ansatz
from tnml.pde.deep_bsde import DeepBSDE, DeepBSDELoss
from tnml.pde.losses import EulerLoss, UnbiasedLoss
from tnml.pde.noise import increments
from tnml.pde.paths import Paths, euler_maruyama
from tnml.pde.problem import LogNormal, Problem, Reference
from tnml.pde.problems import BlackScholesBarenblatt, HamiltonJacobiBellman

__all__ = [
    "Ansatz",
    "BlackScholesBarenblatt",
    "DeepBSDE",
    "DeepBSDELoss",
    "EulerLoss",
    "HamiltonJacobiBellman",
    "LogNormal",
    "Paths",
    "Problem",
    "Reference",
    "UnbiasedLoss",
    "euler_maruyama",
    "increments",
]
