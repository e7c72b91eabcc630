"""Starting cores whose output neither vanishes nor explodes for any sample (REFERENCE: per-sample spread).

A product of hundreds of random cores is log-normal ACROSS samples: its batch standard deviation can be 1
while half the samples give 1e-5. So the cores start at a path that is preserved exactly for every input:

    identity    sum_d w_d phi_d(x) = 1 for all x        A[d] = w_d I + noise
    rotation    |phi(x)|_2 = 1 and d = 2                A = (I, +-J) + noise,  cos t I + sin t J orthogonal

J turns the first two bond indices; its sign alternates along the chain so that neighbouring turns cancel.
Every other feature map starts from w of `fit_path`, which is data-driven.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tnml.contraction import ChainShape
from tnml.features import FeatureMap
from tnml.nn.layer import neutral_of
from tnml.nn.sample_weights import check_weight
from tnml.randomness import seeded


def starting_path(features: FeatureMap, shape: ChainShape) -> str:
    """Name of the path that `features` preserve: "identity", "rotation" or "fitted" (needs data).

    Example:
        >>> from tnml.features import feature_map
        >>> starting_path(feature_map("linear"), ChainShape(2, (1, 2), (2, 1)))
        'identity'
    """
    if features.path(shape.n_sites) is not None:
        return "identity"
    wide = min(shape.left[1:-1] + shape.right[1:-1], default=2) >= 2
    return "rotation" if features.normalisation == "norm" and features.dim == 2 and wide else "fitted"


def neutral_features(features: FeatureMap, shape: ChainShape, path: Tensor | None = None) -> Tensor:
    """Features `[n, d]` at which each starting core is the identity: what a dropped site holds.

    Args:
        features: the local feature map.
        shape: the chain.
        path: path weights `[n, d]` of `fit_path`, where the path was fitted.

    Example:
        >>> from tnml.features import feature_map
        >>> neutral_features(feature_map("linear"), ChainShape(2, (1, 2), (2, 1)))[0]
        tensor([0.5000, 0.5000])
    """
    if starting_path(features, shape) == "rotation":
        return torch.tensor([1.0, 0.0]).expand(shape.n_sites, 2)
    return neutral_of(features, shape.n_sites, path)


def starting_cores(
    features: FeatureMap,
    shape: ChainShape,
    noise: float | None,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> Tensor:
    """Flat weights `[n_weights]` of the starting path plus Gaussian noise.

    Args:
        features: the local feature map; one of columns in the order of the chain.
        shape: bonds of the chain.
        noise: standard deviation of the noise; None takes `0.25 / sqrt(n_sites * bond_dim * E|phi|^2)`, with
            each site's own E|phi|^2, at which the noise of the whole chain stays well below the path.
        dtype: floating or complex dtype of the weights.
        generator: CPU generator of the noise.

    Example:
        >>> from tnml.features import feature_map
        >>> shape = ChainShape(2, (1, 2), (2, 1))
        >>> starting_cores(feature_map("linear"), shape, 0.0, torch.float32, torch.Generator())
        tensor([1., 0., 1., 0., 1., 0., 1., 0.])
    """
    each = [noise] * shape.n_sites if noise is not None else _usual_noise(features, shape)
    weight = _noisy(shape, each, generator)
    if dtype.is_complex:
        weight = torch.complex(weight, _noisy(shape, each, generator)) / math.sqrt(2)
    weight = weight.to(dtype)
    kind = starting_path(features, shape)
    path = features.path(shape.n_sites)
    if path is None:
        path = torch.ones(shape.n_sites, features.dim)
    for site, core in enumerate(shape.split(weight)):
        eye = torch.eye(core.shape[1], core.shape[2], dtype=dtype)
        if kind == "rotation":
            core[0] += eye
            core[1] += _quarter_turn(site, *core.shape[1:]).to(dtype)
        else:
            core.add_(path[site].to(dtype)[:, None, None] * eye)
    return weight


def noiseless_cores(features: FeatureMap, shape: ChainShape, neutral: Tensor, dtype: torch.dtype) -> Tensor:
    """Flat weights `[n_weights]` of the starting path alone.

    Args:
        features: the local feature map; one of columns in the order of the chain.
        shape: bonds of the chain.
        neutral: features `[n, d]` at which each core of the path is the identity, w / |w|² of a fitted path.
        dtype: of the weights.

    Example:
        >>> from tnml.features import feature_map
        >>> shape, neutral = ChainShape(2, (1, 2), (2, 1)), torch.full((2, 2), 0.5)
        >>> noiseless_cores(feature_map("linear"), shape, neutral, torch.float32)
        tensor([1., 0., 1., 0., 1., 0., 1., 0.])
    """
    weight = starting_cores(features, shape, 0.0, dtype, seeded(0))
    if starting_path(features, shape) == "fitted":
        follow_(shape.split(weight), neutral / neutral.square().sum(-1, keepdim=True).clamp_min(1e-12))
    return weight


def _usual_noise(features: FeatureMap, shape: ChainShape) -> list[float]:
    """The standard deviation of the noise at every site."""
    widest = max(shape.left + shape.right)
    squares = features.square_norms(shape.n_sites).tolist()
    return [0.25 / math.sqrt(max(1, shape.n_sites) * widest * max(square, 1e-6)) for square in squares]


def _noisy(shape: ChainShape, each: Sequence[float], generator: torch.Generator) -> Tensor:
    """Gaussian weights `[n_weights]` of a standard deviation for each site."""
    weight = torch.randn(shape.n_weights, generator=generator, dtype=torch.float64)
    for core, noise in zip(shape.split(weight), each, strict=True):
        core.mul_(noise)
    return weight


def _quarter_turn(site: int, left: int, right: int) -> Tensor:
    """The turn J `[l, r]` of the first two bond indices, its sign alternating with the site."""
    sign = 1.0 if site % 2 == 0 else -1.0
    turn = torch.zeros(left, right)
    if right > 1:
        turn[0, 1] = sign
    if left > 1:
        turn[1, 0] = -sign if right > 1 else sign
    return turn


def fit_path(features: Tensor, weight: Tensor | None = None) -> Tensor:
    """Path weights `w [n, d]` that keep `prod_s w_s . phi(x_s)` near 1 for the samples given.

    Site after site, w_s is the ridge least-squares solution of `w_s . phi(x_bs) = 1 / p_b`, with p_b the
    sample's product so far: each site undoes what the sites before it could not keep. Own design, after the
    principle of fluctuation-driven initialisation (Rossbroich, Gygax, Zenke 2022).

    Args:
        features: `[b, n, d]`, at least d samples, the more the better.
        weight: `[b]`, how much each sample counts in the least squares; None counts all alike.

    Raises:
        InputError: the weights do not fit; see `check_weight`.

    Cost: O(b n d^2), one pass.

    Example:
        >>> fit_path(torch.tensor([[[2.0, 0.0]], [[0.0, 4.0]]])).round(decimals=3)
        tensor([[0.5000, 0.2500]], dtype=torch.float64)
    """
    samples, sites, physical = features.shape
    features = features.double()
    product = torch.ones(samples, dtype=torch.float64, device=features.device)
    weights = torch.empty(sites, physical, dtype=torch.float64, device=features.device)
    eye = torch.eye(physical, dtype=torch.float64, device=features.device)
    share = None
    if weight is not None:
        check_weight(weight, samples)
        share = weight.to(features).unsqueeze(1)
    for site in range(sites):
        design = features[:, site] * product[:, None]
        counted = design if share is None else design * share
        normal = counted.T @ design
        ridge = 1e-6 * normal.diagonal().mean().clamp_min(1e-12)
        weights[site] = torch.linalg.solve(normal + ridge * eye, counted.sum(0))
        product = (product * (features[:, site] @ weights[site])).clamp(1e-3, 1e3)
    return weights


def noise_factors(features: FeatureMap, given: Tensor, weight: Tensor | None = None) -> list[float] | None:
    """By what the starting noise of every site is to be multiplied for these samples; None: it is right.

    The noise was chosen for values spread evenly over [0, 1]. Values at the ends alone, such as truth values,
    have d times as large squares of d Legendre functions there, and the noise of a long chain would drown
    the path. Up to twice the squares expected are left alone.

    Args:
        features: the map, in the order of the chain.
        given: features `[b, n, d]` of some samples.
        weight: `[b]`, how much each sample counts; None counts all alike.

    Example:
        >>> from tnml.features import feature_map
        >>> legendre, ends = feature_map("legendre", dim=4), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> [round(factor, 1) for factor in noise_factors(legendre, legendre(ends))]
        [0.5, 0.5]
        >>> noise_factors(legendre, legendre(torch.linspace(0, 1, 99)[:, None].expand(99, 2))) is None
        True
    """
    squares = given.abs().double().square().sum(-1)
    if weight is None:
        measured = squares.mean(0)
    else:
        check_weight(weight, len(given))
        share = weight.to(squares)
        measured = (share[:, None] * squares).sum(0) / share.sum()
    expected = features.square_norms(given.shape[1]).to(measured)
    factors = torch.where(measured > 2 * expected, (expected / measured.clamp_min(1e-300)).sqrt(), 1.0)
    return None if bool((factors == 1).all()) else [round(factor, 6) for factor in factors.tolist()]


def calm_(cores: Sequence[Tensor], path: Tensor | None, factors: Sequence[float]) -> None:
    """Scales, in place, what is not the identity path in cores `(d, l, r)`.

    Args:
        cores: site by site.
        path: the identity weights `[n, d]`; None where the features turn instead, of which all are alike.
        factors: one for each site.

    Example:
        >>> core = torch.tensor([[[1.5]], [[0.5]]])
        >>> calm_([core], torch.tensor([[1.0, 0.0]]), [0.5])
        >>> core.flatten().tolist()
        [1.25, 0.25]
    """
    if path is None:
        return
    for core, weights, factor in zip(cores, path, factors, strict=True):
        kept = weights.to(core)[:, None, None] * torch.eye(core.shape[1], core.shape[2]).to(core)
        core.sub_(kept).mul_(factor).add_(kept)


def calm_for_(
    cores: Sequence[Tensor], features: FeatureMap, given: Tensor, weight: Tensor | None = None
) -> None:
    """Scales, in place, what is not the identity path in cores `(d, l, r)`, by `noise_factors`.

    Args:
        cores: site by site.
        features: the map, in the order of the chain.
        given: features `[b, n, d]` of some samples.
        weight: `[b]`, how much each sample counts; None counts all alike.

    Example:
        >>> from tnml.features import feature_map
        >>> core, ends = torch.tensor([[[1.5]], [[0.5]], [[0.0]], [[0.0]]]), torch.tensor([[0.0], [1.0]])
        >>> legendre = feature_map("legendre", dim=4)
        >>> calm_for_([core], legendre, legendre(ends))
        >>> core.flatten().round(decimals=2)
        tensor([1.2500, 0.2500, 0.0000, 0.0000])
    """
    factors = noise_factors(features, given, weight)
    if factors is not None:
        calm_(cores, features.path(given.shape[1]), factors)


def follow_(cores: Sequence[Tensor], path: Tensor) -> None:
    """Puts, in place, starting cores `(d, l, r)` of weights 1 onto the path of weights `[n, d]`.

    Example:
        >>> core = torch.ones(2, 1, 1)
        >>> follow_([core], torch.tensor([[2.0, 0.5]]))
        >>> core.flatten().tolist()
        [2.0, 0.5]
    """
    for core, weights in zip(cores, path, strict=True):
        core.add_((weights - 1)[:, None, None] * torch.eye(core.shape[1], core.shape[2]).to(core))
