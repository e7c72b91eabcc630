"""A feature map of the user's own function: tried out once, then held to what the trial showed."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Inexact
from torch import Tensor

from tnml.errors import InputError, choose
from tnml.features.maps import FeatureMap

_EXACT = 1e-6  # how well a float32 trial can tell that a sum is 1
_LARGEST_FIT = 32  # components; the trial has 64 different values, and a fit needs fewer weights than that


def map_of_function(function: Callable[[Tensor], Tensor], options: Mapping[str, Any]) -> FeatureMap:
    """The feature map of `function`, which is called once; see `tnml.features.feature_map`.

    Raises:
        InputError: the trial failed, or `options` holds anything but the dimension that the trial found.

    Example:
        >>> map_of_function(lambda x: torch.stack((1 - x, x), -1), {}).dim
        2
    """
    for option in options:
        choose("option of your own feature map", option, {"dim": None})
    label = _label(function)
    features = _trial(function, label)
    dim = features.shape[-1]
    if options.get("dim", dim) != dim:
        raise InputError(
            f"dim={options['dim']} was asked for, but {label} returns {dim} components; leave dim out"
        )
    identity = _identity_weights(features)
    if identity == (1.0,) * dim:
        normalisation = "sum"
    else:
        norms = torch.linalg.vector_norm(features, dim=-1)
        normalisation = "norm" if bool(((norms - 1).abs() <= _EXACT).all()) else "none"
    values = partial(_values, function=function, label=label, dim=dim)
    slope = partial(_slope, values=values)
    return FeatureMap("callable", dim, values, slope, normalisation, identity, {"function": label})


def _label(function: Callable[..., object]) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _values(
    x: Tensor, function: Callable[[Tensor], Tensor], label: str, dim: int
) -> Inexact[Tensor, "... d"]:
    features = function(x)
    if not isinstance(features, Tensor) or features.shape != (*x.shape, dim):
        raise InputError(_wrong_shape(label, x, dim, features))
    return features.contiguous() if features.is_complex() else features.to(x.dtype).contiguous()


def _slope(x: Tensor, values: Callable[[Tensor], Tensor]) -> Tensor:
    """Each vector depends on its own pixel alone, so the Jacobian times ones is d phi / dx.

    Reverse mode twice: pulling back is linear in what it pulls, and its own pull-back is the Jacobian.
    """
    features, pull = torch.func.vjp(values, x)[:2]
    push = torch.func.vjp(lambda cotangent: pull(cotangent)[0], torch.zeros_like(features))[1]
    slope: Tensor = push(torch.ones_like(x))[0]
    return slope.contiguous()


def _wrong_shape(label: str, x: Tensor, dim: int | str, features: object) -> str:
    came = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
    expected = f"({', '.join(map(str, x.shape))}, {dim})"
    return (
        f"the feature map {label} must turn a tensor of shape {tuple(x.shape)} into {expected}, got {came}; "
        "put the components on a new last axis, e.g. torch.stack((1 - x, x), -1)"
    )


def _trial_values() -> Tensor:
    """64 values from 0 to 1 in an 8 x 16 batch, each at two places with different neighbours."""
    once = torch.linspace(0, 1, 64, dtype=torch.float32)
    return torch.cat([once.view(8, 8), once.view(8, 8).T], 1)


def _trial(function: Callable[[Tensor], Tensor], label: str) -> Tensor:
    """The features of `_trial_values`, after all that can be checked about them."""
    x = _trial_values()
    try:
        with torch.no_grad():
            features = function(x)
    except Exception as error:
        raise InputError(
            f"the feature map {label} failed on a float32 CPU tensor {tuple(x.shape)} with values in [0, 1] "
            f"({type(error).__name__}: {error}); it must be vectorised and take any shape and device"
        ) from error
    if not isinstance(features, Tensor) or features.shape[:-1] != x.shape or features.shape[-1] == 0:
        raise InputError(_wrong_shape(label, x, "d", features))
    if not torch.equal(x, _trial_values()):
        raise InputError(
            f"the feature map {label} changes its input; work on a copy or avoid in-place operations"
        )
    features = features.detach().cpu()
    if not features.is_complex():
        features = features.to(torch.float32)
    if not bool(torch.isfinite(features).all()):
        where = torch.nonzero(~torch.isfinite(features).all(-1))[0]
        raise InputError(f"the feature map {label} gives NaN or infinity at x = {float(x[tuple(where)]):.4g}")
    if not torch.allclose(features[:, :8], features[:, 8:].transpose(0, 1), rtol=1e-4, atol=1e-5):
        raise InputError(
            f"the feature map {label} gives one pixel value different features at different places; each "
            "vector must depend on its own pixel alone, not on chance (networks with dropout: call eval())"
        )
    return features


def _identity_weights(features: Tensor) -> tuple[float, ...] | None:
    """Weights with which the components add up to 1 at every value tried, by least squares; None if none."""
    dim = features.shape[-1]
    if features.is_complex() or dim > _LARGEST_FIT:
        return None
    rows = features.reshape(-1, dim).double()
    fitted = torch.linalg.lstsq(rows, rows.new_ones(len(rows), 1)).solution.squeeze(1)
    for weights in (fitted.round(decimals=4) + 0.0, fitted):  # + 0.0 turns -0.0 into 0.0
        off = (rows @ weights - 1).abs().max()
        cancellation = (rows.abs() @ weights.abs()).max()
        if float(off) <= _EXACT and float(cancellation) <= 100:
            return tuple(weights.tolist())
    return None
