"""What a feature is compared with: the features of a background, averaged site by site or row by row."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Inexact
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError
from tnml.nn import TensorNetworkLayer
from tnml.nn.sample_weights import check_weight


def check_linear(layer: TensorNetworkLayer) -> None:
    """Raises unless the outputs of a network are linear in every site's features.

    Raises:
        InputError: they are not.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> check_linear(MPSLayer(2, 2))
    """
    if not layer.multilinear:
        raise InputError(
            f"this needs outputs that are linear in every site's features, got a {type(layer).__name__}, "
            "which normalises inside; use a network that does not, such as an MPSLayer"
        )


def background_features(
    layer: TensorNetworkLayer, background: Tensor, weight: Tensor | None = None, *, joint: bool = False
) -> tuple[Inexact[Tensor, "r n d"], Float64[Tensor, " r"]]:
    """The features that stand in for those that are left out, and the share of each row.

    Args:
        layer: the network whose features and order count.
        background: `[k, n]` inputs or `[k, n, d]` features.
        weight: `[k]`, at least 0: how often each row counts; None counts all equally.
        joint: False takes the columns as independent: one row of mean features m_i = E[phi(X_i)], which is
            the average over all combinations of the columns' values. True keeps the k rows as they are.

    Returns:
        `[1, n, d]` or `[k, n, d]` in the network's order and its dtype, and shares that add up to 1.

    Raises:
        InputError: there is no row, the shape or the weights do not fit, or the outputs are not linear.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> rows, share = background_features(MPSLayer(2, 2), torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
        >>> rows[0, 0], share
        (tensor([0.5000, 0.5000]), tensor([1.], dtype=torch.float64))
    """
    check_linear(layer)
    if not background.dim() or not len(background):
        raise InputError("expected a background of at least one row, got none; pass some training samples")
    found = layer.local_features(background.detach())
    share = torch.ones(len(found), dtype=torch.float64, device=found.device)
    if weight is not None:
        check_weight(weight, len(found))
        share = weight.to(share)
    share = share / share.sum()
    if joint:
        kept = share > 0
        return found[kept], share[kept]
    wide = torch.complex128 if found.is_complex() else torch.float64
    mean = torch.einsum("k,knd->nd", share.to(wide), found.to(wide))
    return mean.to(found.dtype).unsqueeze(0), torch.ones_like(share[:1])


def combinations(
    target: int | Sequence[int] | Tensor | None, outputs: int, device: torch.device
) -> Float64[Tensor, "c k"]:
    """The requested combinations of outputs, one in each column.

    Args:
        target: an output, several, a matrix `[c, k]` of combinations (a column with 1 and -1 is a difference
            of two outputs), or None for every output.
        outputs: the number of outputs c.
        device: where the matrix goes.

    Raises:
        InputError: there is no such output, or the matrix has another shape.

    Example:
        >>> combinations(1, 3, torch.device("cpu")).T
        tensor([[0., 1., 0.]], dtype=torch.float64)
    """
    unit = torch.eye(outputs, dtype=torch.float64, device=device)
    if target is None:
        return unit
    if isinstance(target, Tensor) and target.dim() == 2:
        if target.shape[0] != outputs or not target.shape[1]:
            raise InputError(f"expected combinations [{outputs}, k] of the outputs, got {list(target.shape)}")
        return target.to(unit)
    chosen = target.tolist() if isinstance(target, Tensor | np.ndarray) else target
    places = [chosen] if not isinstance(chosen, Sequence) else list(chosen)
    if not places:
        raise InputError("expected at least one output as target, got none; leave it out for all of them")
    return unit[:, [whole("target", place, 0, outputs - 1) for place in places]]


class Comparison(NamedTuple):
    """Samples and what they are compared with, ready for a network.

    Attributes:
        given: features of the samples.
        others: features that stand in for those that are left out, one row or as many as the background.
        share: of each of these rows; they add up to 1.
        columns: combinations of the outputs.
    """

    given: Inexact[Tensor, "b n d"]
    others: Inexact[Tensor, "r n d"]
    share: Float64[Tensor, " r"]
    columns: Float64[Tensor, "c k"]

    def mean(self, of_row: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean over the rows of the background of what a function makes of each, row by row.

        Example:
            >>> from tnml.nn import MPSLayer
            >>> half = torch.full((3, 2), 0.5)
            >>> compared(MPSLayer(2, 2), half, half).mean(lambda row: row)[0]
            tensor([0.5000, 0.5000])
        """
        total = torch.zeros((), dtype=torch.float64, device=self.share.device)
        for row, part in zip(self.others, self.share, strict=True):
            total = total + part * of_row(row)
        return total


def compared(
    layer: TensorNetworkLayer,
    x: Tensor,
    background: Tensor,
    target: int | Sequence[int] | Tensor | None = None,
    weight: Tensor | None = None,
    *,
    joint: bool = False,
) -> Comparison:
    """Samples, background and targets on the device of a network; see `background_features`, `combinations`.

    Raises:
        InputError: there is no sample, or a shape, target or weight does not fit.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> compared(MPSLayer(2, 3), torch.rand(5, 2), torch.rand(7, 2), target=1).columns.shape
        torch.Size([3, 1])
    """
    if not x.dim() or not len(x):
        raise InputError("expected at least one sample to explain, got none")
    device = layer.order.device
    others, share = background_features(layer, background.to(device), weight, joint=joint)
    columns = combinations(target, layer.out_features, device)
    return Comparison(layer.local_features(x.detach().to(device)), others, share, columns)
