"""Prices of European calls on one asset, of which those on several are made."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

EXPIRED = 1e-20  # time to go below which prices are those at expiry, to double precision


def black_call(
    forward: Float[Tensor, "*b"], strike: float, variance: Float[Tensor, "*b"]
) -> Float[Tensor, "*b"]:
    """`E[max(F - K, 0)]` for a log-normal F of mean `forward`: Black's formula, not discounted.

    Args:
        forward: mean of F, positive.
        strike: K.
        variance: of ln F, positive.

    Source:
        Black, Journal of Financial Economics 3 (1976).

    Example:
        >>> forward, variance = torch.tensor([100.0, 100.0]), torch.tensor([0.04, 1e-20])
        >>> black_call(forward, 100.0, variance)
        tensor([7.9656, 0.0000])
    """
    width = variance.sqrt()
    above = torch.log(forward / strike) / width + width / 2
    return forward * normal_distribution(above) - strike * normal_distribution(above - width)


def bachelier_call(
    mean: Float[Tensor, "*b"], strike: float, variance: Float[Tensor, "*b"]
) -> Float[Tensor, "*b"]:
    """`E[max(F - K, 0)]` for a Gaussian F: Bachelier's formula, not discounted.

    Args:
        mean: of F.
        strike: K.
        variance: of F, positive.

    Source:
        Bachelier, Annales scientifiques de l'ENS 17 (1900).

    Example:
        >>> bachelier_call(torch.tensor([100.0]), 100.0, torch.tensor([400.0]))
        tensor([7.9788])
    """
    width = variance.sqrt()
    above = (mean - strike) / width
    density = torch.exp(-above.square() / 2) / math.sqrt(2 * math.pi)
    return (mean - strike) * normal_distribution(above) + width * density


def normal_distribution(z: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The distribution function of the standard normal law.

    Example:
        >>> normal_distribution(torch.zeros(1))
        tensor([0.5000])
    """
    found: Tensor = torch.special.ndtr(z)
    return found
