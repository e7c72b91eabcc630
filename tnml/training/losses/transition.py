"""Cross-entropies that know how labels become wrong: forward and backward correction."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tnml.checks import is_number
from tnml.data.noise import checked_transition, symmetric
from tnml.errors import InputError
from tnml.training.losses.base import Loss

Transition = float | Sequence[Sequence[float]]


@dataclass(frozen=True)
class _Corrected(Loss):
    """A loss with a transition matrix T, `T[i, j]` being the probability that label i was written as j.

    Args:
        transition: T, rows that add up to 1; or a number, the share of labels that were replaced by another
            one, all being equally likely (`tnml.data.symmetric`).

    Raises:
        InputError: `transition` is neither.
    """

    transition: Transition = 0.0

    for_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if is_number(self.transition):
            symmetric(2, self.transition)
            return
        try:
            matrix = torch.as_tensor(self.transition, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                "transition must be a share of wrong labels or a matrix [classes, classes], got "
                f"{self.transition!r}"
            ) from error
        object.__setattr__(self, "transition", tuple(map(tuple, checked_transition(matrix).tolist())))

    def targets(self, y: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """One-hot labels `[b, c]`, as they were written."""
        return one_hot(y, outputs).to(dtype)

    def _matrix(self, outputs: Tensor, *, inverse: bool = False) -> Tensor:
        """T, or its inverse, for these outputs."""
        return _tensor(self.transition, outputs.shape[-1], inverse).to(outputs)


@dataclass(frozen=True)
class ForwardCorrection(_Corrected):
    """The cross-entropy of the labels as they were written, of a model of the true ones.

        l = - log (p T)_y,   p = softmax(outputs)

    The model that minimises it gives the probabilities of the true labels.

    Args:
        transition: T `[c, c]`, `T[i, j]` being the probability that a true i is written as j, as
            `tnml.data.estimate_transition` finds it; or a number, the share of labels that were replaced by
            any other one.

    Raises:
        InputError: `transition` is neither, or is for another number of classes.

    Source: Patrini et al., Making deep neural networks robust to label noise, arXiv 1609.03683, theorem 2.

    Example:
        >>> ForwardCorrection(transition=0.5).values(torch.tensor([[9.0, -9.0]]), torch.tensor([1]))
        tensor([0.6931])
    """

    convex: ClassVar[bool] = False

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample."""
        written = (outputs.log_softmax(-1).exp() @ self._matrix(outputs)).clamp_min(
            torch.finfo(outputs.dtype).tiny
        )
        if y.is_floating_point():
            return -(y * written.log()).sum(-1)
        return -written.gather(-1, y.unsqueeze(-1)).squeeze(-1).log()


@dataclass(frozen=True)
class BackwardCorrection(_Corrected):
    """The combination of cross-entropies whose expectation over the wrong labels is that of the true ones.

        l = - sum_j (T^-1)_yj log p_j

    It is unbiased and convex, but falls without bound on wrong labels that a model fits; prefer
    `ForwardCorrection` where the model is able to.

    Args:
        transition: as of `ForwardCorrection`; the matrix has to have an inverse.

    Raises:
        InputError: `transition` has no inverse, or is for another number of classes.

    Source: Patrini et al., arXiv 1609.03683, theorem 1.

    Example:
        >>> BackwardCorrection(transition=0.25).values(torch.zeros(1, 2), torch.tensor([1]))
        tensor([0.6931])
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        classes = 2 if isinstance(self.transition, (int, float)) else len(self.transition)
        _tensor(self.transition, classes, True)

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample."""
        back = self._matrix(outputs, inverse=True)
        share = y @ back if y.is_floating_point() else back[y]
        return -(share * outputs.log_softmax(-1)).sum(-1)


@functools.lru_cache(maxsize=16)
def _tensor(transition: Transition, classes: int, inverse: bool) -> Tensor:
    """T for so many classes, or its inverse, in double precision."""
    matrix = symmetric(classes, transition) if isinstance(transition, (int, float)) else None
    if matrix is None:
        matrix = torch.tensor(transition, dtype=torch.float64)
    if len(matrix) != classes:
        raise InputError(f"transition is for {len(matrix)} classes, the model has {classes}")
    if not inverse:
        return matrix
    if float(torch.linalg.cond(matrix)) > 1e8:
        raise InputError("transition has no inverse: some labels say nothing about the true ones")
    found: Tensor = torch.linalg.inv(matrix)
    return found
