"""Approximate median significance: how clearly a classifier would show a signal above its background."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from tnml.checks import number
from tnml.errors import InputError


class Significance(NamedTuple):
    """The best cut.

    Attributes:
        ams: its significance.
        cut: events with a score of at least this are selected.
        error: deviation of the significance from the finite number of events, to first order.
    """

    ams: float
    cut: float
    error: float


def significance(signal: Tensor, background: Tensor, regularisation: float = 10.0) -> Tensor:
    """`sqrt(2 ((s + b) ln(1 + s / b) - s))` with b the expected background plus `regularisation`.

    Args:
        signal: s, expected signal events, not negative.
        background: expected background events, not negative.
        regularisation: keeps regions without background from winning by chance.

    Source: Adam-Bourdarios et al., The Higgs boson machine learning challenge, JMLR W&CP 42 (2015), eq. 7.

    Example:
        >>> round(significance(torch.tensor(50.0), torch.tensor(1000.0)).item(), 3)
        1.561
    """
    b = background + regularisation
    inside = (signal + b) * torch.log1p(signal / b) - signal
    return (2 * inside).clamp_min(0.0).sqrt()


def ams(
    scores: Float[Tensor, " n"],
    y: Shaped[Tensor, " n"],
    weights: Float[Tensor, " n"] | None = None,
    *,
    regularisation: float = 10.0,
) -> Significance:
    """The largest significance over all cuts on a score.

    The cut is chosen on the same events, so take others to quote the significance.

    Args:
        scores: of each event, larger for signal.
        y: 1 for signal, 0 for background.
        weights: expected number of events that each stands for; None takes 1.
        regularisation: see `significance`.

    Raises:
        InputError: there are no events, the shapes differ, a weight is negative, or a label is not 0 or 1.

    Cost: a sort.

    Source: arXiv 2105.07530, section 2, and the challenge's paper, see `significance`.

    Example:
        >>> scores, weights = torch.tensor([0.9, 0.8, 0.1]), torch.tensor([30.0, 20.0, 1e3])
        >>> found = ams(scores, torch.tensor([1, 1, 0]), weights)
        >>> round(found.ams, 2), round(found.cut, 2)
        (10.72, 0.8)
    """
    number("regularisation", regularisation, above=0.0)
    weight = torch.ones_like(scores) if weights is None else weights
    if not len(scores) or len(y) != len(scores) or len(weight) != len(scores):
        raise InputError(f"expected as many labels and weights as scores, got {len(y)} and {len(weight)}")
    labels = y.double()
    if bool((weight < 0).any()) or not bool(((labels == 0) | (labels == 1)).all()):
        raise InputError("weights must not be negative, and labels 1 (signal) or 0 (background)")
    falling = scores.argsort(descending=True)
    known, weight, labels = scores[falling], weight[falling].double(), labels[falling]
    s, b = (weight * labels).cumsum(0), (weight * (1 - labels)).cumsum(0)
    found = significance(s, b, regularisation)
    last = torch.cat([known[1:] != known[:-1], torch.ones(1, dtype=torch.bool, device=known.device)])
    best = int(torch.where(last, found, -1.0).argmax())  # equal scores are cut together
    chosen = slice(0, best + 1)
    parts = torch.stack([s[best], b[best]]).requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(significance(parts[0], parts[1], regularisation), parts)
    squares = weight[chosen].square()
    variances = torch.stack([(squares * labels[chosen]).sum(), (squares * (1 - labels[chosen])).sum()])
    return Significance(
        float(found[best]), float(known[best]), float((slope.square() * variances).sum().sqrt())
    )
