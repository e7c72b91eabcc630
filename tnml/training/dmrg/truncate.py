"""A trained layer with smaller bonds, cut where the outputs on given samples change least."""

import copy
import math

import torch
from torch import Tensor

from tnml.checks import number
from tnml.errors import InputError
from tnml.nn import MPSLayer
from tnml.training.dmrg.chain import chain_of, put_into
from tnml.training.dmrg.options import SweepOptions
from tnml.training.dmrg.sweep import SweepBatch, Sweeper
from tnml.training.dmrg.train import check_layer
from tnml.training.inputs import Array, check_whole, checked_inputs, refusal
from tnml.training.losses import SquaredError

_MOST_SAMPLES = 2000  # second moments of that many are sharp enough, and their contractions fit


@torch.no_grad()
def truncate_layer(
    layer: MPSLayer,
    x: Array,
    *,
    max_bond: int | None = None,
    max_error: float | None = None,
    damping: float = 1e-3,
    memory_gb: float = 4.0,
) -> tuple[MPSLayer, float]:
    """A copy of `layer` with smaller bonds, and the relative error of its outputs by the metric of the data.

    At each bond the directions go that matter least for the mean square of the outputs, were the two sides
    of the bond independent of each other: both are weighed by the second moments of what the samples look
    like there, all correlations of the pixels on one side included. `MPSLayer.compressed(samples=...)` weighs
    each site by itself.

    Args:
        layer: real, of two sites at least; stays as it is.
        x: `[b, n]` inputs or `[b, n, d]` features; beyond 2,000 a subset is taken.
        max_bond: largest bond dimension.
        max_error: largest relative error, its square shared evenly by the bonds.
        damping: see `SweepOptions`.
        memory_gb: see `SweepOptions`.

    Raises:
        InputError: neither limit is given or one is out of range, or layer and samples do not fit.

    Cost: two sweeps without solving: b c d chi² multiply-adds at each site, and an SVD of `[d chi, chi]`.

    Example:
        >>> layer = MPSLayer(6, 3, bond_dim=4)
        >>> smaller, error = truncate_layer(layer, torch.rand(50, 6), max_bond=2)
        >>> max(smaller.bond_dims), max(layer.bond_dims)
        (2, 4)
    """
    if max_bond is None and max_error is None:
        raise InputError("compression needs a limit: give max_bond, max_error or both")
    check_layer(layer)
    number("max_error", 0.0 if max_error is None else max_error, least=0.0, below=1.0)
    options = SweepOptions(
        sites=1,
        max_bond=max(layer.bond_dims) if max_bond is None else max_bond,
        max_error=(max_error or 0.0) / math.sqrt(layer.n_sites),
        damping=damping,
        memory_gb=memory_gb,
    )
    double = copy.deepcopy(layer).double()
    inputs = checked_inputs("x", x, torch.float64)
    check_whole("x", x, refusal(layer, x))
    inputs = inputs[:: -(-len(inputs) // _MOST_SAMPLES)].to(layer.weight.device)
    features: list[Tensor | None] = list(double.local_features(inputs).transpose(0, 1).contiguous())
    features.insert(layer.label_site, None)
    targets = inputs.new_zeros(len(inputs), layer.out_features)
    chain = chain_of(double, travels=False)
    sweeper = Sweeper(chain, lambda half: SweepBatch(features, targets), SquaredError(), options)
    sweeper.prepare()
    error = sweeper.truncate()
    put_into(double, chain)
    # The white gauge suits sweeps; gradients want the canonical form, which moves all cores alike.
    smaller, _ = double.compressed(max_bond=max(double.bond_dims))
    return smaller.to(layer.weight.dtype), error
