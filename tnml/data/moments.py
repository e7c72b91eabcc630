"""Mean and variance of a matrix product state's outputs, in closed form for every input distribution."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.data.inputs import Emissions
from tnml.errors import InputError
from tnml.mps import MatrixProductState

_SMALLEST = 1e-12  # a variance below this share of the second moment is rounding
_LARGEST = 1024  # bonds; two copies of the chain need chi^3


class Moments(NamedTuple):
    """Mean and variance of every output, to be multiplied by exp(log_scale) and exp(2 log_scale).

    Attributes:
        mean: `[c]`.
        variance: `[c]`.
        log_scale: of the outputs; long chains need it.
    """

    mean: Tensor
    variance: Tensor
    log_scale: float


def moments(state: MatrixProductState, emissions: Emissions) -> Moments:
    """The mean of f and its variance for f the state's outputs and inputs of the given distribution.

    The mean is one chain and the second moment two copies of it, contracted with the moments of the features
    site by site; the hidden state of the inputs goes along.

    Args:
        state: with a label core.
        emissions: of the features the other cores meet; see `Inputs.emissions`.

    Raises:
        InputError: a bond is larger than 1024.

    Cost: n c k d chi^3 for k hidden states.

    Source: own derivation; for independent inputs it is the norm of the state in the metric E[phi phi^T].

    Example:
        >>> from tnml.data.inputs import Inputs
        >>> from tnml.features import feature_map
        >>> sums = MatrixProductState([torch.eye(2)[None], torch.ones(2, 1, 1)], label_site=1).to("float64")
        >>> mean, variance, log = moments(sums, Inputs().emissions(feature_map("legendre")))
        >>> round(float(mean) * math.exp(log), 9)  # of 1 + sqrt(3) (2x - 1)
        1.0
    """
    if max(state.bond_dims) > _LARGEST:
        raise InputError(
            f"moments in closed form need bonds of at most {_LARGEST}, got {max(state.bond_dims)}; "
            "make the target smaller"
        )
    start, step, first, second = emissions
    one = start[:, None, None]  # [k, c, l]
    two = start[:, None, None, None]  # [k, c, l, m]
    log_one = log_two = 0.0
    moved = False
    for site, core in enumerate(state.cores):
        if site == state.label_site:
            one = torch.einsum("kal,lcr->kcr", one, core)
            half = torch.einsum("kalm,lcr->kcmr", two, core)
            two = torch.einsum("kcmr,mcs->kcrs", half, core)
        else:
            if moved:
                one, two = torch.tensordot(step.T, one, 1), torch.tensordot(step.T, two, 1)
            moved = True
            one = torch.einsum("kcl,kdlr->kcr", one, torch.einsum("kd,ldr->kdlr", first, core))
            half = torch.einsum("kclm,ldr->kcmdr", two, core)
            half = torch.einsum("kcmdr,kde->kcmer", half, second)
            two = torch.einsum("kcmer,mes->kcrs", half, core)
        one, log_one = _rescaled(one, log_one)
        two, log_two = _rescaled(two, log_two)
    log_scale = log_two / 2
    mean = one.sum((0, 2)) * math.exp(log_one - log_scale)
    square = two.sum((0, 2, 3))
    return Moments(mean, square - mean.square(), log_scale + float(state.log_scale))


def unit_variance(
    state: MatrixProductState, emissions: Emissions
) -> tuple[MatrixProductState, Tensor, Tensor]:
    """The state with every output divided by its standard deviation, and its old mean and variance `[c]`.

    Raises:
        InputError: an output does not vary.

    Example:
        >>> from tnml.data.inputs import Inputs
        >>> from tnml.features import feature_map
        >>> sums = MatrixProductState([torch.eye(2)[None], torch.ones(2, 1, 1)], label_site=1).to("float64")
        >>> scaled, mean, variance = unit_variance(2 * sums, Inputs().emissions(feature_map("legendre")))
        >>> round(float(mean), 9), round(float(variance), 9)
        (2.0, 4.0)
    """
    mean, variance, log_scale = moments(state, emissions)
    if bool((variance <= _SMALLEST * (variance + mean.square())).any()):
        raise InputError("an output of the target does not vary with these inputs; choose another seed")
    place = state.label_site or 0
    cores = state.cores
    cores[place] = cores[place] / variance.sqrt()[None, :, None]
    scale = torch.tensor(log_scale, dtype=torch.float64).exp()  # infinite where it has to be
    scaled = MatrixProductState(cores, log_scale=float(state.log_scale) - log_scale, label_site=place)
    return scaled, mean * scale, variance * scale.square()


def _rescaled(tensor: Tensor, log: float) -> tuple[Tensor, float]:
    size = tensor.abs().amax()
    if not bool(size > 0):
        return tensor, log
    return tensor / size, log + float(size.log())
