"""Compression of any PyTorch module: its dense layers become tensor-train layers where that is smaller."""

import copy
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from tnml.checks import is_number, number, whole
from tnml.contraction import TTShape
from tnml.errors import InputError, choose
from tnml.mps.linalg import truncation_rank
from tnml.nn.tt.compression_report import CompressReport, CompressRow
from tnml.nn.tt.conv import CONVOLUTIONS, kernel_shape, unfit_geometry
from tnml.nn.tt.convert import TTFit
from tnml.nn.tt.factors import MOST_CORES, checked_n_cores, fitting_ranks, matrix_shape
from tnml.nn.tt.linear import TTLinear

_REPLACED: tuple[type[Any], ...] = (nn.Linear, *CONVOLUTIONS)
_HALVINGS = 50  # of the interval of errors in the search for a ratio


class Compressed(NamedTuple):
    """A compressed copy of a model, and the report on its layers.

    Example:
        >>> model, report = compress(nn.Linear(64, 64), rank=2)
        >>> model(torch.rand(5, 64)).shape, report.ratio < 0.2
        (torch.Size([5, 64]), True)
    """

    model: nn.Module
    report: CompressReport


def compress(
    model: nn.Module,
    *,
    max_error: float | None = None,
    ratio: float | None = None,
    rank: int | None = None,
    n_cores: int | None = None,
    min_parameters: int = 4096,
    skip: Collection[str] = (),
    batch: int = 128,
) -> Compressed:
    """A copy of any module whose dense layers and convolutions are tensor-train layers where that is smaller.

    The model itself stays as it is. A layer that appears under several names becomes one layer under the
    same names. Left alone, with the reason in the report, are layers whose weight is parametrised, pruned or
    used elsewhere too, layers with hooks, or with anything of their own that a tensor-train layer would not
    have, subclasses of `nn.Linear`, such as `out_proj` of attention, and layers on the meta device; of the
    convolutions those with groups or a padding of other things than zeros.
    Attributes whose names begin with "_" count as marks of other libraries: they prevent nothing, and are
    not copied.
    Train the copy for a few epochs afterwards, with a learning rate several times that of dense layers: this
    wins back most of what the truncation costs.

    Args:
        model: with `nn.Linear`, `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d` layers somewhere, or one itself.
        max_error: largest relative error |W - W'| / |W| of each layer. Give this, `ratio` or `rank`.
        ratio: parameters of the whole model after, over those before, at most; one error for all layers is
            sought that reaches it.
        rank: largest rank of each layer.
        n_cores: cores of a tensor train, see `TTLinear`.
        min_parameters: smaller layers are left.
        skip: names of layers to leave; the name of a module stands for all layers in it.
        batch: samples that come at a time, for the floating point operations in the report.

    Raises:
        InputError: not exactly one limit is given, one is out of range, the ratio cannot be reached, a name
            in `skip` is unknown, or `model` is not a module, has parameters without a size yet, or cannot be
            copied.

    Cost: for each layer the singular values of its n_cores - 1 unfoldings and one TT-SVD.

    Source: Novikov et al., Tensorizing neural networks, arXiv 1509.06569. The choice of the layers and of
    one error for a ratio is our own.

    Example:
        >>> model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
        >>> smaller, report = compress(model, ratio=0.2)
        >>> report.ratio <= 0.2, type(smaller[0]).__name__, type(smaller[2]).__name__
        (True, 'TTLinear', 'Linear')
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a torch.nn.Module, got {type(model).__name__}")
    _check_limits(max_error, ratio, rank)
    n_cores = checked_n_cores(n_cores)
    batch = whole("batch", batch, 1)
    if not is_number(min_parameters):
        raise InputError(f"min_parameters must be a number, got {min_parameters!r}")
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise InputError("the model has parameters without a size yet; run it once on a batch first")
    total = _n_parameters(model)
    layers = list(_dense_layers(model, skip, min_parameters))
    candidates = [_candidate(layer, n_cores, rank) for layer, _, reason in layers if not reason]
    if ratio is not None:
        max_error = _one_error(candidates, total, ratio)

    fits: dict[nn.Module, TTFit[Any]] = {}
    for candidate in candidates:
        ranks = candidate.ranks(max_error)
        if candidate.size_at(ranks) < candidate.size:
            fits[candidate.layer] = _fitted(candidate.layer, ranks, n_cores)

    # deepcopy looks up here what it has copied already: whatever refers to a layer gets the same new one.
    new = {id(layer): fit.layer for layer, fit in fits.items()}
    try:
        copied = copy.deepcopy(model, new)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"the model cannot be copied: {error}") from error
    rows = tuple(_row(layer, names, reason, fits.get(layer), batch) for layer, names, reason in layers)
    return Compressed(copied, CompressReport(rows, total, _n_parameters(copied)))


class _Candidate(NamedTuple):
    """A dense layer that may be replaced, and what the ranks of its tensor train depend on.

    Attributes:
        layer: the dense layer.
        shape: factors, and the largest ranks asked for.
        spectra: singular values of the unfoldings, descending; none where the ranks are given.
    """

    layer: Any
    shape: TTShape
    spectra: list[Tensor]

    @property
    def size(self) -> int:
        """Parameters of the dense layer."""
        return _n_parameters(self.layer)

    def ranks(self, max_error: float | None) -> tuple[int, ...]:
        """Smallest ranks of a TT-SVD with this error at most: each unfolding may lose an equal part of it.

        None: the ranks asked for.
        """
        if max_error is None:
            return self.shape.ranks
        part = max_error**2 / max(1, len(self.spectra))
        inner = [truncation_rank(s, max_weight=part * float(s.square().sum()))[0] for s in self.spectra]
        sizes = [o * i for o, i in zip(self.shape.outs, self.shape.ins, strict=True)]
        return fitting_ranks(inner, sizes)

    def size_at(self, ranks: tuple[int, ...]) -> int:
        """Parameters of the tensor train with these ranks."""
        bias = 0 if self.layer.bias is None else self.layer.bias.numel()
        return TTShape(self.shape.ins, self.shape.outs, ranks).n_weights + bias


def _fitted(layer: Any, ranks: tuple[int, ...], n_cores: int | None) -> TTFit[Any]:
    """The tensor-train layer of these ranks that takes the place of a dense one."""
    if isinstance(layer, nn.Linear):
        return TTLinear.from_linear(layer, rank=ranks, n_cores=n_cores)
    return CONVOLUTIONS[type(layer)].from_conv(layer, rank=ranks)


def _n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _check_limits(max_error: float | None, ratio: float | None, rank: int | None) -> None:
    given = {"max_error": max_error, "ratio": ratio, "rank": rank}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise InputError(
            f"give one of max_error, ratio and rank, got {' and '.join(named) or 'none of them'}"
        )
    if max_error is not None:
        number("max_error (a relative error)", max_error, least=0.0, below=1.0)
    if rank is not None:
        fitting_ranks(rank, (1, 1))  # says what is wrong with it
    if ratio is not None:
        number("ratio (parameters after over before)", ratio, above=0.0, below=1.0)


def _dense_layers(
    model: nn.Module, skip: Collection[str], min_parameters: float
) -> Iterator[tuple[Any, list[str], str]]:
    """Every dense layer once, with all its names and the reason to leave it ("": none)."""
    modules = dict(model.named_modules(remove_duplicate=False))
    if isinstance(skip, str) or not isinstance(skip, Collection):
        raise InputError(f"skip is a collection of names; write [{skip!r}]")
    left = {id(module) for name in skip for module in choose("layer in skip", name, modules).modules()}
    names: dict[Any, list[str]] = {}
    for name, module in modules.items():
        if isinstance(module, _REPLACED):
            names.setdefault(module, []).append(name)
    shared = _sharing(tensor for module in model.modules() for tensor in _own_tensors(module))
    usual = {kind: frozenset(vars(kind(1, 1, 1, device="meta"))) for kind in _REPLACED}
    for layer, known in names.items():
        reason = "named in skip" if id(layer) in left else _unfit(layer, shared, usual)
        if not reason and (_n_parameters(layer) < min_parameters or not layer.weight.numel()):
            reason = f"fewer than {min_parameters:,} parameters"
        yield layer, known, reason


def _unfit(layer: Any, shared: Collection[int], usual: Mapping[type[nn.Module], Collection[str]]) -> str:
    """Why the layer's weight cannot become a tensor train without changing what the model is.

    Args:
        layer: looked at.
        shared: of the tensors whose numbers others hold too, see `_sharing`.
        usual: the attributes of every layer of a class.
    """
    own = dict(layer.named_parameters(recurse=False))
    if is_parametrized(layer) or "weight" not in own:
        return "its weight is parametrised"
    if type(layer) not in _REPLACED:
        base = next(kind for kind in _REPLACED if isinstance(layer, kind))
        return f"{type(layer).__name__} is a subclass of {base.__name__}"
    held = vars(layer)
    if any(value for name, value in held.items() if name.endswith("_hooks")) or "forward" in held:
        return "it has hooks"  # a forward of its own is one, too
    if any(True for _ in layer.buffers()) or any(True for _ in layer.children()):
        return "it has buffers or modules of its own"
    if not own.keys() <= {"weight", "bias"} or any(
        name not in usual[type(layer)] and not name.startswith("_") for name in held
    ):
        return "it has parameters or attributes of its own"
    if any(tensor.is_meta for tensor in own.values()):
        return "it is on the meta device, without numbers"
    if any(id(tensor) in shared for tensor in own.values()):
        return "its parameters are used elsewhere too"
    if not layer.weight.is_floating_point() or not bool(torch.isfinite(layer.weight).all()):
        return "its weights are not finite real numbers"
    return "" if isinstance(layer, nn.Linear) else unfit_geometry(layer)


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from (tensor for _, tensor in module.named_parameters(recurse=False, remove_duplicate=False))
    yield from (tensor for _, tensor in module.named_buffers(recurse=False, remove_duplicate=False))


def _sharing(tensors: Iterable[Tensor]) -> set[int]:
    """Ids of the tensors whose addresses overlap those of another one, or that come twice.

    Slices of one storage that lie beside each other, as `vector_to_parameters` makes them, share nothing.
    """
    ranges: dict[torch.device, list[tuple[int, int, int]]] = {}
    for tensor in tensors:
        if tensor.numel() and not tensor.is_meta and tensor.layout is torch.strided:
            reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)) + 1
            first = tensor.data_ptr()
            place = first, first + reach * tensor.element_size(), id(tensor)
            ranges.setdefault(tensor.device, []).append(place)
    shared: set[int] = set()
    for places in ranges.values():
        furthest, owner = 0, 0  # the end of what came before, and whose it is
        for first, end, tensor_id in sorted(places):
            if first < furthest:
                shared |= {owner, tensor_id}
            if end > furthest:
                furthest, owner = end, tensor_id
    return shared


def _candidate(layer: Any, n_cores: int | None, rank: int | None) -> _Candidate:
    """The layer with the factors of its tensor train and, unless a rank is given, its singular values."""
    columns, rows_of = _sizes(layer)
    if isinstance(layer, nn.Linear):
        shape = matrix_shape(columns, rows_of, rank or 1, n_cores)
    else:
        shape = kernel_shape(layer.in_channels, layer.kernel_size, rows_of, rank or 1)
    if rank is not None:
        return _Candidate(layer, shape, [])
    weight = layer.weight.detach().flatten(1).double()
    padded = functional.pad(weight, (0, shape.in_size - weight.shape[1], 0, shape.out_size - weight.shape[0]))
    order = [axis for k in range(shape.n_cores) for axis in (k, shape.n_cores + k)]
    legs = padded.reshape(*shape.outs, *shape.ins).permute(order)
    rows = [math.prod(shape.outs[:k]) * math.prod(shape.ins[:k]) for k in range(1, shape.n_cores)]
    return _Candidate(layer, shape, [torch.linalg.svdvals(legs.reshape(n, -1)).cpu() for n in rows])


def _one_error(candidates: Sequence[_Candidate], total: int, ratio: float) -> float:
    """The smallest error for all layers at which the model's parameters are at most `ratio * total`.

    It is the bound that the ranks are chosen by, and may be above 1 where layers have three cores or more.
    """
    others = total - sum(candidate.size for candidate in candidates)

    def reached(error: float) -> float:
        sizes = (min(c.size, c.size_at(c.ranks(error))) for c in candidates)
        return (others + sum(sizes)) / max(1, total)

    low, high = 0.0, math.sqrt(MOST_CORES)  # at this bound every rank is 1
    if reached(high) > ratio:
        raise InputError(
            f"ratio {ratio} cannot be reached: all layers that may be replaced have rank 1 at "
            f"{math.ceil(reached(high) * 1e4) / 1e4:.4f}; give a larger ratio, or a smaller min_parameters"
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) <= ratio else (middle, high)
    return high


def _sizes(layer: Any) -> tuple[int, int]:
    """Columns and rows of the matrix of a layer: what one output is a sum over, and how many outputs."""
    rows = layer.weight.shape[0]
    return layer.weight.numel() // max(1, rows), rows


def _row(layer: Any, names: Sequence[str], reason: str, fit: TTFit[Any] | None, batch: int) -> CompressRow:
    size, (columns, rows) = _n_parameters(layer), _sizes(layer)
    dense_flops = 2 * columns * rows
    return CompressRow(
        name=names[0],
        also=tuple(names[1:]),
        in_features=columns,
        out_features=rows,
        shape=fit.layer.shape if fit else None,
        parameters_before=size,
        parameters_after=fit.layer.n_parameters if fit else size,
        flops_before=dense_flops,
        flops_after=flops_per_sample(fit.layer.shape, batch) if fit else dense_flops,
        error=fit.error if fit else 0.0,
        reason=reason or ("" if fit else "a tensor train is no smaller"),
    )


def flops_per_sample(shape: TTShape, batch: int) -> int:
    """Floating point operations that a tensor train needs for one sample of a batch, biases left out.

    The least of three: the inputs meet the cores one by one from the left or from the right, or the matrix is
    made first, once for the batch. A multiplication and its addition count as two.

    Example:
        >>> flops_per_sample(TTShape((16, 16), (16, 16), (1, 2, 1)), batch=128)
        32768
    """
    ins, outs, ranks = shape.ins, shape.outs, shape.ranks
    from_left = from_right = making = 0
    for k in range(shape.n_cores):
        core = ranks[k] * outs[k] * ranks[k + 1]
        from_left += math.prod(outs[:k]) * core * math.prod(ins[k:])
        from_right += math.prod(ins[: k + 1]) * core * math.prod(outs[k + 1 :])
        making += math.prod(outs[:k]) * math.prod(ins[:k]) * core * ins[k] if k else 0
    return 2 * min(from_left, from_right, shape.in_size * shape.out_size + -(-making // batch))
