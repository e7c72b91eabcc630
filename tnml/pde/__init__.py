"""Parabolic equations in many dimensions, solved by networks along random paths."""

from tnml.pde import references
from tnml.pde.accuracy import Along, PathErrors
from tnml.pde.ansatz.ansatz import Ansatz
from tnml.pde.aposteriori.result import Check, Flag
from tnml.pde.backward_tt.options import TTOptions
from tnml.pde.equations.allen_cahn import AllenCahn
from tnml.pde.equations.arithmetic_basket import ArithmeticBasketCall
from tnml.pde.equations.black_scholes_barenblatt import BlackScholesBarenblatt
from tnml.pde.equations.burgers import Burgers
from tnml.pde.equations.cir_bond import CoxIngersollRossBond
from tnml.pde.equations.default_risk import DefaultRisk
from tnml.pde.equations.double_well import CoupledDoubleWell, DoubleWell
from tnml.pde.equations.geometric_basket import GeometricBasketCall
from tnml.pde.equations.hamilton_jacobi_bellman import HamiltonJacobiBellman
from tnml.pde.equations.heat import HeatEquation
from tnml.pde.equations.heston import HestonCall
from tnml.pde.equations.linear_quadratic import LinearQuadraticControl
from tnml.pde.equations.reaction_diffusion import ReactionDiffusion
from tnml.pde.equations.table import PROBLEMS, problem
from tnml.pde.equations.two_rates import TwoRates
from tnml.pde.losses.deep_bsde import DeepBSDE, DeepBSDELoss
from tnml.pde.losses.euler import EulerLoss
from tnml.pde.losses.multistep import MultistepLoss
from tnml.pde.losses.unbiased import UnbiasedLoss
from tnml.pde.options import SolveOptions, preset
from tnml.pde.paths.noise import increments
from tnml.pde.paths.simulation import Paths, euler_maruyama
from tnml.pde.problem import LogNormal, Problem, Reference
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
    "Burgers",
    "Check",
    "CoupledDoubleWell",
    "CoxIngersollRossBond",
    "DeepBSDE",
    "DeepBSDELoss",
    "DefaultRisk",
    "DoubleWell",
    "EulerLoss",
    "Flag",
    "GeometricBasketCall",
    "HamiltonJacobiBellman",
    "HeatEquation",
    "HestonCall",
    "LinearQuadraticControl",
    "LogNormal",
    "MultistepLoss",
    "PathErrors",
    "Paths",
    "Problem",
    "ReactionDiffusion",
    "Reference",
    "Solution",
    "SolveOptions",
    "TTOptions",
    "TwoRates",
    "UnbiasedLoss",
    "euler_maruyama",
    "increments",
    "monte_carlo",
    "preset",
    "problem",
    "references",
    "solve",
]
