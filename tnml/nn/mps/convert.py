"""Between the weights of a layer and a matrix product state, and the compression of a chain."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Inexact
from torch import Tensor

from tnml.checks import number
from tnml.contraction import ChainShape
from tnml.errors import InputError
from tnml.mps import MatrixProductState

_FLOOR = 0.01  # weight of inputs that no sample shows
_LARGEST_LOG = 20.0  # a label core scaled by more than exp(20) lends the scale to the other cores


def weights_of(state: MatrixProductState, physical: int) -> tuple[ChainShape, Tensor, Tensor]:
    """Shape, flat weights `[n_weights]` and label core `(l, c, r)` of a layer that is this state.

    The scale of the state goes into the label core, or evenly into all cores where the label core alone
    could not hold it.

    Args:
        state: its label core at `state.label_site`.
        physical: dimension d of the features that every other core will meet.

    Raises:
        InputError: the state has no label core or only that one, a core has another physical dimension, or
            the scale is too large for the dtype.

    Example:
        >>> state = MatrixProductState([torch.ones(1, 2, 3), torch.ones(3, 5, 1)], label_site=1)
        >>> shape, weight, label = weights_of(state, 2)
        >>> shape.left, shape.right, tuple(label.shape)
        ((1, 3), (1,), (3, 5, 1))
    """
    place = state.label_site
    if place is None:
        raise InputError(
            "the state has no label core; make it with label_site=, the index of the core whose physical "
            "leg counts the outputs"
        )
    if state.n_sites < 2:
        raise InputError("a layer needs a site beside its label core, got a state of the label core alone")
    cores = [core.detach() for core in state.cores]
    label = cores.pop(place)
    for site, core in enumerate(cores):
        if core.shape[1] != physical:
            raise InputError(
                f"the core of site {site} has physical dimension {core.shape[1]}, the features have "
                f"dimension {physical}; choose features of that dimension"
            )
    log_scale = float(state.log_scale)
    if abs(log_scale) < _LARGEST_LOG:
        label = label * math.exp(log_scale)
    else:
        each = log_scale / state.n_sites
        share = math.exp(each) if each < 709 else math.inf
        cores, label = [core * share for core in cores], label * share
        if not all(bool(torch.isfinite(core).all()) for core in (*cores, label)):
            raise InputError(
                f"the scale exp({log_scale:g}) over {state.n_sites} cores does not fit {state.dtype}; "
                "convert the normalized state"
            )
    left = (1, *(core.shape[2] for core in cores[:place]))
    right = (*(core.shape[0] for core in cores[place:]), 1)
    shape = ChainShape(physical, left, right)
    return shape, shape.join([core.transpose(0, 1) for core in cores]), label


def truncated(
    state: MatrixProductState,
    max_bond: int | Sequence[int] | None,
    max_error: float | None,
    moments: Tensor | None = None,
) -> tuple[MatrixProductState, float]:
    """The state with smaller bonds, ready to be trained on, and its relative error.

    It is truncated in double precision and brought to the form in which all cores but the label core are
    isometries times one number, so that training moves all of them alike; the label core keeps its norm.

    Args:
        state: its label core at `state.label_site`.
        max_bond: largest bond, or one number for each inner bond.
        max_error: largest relative error.
        moments: `[n, d, d]` of `moments_of`; the error is then the root mean square of the outputs' change
            over inputs with these moments, site by site independent. None: all entries of the tensor count.

    Raises:
        InputError: neither limit is given, or one is out of range.

    Cost: O(n d chi^3), one QR sweep and one SVD sweep.

    Source: Oseledets, Tensor-train decomposition, SIAM J. Sci. Comput. 33 (2011), algorithm 2. The weights of
    sites are our own: the root of its moments goes into each core before, its inverse after the truncation.

    Example:
        >>> state = MatrixProductState([torch.ones(1, 2, 3), torch.ones(3, 5, 1)], label_site=1)
        >>> smaller, error = truncated(state, None, 1e-6)
        >>> smaller.bond_dims, error < 1e-6
        ([1, 1, 1], True)
    """
    _check_limits(max_bond, max_error)  # `truncate` looks at max_bond
    place = state.label_site
    if place is None:
        raise InputError("the state has no label core; make it with label_site=")
    wide = state.detach().to(torch.complex128 if state.dtype.is_complex else torch.float64)
    norm = torch.linalg.vector_norm(wide.cores[place]).item()
    if moments is None:
        found = wide.truncate(max_bond=max_bond, max_error=max_error)
        result = found.state
    else:
        values, vectors = torch.linalg.eigh(moments.to(wide.dtype))
        root, inverse = (
            vectors @ torch.diag_embed(power).to(wide.dtype) @ vectors.mH
            for power in (values.sqrt(), values.rsqrt())
        )
        found = _weighted(wide, root).truncate(max_bond=max_bond, max_error=max_error)
        result = _weighted(found.state, inverse)
    centred = result.canonical(place)
    cores = list(centred.cores)
    size = torch.linalg.vector_norm(cores[place]).item()
    if size > 0 and norm > 0:
        share = math.exp((float(centred.log_scale) + math.log(size / norm)) / max(1, len(cores) - 1))
        cores = [core * (norm / size if site == place else share) for site, core in enumerate(cores)]
        centred = MatrixProductState(cores, label_site=place)
    return centred.to(state.dtype), float(found.error)


def moments_of(features: Inexact[Tensor, "b n d"]) -> Inexact[Tensor, "n d d"]:
    """The second moments `E[phi_d conj(phi_e)]` of every site, scaled to trace d, plus a hundredth of 1.

    The hundredth says that an input never seen may come with a small weight, and keeps the roots regular:
    pixels at the rim of images have one value in all samples.

    Raises:
        InputError: there is no sample, or a feature is not finite.

    Example:
        >>> moments_of(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
        tensor([[[1.0100, 0.0000],
                 [0.0000, 1.0100]]], dtype=torch.float64)
    """
    if not len(features) or not bool(torch.isfinite(features).all()):
        raise InputError("samples must be finite and at least one")
    double = torch.complex128 if features.is_complex() else torch.float64
    found = torch.einsum("bnd,bne->nde", features, features.conj()).to(double) / len(features)
    trace = found.diagonal(dim1=1, dim2=2).real.sum(1).clamp_min(1e-300)
    eye = torch.eye(features.shape[2], dtype=double, device=features.device)
    return found * (features.shape[2] / trace)[:, None, None] + _FLOOR * eye


def _weighted(state: MatrixProductState, matrices: Tensor) -> MatrixProductState:
    """The state with a matrix `[n, d, d]` on the physical leg of every core but the label core."""
    cores = list(state.cores)
    sites = [site for site in range(len(cores)) if site != state.label_site]
    for site, matrix in zip(sites, matrices, strict=True):
        cores[site] = torch.einsum("ldr,de->ler", cores[site], matrix)
    return MatrixProductState(cores, log_scale=state.log_scale, label_site=state.label_site)


def _check_limits(max_bond: int | Sequence[int] | None, max_error: float | None) -> None:
    if max_bond is None and max_error is None:
        raise InputError("compression needs a limit: give max_bond, max_error or both")
    if max_error is not None:
        number("max_error (a relative error)", max_error, least=0.0, below=1.0)
