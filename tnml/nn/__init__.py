"""PyTorch modules made of tensor networks."""

from tnml.nn.dropout import BondDropout, SiteDropout
from tnml.nn.mps_layer import MPSLayer

__all__ = ["BondDropout", "MPSLayer", "SiteDropout"]
