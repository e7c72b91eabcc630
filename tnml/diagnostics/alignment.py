"""Whether features tell clean labels from noise: what ridge regression sees in their singular vectors.

Source: Xue, Whitecross and Mirzasoleiman, Investigating why contrastive learning benefits robustness against
label noise, arXiv 2201.12498; the algebra of ridge regression is exact.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from tnml.checks import number, whole
from tnml.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How labels lie in the leading directions of features.

    Attributes:
        gap: s_k / s_(k+1), the step in the singular values behind the leading ones.
        clean: share of the squared labels that lies in the leading k left singular vectors.
        noise: the same of the difference between noisy and clean labels; None without noisy ones. By chance
            it is about k / n, and the mean of the noise within each class adds to that.
    """

    gap: float
    clean: float
    noise: float | None


def spectral_alignment(
    features: Float[Tensor, "n d"],
    y: Int64[Tensor, " n"],
    noisy: Int64[Tensor, " n"] | None = None,
    *,
    k: int | None = None,
) -> Alignment:
    """How much of the labels the leading directions of the features carry.

    Args:
        features: such as those before the last layer of an encoder.
        y: clean labels.
        noisy: labels as they were written.
        k: leading directions; None takes the number of classes.

    Raises:
        InputError: there are no more than k samples or features, or the numbers do not fit.

    Cost: one singular value decomposition of the features.

    Source: arXiv 2201.12498, section 4.

    Example:
        >>> y = torch.tensor([0, 0, 1, 1])
        >>> found = spectral_alignment(torch.nn.functional.one_hot(y, 3).double() + 1e-3, y)
        >>> round(found.clean, 3)
        1.0
    """
    classes = int(torch.stack([y, y if noisy is None else noisy]).max()) + 1
    count = classes if k is None else whole("k", k, 1)
    if count >= min(features.shape) or len(y) != len(features):
        raise InputError(
            f"expected more than k={count} features and samples, and a label for each, got features "
            f"{list(features.shape)} and {len(y)} labels"
        )
    left, values, _ = torch.linalg.svd(features.detach().double(), full_matrices=False)
    leading = left[:, :count]

    def share(target: Tensor) -> float:
        total = float(target.square().sum())
        return float((leading.T @ target).square().sum()) / total if total else 0.0

    clean = one_hot(y, classes).to(left)
    wrong = None if noisy is None else one_hot(noisy, classes).to(left) - clean
    gap = float(values[count - 1] / values[count]) if float(values[count]) > 0 else float("inf")
    return Alignment(gap=gap, clean=share(clean), noise=None if wrong is None else share(wrong))


def ridge_head(
    features: Float[Tensor, "n d"], y: Int64[Tensor, " n"], beta: float, *, classes: int | None = None
) -> Float[Tensor, "d c"]:
    """A linear head on features: the weights W of least `|F W - Y|^2 + beta |W|^2` for one-hot labels Y.

    Args:
        features: F.
        y: labels 0 to c - 1.
        beta: about .01 n; next to nothing lets any features memorise the labels.
        classes: c; None takes the largest label and one.

    Raises:
        InputError: `beta` is not positive.

    Cost: O(n d^2 + d^3).

    Source: arXiv 2201.12498, eq. 3.

    Example:
        >>> ridge_head(torch.eye(2), torch.tensor([0, 1]), 1.0)
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """
    number("beta", beta, above=0.0)
    known = features.detach().double()
    count = int(y.max()) + 1 if classes is None else whole("classes", classes, 1)
    target = one_hot(y, count).to(known)
    gram = known.T @ known + beta * torch.eye(known.shape[1], dtype=known.dtype, device=known.device)
    found: Tensor = torch.linalg.solve(gram, known.T @ target)
    return found.to(features)
