"""The feature maps known by name: their formulas, derivatives and identity weights.

Each has a builder, which checks the options a user gave, and two plain functions, the components and their
derivatives, so that a map can be pickled and sent to other processes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.checks import number, whole
from tnml.errors import InputError
from tnml.features.maps import FeatureMap


def _exactly_two(name: str, dim: object, instead: str) -> None:
    if dim != 2:
        raise InputError(f"feature map '{name}' has dim 2, got {dim!r}; for more components take '{instead}'")


def _last(parts: Sequence[Tensor] | Tensor) -> Tensor:
    """Components `[d, ...]` as a view `[..., d]`: chains take any strides, and stacking there is slow."""
    stacked = parts if isinstance(parts, Tensor) else torch.stack(tuple(parts))
    return stacked.movedim(0, -1)


def _steps(x: Tensor, dim: int, end: float) -> Float[Tensor, "d ..."]:
    """`dim` equally spaced numbers from 0 to `end`, to be compared with `x` along a new first axis."""
    return torch.linspace(0.0, end, dim, dtype=x.dtype, device=x.device).view(-1, *[1] * x.dim())


def _build_linear(dim: object = 2) -> FeatureMap:
    """(1-x, x), as in TorchMPS."""
    _exactly_two("linear", dim, "rbf")
    return FeatureMap("linear", 2, _linear, _linear_slope, "sum", (1.0, 1.0))


def _linear(x: Tensor) -> Tensor:
    return _last((1 - x, x))


def _linear_slope(x: Tensor) -> Tensor:
    one = torch.ones_like(x)
    return _last((-one, one))


def _build_affine(dim: object = 2) -> FeatureMap:
    """(1, x), as in Novikov, Trofimov and Oseledets 2016."""
    _exactly_two("affine", dim, "polynomial")
    values, slope = partial(_polynomial, dim=2), partial(_polynomial_slope, dim=2)
    return FeatureMap("affine", 2, values, slope, "none", (1.0, 0.0))


def _build_polynomial(dim: object = 3) -> FeatureMap:
    d = whole("dim of feature map 'polynomial'", dim, 2)
    values, slope = partial(_polynomial, dim=d), partial(_polynomial_slope, dim=d)
    return FeatureMap("polynomial", d, values, slope, "none", _constant_first(d))


def _constant_first(dim: int) -> tuple[float, ...]:
    return (1.0, *[0.0] * (dim - 1))


def _powers(x: Tensor, dim: int) -> list[Tensor]:
    """1, x, ..., x^(dim-1) by products: unlike `pow`, differentiable any number of times at x = 0."""
    powers = [torch.ones_like(x), x]
    while len(powers) < dim:
        powers.append(powers[-1] * x)
    return powers


def _polynomial(x: Tensor, dim: int) -> Tensor:
    return _last(_powers(x, dim))


def _polynomial_slope(x: Tensor, dim: int) -> Tensor:
    powers = _powers(x, dim)
    return _last([torch.zeros_like(x), *(k * powers[k - 1] for k in range(1, dim))])


def _build_legendre(dim: object = 2) -> FeatureMap:
    """phi_k = sqrt(2k+1) P_k(2x-1): orthonormal, int_0^1 phi_j phi_k dx = delta_jk."""
    d = whole("dim of feature map 'legendre'", dim, 2)
    values, slope = partial(_legendre, dim=d), partial(_legendre_slope, dim=d)
    return FeatureMap("legendre", d, values, slope, "orthonormal", _constant_first(d))


def _legendre_polynomials(x: Tensor, dim: int) -> list[Tensor]:
    """P_0 ... P_(dim-1) at t = 2x-1 by Bonnet's recurrence (k+1) P_(k+1) = (2k+1) t P_k - k P_(k-1)."""
    t = 2 * x - 1
    p = [torch.ones_like(x), t]
    for k in range(1, dim - 1):
        p.append(((2 * k + 1) * t * p[k] - k * p[k - 1]) / (k + 1))
    return p


def _legendre(x: Tensor, dim: int) -> Tensor:
    return _last([math.sqrt(2 * k + 1) * p for k, p in enumerate(_legendre_polynomials(x, dim))])


def _legendre_slope(x: Tensor, dim: int) -> Tensor:
    """From P'_(k+1) = P'_(k-1) + (2k+1) P_k; the factor 2 is dt/dx."""
    p = _legendre_polynomials(x, dim)
    slopes = [torch.zeros_like(x), torch.ones_like(x)]
    for k in range(1, dim - 1):
        slopes.append(slopes[k - 1] + (2 * k + 1) * p[k])
    return _last([2 * math.sqrt(2 * k + 1) * slope for k, slope in enumerate(slopes)])


def _build_fourier(dim: object = 3, period: object = 1.0) -> FeatureMap:
    d, p = whole("dim of feature map 'fourier'", dim, 3), number("period", period, above=0.0)
    if d % 2 == 0:
        raise InputError(
            f"dim of feature map 'fourier' must be odd (1 and pairs of cos, sin), got {d}; take {d + 1}"
        )
    values, slope = partial(_fourier, dim=d, period=p), partial(_fourier_slope, dim=d, period=p)
    normalisation = "orthonormal" if (1 / p).is_integer() else "none"
    return FeatureMap("fourier", d, values, slope, normalisation, _constant_first(d), {"period": p})


def _fourier(x: Tensor, dim: int, period: float) -> Tensor:
    parts = [torch.ones_like(x)]
    for k in range(1, dim // 2 + 1):
        angle = (2 * math.pi * k / period) * x
        parts += [math.sqrt(2) * torch.cos(angle), math.sqrt(2) * torch.sin(angle)]
    return _last(parts)


def _fourier_slope(x: Tensor, dim: int, period: float) -> Tensor:
    parts = [torch.zeros_like(x)]
    for k in range(1, dim // 2 + 1):
        rate = 2 * math.pi * k / period
        parts += [-math.sqrt(2) * rate * torch.sin(rate * x), math.sqrt(2) * rate * torch.cos(rate * x)]
    return _last(parts)


def _build_trigonometric(dim: object = 2) -> FeatureMap:
    """sqrt(C(D, k)) cos^(D-k) sin^k of πx/2, D = d-1 (Stoudenmire and Schwab 2016: spin coherent states).

    For even D = 2m, (cos² + sin²)^m = 1 gives the identity weights C(m, j) / sqrt(C(2m, 2j)) at k = 2j.
    """
    d = whole("dim of feature map 'trigonometric'", dim, 2)
    m = (d - 1) // 2
    weights = [math.comb(m, k // 2) / math.sqrt(math.comb(2 * m, k)) if k % 2 == 0 else 0.0 for k in range(d)]
    values, slope = partial(_trigonometric, dim=d), partial(_trigonometric_slope, dim=d)
    return FeatureMap("trigonometric", d, values, slope, "norm", tuple(weights) if d % 2 else None)


def _trigonometric_parts(x: Tensor, dim: int) -> list[Tensor]:
    angle = (math.pi / 2) * x
    c, s = torch.cos(angle), torch.sin(angle)
    if dim == 2:
        return [c, s]
    cs, ss = _powers(c, dim), _powers(s, dim)
    return [math.sqrt(math.comb(dim - 1, k)) * cs[dim - 1 - k] * ss[k] for k in range(dim)]


def _trigonometric(x: Tensor, dim: int) -> Tensor:
    return _last(_trigonometric_parts(x, dim))


def _trigonometric_slope(x: Tensor, dim: int) -> Tensor:
    """The rotation of a spin: phi_k' = π/2 (sqrt(k (D-k+1)) phi_(k-1) - sqrt((k+1) (D-k)) phi_(k+1))."""
    zero = torch.zeros_like(x)
    parts = [zero, *_trigonometric_parts(x, dim), zero]
    climb = [math.pi / 2 * math.sqrt(k * (dim - k)) for k in range(dim + 1)]
    return _last([climb[k] * parts[k] - climb[k + 1] * parts[k + 2] for k in range(dim)])


def _build_one_hot(dim: object = 2) -> FeatureMap:
    """1 at the level k/(d-1) nearest to x, the even k at a tie, the last one beyond [0, 1]; NaN stays NaN."""
    d = whole("dim (the number of levels) of feature map 'one-hot'", dim, 2)
    values, slope = partial(_one_hot, dim=d), partial(_one_hot_slope, dim=d)
    return FeatureMap("one-hot", d, values, slope, "sum", (1.0,) * d)


def _one_hot(x: Tensor, dim: int) -> Tensor:
    """max(0, 1 - |level - k|): one or zero, and in the graph, where `round` makes every gradient zero."""
    level = (x * (dim - 1)).round().clamp(0, dim - 1)
    return _last((1 - (level - _steps(x, dim, dim - 1)).abs()).clamp(min=0))


def _one_hot_slope(x: Tensor, dim: int) -> Tensor:
    return x.new_zeros(*x.shape, dim)


def _build_rbf(dim: object = 3, width: object = None, normalise: object = True) -> FeatureMap:
    """exp(-(x-c)²/(2 width²)) about d centres c from 0 to 1; `normalise` divides by their sum."""
    d = whole("dim (the number of centres) of feature map 'rbf'", dim, 2)
    if not isinstance(normalise, bool):
        raise InputError(f"normalise must be true or false, got {normalise!r}")
    spread = 1 / (d - 1) if width is None else number("width", width, above=0.0)
    settings = {"width": spread, "normalise": normalise}
    values = partial(_rbf, dim=d, width=spread, normalise=normalise)
    slope = partial(_rbf_slope, dim=d, width=spread, normalise=normalise)
    if not normalise:
        return FeatureMap("rbf", d, values, slope, "none", None, settings)
    return FeatureMap("rbf", d, values, slope, "sum", (1.0,) * d, settings)


def _rbf_parts(x: Tensor, dim: int, width: float, normalise: bool) -> tuple[Tensor, Tensor]:
    """The components `[d, ...]` and the slope of the logarithm of each Gaussian."""
    offset = (x - _steps(x, dim, 1.0)) / width
    exponent = -0.5 * offset.square()
    return (torch.softmax(exponent, 0) if normalise else exponent.exp()), -offset / width


def _rbf(x: Tensor, dim: int, width: float, normalise: bool) -> Tensor:
    return _last(_rbf_parts(x, dim, width, normalise)[0])


def _rbf_slope(x: Tensor, dim: int, width: float, normalise: bool) -> Tensor:
    parts, log_slope = _rbf_parts(x, dim, width, normalise)
    return _last(parts * (log_slope - (parts * log_slope).sum(0) if normalise else log_slope))


def _build_hat(dim: object = 3) -> FeatureMap:
    """B-splines of degree 1: max(0, 1 - |(d-1) x - k|), so outputs are linear between d equally spaced knots.

    Beyond [0, 1] they stay as at its ends.
    """
    d = whole("dim (the number of knots) of feature map 'hat'", dim, 2)
    values, slope = partial(_hat, dim=d), partial(_hat_slope, dim=d)
    return FeatureMap("hat", d, values, slope, "sum", (1.0,) * d)


def _hat_offsets(x: Tensor, dim: int) -> Float[Tensor, "d ..."]:
    """How far `x` is right of every knot, in distances of knots."""
    return x.clamp(0, 1) * (dim - 1) - _steps(x, dim, dim - 1)


def _hat(x: Tensor, dim: int) -> Tensor:
    return _last((1 - _hat_offsets(x, dim).abs()).clamp(min=0))


def _hat_slope(x: Tensor, dim: int) -> Tensor:
    """At a knot the slope to its right; at the last one, which has none there, that to its left."""
    place = (x.clamp(0, 1) * (dim - 1)).floor().clamp(max=dim - 2)
    knots = _steps(x, dim, dim - 1)
    inside = ((x >= 0) & (x <= 1)).to(x.dtype)
    slope = (knots == place + 1).to(x.dtype) - (knots == place).to(x.dtype)
    return _last(slope * (inside * (dim - 1)))


BUILDERS: Mapping[str, Callable[..., FeatureMap]] = MappingProxyType(
    {
        "linear": _build_linear,
        "affine": _build_affine,
        "polynomial": _build_polynomial,
        "legendre": _build_legendre,
        "fourier": _build_fourier,
        "trigonometric": _build_trigonometric,
        "one-hot": _build_one_hot,
        "rbf": _build_rbf,
        "hat": _build_hat,
    }
)
FEATURE_NAMES = tuple(BUILDERS)
"""The feature maps known by name."""
