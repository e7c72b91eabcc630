"""Neighbouring cores of a tensor-train matrix multiplied into one, by differentiable torch calls."""

from collections.abc import Sequence

from jaxtyping import Num
from torch import Tensor

from tnml.contraction.tt.shape import TTShape


def tt_matrix(cores: Sequence[Tensor]) -> Num[Tensor, "o i"]:
    """The dense matrix `[o, i]` of cores `(l, o, i, r)`.

    Raises:
        InputError: the cores do not fit.

    Cost: about 2 o i r operations, r the last inner rank.

    Example:
        >>> import torch
        >>> tt_matrix([torch.ones(1, 2, 3, 4), torch.ones(4, 2, 1, 1)])[0]
        tensor([4., 4., 4.])
    """
    shape = TTShape.of_cores(cores)
    return multiply_cores(cores).reshape(shape.out_size, shape.in_size)


def multiply_cores(cores: Sequence[Tensor]) -> Num[Tensor, "l o i r"]:
    """Neighbouring cores as one core, whose sizes are the products of theirs.

            o         o'                 (o o')
            │         │                    │
        l ─ A ── r ── B ─ right   =   l ─ A B ─ right
            │         │                    │
            i         i'                 (i i')

    Example:
        >>> import torch
        >>> multiply_cores([torch.ones(1, 2, 3, 4), torch.ones(4, 2, 1, 5)]).shape
        torch.Size([1, 4, 3, 5])
    """
    left, o, i, rank = cores[0].shape
    product = cores[0]
    for core in cores[1:]:
        _, more_o, more_i, right = core.shape
        wide = product.reshape(-1, rank) @ core.reshape(rank, -1)
        wide = wide.view(left, o, i, more_o, more_i, right).transpose(2, 3)
        o, i, rank = o * more_o, i * more_i, right
        product = wide.reshape(left, o, i, rank)
    return product
