"""Where a Born machine starts: the product of the columns' own densities, and a little noise."""

import math

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from tnml.contraction import ChainShape

_ROUNDS = 60  # of the fixed point of a column; every round at least halves the error near the end


def starting_product(
    features: Inexact[Tensor, "b n d"], live: Float[Tensor, "n d"], weight: Tensor | None = None
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Amplitudes of largest likelihood for each column alone, of norm 1, and the root mean square features.

    Every direction of a column counts as half a sample in addition, so that nothing is impossible. The
    fixed point of a -> a + mean(phi / (phi . a)), normalised, is the maximum of the likelihood of (phi . a)².

    Args:
        features: of some samples, real, orthonormal.
        live: 1 where a column has a component, 0 where it is padding.
        weight: `[b]`; None counts all alike.

    Example:
        >>> one_hot = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
        >>> starting_product(one_hot, torch.ones(1, 2))[0].square()
        tensor([[0.7000, 0.3000]], dtype=torch.float64)
    """
    phi, live = features.real.double(), live.to(features.device).double()
    share = phi.new_ones(len(phi)) if weight is None else weight.to(phi)
    total = share.sum() + 0.5 * live.sum(1)  # [n]
    moment = (torch.einsum("b,bnd->nd", share, phi.square()) + 0.5 * live) / total.unsqueeze(1)
    mean = torch.einsum("b,bnd->nd", share, phi)
    path = torch.where(mean.abs() > 0, mean.sign(), 1.0) * moment.sqrt() * live
    path = path / path.norm(dim=1, keepdim=True)
    levels = (phi * (1 - phi) == 0).all(0).all(1)  # one-hot columns: the root of the shares is exact
    if bool(levels.all()):
        return path, moment.sqrt()
    shares = path
    constant = live / live.sum(1, keepdim=True).sqrt()
    path = 0.1 * path + mean / share.sum()  # near the mean features, which the identity path is close to
    path = path / path.norm(dim=1, keepdim=True).clamp_min(1e-30)
    path = torch.where(path.norm(dim=1, keepdim=True) > 0, path, constant)
    for _ in range(_ROUNDS):
        value = torch.einsum("bnd,nd->bn", phi, path)
        value = torch.where(value.abs() > 1e-3, value, torch.full_like(value, 1e-3).copysign(value))
        pull = torch.einsum("b,bnd,bn->nd", share, phi, 1 / value) + 0.5 * path
        path = path + pull / (share.sum() + 0.5)
        path = path / path.norm(dim=1, keepdim=True)
    return torch.where(levels.unsqueeze(1), shares, path), moment.sqrt()


def with_noise(
    shape: ChainShape,
    outputs: int,
    path: Float[Tensor, "n d"],
    spread: Float[Tensor, "n d"],
    noise: float | None,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Flat weights and a label core `(l, c, r)` of a product state with noise; every output starts alike.

    Args:
        shape: of the chain.
        outputs: c.
        path: the amplitudes of each site.
        spread: the size of each component's noise, relative to the others.
        noise: standard deviation of the noise, relative to the path; None takes 0.25 / sqrt(n chi).
        dtype: of the weights.
        generator: of the noise, on the CPU.

    Example:
        >>> shape = ChainShape(2, (1, 2), (2, 1))
        >>> weight, label = with_noise(
        ...     shape, 1, torch.ones(2, 2), torch.ones(2, 2), 0.0, torch.float32, torch.Generator()
        ... )
        >>> weight.tolist(), label[:, 0].tolist()
        ([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
    """
    widest = shape.widest
    size = 0.25 / math.sqrt(max(1, shape.n_sites) * widest) if noise is None else noise

    def random(*sizes: int) -> Tensor:
        found = torch.randn(*sizes, generator=generator, dtype=torch.float64)
        if not dtype.is_complex:
            return found
        imaginary = torch.randn(*sizes, generator=generator, dtype=torch.float64)
        return torch.complex(found, imaginary) / math.sqrt(2)

    pieces = []
    scale = spread.cpu().double()
    scale = size * scale / scale.norm(dim=1, keepdim=True).clamp_min(1e-30)
    scale = scale * path.cpu().double().norm(dim=1, keepdim=True)
    for site, (l, r) in enumerate(shape.bonds):
        eye = torch.eye(l, r, dtype=torch.float64)
        core = path[site].cpu()[:, None, None] * eye + scale[site][:, None, None] * random(
            shape.physical, l, r
        )
        pieces.append(core.flatten())
    l, r = shape.left[-1], shape.right[0]
    label = torch.eye(l, r, dtype=torch.float64).unsqueeze(1).expand(l, outputs, r)
    if outputs > 1:
        label = label + 0.1 * random(l, outputs, r)
    return torch.cat(pieces).to(dtype), label.to(dtype)
