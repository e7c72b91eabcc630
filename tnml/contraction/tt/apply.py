"""A tensor-train matrix times a batch of vectors, by the plan that costs least."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Num
from torch import Tensor
from torch.nn import functional

from tnml.contraction.transforms import traced, transformed
from tnml.contraction.tt.core_by_core import Walk, step_matrices, walk_plainly, walk_steps
from tnml.contraction.tt.costs import NETWORKS, Plan
from tnml.contraction.tt.matrix import multiply_cores
from tnml.contraction.tt.network import contract_in_order
from tnml.contraction.tt.plans import checked_plan, choose_plan
from tnml.contraction.tt.rates import rates_of
from tnml.contraction.tt.shape import TTShape
from tnml.contraction.tt.slices import Slices, halves, whole_matrix
from tnml.contraction.tt.trials import kept_plan
from tnml.errors import InputError
from tnml.torch_private import constant_in_graphs, dispatch_mode_at_work

COMPILED_BATCH = (
    1024  # torch.compile takes the plan for this number of samples, whatever their number turns out to be
)


def tt_linear(
    x: Num[Tensor, "b i"],
    cores: Sequence[Tensor],
    bias: Num[Tensor, " o"] | None = None,
    *,
    out_features: int | None = None,
    plan: str | Plan = "auto",
    shape: TTShape | None = None,
) -> Num[Tensor, "b o"]:
    """`x W^T + bias` for a tensor-train matrix W, by the plan that costs least.

    "auto" estimates all plans and times the best few, once for each shape on a machine; see `kept_plan`.

    Args:
        x: inputs; where there are fewer than W has columns, the missing ones at the end count as zeros.
        cores: `(l, o, i, r)`, outer ranks 1.
        bias: added to the outputs.
        out_features: how many outputs are wanted, the first ones; None: all.
        plan: "auto"; one of "dense", "slices", "left", "right", "middle" and "path"; or one that `tt_plans`
            made for a matrix of as many cores.
        shape: that of the cores, where it is known already.

    Raises:
        InputError: cores, inputs and bias do not fit, or the plan is unknown.

    Cost: that of the plan; "auto" takes none whose estimated memory is 8 % above the dense layer's, where
    another needs less. From core to core b i o_k r_(k-1) r_k multiplications each; rebuilding W i o r, r the
    rank between its halves, plus the dense product.

    Example:
        >>> cores = [torch.ones(1, 2, 3, 4), torch.ones(4, 5, 2, 1)]
        >>> tt_linear(torch.ones(1, 5), cores, out_features=3)
        tensor([[20., 20., 20.]])
    """
    if shape is None:
        shape = TTShape.of_cores(cores)
    if x.dim() != 2:
        raise InputError(f"expected inputs [b, {shape.in_size}], got {list(x.shape)}")
    batch, given = x.shape
    wanted = shape.out_size if out_features is None else out_features
    _check(x, cores, bias, shape, wanted)
    gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *cores))
    compiling = traced()
    by_hand = not (
        compiling
        or x.is_meta
        or torch.is_autocast_enabled(x.device.type)
        or x.dtype.is_complex
        or transformed(x, *cores)
    )
    if isinstance(plan, Plan):
        checked_plan(plan, shape.n_cores)
        found = plan
    else:
        samples, threads = (COMPILED_BATCH, 1) if compiling else (_rounded(batch), torch.get_num_threads())
        settings = plan, x.device, x.dtype, gradient, threads, by_hand
        found = _plan(shape.ins, shape.outs, shape.ranks, samples, *settings)
    if found.name == "dense":
        weight = multiply_cores(cores).view(shape.out_size, shape.in_size)
        if weight.shape != (wanted, given):
            weight = weight[:wanted, :given]
        return functional.linear(x, weight, bias)
    if given < shape.in_size:
        x = functional.pad(x, (0, shape.in_size - given))
    y = _product(x, list(cores), shape, found, by_hand)
    if wanted < shape.out_size:
        y = y[:, :wanted]
    return y if bias is None else y + bias.to(y.dtype)


def _rounded(batch: int) -> int:
    """The number of samples planned for: rounded up to four binary digits, as every number costs a search."""
    step = 1 << max(0, batch.bit_length() - 4)
    return max(1, -(-batch // step) * step)


@constant_in_graphs
def _plan(*question: Any) -> Plan:
    """The plan; torch.compile takes the result of this function without tracing into it."""
    return _kept_plan(*question)


def _kept_plan(*question: Any) -> Plan:
    """The plan, searched for once; what is seen while nothing is computed is not remembered."""
    if dispatch_mode_at_work():
        return _found_plan.__wrapped__(*question)
    return _found_plan(*question)


@functools.lru_cache(maxsize=4096)
def _found_plan(
    ins: tuple[int, ...],
    outs: tuple[int, ...],
    ranks: tuple[int, ...],
    batch: int,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    gradient: bool,
    threads: int,
    by_hand: bool,
) -> Plan:
    """The plan: one by name by its estimate, the best one by a trial."""
    shape = TTShape(ins, outs, ranks)
    measurable = device.type in ("cpu", "cuda") and dtype in (torch.float32, torch.float64)
    if name != "auto" or not measurable or dispatch_mode_at_work():
        return choose_plan(shape, batch, name, dtype.itemsize, gradient, rates_of(device, dtype))
    captured = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    attempt = _trial(shape, batch, dtype, device, gradient) if by_hand and not captured else None
    return kept_plan(shape, batch, dtype, device, gradient, threads, attempt)


def _trial(
    shape: TTShape, batch: int, dtype: torch.dtype, device: torch.device, gradient: bool
) -> Callable[[Plan], object]:
    """A function that computes such a product by a plan, and its gradients where they are wanted."""
    sizes = zip(shape.ranks, shape.outs, shape.ins, shape.ranks[1:], strict=False)
    settings: dict[str, Any] = {"dtype": dtype, "device": device, "requires_grad": gradient}
    operands: list[Tensor] = []

    def attempt(plan: Plan) -> None:
        # The caller's hooks (checkpointing of activations counts what is kept) are none of its business.
        hooks = torch.autograd.graph.saved_tensors_hooks(_itself, _itself)
        with torch.inference_mode(False), torch.set_grad_enabled(gradient), hooks:
            if not operands:  # made when first needed; small, for products of many must not overflow
                operands.append(torch.full((batch, shape.in_size), 0.5, **settings))
                operands.extend(torch.full(size, 0.1, **settings) for size in sizes)
            y = tt_linear(operands[0], operands[1:], plan=plan, shape=shape)
            if gradient:
                torch.autograd.grad(y, operands, torch.ones_like(y))

    return attempt


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _product(x: Tensor, cores: list[Tensor], shape: TTShape, plan: Plan, by_hand: bool) -> Tensor:
    """`x W^T` without padding and bias."""
    if plan.name in NETWORKS:
        return contract_in_order(x, cores, plan.order)
    ends = tuple(itertools.accumulate(plan.groups, initial=0))
    if plan.name == "slices":
        a, s = halves(cores, plan.groups[0])
        if by_hand:
            sliced: Tensor = Slices.apply(x, a, s, plan.chunk, plan.keep)  # type: ignore[no-untyped-call]
            return sliced
        return x @ whole_matrix(a, s).t()
    if len(plan.groups) < len(cores):
        cores = [multiply_cores(cores[first:end]) for first, end in itertools.pairwise(ends)]
        shape = TTShape.of_cores(cores)
    left = plan.name == "left"
    rest = [c for *_, c in walk_steps(shape, left=left)]
    matrices = step_matrices(cores, left=left)
    if by_hand:
        walked: Tensor = Walk.apply(x, plan.chunk, plan.keep, rest, *matrices)  # type: ignore[no-untyped-call]
        return walked
    return walk_plainly(x, rest, matrices)


def _check(x: Tensor, cores: Sequence[Tensor], bias: Tensor | None, shape: TTShape, wanted: int) -> None:
    given = x.shape[1]
    if not 0 <= given <= shape.in_size:
        raise InputError(f"expected inputs [b, {shape.in_size}] or fewer, got {list(x.shape)}")
    if not 0 < wanted <= shape.out_size:
        raise InputError(f"out_features must lie in 1 to {shape.out_size}, got {wanted}")
    if bias is not None and bias.shape != (wanted,):
        raise InputError(f"expected a bias of {wanted} numbers, got {list(bias.shape)}")
    mixed = not x.is_meta and torch.is_autocast_enabled(x.device.type)  # autocast brings the dtypes together
    for tensor in (*cores, *([] if bias is None else [bias])):
        if tensor.device != x.device or (tensor.dtype != x.dtype and not mixed):
            raise InputError(
                f"inputs are {x.dtype} on {x.device}, a core or the bias {tensor.dtype} on {tensor.device}; "
                "convert one of them"
            )
