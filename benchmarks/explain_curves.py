"""Insertion and deletion: how soon the probability of a class rises or falls along an order of the pixels.

Deletion replaces the pixels of the largest contributions first by the mean of the background; insertion
starts from the mean and puts them back first. An order that knows what matters has a small area under the
first curve and a large one under the second. Source: Petsiuk, Das and Saenko, arXiv 1806.07421.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.explain_samplers import ROWS, SEED, KernelRegression, paired_coalitions
from tnml.explain import shapley
from tnml.nn import MPSLayer

KERNEL = 4096  # evaluations of KernelSHAP for an image


def areas(
    layer: MPSLayer, x: Tensor, mean: Tensor, steps: int, evaluations: int = KERNEL
) -> Iterator[tuple[str, dict[str, Any]]]:
    """For each method its name and the mean areas under both curves, with their standard errors.

    Every method explains the output of the predicted class minus the mean of the others: like a probability,
    it stays the same if all outputs grow by the same number.

    Args:
        layer: a trained classifier.
        x: `[b, n]` images.
        mean: `[n]` mean of the background.
        steps: pixels change in this many parts of equal size.
        evaluations: of KernelSHAP, the same coalitions for all images.
    """
    with torch.no_grad():
        chosen = layer(x).argmax(1)
    methods: dict[str, Callable[[], Tensor]] = {
        "exact Shapley": lambda: _exact(layer, x, mean, chosen),
        "gradients x input": lambda: _gradients(layer, x, chosen),
        "KernelSHAP": lambda: _sampled(layer, x, mean, chosen, evaluations),
        "random": lambda: torch.rand(x.shape, generator=torch.Generator().manual_seed(SEED)),
    }
    for name, method in methods.items():
        order = method().argsort(dim=1, descending=True, stable=True)
        yield (
            name,
            {
                kind: _area(layer, x, mean, chosen, order, steps, insert=kind == "insertion")
                for kind in ("insertion", "deletion")
            },
        )


def _margins(outputs: int) -> Tensor:
    """Columns `[c, c]`: each output minus the mean of the others."""
    return (torch.eye(outputs) - 1 / outputs) * outputs / (outputs - 1)


def _exact(layer: MPSLayer, x: Tensor, mean: Tensor, chosen: Tensor) -> Tensor:
    found = shapley(layer, x, mean.unsqueeze(0), _margins(layer.out_features))
    return found.values[torch.arange(len(x)), :, chosen]


def _gradients(layer: MPSLayer, x: Tensor, chosen: Tensor) -> Tensor:
    rows = x.clone().requires_grad_()
    margins = layer(rows) @ _margins(layer.out_features)
    (slope,) = torch.autograd.grad(margins.gather(1, chosen.unsqueeze(1)).sum(), rows)
    return slope * x


def _sampled(layer: MPSLayer, x: Tensor, mean: Tensor, chosen: Tensor, evaluations: int) -> Tensor:
    rng = np.random.default_rng(SEED)
    regression = KernelRegression(paired_coalitions(x.shape[1], evaluations - 2, rng))
    inside = torch.from_numpy(regression.coalitions)
    margins = _margins(layer.out_features)
    found = []
    with torch.no_grad():
        for image, place in zip(x, chosen.tolist(), strict=True):
            column = margins[:, place]
            rows = [torch.where(some, image, mean) for some in inside.split(ROWS)]
            values = torch.cat([layer(some) @ column for some in rows]).double().numpy()
            none, every = (layer(torch.stack([mean, image])) @ column).double().tolist()
            found.append(torch.from_numpy(regression.values(values, none, every)))
    return torch.stack(found)


@torch.no_grad()
def _area(
    layer: MPSLayer, x: Tensor, mean: Tensor, chosen: Tensor, order: Tensor, steps: int, *, insert: bool
) -> dict[str, float]:
    """The mean area under the curve of the probability, and its standard error over the images."""
    rank = order.argsort(1)
    pixels = x.shape[1]
    curve = []
    for step in range(steps + 1):
        changed = rank < round(step * pixels / steps)
        images = torch.where(changed, x, mean) if insert else torch.where(changed, mean, x)
        curve.append(layer(images).softmax(1).gather(1, chosen.unsqueeze(1)).squeeze(1).double())
    each = torch.stack(curve)
    area = (each[1:] + each[:-1]).mean(0) / 2
    return {"mean": float(area.mean()), "standard_error": float(area.std() / len(x) ** 0.5)}
