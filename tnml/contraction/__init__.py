"""Contraction of tensor networks together with a batch of samples."""

from tnml.contraction.chain.labelled import labelled_chain
from tnml.contraction.chain.operator import ENGINES, ChainValue, chain, chain_flat
from tnml.contraction.chain.shape import ChainShape
from tnml.contraction.einsum import einsum
from tnml.contraction.tt import PLANS, Plan, TTShape, tt_linear, tt_matrix, tt_plans

__all__ = [
    "ENGINES",
    "PLANS",
    "ChainShape",
    "ChainValue",
    "Plan",
    "TTShape",
    "chain",
    "chain_flat",
    "einsum",
    "labelled_chain",
    "tt_linear",
    "tt_matrix",
    "tt_plans",
]
