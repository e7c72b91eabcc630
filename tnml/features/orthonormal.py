"""An orthonormal basis of the functions that a feature map spans: norms in it are integrals.

    psi_k(x) = sum_d W_dk phi_d(x),   int_0^1 psi_j(x) psi_k(x)* dx = delta_jk

A function that is linear in phi is linear in psi, so a network loses nothing, and the square of its norm is
the integral of its absolute square.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from tnml.features.maps import FeatureMap
from tnml.quadrature import gauss_legendre

_PANELS, _NODES = 16, 16  # smooth maps are integrated to rounding, those with a kink to about 1e-5
_LEAST = 1e-10  # of the largest eigenvalue of the Gram matrix: what is below is a function named twice
_CONSTANT = 1e-7  # how much of the constant function may be missing where it counts as spanned


def quadrature(nodes: int = _NODES, panels: int = _PANELS) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"]]:
    """Ascending points in [0, 1] and weights of a composite Gauss-Legendre rule, in double precision.

    Args:
        nodes: of each panel; polynomials up to degree 2 nodes - 1 are integrated exactly.
        panels: equal parts of [0, 1].

    Example:
        >>> x, w = quadrature(3, 1)
        >>> round(float((w * x**5).sum()), 6)
        0.166667
    """
    x, w = gauss_legendre(nodes)
    starts = torch.arange(panels, dtype=torch.float64).unsqueeze(1)
    points = (starts + torch.from_numpy((x + 1) / 2)) / panels
    weights = torch.from_numpy(w / 2).expand(panels, -1) / panels
    return points.flatten(), weights.flatten()


def orthonormal(features: FeatureMap) -> FeatureMap:
    """The map whose components are orthonormal on [0, 1] and span what those of `features` do.

    Args:
        features: a map of one column. One that is orthonormal already comes back as it is.

    Example:
        >>> from tnml.features import feature_map
        >>> basis = orthonormal(feature_map("linear"))
        >>> x, w = quadrature()
        >>> values = basis(x)
        >>> torch.allclose(values.T @ (w[:, None] * values), torch.eye(2, dtype=torch.float64))
        True
    """
    if features.normalisation == "orthonormal":
        return features
    points, weights = quadrature()
    values = features(points)
    gram = values.T @ (weights.to(values.dtype).unsqueeze(1) * values.conj())
    sizes, vectors = torch.linalg.eigh(gram.conj())
    kept = sizes > _LEAST * sizes[-1]
    mixing = vectors[:, kept].conj() / sizes[kept].sqrt()
    constant = (weights.to(values.dtype).unsqueeze(1) * (values @ mixing)).sum(0).conj()
    spanned = abs(1 - float(constant.abs().square().sum())) < _CONSTANT and not constant.is_complex()
    return FeatureMap(
        "callable" if features.name == "callable" else "orthonormal",
        mixing.shape[1],
        partial(_mixed, of=features.function, mixing=mixing),
        partial(_mixed, of=features.derivative, mixing=mixing),
        "orthonormal",
        tuple(constant.tolist()) if spanned else None,
        dict(features.options) if features.name == "callable" else {"of": features.spec},
    )


def _mixed(x: Tensor, of: Callable[[Tensor], Tensor], mixing: Tensor) -> Inexact[Tensor, "... d"]:
    values = of(x)
    return values @ mixing.to(values)
