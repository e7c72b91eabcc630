"""A network that tnml does not know, in one file: a few products of local vectors, mixed by a label matrix.

f_c(x) = sum_r label[c, r] prod_i (vectors[i, :, r] . phi(x_i))
"""

import torch
from torch import Tensor, nn

from tnml.contraction.chain.reference import power_of_two
from tnml.errors import InputError
from tnml.nn import Network, TensorNetworkLayer
from tnml.nn.layer import DTYPES


class ToyLayer(TensorNetworkLayer):
    network = "toy"

    def __init__(self, n_sites, out_features, rank=2, *, dtype="float32", seed=0, **common):
        super().__init__(n_sites, out_features, **common)
        generator = torch.Generator().manual_seed(seed)
        path = (self.neutral / self.neutral.square().sum(-1, keepdim=True)).unsqueeze(-1)
        noise = torch.randn(n_sites, self.features.dim, rank, generator=generator) * 0.3 / n_sites**0.5
        label = torch.randn(out_features, rank, generator=generator)
        self.vectors = nn.Parameter((path + noise).to(DTYPES[dtype]))
        self.label = nn.Parameter(label.to(DTYPES[dtype]))

    def contract(self, features):
        value = features.new_ones(len(features), self.label.shape[1])
        exponent = torch.zeros_like(value[:, 0].real)
        for site in range(self.n_sites):
            value = value * (features[:, site] @ self.vectors[site])
            power = power_of_two(value)
            value, exponent = value * torch.exp2(-power).unsqueeze(1), exponent + power
        return value @ self.label.T, exponent

    @torch.no_grad()
    def rescale_(self, x, weight=None):
        self.label.mul_(torch.exp(-self.typical_log_norm(x, weight)))
        return self

    def own_config(self):
        return {"rank": self.label.shape[1]}

    def tensors(self):
        return {"vectors": self.vectors, "label": self.label}

    @property
    def bond_dims(self):
        return [self.label.shape[1]] * self.n_sites

    def bonds(self):
        """Each site against everything else: its vectors times the root of the others' overlaps `[r, r]`."""
        grams, vectors, _ = self._overlaps()
        matrices = []
        for site, own in enumerate(vectors):
            others = torch.stack([gram for place, gram in enumerate(grams) if place != site]).prod(0)
            values, basis = torch.linalg.eigh(others)
            matrices.append(own @ (basis * values.clamp_min(0).sqrt()).conj())
            if not bool(torch.isfinite(matrices[-1]).all()) or not bool(matrices[-1].any()):
                raise InputError("the weight tensor is zero or not finite")
        return matrices

    def log_norm(self):
        grams, _, log = self._overlaps()
        return float((grams.prod(0).sum().real.log() + log) / 2)

    def _overlaps(self) -> tuple[Tensor, Tensor, Tensor]:
        """<term r | term s> of every site and the label `[n + 1, r, s]`, scaled; the scale's logarithm."""
        wide = torch.complex128 if self.dtype.is_complex else torch.float64
        vectors, label = self.vectors.detach().to(wide), self.label.detach().to(wide)
        grams = torch.cat([vectors.mH @ vectors, (label.mH @ label).unsqueeze(0)])
        largest = grams.abs().amax((1, 2), keepdim=True)
        return grams / largest.clamp_min(1e-300), vectors, largest.log().sum()

    def adopt_(self, state, prefix):
        label = state.get(prefix + "label")
        if isinstance(label, Tensor) and label.shape[:1] == self.label.shape[:1]:
            rank = label.shape[1]
            self.vectors.data = self.vectors.new_zeros(*self.vectors.shape[:2], rank)
            self.label.data = self.label.new_zeros(self.out_features, rank)
            self.vectors.grad = self.label.grad = None


TOY = Network(layer=ToyLayer)
