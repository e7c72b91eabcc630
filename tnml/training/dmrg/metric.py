"""The metric of a sweep: what singular values, damping and the size of a local tensor are measured by."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.errors import InputError


@dataclass(frozen=True)
class Metric:
    """The metric of one side of a bond, `|v @ factor|` for a vector `v [p]` over that side.

    Args:
        factor: `[p, p]` lower triangular, F F' = the second moment of the samples; None: the identity.
        inverse: `[p, p]` its inverse, transposed: samples times it are white.

    Example:
        >>> metric = data_metric(torch.eye(2) * 2, damping=0.0)
        >>> metric.whiten(torch.eye(2) * 2)
        tensor([[1.4142, 0.0000],
                [0.0000, 1.4142]])
    """

    factor: Tensor | None = None
    inverse: Tensor | None = None

    def whiten(self, samples: Float[Tensor, "*b p"]) -> Float[Tensor, "*b p"]:
        """The samples in coordinates in which the metric is the identity."""
        return samples if self.inverse is None else samples @ self.inverse

    def unwhiten(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        """Columns of a tensor in white coordinates, in those of the samples."""
        return columns if self.inverse is None else self.inverse @ columns


def data_metric(samples: Float[Tensor, "b *c p"], damping: float) -> Metric:
    """The metric in which the samples have unit second moment, up to `damping`.

    Args:
        samples: what the samples look like on one side.
        damping: share of the mean square that every direction gets in addition.

    Raises:
        InputError: a sample is not finite, or its square is not.

    Cost: b p² + p³, in double precision but for the first.

    Example:
        >>> data_metric(torch.eye(2) * 2, damping=0.0).factor
        tensor([[1.4142, 0.0000],
                [0.0000, 1.4142]])
    """
    vectors = samples.flatten(0, -2)
    moment = (vectors.T @ vectors).double() / len(samples)
    if not torch.isfinite(moment).all():
        raise InputError(
            "the contractions of the samples hold NaN or infinite values; scale the features to about 1"
        )
    level = moment.diagonal().mean()
    level = torch.where(level > 0, level, torch.ones_like(level))  # where all vanish any scale will do
    # Without damping a rank-deficient moment has no factor: rounding sets the smallest possible.
    least = damping + 100 * torch.finfo(samples.dtype).eps
    identity = torch.eye(len(moment), dtype=torch.float64, device=moment.device)
    factor, failed = torch.linalg.cholesky_ex(moment + least * level * identity)
    while failed.item():
        least *= 10
        factor, failed = torch.linalg.cholesky_ex(moment + least * level * identity)
    inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
    return Metric(factor.to(samples.dtype), inverse.T.to(samples.dtype).contiguous())


def into_white(tensor: Float[Tensor, "p c q"], metrics: tuple[Metric, Metric]) -> Float[Tensor, "p c q"]:
    """A local tensor in the coordinates of the metrics, in which its size is its Frobenius norm.

    Example:
        >>> into_white(torch.ones(1, 1, 1), (Metric(), Metric()))
        tensor([[[1.]]])
    """
    left, right = (metric.factor for metric in metrics)
    return _transformed(tensor, None if left is None else left.T, right)


def from_white(tensor: Float[Tensor, "p c q"], metrics: tuple[Metric, Metric]) -> Float[Tensor, "p c q"]:
    """The inverse of `into_white`.

    Example:
        >>> from_white(torch.ones(1, 1, 1), (Metric(), Metric()))
        tensor([[[1.]]])
    """
    left, right = (metric.inverse for metric in metrics)
    return _transformed(tensor, left, None if right is None else right.T)


def adjoint_from_white(
    gradient: Float[Tensor, "p c q"], metrics: tuple[Metric, Metric]
) -> Float[Tensor, "p c q"]:
    """The gradient with respect to the tensor in white coordinates, from that in its own.

    Example:
        >>> adjoint_from_white(torch.ones(1, 1, 1), (Metric(), Metric()))
        tensor([[[1.]]])
    """
    left, right = (metric.inverse for metric in metrics)
    return _transformed(gradient, None if left is None else left.T, right)


def _transformed(tensor: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """`left @ tensor @ right` over its outer legs."""
    p, c, q = tensor.shape
    if left is not None:
        tensor = (left @ tensor.reshape(p, c * q)).view(p, c, q)
    if right is not None:
        tensor = (tensor.reshape(p * c, q) @ right).view(p, c, q)
    return tensor.contiguous()
