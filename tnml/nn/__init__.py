"""PyTorch modules made of tensor networks."""

from tnml.nn.born.machine import BornMachine
from tnml.nn.dropout import BondDropout, SiteDropout
from tnml.nn.layer import TensorNetworkLayer
from tnml.nn.mps.layer import MPSLayer
from tnml.nn.networks import NETWORKS, Network, make_layer
from tnml.nn.patch.blocks import BlockMPS
from tnml.nn.patch.deep import DeepMPS
from tnml.nn.patch.layer import PatchMPS
from tnml.nn.ring.layer import RingMPS
from tnml.nn.tree.layer import TreeLayer
from tnml.nn.tt.compression import Compressed, compress
from tnml.nn.tt.compression_report import CompressReport
from tnml.nn.tt.conv import TTConv1d, TTConv2d, TTConv3d
from tnml.nn.tt.convert import TTFit
from tnml.nn.tt.embedding import TTEmbedding
from tnml.nn.tt.linear import TTLinear
from tnml.nn.tt.network import TNN
from tnml.nn.uniform.layer import UniformMPS

__all__ = [
    "NETWORKS",
    "TNN",
    "BlockMPS",
    "BondDropout",
    "BornMachine",
    "CompressReport",
    "Compressed",
    "DeepMPS",
    "MPSLayer",
    "Network",
    "PatchMPS",
    "RingMPS",
    "SiteDropout",
    "TTConv1d",
    "TTConv2d",
    "TTConv3d",
    "TTEmbedding",
    "TTFit",
    "TTLinear",
    "TensorNetworkLayer",
    "TreeLayer",
    "UniformMPS",
    "compress",
    "make_layer",
]
