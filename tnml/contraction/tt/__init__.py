"""Tensor-train matrices: shapes, the dense matrix, and the product with a batch."""

from tnml.contraction.tt.apply import tt_linear
from tnml.contraction.tt.costs import Plan
from tnml.contraction.tt.matrix import tt_matrix
from tnml.contraction.tt.plans import PLANS, tt_plans
from tnml.contraction.tt.shape import TTShape

__all__ = ["PLANS", "Plan", "TTShape", "tt_linear", "tt_matrix", "tt_plans"]
