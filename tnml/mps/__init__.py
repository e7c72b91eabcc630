"""Matrix product states: algebra, canonical forms, truncation and measurements.

States are immutable and differentiable: gradients flow through every operation to the cores. Norms are
kept as logarithms, so that chains of thousands of sites neither overflow nor vanish.
"""

from tnml.mps.interop import contract_nodes, from_finite_mps, from_nodes, to_finite_mps, to_nodes
from tnml.mps.linalg import qr_positive, robust_svd
from tnml.mps.state import MatrixProductState, Truncation

__all__ = [
    "MatrixProductState",
    "Truncation",
    "contract_nodes",
    "from_finite_mps",
    "from_nodes",
    "qr_positive",
    "robust_svd",
    "to_finite_mps",
    "to_nodes",
]
