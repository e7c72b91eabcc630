"""PyTorch modules made of tensor networks."""

from tnml.nn.compression import Compressed, compress
from tnml.nn.compression_report import CompressReport
from tnml.nn.dropout import BondDropout, SiteDropout
from tnml.nn.mps_layer import MPSLayer
from tnml.nn.tnn import TNN
from tnml.nn.tt_convert import TTFit
from tnml.nn.tt_embedding import TTEmbedding
from tnml.nn.tt_linear import TTLinear

__all__ = [
    "TNN",
    "BondDropout",
    "CompressReport",
    "Compressed",
    "MPSLayer",
    "SiteDropout",
    "TTEmbedding",
    "TTFit",
    "TTLinear",
    "compress",
]
