"""Which labels became which, told from the probabilities of a model of the noisy labels."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from tnml.checks import number
from tnml.data.noise import checked_transition
from tnml.errors import InputError, choose

METHODS = ("anchor", "class_mean")


def estimate_transition(
    probabilities: Float[Tensor, "n c"], method: str = "anchor", *, quantile: float = 0.97
) -> Float64[Tensor, "c c"]:
    """The transition matrix of label noise, from what a model of the noisy labels says of the samples.

    The model must not have memorised the labels yet: one of a few epochs does well, one that is trained to
    the end gives the identity.

    Args:
        probabilities: rows that add up to 1, of the samples the model was trained on.
        method: "anchor": row i is what the model says of the sample that is surest of class i, passing over
            those above the quantile; "class_mean": the mean over the samples whose likeliest class is i.
        quantile: of the probabilities of class i; 1 takes the surest sample. Of "anchor" only.

    Returns:
        T, `T[i, j]` being the probability that i became j; rows add up to 1.

    Raises:
        InputError: the rows are no probabilities, there are fewer than two classes, no sample is likeliest of
            some class ("class_mean"), or the quantile is not in (0, 1].

    Cost: O(n c).

    Source: Patrini et al., Making deep neural networks robust to label noise, arXiv 1609.03683, eq. 12 and
    13; the class means are our own.

    Example:
        >>> sure = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
        >>> [[round(p, 1) for p in row] for row in estimate_transition(sure, quantile=1.0).tolist()]
        [[0.9, 0.1], [0.2, 0.8]]
    """
    choose("method", method, dict.fromkeys(METHODS))
    share = number("quantile", quantile, above=0.0, most=1.0)
    known = probabilities.detach().double().cpu()
    if known.dim() != 2 or known.shape[1] < 2 or not len(known):
        raise InputError(f"expected probabilities [n, classes], two or more, got {list(probabilities.shape)}")
    if not bool((known >= 0).all()) or not bool(((known.sum(1) - 1).abs() < 1e-3).all()):
        raise InputError("the rows of `probabilities` must add up to 1; pass logits through softmax first")
    rows = [
        _anchor(known, i, share) if method == "anchor" else _mean(known, i) for i in range(known.shape[1])
    ]
    found = torch.stack(rows)
    return found / found.sum(1, keepdim=True)


def transition_error(found: Float[Tensor, "c c"], truth: Float[Tensor, "c c"]) -> float:
    """How far an estimate lies from the truth: the sum of the differences over the sum of the entries.

    Raises:
        InputError: `truth` is no transition matrix, or the shapes differ.

    Source: Xia et al., Are anchor points really indispensable in label-noise learning?, NeurIPS 2019.

    Example:
        >>> transition_error(torch.eye(2), torch.tensor([[0.75, 0.25], [0.0, 1.0]]))
        0.25
    """
    if found.shape != checked_transition(truth).shape:
        raise InputError(f"the estimate is {list(found.shape)}, the truth {list(truth.shape)}")
    return float((found.double() - truth.double()).abs().sum() / truth.double().abs().sum())


def importance_weights(
    probabilities: Float[Tensor, "n c"], y: Int64[Tensor, " n"], transition: Float[Tensor, "c c"]
) -> Float64[Tensor, " n"]:
    """How much likelier each written label is under the true labels than under the noisy ones.

    As `sample_weight` they let cross-entropy on noisy labels estimate that on true ones.

    Args:
        probabilities: of the true labels, as a model trained with `ForwardCorrection` gives them.
        y: the labels as they were written.
        transition: `T[i, j]`, the probability that i became j.

    Returns:
        `p_y / (p T)_y`, not negative.

    Raises:
        InputError: `transition` is no transition matrix, or the shapes do not fit.

    Source: Liu and Tao, Classification with noisy labels by importance reweighting, arXiv 1411.7718.

    Example:
        >>> importance_weights(torch.tensor([[0.9, 0.1]]), torch.tensor([1]), torch.eye(2)).item()
        1.0
    """
    matrix = checked_transition(transition).double()
    if probabilities.dim() != 2 or probabilities.shape[1] != len(matrix) or len(y) != len(probabilities):
        raise InputError(
            f"expected probabilities [n, {len(matrix)}] and labels [n], got {list(probabilities.shape)} and "
            f"{list(y.shape)}"
        )
    known = probabilities.double().cpu()
    index = y.cpu().unsqueeze(1)
    written = (known @ matrix.cpu()).gather(1, index).squeeze(1)
    return known.gather(1, index).squeeze(1) / written.clamp_min(torch.finfo(torch.float64).tiny)


def _anchor(known: Tensor, label: int, quantile: float) -> Tensor:
    """What is said of the sample surest of a class, among those not above the quantile."""
    column = known[:, label]
    below = column <= torch.quantile(column, quantile)
    return known[int(torch.where(below, column, -1.0).argmax())]


def _mean(known: Tensor, label: int) -> Tensor:
    """The mean over the samples whose likeliest class it is."""
    chosen = known[known.argmax(1) == label]
    if not len(chosen):
        raise InputError(
            f"no sample is likeliest of class {label}; use method='anchor' or train a little longer"
        )
    return chosen.mean(0)
