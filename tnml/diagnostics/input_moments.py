"""Second moments of local features, which is all that exact averages over inputs need."""

from typing import NamedTuple

import torch
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError
from tnml.features import FeatureMap, feature_map
from tnml.features.spec import FeatureSpec
from tnml.quadrature import gauss_legendre


class FeatureMoments(NamedTuple):
    """Second moments of the features of one site, or of every site, in double precision.

    Attributes:
        second: `E[phi phi^T]`, `[d, d]` or `[n, d, d]`.
        second_of_derivative: `E[phi' phi'^T]` of the derivatives by the input, in the same shape.

    Example:
        >>> feature_moments("affine").second
        tensor([[1.0000, 0.5000],
                [0.5000, 0.3333]], dtype=torch.float64)
    """

    second: Tensor
    second_of_derivative: Tensor


def feature_moments(features: FeatureSpec, x: Tensor | None = None, *, nodes: int = 64) -> FeatureMoments:
    """The second moments of a feature map and of its derivative.

    Without samples the inputs are uniform on [0, 1] and the integrals are Gauss-Legendre sums, exact for
    polynomials of degree below `nodes`, close for other smooth maps and rough for maps with a kink.

    Args:
        features: a name, description, function or `FeatureMap`; see `tnml.features.feature_map`.
        x: `[b, n]` inputs whose means count, site by site; None takes the uniform distribution.
        nodes: points of the quadrature.

    Returns:
        Moments `[d, d]` without samples, `[n, d, d]` with.

    Raises:
        InputError: `x` is not `[b, n]` with at least one sample, or `nodes` is not positive.

    Example:
        >>> second, of_derivative = feature_moments("legendre")
        >>> torch.allclose(second, torch.eye(2).double()), round(of_derivative[1, 1].item(), 9)
        (True, 12.0)
    """
    known: FeatureMap = feature_map(features)
    if x is None:
        points, weights = gauss_legendre(whole("nodes", nodes, 1))
        places = torch.from_numpy((points + 1) / 2).unsqueeze(1)
        found = _moments(known, places, torch.from_numpy(weights / 2))
        return FeatureMoments(found.second[0], found.second_of_derivative[0])
    if x.dim() != 2 or not len(x) or not x.is_floating_point():
        raise InputError(f"expected inputs [b, n] with at least one sample, got {x.dtype} {list(x.shape)}")
    even = torch.full((len(x),), 1 / len(x), dtype=torch.float64, device=x.device)
    return _moments(known, x.detach().double(), even)


def _moments(features: FeatureMap, x: Tensor, weights: Tensor) -> FeatureMoments:
    """Weighted sums over the samples `[b, n]`."""
    both = (features(x).double(), features.derivative(x).double())
    second, of_derivative = (torch.einsum("b,bnd,bne->nde", weights, phi, phi) for phi in both)
    return FeatureMoments(second, of_derivative)
