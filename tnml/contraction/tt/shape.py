"""Sizes of a tensor-train matrix: how its inputs and outputs factor, and its ranks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError


@dataclass(frozen=True)
class TTShape:
    """Factors of the inputs and outputs of a tensor-train matrix (matrix product operator), and its ranks.

        W[(o1 .. oK), (i1 .. iK)] = sum_r G1[1, o1, i1, r1] G2[r1, o2, i2, r2] .. GK[rK-1, oK, iK, 1]

    Args:
        ins: sizes i1 .. iK.
        outs: sizes o1 .. oK.
        ranks: 1, r1, .. , 1: one more than there are cores.

    Raises:
        InputError: the lengths do not fit, an outer rank is not 1, or a size is not positive.

    Example:
        >>> shape = TTShape(ins=(4, 8), outs=(2, 3), ranks=(1, 5, 1))
        >>> shape.in_size, shape.out_size, shape.n_weights
        (32, 6, 160)
    """

    ins: tuple[int, ...]
    outs: tuple[int, ...]
    ranks: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("ins", "outs", "ranks"):
            sizes = tuple(whole(f"every entry of {name}", size, 1) for size in getattr(self, name))
            object.__setattr__(self, name, sizes)
        if not len(self.ins) == len(self.outs) == len(self.ranks) - 1 or not self.ins:
            raise InputError(
                f"expected as many input as output factors and one rank more, got {len(self.ins)} input "
                f"factors, {len(self.outs)} output factors and {len(self.ranks)} ranks"
            )
        if self.ranks[0] != 1 or self.ranks[-1] != 1:
            raise InputError(f"the outer ranks must be 1, got {self.ranks[0]} and {self.ranks[-1]}")

    @classmethod
    def of_cores(cls, cores: Sequence[Tensor]) -> "TTShape":
        """The shape of cores `(l, o, i, r)`.

        Raises:
            InputError: a core is not of order 4, or ranks of neighbours differ.
        """
        for number, core in enumerate(cores):
            if core.dim() != 4:
                raise InputError(
                    f"core {number} must be a tensor of shape (l, o, i, r), got {tuple(core.shape)}"
                )
            if number and core.shape[0] != cores[number - 1].shape[3]:
                raise InputError(
                    f"core {number} has left rank {core.shape[0]}, expected {cores[number - 1].shape[3]}, "
                    f"the right rank of core {number - 1}"
                )
        return cls(
            tuple(core.shape[2] for core in cores),
            tuple(core.shape[1] for core in cores),
            (*(core.shape[0] for core in cores), cores[-1].shape[3] if cores else 1),
        )

    @property
    def n_cores(self) -> int:
        """Number of cores."""
        return len(self.ins)

    @property
    def in_size(self) -> int:
        """Inputs: the product of their factors."""
        return math.prod(self.ins)

    @property
    def out_size(self) -> int:
        """Outputs: the product of their factors."""
        return math.prod(self.outs)

    @property
    def n_weights(self) -> int:
        """Number of weights of all cores."""
        return sum(
            left * o * i * right
            for left, o, i, right in zip(self.ranks, self.outs, self.ins, self.ranks[1:], strict=False)
        )
