"""Sums over chunks of paths whose gradients are taken chunk by chunk, in bounded memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tnml.pde.paths.simulation import Paths


def sum_over_chunks(
    of_part: Callable[[Paths], Tensor], paths: Paths, size: int, parameters: Sequence[Tensor]
) -> Tensor:
    """The sum of `of_part` over chunks of `size` paths, a scalar.

    The gradients with respect to `parameters` are those of the whole sum, to rounding. If gradients are
    enabled, each chunk is differentiated as soon as it is computed, so that the graph of one chunk is held at
    a time and nothing is computed twice; only the first derivative is then available.

    Args:
        of_part: a scalar for some of the paths.
        paths: all of them.
        size: paths in a chunk.
        parameters: what the sum may be differentiated by.

    Example:
        >>> x = torch.arange(3.0)[:, None, None]
        >>> paths = Paths(times=torch.zeros(1), dt=1.0, x=x, dw=x, sdw=x)
        >>> factor = torch.tensor(2.0, requires_grad=True)
        >>> total = sum_over_chunks(lambda part: factor * part.x.sum(), paths, 2, [factor])
        >>> total.item(), torch.autograd.grad(total, factor)[0].item()
        (6.0, 3.0)
    """
    if size >= len(paths):
        return of_part(paths)
    parts = [paths.part(first, first + size) for first in range(0, len(paths), size)]
    if not (torch.is_grad_enabled() and parameters):
        return torch.stack([of_part(part) for part in parts]).sum()
    total: Tensor = _Summed.apply(of_part, parts, *parameters)  # type: ignore[no-untyped-call]
    return total


class _Summed(torch.autograd.Function):
    """The sum as one node: its forward pass takes the gradients, its backward pass hands them out."""

    @staticmethod
    def forward(
        ctx: Any, of_part: Callable[[Paths], Tensor], parts: list[Paths], *parameters: Tensor
    ) -> Tensor:
        values, sums = [], [torch.zeros_like(p) for p in parameters]
        for part in parts:
            with torch.enable_grad():
                value = of_part(part)
                found = torch.autograd.grad(value, parameters, allow_unused=True)
            for so_far, gradient in zip(sums, found, strict=True):
                if gradient is not None:
                    so_far.add_(gradient)
            values.append(value.detach())
        ctx.save_for_backward(*sums)
        return torch.stack(values).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(of_total * own for own in ctx.saved_tensors)
