"""Error bars of a chain: the posterior of its label core given all other cores."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor

from tnml.contraction import chain_flat
from tnml.nn import MPSLayer
from tnml.training.dmrg.chain import CenteredChain, chain_of, give
from tnml.training.dmrg.evidence import evidence
from tnml.training.dmrg.options import SweepOptions
from tnml.training.dmrg.sweep import SweepBatch, Sweeper
from tnml.training.losses import SquaredError

_MOST_COLUMNS = 512  # of the design matrix: beyond, its eigenvectors take longer than the sweeps


@dataclass(frozen=True, kw_only=True, eq=False)
class CorePosterior:
    """What the samples leave open about a label core, all other cores taken as they are.

    The outputs are linear in it, `f_c(x) = design(x) W_c`, so this is Bayesian linear regression: with
    Gaussian noise and prior the posterior of every `W_c` is Gaussian, and so is the prediction.

    Args:
        basis: `[m, r]` orthonormal directions of a label core `(l r)` that the samples show.
        precision: `[r, c]` of the posterior along them.
        noise: `[c]` variance of the noise.
        prior: `[c]` variance of every weight a priori, which directions beyond the basis keep.
        log_evidence: `[c]` logarithm of the probability of the targets, in nats.

    Example:
        >>> one = np.ones((1, 1))
        >>> known = {"noise": np.array([0.5]), "prior": np.array([1.0]), "log_evidence": np.zeros(1)}
        >>> posterior = CorePosterior(basis=one, precision=4 * one, **known)
        >>> posterior.variance(np.array([[0.0], [2.0]]))
        array([[0.5],
               [1.5]])
    """

    basis: Float64[ndarray, "m r"]
    precision: Float64[ndarray, "r c"]
    noise: Float64[ndarray, " c"]
    prior: Float64[ndarray, " c"]
    log_evidence: Float64[ndarray, " c"]

    def variance(self, design: Float64[ndarray, "b m"]) -> Float64[ndarray, "b c"]:
        """Of targets, noise included, at samples with this design matrix: `noise + design cov design'`."""
        along = np.square(design @ self.basis)
        beyond = np.maximum(np.square(design).sum(1) - along.sum(1), 0.0)
        found: Float64[ndarray, "b c"] = (
            self.noise + along @ (1 / self.precision) + np.outer(beyond, self.prior)
        )
        return found


@torch.no_grad()
def label_design(layer: MPSLayer, x: Tensor) -> Float[Tensor, "b m"]:
    """The design matrix of the label core: `layer(x) = design @ label.transpose(1, 2).flatten(0, 1)`.

        design[b, (l r)] = left[b, l] right[b, r],   left and right of the label core

    Args:
        layer: real.
        x: `[b, n]` inputs or `[b, n, d]` features.

    Example:
        >>> layer, x = MPSLayer(4, 2, bond_dim=3), torch.rand(5, 4)
        >>> found = label_design(layer, x) @ layer.label.transpose(1, 2).flatten(0, 1)
        >>> torch.allclose(found, layer.eval()(x), atol=1e-6)
        True
    """
    features = layer.local_features(x)
    left, right, exponent = chain_flat(features, layer.weight, layer.chain_shape, layer.engine)
    both = left.unsqueeze(2) * right.unsqueeze(1)
    return both.flatten(1) * torch.exp2(exponent.sum(0)).unsqueeze(1)


@torch.no_grad()
def fit_label_core(
    layer: MPSLayer,
    x: Tensor,
    y: Float[Tensor, "b c"],
    *,
    weight: Float[Tensor, " b"] | None = None,
    observations: float = 1.0,
    damping: float = 0.1,
) -> CorePosterior:
    """The posterior of the label core, which is put into the middle of the layer and set to its mean.

    The chain is brought to the gauge of sweeps first, in which the vectors on both sides of the label core
    are white, so that a prior that treats all its numbers alike treats all outputs alike. Of one output this
    keeps the bonds; of several they may grow, and the label core moves less far.

    Args:
        layer: real, trained by least squares; changed in place. With one site its core becomes the identity.
        x: `[b, n]` inputs or `[b, n, d]` features.
        y: targets.
        weight: of the samples, of mean 1; None where all count alike.
        observations: that a sample of weight 1 stands for.
        damping: of the metric, see `SweepOptions`.

    Cost: a sweep without solving, and b m² + m³ for m = l r numbers of the label core.

    Example:
        >>> x = torch.rand(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> layer = MPSLayer(4, 1, bond_dim=2, label_site=1, dtype="float64")
        >>> y = layer(x).detach()
        >>> posterior = fit_label_core(layer, x, y)
        >>> bool((layer(x) - y).abs().max() < 1e-4 * y.abs().max()), layer.label_site
        (True, 2)
    """
    double = copy.deepcopy(layer).double().eval()
    inputs, targets = x.to(double.weight), y.to(double.weight)
    each = torch.ones_like(targets[:, 0]) if weight is None else weight.to(double.weight)
    root = (observations * each).sqrt().unsqueeze(1)
    if layer.n_sites == 1:
        identity = torch.eye(layer.features.dim).to(double.weight).unsqueeze(0)
        give(double, [identity], identity.new_zeros(layer.features.dim, layer.out_features, 1), 1)
    else:
        _to_the_middle(double, inputs, weight, damping)
    found = evidence(label_design(double, inputs) * root, targets * root, observations * len(inputs))
    left, outputs, right = double.label.shape
    double.label.copy_(found.mean.view(left, right, outputs).transpose(1, 2))
    layer.load_state_dict(double.state_dict())  # which rounds to the layer's own precision
    return CorePosterior(
        basis=found.basis.cpu().numpy(),
        precision=(found.shown.unsqueeze(1) / found.noise + 1 / found.prior).cpu().numpy(),
        noise=found.noise.cpu().numpy(),
        prior=found.prior.cpu().numpy(),
        log_evidence=found.log_evidence.cpu().numpy(),
    )


def _to_the_middle(layer: MPSLayer, x: Tensor, weight: Tensor | None, damping: float) -> None:
    """Puts the label core as near to the middle as its size allows, both sides of it white."""
    chain = chain_of(layer, travels=True)
    wide = max(layer.bond_dims) * layer.out_features * layer.features.dim  # no move has to cut anything
    options = SweepOptions(sites=1, label="travels", max_bond=wide, damping=damping)
    features = list(layer.local_features(x).transpose(0, 1).contiguous())
    batch = SweepBatch(features, x.new_zeros(len(x), layer.out_features), weight)
    sweeper = Sweeper(chain, lambda half: batch, SquaredError(), options)
    sweeper.prepare()
    while chain.at + 1 < layer.n_sites // 2 and _columns_ahead(chain) <= _MOST_COLUMNS:
        sweeper.pass_on(right=True, max_bond=wide)
    core, label = sweeper.apart(max_bond=wide)
    cores = [core if site == chain.at else chain.core(site) for site in range(layer.n_sites)]
    give(layer, cores, label, chain.at + 1)


def _columns_ahead(chain: CenteredChain) -> int:
    """The most numbers per output that a label core after the next site would have."""
    l, d, c, r = chain.center.shape
    beyond = chain.core(chain.at + 1).shape[2]
    return min(min(l * d, c * r) * d, c * beyond) * beyond
