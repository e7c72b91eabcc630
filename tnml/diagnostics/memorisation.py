"""How much of the label noise a classifier has memorised."""

import math

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from tnml.checks import whole
from tnml.diagnostics.isolation import device_beside, undisturbed
from tnml.errors import InputError


@torch.no_grad()
def memorised(
    model: nn.Module,
    x: Tensor,
    noisy_labels: Int64[Tensor, " b"],
    flipped: Bool[Tensor, " b"],
    *,
    batch_size: int = 1000,
) -> float:
    """The fraction of the flipped samples for which the model predicts the noisy label.

    With two classes it is one minus the accuracy on the clean labels of those samples, so a model that has
    memorised nothing scores its error rate, not 0.

    Args:
        model: `[b, ...]` to logits `[b, c]`; it is left as it was.
        x: `[b, ...]` training inputs.
        noisy_labels: `[b]` the labels it was trained with, 0 to c - 1.
        flipped: `[b]` where the noisy label is not the true one.
        batch_size: samples at a time.

    Returns:
        The fraction; NaN where nothing is flipped.

    Raises:
        InputError: the numbers of samples differ, or a shape or dtype is not the expected one.

    Example:
        >>> x, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1, 1])
        >>> memorised(nn.Identity(), x, labels, torch.tensor([True, False, True]))
        0.5
    """
    batch_size = whole("batch_size", batch_size, 1)
    if noisy_labels.dim() != 1 or noisy_labels.dtype != torch.int64:
        raise InputError(
            f"expected noisy labels as an int64 tensor [b], got {noisy_labels.dtype} "
            f"{list(noisy_labels.shape)}"
        )
    if flipped.dtype != torch.bool or flipped.shape != noisy_labels.shape or len(x) != len(noisy_labels):
        raise InputError(
            f"expected one noisy label and one flag (bool) for each of {len(x)} inputs, got "
            f"{len(noisy_labels)} labels and {flipped.dtype} {list(flipped.shape)}"
        )
    n_flipped = int(flipped.sum())
    if not n_flipped:
        return math.nan
    device = device_beside(model, x)
    wrong, labels = x[flipped.to(x.device)], noisy_labels[flipped].to(device)
    learned = 0
    with undisturbed(model):
        for inputs, truth in zip(wrong.split(batch_size), labels.split(batch_size), strict=True):
            learned += int((model(inputs.to(device)).argmax(1) == truth).sum())
    return learned / n_flipped
