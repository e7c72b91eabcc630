"""Every public module of tnml with inputs for it: a new network is one row for `test_modules.py`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tnml.nn import (
    TNN,
    BlockMPS,
    BornMachine,
    DeepMPS,
    MPSLayer,
    PatchMPS,
    RingMPS,
    TreeLayer,
    TTConv1d,
    TTConv2d,
    TTConv3d,
    TTEmbedding,
    TTLinear,
    UniformMPS,
)


def _real(*sizes: int) -> Callable[[int], Tensor]:
    return lambda batch: torch.rand(batch, *sizes, generator=torch.Generator().manual_seed(batch))


def _indices(batch: int) -> Tensor:
    return torch.randint(0, 20, (batch,), generator=torch.Generator().manual_seed(batch))


@dataclass(frozen=True)
class Case:
    """A module, and inputs `[b, ..]` of a number of samples.

    Args:
        module: its class.
        options: arguments of the class; `dtype` and `device` may be added.
        inputs: of a number of samples.
        bf16: how far a bfloat16 output may be off, in parts of the largest: its 8 bits times the roundings of
            a sum of products, which add up like the square root of their number.
        train: whether it is in training mode.
    """

    module: type[nn.Module]
    options: Mapping[str, Any]
    inputs: Callable[[int], Tensor]
    bf16: float = 0.1
    train: bool = False

    def make(self, **more: Any) -> Any:
        return self.module(**{**self.options, **more}).train(self.train)


NINE = {"n_sites": 9, "out_features": 3, "bond_dim": 4}
ORDER = [3, 1, 4, 0, 2, 8, 7, 5, 6]
CASES = {
    "MPSLayer": Case(MPSLayer, {**NINE, "noise": 0.2}, _real(9)),
    "MPSLayer in an order": Case(MPSLayer, {**NINE, "order": ORDER, "features": "legendre"}, _real(9)),
    "MPSLayer long": Case(MPSLayer, {**NINE, "n_sites": 50, "label_site": 11}, _real(50)),
    "DeepMPS": Case(DeepMPS, {**NINE, "channels": (4, 3), "kernel": 2, "stride": 1}, _real(9)),
    "BlockMPS": Case(BlockMPS, {**NINE, "channels": 3, "kernel": 2}, _real(9)),
    "PatchMPS": Case(
        PatchMPS, {"kernel": 2, "stride": 1, "channels": 3, "bond_dim": 4, "shape": (3, 3)}, _real(3, 3)
    ),
    "RingMPS": Case(RingMPS, {**NINE, "noise": 0.2}, _real(9)),
    "TreeLayer": Case(TreeLayer, {**NINE, "noise": 0.2}, _real(9)),
    "UniformMPS": Case(UniformMPS, {**NINE, "noise": 0.2}, _real(9)),
    "TTConv1d": Case(
        TTConv1d,
        {"in_channels": 6, "out_channels": 4, "kernel_size": 3, "rank": 2, "plan": "cores"},
        _real(6, 7),
    ),
    "TTConv2d": Case(
        TTConv2d,
        {
            "in_channels": 6,
            "out_channels": 4,
            "kernel_size": (3, 2),
            "stride": 2,
            "padding": 1,
            "rank": (2, 3),
        },
        _real(6, 5, 7),
    ),
    "TTConv3d": Case(
        TTConv3d, {"in_channels": 3, "out_channels": 4, "kernel_size": 2, "rank": 2}, _real(3, 3, 4, 3)
    ),
    "BornMachine": Case(
        BornMachine, {"n_sites": 9, "bond_dim": 4, "noise": 0.2, "features": "legendre"}, _real(9)
    ),
    "TTLinear": Case(TTLinear, {"in_features": 12, "out_features": 8, "rank": 3}, _real(12)),
    "TTLinear padded": Case(
        TTLinear, {"in_features": 13, "out_features": 7, "rank": 2, "n_cores": 3, "plan": "left"}, _real(13)
    ),
    "TTEmbedding": Case(TTEmbedding, {"num_embeddings": 20, "embedding_dim": 6, "padding_idx": 1}, _indices),
    "TNN": Case(TNN, {"widths": [6, 8, 8, 2], "rank": 2, "skip": True, "norm": "layer"}, _real(6)),
}
"""Modules by the name of their tests, in evaluation mode."""

DROPPING = {
    "site dropout": Case(MPSLayer, {**NINE, "site_dropout": 0.3}, _real(9), train=True),
    "bond dropout": Case(MPSLayer, {**NINE, "bond_dropout": 0.3}, _real(9), train=True),
}
"""Modules whose random numbers come from torch's generator while they train."""
