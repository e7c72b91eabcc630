"""Placeholder of the thin slice: the reference recurrence behind the final interface."""

from typing import NamedTuple

from torch import Tensor

from tnml.contraction.reference import reference_chain
from tnml.contraction.shape import ChainShape

ENGINES = ("auto", "torch", "native", "reference")


class ChainValue(NamedTuple):
    left: Tensor
    right: Tensor
    exponent: Tensor


def chain_flat(features: Tensor, weight: Tensor, shape: ChainShape, engine: str = "auto") -> ChainValue:
    return ChainValue(*reference_chain(features, weight, shape))


def chain(features, cores, *, label_site=None, engine="auto"):
    raise NotImplementedError
