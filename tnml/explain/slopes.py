"""Outputs of a network and their derivatives along given directions at every site, for many rows at once."""

import torch
from jaxtyping import Float64, Inexact
from torch import Tensor

from tnml.explain.background import check_linear
from tnml.nn import TensorNetworkLayer


def slopes(
    layer: TensorNetworkLayer,
    features: Inexact[Tensor, "b n d"],
    directions: Inexact[Tensor, "b n d"],
    targets: Float64[Tensor, "c k"],
) -> tuple[Inexact[Tensor, "b k"], Inexact[Tensor, "b n k"]]:
    """Outputs times `targets`, and their derivative by each site's features along its direction.

    The outputs are linear in the features of every site, so entry `[b, i, k]` is the output k when the
    features of site i are replaced by its direction:

        phi_1   phi_2         v_i          phi_n
          |       |            |             |
        --o-------o---- .. ----o----- .. ----o--    (and the label leg, times column k of `targets`)

    Args:
        layer: in eval mode.
        features: in the network's order, as `layer.local_features` gives them.
        directions: in the same order.
        targets: `[c, k]`, one combination of the outputs in each column.

    Returns:
        In double precision, times the layer's own scale.

    Cost: one forward and backward pass of `b k` rows.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> layer = MPSLayer(3, 2, dtype="float64").eval()
        >>> phi = layer.local_features(torch.rand(1, 3).double())
        >>> value, slope = slopes(layer, phi, phi, torch.eye(2).double())
        >>> torch.allclose(slope, value.unsqueeze(1))  # linear in every site: along phi itself, the output
        True
    """
    value, slope = derivatives(layer, features, targets)
    return value, torch.einsum("bkne,bne->bnk", slope, directions.to(slope.dtype))


def derivatives(
    layer: TensorNetworkLayer, features: Inexact[Tensor, "b n d"], targets: Float64[Tensor, "c k"]
) -> tuple[Inexact[Tensor, "b k"], Inexact[Tensor, "b k n d"]]:
    """Outputs times `targets` and their derivatives by every feature, in double precision; see `slopes`.

    Raises:
        InputError: the outputs are not linear in every site's features.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> layer = MPSLayer(3, 2).eval()
        >>> derivatives(layer, torch.rand(4, 3, 2), torch.eye(2).double())[1].shape
        torch.Size([4, 2, 3, 2])
    """
    check_linear(layer)
    columns = targets.shape[1]
    wide = torch.complex128 if features.is_complex() else torch.float64
    with torch.inference_mode(False), torch.enable_grad():
        rows = features.detach().repeat_interleave(columns, 0).requires_grad_()
        value, exponent = layer.contract(rows)
        chosen = targets.T.repeat(len(features), 1).to(value.dtype)
        value = (value * chosen).sum(1)
        (slope,) = torch.autograd.grad(value.real.sum(), rows)
    scale = torch.exp2(exponent.detach().double())
    value, slope = value.detach().to(wide) * scale, slope.conj().to(wide) * scale[:, None, None]
    return value.view(-1, columns), slope.unflatten(0, (-1, columns))
