"""Weights of samples: what they have to be, and the median that they give."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.errors import InputError


def check_weight(weight: Tensor, count: int) -> None:
    """Raises unless these are the weights of that many samples.

    Raises:
        InputError: they are not `[count]`, one is negative or not finite, or all are zero.

    Example:
        >>> check_weight(torch.tensor([1.0, 0.0]), 2)
    """
    if weight.shape != (count,):
        raise InputError(f"expected one weight per sample [{count}], got {list(weight.shape)}")
    if not bool((torch.isfinite(weight) & (weight >= 0)).all()) or not bool(weight.any()):
        raise InputError("weights must be finite and at least 0, and one of them above 0")


def weighted_median(values: Float[Tensor, " b"], weight: Tensor) -> Float[Tensor, ""]:
    """The lower median of weighted values: the least one at which half of the weight is reached.

    Args:
        values: to choose from; with a NaN among them the median is NaN.
        weight: `[b]`, at least 0; whole numbers give the median of the values repeated that often.

    Raises:
        InputError: the weights do not fit; see `check_weight`.

    Example:
        >>> weighted_median(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([3.0, 1.0, 1.0]))
        tensor(3.)
    """
    check_weight(weight, len(values))
    if bool(values.isnan().any()):
        return values.new_tensor(math.nan)
    ordered, places = values.sort()
    reached = weight.double()[places].cumsum(0)
    return ordered[int((reached < reached[-1] / 2).sum())]
