"""The chain as a plain differentiable recurrence: slow, short, correct under every transformation of PyTorch.

The engines are checked against it, and it is used where they do not apply: double backward, `torch.func`
(grad, vmap, jvp) and forward-mode differentiation.
"""

import torch
from torch import Tensor

from tnml.contraction.chain.shape import ChainShape

RESCALE_EVERY = 8  # sites between two rescalings: at most 2^127 growth in float32 needs 2^15 a site


def reference_chain(features: Tensor, weight: Tensor, shape: ChainShape) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors that meet at the label site, and their exponents of two.

        v_{s+1}[b, r] = sum_{d, l} features[b, s, d] v_s[b, l] A_s[d, l, r]     (left half, from v_0 = 1)

    and the mirror image for the right half. Every few sites each sample's vector is divided by a power of
    two, which is exact in floating point and constant almost everywhere, so gradients pass unchanged.

    Args:
        features: `[b, n, d]`.
        weight: flat weights laid out as `shape` says.
        shape: bonds and label site.

    Returns:
        `left [b, l]`, `right [b, r]`, `exponent [2, b]` (float): the true vectors are `left * 2**exponent[0]`
        and `right * 2**exponent[1]`.

    Cost: `shape.flops_forward` per sample and a few small kernel launches per site.

    Example:
        >>> shape = ChainShape(2, (1, 2), (2, 1))
        >>> left, right, exponent = reference_chain(torch.ones(3, 2, 2), torch.ones(8), shape)
        >>> left
        tensor([[2., 2.],
                [2., 2.],
                [2., 2.]])
    """
    cores = shape.split(weight)
    label = shape.label_site
    left, left_exponent = _half(features[:, :label], cores[:label])
    mirrored = [core.transpose(1, 2) for core in reversed(cores[label:])]
    right, right_exponent = _half(features[:, label:].flip(1), mirrored)
    return left, right, torch.stack([left_exponent, right_exponent])


def _half(features: Tensor, cores: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Contracts one half from its outer end to the label site."""
    vector = torch.ones_like(features[:, 0, :1]) if cores else features.new_ones(features.shape[0], 1)
    exponent = torch.zeros_like(vector[:, 0].real)
    for site, core in enumerate(cores):
        vector = torch.einsum("bd,bl,dlr->br", features[:, site], vector, core)
        if site % RESCALE_EVERY == RESCALE_EVERY - 1:
            power = power_of_two(vector)
            vector = vector * torch.exp2(-power).unsqueeze(-1)
            exponent = exponent + power
    return vector, exponent


def power_of_two(vector: Tensor) -> Tensor:
    """Exponent p of each sample with 2^p <= max |entry| < 2^(p+1); 0 where the vector is 0 or not finite.

    Example:
        >>> power_of_two(torch.tensor([[0.0, -5.0], [0.0, 0.0]]))
        tensor([2., 0.])
    """
    largest = vector.detach().abs().amax(dim=-1)
    power = torch.floor(torch.log2(largest))
    return torch.where(torch.isfinite(power), power, torch.zeros_like(power)).clamp(-126, 126)
