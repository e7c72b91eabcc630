"""The implementations that `tt_linear` compares, behind one interface, and the expected float64 answer."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tnml.nn import TTLinear

Setting = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One row of the benchmark: sizes, samples, and the rank between every two cores.

    Attributes:
        name: of the sizes, as `--rows` chooses them.
        ins: factors of the inputs.
        outs: factors of the outputs, as many.
        batch: samples.
        rank: inner rank.
    """

    name: str
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    batch: int
    rank: int

    @property
    def ranks(self) -> tuple[int, ...]:
        """The outer ranks are 1."""
        return (1, *(self.rank for _ in self.ins[1:]), 1)

    @property
    def n_weights(self) -> int:
        """Numbers in the cores, without the bias."""
        pairs = itertools.pairwise(self.ranks)
        return sum(l * o * i * r for (l, r), o, i in zip(pairs, self.outs, self.ins, strict=True))


@dataclass(frozen=True)
class Instance:
    """The numbers of one case, all float64.

    Attributes:
        case: the sizes.
        cores: `(l, o, i, r)`, so that outputs of inputs of variance 1 have variance 1.
        bias: `[o]`.
    """

    case: Case
    cores: list[Tensor]
    bias: Tensor

    def weight(self) -> Tensor:
        """The dense matrix `[o, i]`, by one einsum over all cores."""
        return dense(self.cores)


@dataclass(frozen=True)
class Answer:
    """The expected answer of a case: outputs, and the gradients of `sum(outgoing * outputs)`, all float64.

    Attributes:
        outputs: `[b, o]`.
        x: gradient of the inputs.
        bias: gradient of the bias.
        cores: gradients of the cores `(l, o, i, r)`.
        weight: gradient of the dense matrix `[o, i]`.
    """

    outputs: Tensor
    x: Tensor
    bias: Tensor
    cores: list[Tensor]
    weight: Tensor


def dense(cores: Sequence[Tensor]) -> Tensor:
    """The matrix `[o, i]` of cores `(l, o, i, r)`, by one einsum.

    W[(o1 o2 ..), (i1 i2 ..)] = sum over ranks of  G1[1, o1, i1, r] G2[r, o2, i2, s] ..
    """
    count = len(cores)
    terms = [[k, 20 + k, 30 + k, k + 1] for k in range(count)]
    outs, ins = [20 + k for k in range(count)], [30 + k for k in range(count)]
    operands = [part for pair in zip(cores, terms, strict=True) for part in pair]
    full = torch.einsum(*operands, [0, *outs, *ins, count])
    return full.reshape(math.prod(core.shape[1] for core in cores), -1)


def make_instance(case: Case, seed: int) -> Instance:
    """Gaussian cores and bias."""
    generator = torch.Generator().manual_seed(seed)
    shapes = zip(itertools.pairwise(case.ranks), case.outs, case.ins, strict=True)
    cores = [
        torch.randn(l, o, i, r, generator=generator, dtype=torch.float64) / math.sqrt(i * l)
        for (l, r), o, i in shapes
    ]
    return Instance(case, cores, torch.randn(math.prod(case.outs), generator=generator, dtype=torch.float64))


def answer(instance: Instance, x: Tensor, outgoing: Tensor) -> Answer:
    """Outputs and all gradients in float64.

    Args:
        instance: the numbers.
        x: `[b, i]`.
        outgoing: `[b, o]`, the gradient that arrives from the next layer.
    """
    x, outgoing = x.detach().double(), outgoing.double()
    cores = [core.clone().requires_grad_() for core in instance.cores]
    weight = dense(cores)
    of_weight = outgoing.T @ x
    of_cores = torch.autograd.grad(weight, cores, of_weight)
    outputs = x @ weight.detach().T + instance.bias
    return Answer(outputs, outgoing @ weight.detach(), outgoing.sum(0), list(of_cores), of_weight)


class Model(Protocol):
    """A differentiable layer `[b, i] -> [b, o]`."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def parameters(self) -> Sequence[nn.Parameter]:
        """All trained parameters."""

    def gradients(self) -> list[tuple[str, Tensor]]:
        """After a backward pass: gradients with names of `Answer`'s fields; one "cores" for each core."""


class Dense:
    """`torch.nn.Linear`, what the others are compared with."""

    def __init__(self, instance: Instance, _: Setting) -> None:
        outs, ins = math.prod(instance.case.outs), math.prod(instance.case.ins)
        self._layer = nn.Linear(ins, outs)
        with torch.no_grad():
            self._layer.weight.copy_(instance.weight())
            self._layer.bias.copy_(instance.bias)

    def __call__(self, x: Tensor) -> Tensor:
        found: Tensor = self._layer(x)
        return found

    def parameters(self) -> Sequence[nn.Parameter]:
        return list(self._layer.parameters())

    def gradients(self) -> list[tuple[str, Tensor]]:
        return _named({"weight": [self._layer.weight], "bias": [self._layer.bias]})


class _Cores:
    """A layer whose cores are parameters `(l, o, i, r)`, as in tnml and in both peers."""

    def __init__(self, instance: Instance, layer: nn.Module, cores: Sequence[nn.Parameter]) -> None:
        self._layer, self._cores = layer, list(cores)
        self._bias: nn.Parameter = layer.bias  # type: ignore[assignment]
        with torch.no_grad():
            for mine, given in zip(self._cores, instance.cores, strict=True):
                if mine.shape != given.shape:
                    raise ValueError(f"a core is {tuple(mine.shape)}, expected {tuple(given.shape)}")
                mine.copy_(given)
            self._bias.copy_(instance.bias.reshape(self._bias.shape))

    def __call__(self, x: Tensor) -> Tensor:
        found: Tensor = self._layer(x)
        return found

    def parameters(self) -> Sequence[nn.Parameter]:
        return [*self._cores, self._bias]

    def gradients(self) -> list[tuple[str, Tensor]]:
        return _named({"cores": self._cores, "bias": [self._bias]})


class Own(_Cores):
    """tnml's layer, which chooses the order of its products itself."""

    def __init__(self, instance: Instance, _: Setting) -> None:
        case = instance.case
        layer = TTLinear(
            math.prod(case.ins),
            math.prod(case.outs),
            rank=case.ranks[1:-1],
            in_factors=case.ins,
            out_factors=case.outs,
        )
        super().__init__(instance, layer, list(layer.cores))


class TensorLy(_Cores):
    """tensorly-torch's `FactorizedLinear` with block tensor trains."""

    def __init__(self, instance: Instance, setting: Setting, implementation: str) -> None:
        case, tltorch = instance.case, import_module("tltorch")
        plugins = import_module("tensorly.plugins")
        plugins.use_opt_einsum() if setting.get("opt_einsum") else plugins.use_default_einsum()
        layer = tltorch.FactorizedLinear(
            case.ins,
            case.outs,
            factorization="blocktt",
            rank=list(case.ranks),
            implementation=implementation,
        )
        super().__init__(instance, layer, list(layer.weight.factors))


class TorchTT(_Cores):
    """torchTT's `LinearLayerTT`; it takes and returns batches of tensors."""

    def __init__(self, instance: Instance, _: Setting) -> None:
        case = instance.case
        layer = import_module("torchtt.nn").LinearLayerTT(list(case.ins), list(case.outs), list(case.ranks))
        self._ins = case.ins
        super().__init__(instance, layer, list(layer.cores))

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x.reshape(-1, *self._ins)).flatten(1)


def _named(parameters: dict[str, list[nn.Parameter]]) -> list[tuple[str, Tensor]]:
    return [(name, p.grad) for name, group in parameters.items() for p in group if p.grad is not None]


@dataclass(frozen=True)
class Contender:
    """One implementation.

    Attributes:
        name: as in the tables.
        build: a model from an instance and a setting.
        package: the package it needs.
        settings: tried before the measurement; the fastest is measured.
    """

    name: str
    build: Callable[[Instance, Setting], Model]
    package: str = "torch"
    settings: tuple[Setting, ...] = ({},)

    @property
    def peer(self) -> bool:
        """Whether it is another library's tensor train."""
        return self.package not in ("torch", "tnml")

    def installed(self) -> bool:
        """Whether it can be measured here."""
        return find_spec(self.package) is not None


THREADS: tuple[Setting, ...] = ({"threads": "all"}, {"threads": 1})
EINSUM = tuple({"opt_einsum": plugin, **setting} for plugin in (False, True) for setting in THREADS)

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("dense", Dense),
        Contender("tnml", Own, "tnml"),
        Contender("tltorch-factorized", lambda i, s: TensorLy(i, s, "factorized"), "tltorch", EINSUM),
        Contender("tltorch-reconstructed", lambda i, s: TensorLy(i, s, "reconstructed"), "tltorch", EINSUM),
        Contender("torchtt", TorchTT, "torchtt", THREADS),
    )
}
