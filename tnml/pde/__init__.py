"""Parabolic equations in many dimensions, solved by networks along random paths."""

from tnml.pde.problem import LogNormal, Problem, Reference
from tnml.pde.problems import BlackScholesBarenblatt, HamiltonJacobiBellman

__all__ = [
    "BlackScholesBarenblatt",
    "HamiltonJacobiBellman",
    "LogNormal",
    "Problem",
    "Reference",
]
