"""Chains that the tests share, and the vectors at the label site with their scale put back."""

import torch
from torch import Tensor

from tnml.contraction import ChainShape, chain_flat

SHAPES = {
    "uniform": ChainShape(2, (1, 2, 4, 4), (4, 4, 2, 1)),
    "uniform d=3, odd": ChainShape(3, (1, 3, 3), (3, 3, 3, 1)),
    "ragged": ChainShape(2, (1, 3, 2, 5), (4, 1, 2, 1)),
    "ragged d=4": ChainShape(4, (1, 2), (3, 5, 1)),
    "label at the left end": ChainShape(2, (1,), (3, 4, 2, 1)),
    "label at the right end": ChainShape(5, (1, 4, 3), (1,)),
    "one site": ChainShape(2, (1, 3), (1,)),
    "wide": ChainShape(2, (1, 9, 17), (33, 5, 1)),
}
ENGINES = [
    ("torch", torch.float64),
    ("torch", torch.float32),
    ("native", torch.float32),
    ("reference", torch.float64),
]
BOUND = {torch.float64: 1e-10, torch.float32: 1e-5}


def instance(
    shape: ChainShape, generator: torch.Generator, batch: int = 5, dtype: torch.dtype = torch.float64
):
    """Random features, weights and incoming gradients in double precision, then rounded to `dtype`."""
    double = torch.complex128 if dtype.is_complex else torch.float64
    features = torch.randn(batch, shape.n_sites, shape.physical, generator=generator, dtype=double).to(dtype)
    weight = torch.randn(shape.n_weights, generator=generator, dtype=double).to(dtype)
    left = torch.randn(batch, shape.left[-1], generator=generator, dtype=double).to(dtype)
    right = torch.randn(batch, shape.right[0], generator=generator, dtype=double).to(dtype)
    return features, weight, left, right


def true_vectors(features: Tensor, weight: Tensor, shape: ChainShape, engine: str) -> tuple[Tensor, Tensor]:
    value = chain_flat(features, weight, shape, engine)
    scale = torch.exp2(value.exponent).unsqueeze(-1).to(value.left.dtype)
    return value.left * scale[0], value.right * scale[1]
