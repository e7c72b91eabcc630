"""Starting cores of chains whose bonds are all equal, as a stack, and what rescales them to samples."""

import math

import torch
from torch import Tensor

from tnml.features import FeatureMap
from tnml.nn.mps.initialise import calm_for_, fit_path, follow_


def starting_stack(
    features: FeatureMap,
    n_sites: int,
    bond: int,
    noise: float | None,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> Tensor:
    """Cores `[n, d, l, r]`: the identity on the path that the features preserve, plus Gaussian noise.

    Args:
        features: the local feature map, in the order of the sites.
        n_sites: number of cores n.
        bond: bond dimension of all bonds.
        noise: standard deviation of the noise; None takes that of `MPSLayer`.
        dtype: floating or complex dtype.
        generator: CPU generator of the noise.

    Example:
        >>> from tnml.features import feature_map
        >>> starting_stack(feature_map("linear"), 1, 2, 0.0, torch.float32, torch.Generator())[0, 1]
        tensor([[1., 0.],
                [0., 1.]])
    """
    squares = features.square_norms(n_sites).double().clamp_min(1e-6)
    usual = 0.25 / (n_sites * bond * squares).sqrt()
    each = usual if noise is None else torch.full_like(usual, noise)
    sizes = n_sites, features.dim, bond, bond
    drawn = torch.randn(sizes, generator=generator, dtype=torch.float64)
    if dtype.is_complex:
        drawn = torch.complex(
            drawn, torch.randn(sizes, generator=generator, dtype=torch.float64)
        ) / math.sqrt(2)
    path = features.path(n_sites)
    path = torch.ones(n_sites, features.dim) if path is None else path
    eye = torch.eye(bond, dtype=torch.float64)
    cores = drawn * each[:, None, None, None] + path.double()[:, :, None, None] * eye
    return cores.to(dtype)


def follow_samples_(
    cores: Tensor, features: FeatureMap, given: Tensor, weight: Tensor | None, quiet: bool
) -> Tensor | None:
    """Sets starting cores `[n, d, l, r]`, in place, so that samples keep their size along the path.

    Args:
        cores: as `starting_stack` made them, or trained.
        features: the local feature map, in the order of the sites.
        given: features `[b, n, d]` of the samples.
        weight: `[b]`, how much each sample counts; None counts all alike.
        quiet: whether the noise may be made smaller for samples of large features.

    Returns:
        The path `[n, d]` that was fitted to them, where the features preserve none; else None.

    Example:
        >>> from tnml.features import feature_map
        >>> cores, linear = torch.ones(3, 2, 1, 1), feature_map("linear")
        >>> follow_samples_(cores, linear, linear(torch.rand(5, 3)), None, True) is None
        True
    """
    path = features.path(given.shape[1])
    if path is None:
        path = fit_path(given.real, weight)
        follow_(list(cores), path.to(cores))
        return path
    if quiet:
        calm_for_(list(cores), features, given, weight)
    return None
