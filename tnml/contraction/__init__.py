"""Contraction of tensor networks in which a batch takes part."""

from tnml.contraction.chain import ENGINES, ChainValue, chain, chain_flat
from tnml.contraction.einsum import einsum
from tnml.contraction.shape import ChainShape

__all__ = ["ENGINES", "ChainShape", "ChainValue", "chain", "chain_flat", "einsum"]
