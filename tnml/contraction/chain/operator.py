"""The batched chain: one operator, two engines, hand-written adjoint.

Everything that evaluates a matrix product state on a batch goes through `chain_flat`. It is registered with
`torch.library` as `tnml::chain`, so `torch.compile` keeps it whole; its adjoint is `tnml::chain_backward`.
In eager mode the same functions are called without the registry, which takes longer than a short chain.
Double backward, `torch.func` transforms and forward-mode differentiation run the reference recurrence.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tnml.contraction.chain import fork, kernels_torch  # noqa: F401 (fork: its hook has to be there early)
from tnml.contraction.chain.loading import native_engine
from tnml.contraction.chain.reference import reference_chain
from tnml.contraction.chain.scanned import scanned_chain
from tnml.contraction.chain.shape import ChainShape
from tnml.contraction.transforms import plain, transformed
from tnml.errors import InputError, choose
from tnml.shapes import check_cores

ENGINES = ("auto", "torch", "native", "reference")


class ChainValue(NamedTuple):
    """What the two half chains deliver at the label site.

    Attributes:
        left: `[b, l]`, the left half's vectors, each near norm 1 by a power of two.
        right: `[b, r]`, likewise.
        exponent: `[2, b]`; the true vectors are `left * 2**exponent[0]` and `right * 2**exponent[1]`. It is
            constant almost everywhere and carries no gradient.
    """

    left: Tensor
    right: Tensor
    exponent: Tensor

    @property
    def log_scale(self) -> Tensor:
        """Natural logarithm `[b]` of the scale of left times right."""
        return self.exponent.sum(0) * math.log(2)


def chain(
    features: Tensor, cores: Sequence[Tensor], *, label_site: int | None = None, engine: str = "auto"
) -> ChainValue:
    """The batch's half chains from both ends to the label site.

        1 - A - .. - A - left     right - A - .. - A - 1
            |        |                    |        |
            f        f                    f        f

    Args:
        features: `[b, n, d]`.
        cores: n cores `(l, d, r)`; the bonds on the two sides of the label site may differ (a label core
            fits there).
        label_site: number of cores left of the label site; None takes the middle.
        engine: "auto" (the native engine for float32 on the CPU, else torch), "torch", "native", "reference".

    Raises:
        InputError: the cores do not fit each other or the features, or the engine cannot take them.

    Cost: n d chi^2 multiply-adds a sample; with the gradient three times that. Memory: the vectors that
    enter every site, n b chi numbers, when a gradient is asked for.

    Example:
        >>> cores = [torch.ones(1, 2, 2), torch.ones(2, 2, 2), torch.ones(2, 2, 2), torch.ones(2, 2, 1)]
        >>> value = chain(torch.ones(3, 4, 2), cores)
        >>> value.left[0], value.log_scale
        (tensor([8., 8.]), tensor([0., 0., 0.]))
    """
    label = len(cores) // 2 if label_site is None else label_site
    if not 0 <= label <= len(cores):
        raise InputError(f"label_site must lie in 0 to {len(cores)} (the number of cores), got {label}")
    if label:
        check_cores(cores[:label], right=None)
    if label < len(cores):
        check_cores(cores[label:], left=None)
    if not cores or cores[0].shape[1] != cores[-1].shape[1]:
        raise InputError("expected cores of one physical dimension, at least one")
    shape = ChainShape(
        cores[0].shape[1],
        (1, *(core.shape[2] for core in cores[:label])),
        (*(core.shape[0] for core in cores[label:]), 1),
    )
    return chain_flat(features, shape.join([core.transpose(0, 1) for core in cores]), shape, engine)


def chain_flat(features: Tensor, weight: Tensor, shape: ChainShape, engine: str = "auto") -> ChainValue:
    """`chain` for cores that lie in one flat vector, as `MPSLayer` keeps them; no copy is made.

    Args:
        features: `[b, n, d]`, same dtype and device as `weight`.
        weight: `[shape.n_weights]`.
        shape: bonds and label site.
        engine: see `chain`.

    Raises:
        InputError: shapes, dtypes or devices disagree, or the engine cannot take them.

    Example:
        >>> shape = ChainShape(2, (1, 2), (2, 1))
        >>> chain_flat(torch.ones(3, 2, 2), torch.ones(8), shape).right.shape
        torch.Size([3, 2])
    """
    check_chain(features, weight, shape, engine)
    if engine == "reference" or transformed(features, weight):
        return ChainValue(*reference_chain(features, weight, shape))
    if torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export():
        return ChainValue(*scanned_chain(features, weight, shape))
    keep = 0
    if torch.is_grad_enabled() and (features.requires_grad or weight.requires_grad):
        keep = 2 if features.requires_grad else 1
    if not plain(features, weight):
        left, right, exponent, *_ = torch.ops.tnml.chain(features, weight, shape.key, engine, keep)
    elif keep:
        found = _Eager.apply(features, weight, shape, engine, keep)  # type: ignore[no-untyped-call]
        left, right, exponent = found
    else:
        left, right, exponent, *_ = evaluate(features, weight, shape, engine, keep)
    return ChainValue(left, right, exponent)


def check_chain(features: Tensor, weight: Tensor, shape: ChainShape, engine: str) -> None:
    """Raises unless these are features and weights of such a chain, and the engine can take them.

    Raises:
        InputError: shapes, dtypes or devices disagree, or the engine is unknown or cannot take them.

    Example:
        >>> check_chain(torch.ones(3, 2, 2), torch.ones(8), ChainShape(2, (1, 2), (2, 1)), "auto")
    """
    if engine not in ENGINES:
        choose("engine", engine, dict.fromkeys(ENGINES))
    if engine == "native" and (weight.device.type != "cpu" or weight.dtype != torch.float32):
        raise InputError(
            f"the native engine takes float32 on the CPU, got {weight.dtype} on {weight.device}; "
            'use engine="torch" or "auto"'
        )
    if features.dim() != 3 or tuple(features.shape[1:]) != (shape.n_sites, shape.physical):
        raise InputError(
            f"expected features [b, {shape.n_sites}, {shape.physical}] for this chain, "
            f"got {list(features.shape)}"
        )
    if weight.shape != (shape.n_weights,):
        raise InputError(f"expected {shape.n_weights} weights in one vector, got {list(weight.shape)}")
    if features.dtype != weight.dtype or features.device != weight.device:
        raise InputError(
            f"features are {features.dtype} on {features.device}, weights {weight.dtype} on {weight.device}; "
            "convert one of them"
        )


def _runs_native(engine: str, weight: Tensor) -> bool:
    """Whether the native engine runs: asked for or suitable, and available."""
    fits = weight.device.type == "cpu" and weight.dtype == torch.float32
    return engine != "torch" and fits and native_engine() is not None


@torch.library.custom_op("tnml::chain", mutates_args=())
def _chain_op(features: Tensor, weight: Tensor, key: str, engine: str, keep: int) -> list[Tensor]:
    """`left, right, exponent`, what the backward needs (`keep` 0: nothing, 1: weights, 2: features too)."""
    return list(evaluate(features, weight, ChainShape.from_key(key), engine, keep))


def evaluate(
    features: Tensor, weight: Tensor, shape: ChainShape, engine: str, keep: int
) -> tuple[Tensor, ...]:
    """What the operator returns, by a direct call.

    Example:
        >>> shape = ChainShape(2, (1, 2), (2, 1))
        >>> len(evaluate(torch.ones(3, 2, 2), torch.ones(8), shape, "auto", 0))
        4
    """
    features, weight = features.detach(), weight.detach()
    if _runs_native(engine, weight):
        found: tuple[Tensor, ...] = _native().forward(*_stored(features, weight.contiguous()), shape, keep)
        return found
    return kernels_torch.forward(features, weight, shape, keep > 0)


@torch.library.custom_op("tnml::chain_backward", mutates_args=())
def _backward_op(
    gradients: list[Tensor],
    features: Tensor,
    weight: Tensor,
    key: str,
    engine: str,
    state: list[Tensor],
    both: bool,
) -> list[Tensor]:
    """Gradient of the weights and, if `both`, of the features."""
    found = adjoint_of(gradients, features, weight, ChainShape.from_key(key), engine, state, both)
    return [gradient for gradient in found if gradient is not None]


def adjoint_of(
    gradients: Sequence[Tensor],
    features: Tensor,
    weight: Tensor,
    shape: ChainShape,
    engine: str,
    state: Sequence[Tensor],
    both: bool,
) -> tuple[Tensor, Tensor | None]:
    """The gradients of the weights and, if `both`, of the features, by a direct call.

    Example:
        >>> shape, features, weight = ChainShape(2, (1, 2), (2, 1)), torch.ones(3, 2, 2), torch.ones(8)
        >>> left, right, _, *state = evaluate(features, weight, shape, "torch", 1)
        >>> adjoint_of([left, right], features, weight, shape, "torch", state, False)[0].shape
        torch.Size([8])
    """
    left, right = gradients
    if _runs_native(engine, weight):
        stored = _stored(left, right, features, weight.contiguous())
        found: tuple[Tensor, Tensor | None] = _native().backward(*stored, shape, state[0], both)
        return found
    return kernels_torch.backward((left, right), features, weight, shape, state[0], both)


def _stored(*tensors: Tensor) -> list[Tensor]:
    """Tensors whose memory holds their values: a lazily negated one is written out."""
    return [tensor.resolve_neg() for tensor in tensors]


def _native() -> Any:
    module = native_engine()
    if module is None:
        raise RuntimeError("the native engine was chosen but cannot be loaded")
    return module


@_chain_op.register_fake
def _chain_fake(features: Tensor, weight: Tensor, key: str, engine: str, keep: int) -> list[Tensor]:
    shape, batch = ChainShape.from_key(key), features.shape[0]
    left, right = features.new_empty(batch, shape.left[-1]), features.new_empty(batch, shape.right[0])
    exponent = torch.empty(2, batch, dtype=weight.real.dtype, device=weight.device)
    if _runs_native(engine, weight):
        size = _native().Sizes.of(shape, batch, keep).state
    else:
        size = kernels_torch.saved_size(shape, batch) if keep else 0
    return [left, right, exponent, features.new_empty(size)]


@_backward_op.register_fake
def _backward_fake(
    gradients: list[Tensor],
    features: Tensor,
    weight: Tensor,
    key: str,
    engine: str,
    state: list[Tensor],
    both: bool,
) -> list[Tensor]:
    return [weight.new_empty(weight.shape)] + ([features.new_empty(features.shape)] if both else [])


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor], ends: int = 4) -> None:
    """`ends`: how many of these outputs the function has for autograd."""
    features, weight, ctx.shape, ctx.engine, _ = inputs  # the shape itself, or its key
    ctx.save_for_backward(features, weight, *output[2:])
    ctx.mark_non_differentiable(*output[2:ends])
    ctx.set_materialize_grads(False)  # else zeros as large as the saved vectors are made


def _differentiate(
    ctx: Any, gradients: Sequence[Tensor | None]
) -> tuple[Tensor | None, Tensor | None, None, None, None]:
    features, weight, exponent, *state = ctx.saved_tensors
    shape = ChainShape.from_key(ctx.shape) if isinstance(ctx.shape, str) else ctx.shape
    both = ctx.needs_input_grad[0]
    ends = shape.left[-1], shape.right[0]
    incoming = [
        features.new_zeros(features.shape[0], bond) if g is None else g
        for g, bond in zip(gradients[:2], ends, strict=True)
    ]
    if torch.is_grad_enabled() or transformed(*incoming):
        wanted = ctx.needs_input_grad[:2]
        of_both = _differentiable_backward(incoming, features, weight, exponent, shape, wanted)
        return of_both[0], of_both[1], None, None, None
    if plain(*incoming, features, weight):
        of_weight, of_features = adjoint_of(incoming, features, weight, shape, ctx.engine, state, both)
        return of_features, of_weight, None, None, None
    found = torch.ops.tnml.chain_backward(incoming, features, weight, shape.key, ctx.engine, state, both)
    return found[1] if both else None, found[0], None, None, None


class _Eager(torch.autograd.Function):
    """`tnml::chain` by way of a function of autograd alone."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, shape: ChainShape, engine: str, keep: int
    ) -> tuple[Tensor, ...]:
        found = evaluate(features, weight, shape, engine, keep)
        _keep_for_backward(ctx, (features, weight, shape, engine, keep), found, 3)
        return found[:3]

    @staticmethod
    def backward(
        ctx: Any, *gradients: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        return _differentiate(ctx, gradients)


def _differentiable_backward(
    gradients: list[Tensor],
    features: Tensor,
    weight: Tensor,
    exponent: Tensor,
    shape: ChainShape,
    wanted: tuple[bool, bool],
) -> list[Tensor | None]:
    """The adjoint through the reference recurrence, so that it can be differentiated again."""
    with torch.enable_grad():
        own = [t.view_as(t) for t in (features, weight)]  # else one that depends on the other counts twice
        left, right, powers = reference_chain(own[0], own[1], shape)
        factor = torch.exp2(powers - exponent).unsqueeze(-1).to(left.dtype)
        outputs = [left * factor[0], right * factor[1]]
        inputs = [t for t, want in zip(own, wanted, strict=True) if want]
        live = [(o, g) for o, g in zip(outputs, gradients, strict=True) if o.requires_grad]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in live], inputs, [g for _, g in live], create_graph=True, materialize_grads=True
            )
        )
    return [next(found) if want else None for want in wanted]


_chain_op.register_autograd(_differentiate, setup_context=_keep_for_backward)
