"""The implementations that `chain` compares, behind one interface: build, call, read the gradients."""

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.reference import PHYSICAL, Instance, embed
from tnml.nn import MPSLayer

Setting = dict[str, Any]


class Model(Protocol):
    """A differentiable chain `[b, n] -> [b, c]`."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def parameters(self) -> Sequence[nn.Parameter]:
        """All trained parameters."""

    def gradients(self) -> list[Tensor]:
        """After a backward pass: one `(d, l, r)` per core, then the label core's `(l, c, r)`."""


class OwnLayer:
    """tnml's layer with one of its engines."""

    def __init__(self, instance: Instance, engine: str) -> None:
        n, classes = len(instance.cores), instance.label.shape[1]
        self._layer = MPSLayer(n, classes, instance.bond_dim, engine=engine)
        with torch.no_grad():
            for mine, given in zip(self._layer.cores, instance.cores, strict=True):
                mine.copy_(given.transpose(0, 1))
            self._layer.label_core.copy_(instance.label)

    def __call__(self, x: Tensor) -> Tensor:
        found: Tensor = self._layer(x)
        return found

    def parameters(self) -> Sequence[nn.Parameter]:
        return list(self._layer.parameters())

    def gradients(self) -> list[Tensor]:
        weight, label = self._layer.weight.grad, self._layer.label.grad
        if weight is None or label is None:
            raise ValueError("no backward pass has been run")
        return [*self._layer.chain_shape.split(weight), label]


class PlainLoop:
    """The obvious first version: a parameter and a GEMM per site, autograd; both halves meet at the label."""

    def __init__(self, instance: Instance) -> None:
        self._half = instance.label_site
        self._cores = [nn.Parameter(core.float()) for core in instance.cores]
        self._label = nn.Parameter(instance.label.float())

    def __call__(self, x: Tensor) -> Tensor:
        features = embed(x).unbind(1)
        left = right = x.new_ones(x.shape[0], 1)
        for phi, core in zip(features[: self._half], self._cores[: self._half], strict=True):
            left = (phi.unsqueeze(2) * left.unsqueeze(1)).flatten(1) @ core.flatten(0, 1)
        for phi, core in zip(
            features[: self._half - 1 : -1], self._cores[: self._half - 1 : -1], strict=True
        ):
            right = (phi.unsqueeze(2) * right.unsqueeze(1)).flatten(1) @ core.transpose(1, 2).flatten(0, 1)
        return torch.einsum("bl,lcr,br->bc", left, self._label, right)

    def parameters(self) -> Sequence[nn.Parameter]:
        return [*self._cores, self._label]

    def gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters() if p.grad is not None]


class TensorKrowch:
    """tensorkrowch's `MPSLayer`, traced as its documentation says; uniform bonds, so that the cores stack."""

    def __init__(self, instance: Instance, setting: Setting) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a SyntaxWarning of one of its modules
            tensorkrowch = import_module("tensorkrowch")

        padded, label = instance.padded()
        tensors = [t.float() for t in [*padded[: instance.label_site], label, *padded[instance.label_site :]]]
        tensors[0], tensors[-1] = tensors[0][0], tensors[-1][..., 0]
        self._shapes = [core.shape for core in instance.cores]
        self._position = instance.label_site
        self._how = {name: setting[name] for name in ("inline_input", "inline_mats")}
        self._network = tensorkrowch.models.MPSLayer(tensors=tensors, out_position=self._position)
        self._network.auto_stack, self._network.auto_unbind = setting["auto_stack"], setting["auto_unbind"]
        self._network.trace(torch.zeros(1, len(instance.cores), PHYSICAL), **self._how)

    def __call__(self, x: Tensor) -> Tensor:
        found: Tensor = self._network(embed(x), **self._how)
        return found

    def parameters(self) -> Sequence[nn.Parameter]:
        return list(self._network.parameters())

    def gradients(self) -> list[Tensor]:
        found = [node.grad for node in self._network.mats_env]
        label = found.pop(self._position)
        cut = [g[: s[1], :, : s[2]].transpose(0, 1) for g, s in zip(found, self._shapes, strict=True)]
        return [*cut, label]


class TorchMPS:
    """TorchMPS's `MPS` (serial evaluation, no bias matrices); not on PyPI, so used where it is installed."""

    def __init__(self, instance: Instance) -> None:
        n, classes = len(instance.cores), instance.label.shape[1]
        self._network = import_module("torchmps").MPS(
            n, classes, instance.bond_dim, PHYSICAL, label_site=instance.label_site, use_bias=False
        )
        padded, label = instance.padded()
        half = instance.label_site
        self._shapes = [core.shape for core in instance.cores]
        self._regions = [self._network.linear_region.module_list[i].tensor for i in (0, 2)]
        self._label = self._network.linear_region.module_list[1].tensor
        with torch.no_grad():
            for region, cores in zip(self._regions, (padded[:half], padded[half:]), strict=True):
                region.copy_(torch.stack(cores).permute(0, 1, 3, 2))  # theirs is (site, l, r, d)
            self._label.copy_(label.transpose(0, 1))

    def __call__(self, x: Tensor) -> Tensor:
        found: Tensor = self._network(embed(x))
        return found

    def parameters(self) -> Sequence[nn.Parameter]:
        return list(self._network.parameters())

    def gradients(self) -> list[Tensor]:
        found = itertools.chain.from_iterable(region.grad for region in self._regions)
        cut = [g[: s[1], : s[2]].permute(2, 0, 1) for g, s in zip(found, self._shapes, strict=True)]
        return [*cut, self._label.grad.transpose(0, 1)]


@dataclass(frozen=True)
class Contender:
    """One implementation.

    Attributes:
        name: as in the tables.
        build: a model from an instance and a setting.
        own: whether it is tnml's own, to which the bars apply; the others are its peers.
        package: the package it needs.
        site_matrices: copies of a chi x chi matrix per sample and site that a training step holds, roughly.
        settings: tried before the measurement; the fastest is measured.
    """

    name: str
    build: Callable[[Instance, Setting], Model]
    own: bool = False
    package: str = "torch"
    site_matrices: float = 0.0
    settings: tuple[Setting, ...] = field(default=({},))

    @property
    def peer(self) -> bool:
        """Whether it is another library."""
        return self.package not in ("torch", "tnml")

    def installed(self) -> bool:
        """Whether it can be measured here."""
        return find_spec(self.package) is not None

    def needed_bytes(self, n_sites: int, batch: int, bond_dim: int) -> float:
        """Memory of one training step, if it makes site matrices."""
        return self.site_matrices * 4 * n_sites * batch * bond_dim**2


def _tensorkrowch_settings() -> tuple[Setting, ...]:
    """Most promising first. Left out: auto_unbind=True, and auto_stack with inline_input, which slice a
    stacked parameter; the backward pass of each slice then makes a gradient of full size (10 s per step and
    more)."""
    names = ("auto_stack", "auto_unbind", "inline_input", "inline_mats")
    choices = [(True, False, False, True), (False, False, True, True), (False, False, False, True)]
    choices.append((False, False, False, False))
    return tuple(
        {**dict(zip(names, choice, strict=True)), "threads": t} for choice in choices for t in ("all", 1)
    )


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("native", lambda i, _: OwnLayer(i, "native"), own=True, package="tnml"),
        Contender("torch", lambda i, _: OwnLayer(i, "torch"), own=True, package="tnml"),
        Contender("loop", lambda i, _: PlainLoop(i), settings=({"threads": "all"}, {"threads": 1})),
        Contender("tensorkrowch", TensorKrowch, False, "tensorkrowch", 2.0, _tensorkrowch_settings()),
        Contender(
            "torchmps", lambda i, _: TorchMPS(i), False, "torchmps", 2.0, ({"threads": "all"}, {"threads": 1})
        ),
    )
}
