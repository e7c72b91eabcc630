"""A chain with its label core: what a layer computes from features, as one autograd function in eager mode.

The graph that autograd would build of the few small products around the label core takes longer to build and
to walk through than a short chain takes to compute. The function below calls the same operators in the same
order, forward and backward, so its numbers are those of the graph to the last bit.
"""

from typing import Any

import torch
from torch import Tensor

from tnml.contraction.chain.operator import adjoint_of, chain_flat, check_chain, evaluate
from tnml.contraction.chain.reference import reference_chain
from tnml.contraction.chain.shape import ChainShape
from tnml.contraction.transforms import plain, transformed
from tnml.errors import InputError


def labelled_chain(
    features: Tensor, weight: Tensor, label: Tensor, shape: ChainShape, engine: str = "auto"
) -> tuple[Tensor, Tensor]:
    """`value [b, c]` and `exponent [b]` of a chain with a label core; the outputs are `value * 2^exponent`.

        value[b, c] = sum_lr left[b, l] label[l, c, r] right[b, r]

    Args:
        features: `[b, n, d]`, same dtype and device as `weight`.
        weight: `[shape.n_weights]`.
        label: `(l, c, r)`.
        shape: bonds and label site.
        engine: see `chain`.

    Raises:
        InputError: shapes, dtypes or devices disagree, or the engine cannot take them.

    Cost: that of `chain_flat`, and l c r + c r multiply-adds per sample.

    Example:
        >>> shape = ChainShape(2, (1, 2), (2, 1))
        >>> value, exponent = labelled_chain(torch.ones(3, 2, 2), torch.ones(8), torch.ones(2, 5, 2), shape)
        >>> value.shape, exponent.shape, value[0, 0]
        (torch.Size([3, 5]), torch.Size([3]), tensor(16.))
    """
    check_chain(features, weight, shape, engine)
    if label.dtype != weight.dtype or label.device != weight.device:
        raise InputError(
            f"the label core is {label.dtype} on {label.device}, weights {weight.dtype} on {weight.device}; "
            "convert one of them"
        )
    wanted = features.requires_grad or weight.requires_grad or label.requires_grad
    if (
        engine != "reference"
        and wanted
        and torch.is_grad_enabled()
        and plain(features, weight, label)
        and not (weight.is_complex() or transformed(features, weight, label))
    ):
        found = _Labelled.apply(features, weight, label, shape, engine)  # type: ignore[no-untyped-call]
        return found[0], found[1]
    left, right, exponent = chain_flat(features, weight, shape, engine)
    return _value(left, right, label), exponent.sum(0)


def _value(left: Tensor, right: Tensor, label: Tensor) -> Tensor:
    both = (left @ label.reshape(label.shape[0], -1)).view(-1, label.shape[1], label.shape[2])
    return torch.bmm(both, right.unsqueeze(-1)).squeeze(-1)


class _Labelled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, label: Tensor, shape: ChainShape, engine: str
    ) -> tuple[Tensor, Tensor]:
        keep = 2 if features.requires_grad else 1
        left, right, exponent, *state = evaluate(features, weight, shape, engine, keep)
        both = (left @ label.reshape(label.shape[0], -1)).view(-1, label.shape[1], label.shape[2])
        value = torch.bmm(both, right.unsqueeze(-1)).squeeze(-1)
        ctx.shape, ctx.engine = shape, engine
        ctx.save_for_backward(features, weight, label, left, right, exponent, both, *state)
        total = exponent.sum(0)
        ctx.mark_non_differentiable(total)
        ctx.set_materialize_grads(False)
        return value, total

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor | None, _: None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        if gradient is None:
            return None, None, None, None, None
        features, weight, label, left, right, exponent, both, *state = ctx.saved_tensors
        if torch.is_grad_enabled() or transformed(gradient):
            wanted = ctx.needs_input_grad[:3]
            found = _differentiable(gradient, (features, weight, label), exponent, ctx.shape, wanted)
            return found[0], found[1], found[2], None, None
        column = gradient.unsqueeze(-1)
        of_right = both.mT.bmm(column).squeeze(-1)
        of_both = column.bmm(right.unsqueeze(-1).mT).flatten(1)
        matrix = label.reshape(label.shape[0], -1)
        of_left = matrix.mm(of_both.t()).t() if _by_columns(left) else of_both.mm(matrix.t())
        of_label = of_both.t().mm(left).t() if _by_columns(matrix) else left.t().mm(of_both)
        both_wanted = ctx.needs_input_grad[0]
        incoming = of_left, of_right
        of_weight, of_features = adjoint_of(
            incoming, features, weight, ctx.shape, ctx.engine, state, both_wanted
        )
        return of_features, of_weight, of_label.reshape(label.shape), None, None


def _by_columns(matrix: Tensor) -> bool:
    """Whether autograd takes a matrix column by column in the product that gives its gradient."""
    return matrix.stride() == (1, matrix.shape[0])


def _differentiable(
    gradient: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor],
    exponent: Tensor,
    shape: ChainShape,
    wanted: tuple[bool, ...],
) -> list[Tensor | None]:
    """The gradients through the reference recurrence, so that they can be differentiated again."""
    with torch.enable_grad():
        own = [t.view_as(t) for t in inputs]  # else one that depends on another would count twice
        features, weight, label = own
        left, right, powers = reference_chain(features, weight, shape)
        factor = torch.exp2(powers - exponent).unsqueeze(-1).to(left.dtype)
        value = _value(left * factor[0], right * factor[1], label)
        asked = [t for t, wish in zip(own, wanted, strict=True) if wish]
        found = iter(torch.autograd.grad(value, asked, gradient, create_graph=True, materialize_grads=True))
    return [next(found) if wish else None for wish in wanted]
