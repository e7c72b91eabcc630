"""What all layers that hold a tensor-train matrix share."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Num
from torch import Tensor, nn

from tnml.checks import number
from tnml.contraction import TTShape, tt_matrix
from tnml.errors import InputError
from tnml.nn.entry import refuse_scripting
from tnml.nn.tt.convert import matrix_norm
from tnml.nn.tt.rebuilt import rebuilt
from tnml.torch_private import holds_numbers


class TTModule(nn.Module):
    """Parameters `cores` `(l, o, i, r)` of a matrix of which `rows` and `columns` are used.

    Args:
        shape: factors and ranks.
        rows: used rows; what is more in `shape` is padding.
        columns: used columns.
        std: standard deviation of the starting entries, or None where the layer has one of its own.
        device: where the parameters live.
        dtype: their dtype.

    Raises:
        InputError: `std` is not a positive number.

    Example:
        >>> TTModule(TTShape((2, 2), (2, 2), (1, 3, 1)), 3, 4).weight.shape
        torch.Size([3, 4])
    """

    __prepare_scriptable__ = refuse_scripting

    def __init__(
        self,
        shape: TTShape,
        rows: int,
        columns: int,
        std: float | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.std = None if std is None else number("std", std, above=0.0)
        self._rows, self._columns = int(rows), int(columns)
        sizes = zip(shape.ranks, shape.outs, shape.ins, shape.ranks[1:], strict=False)
        self.cores = nn.ParameterList(
            nn.Parameter(torch.empty(size, device=device, dtype=dtype)) for size in sizes
        )
        self._known = tuple(core.shape for core in self.cores), shape

    @property
    def shape(self) -> TTShape:
        """Factors and ranks of the cores."""
        return self._shape_of(list(self.cores))

    def _shape_of(self, cores: list[Tensor]) -> TTShape:
        """The shape of `cores`, determined once, and again only after they are replaced."""
        sizes = tuple(core.shape for core in cores)
        if sizes != self._known[0]:
            self._known = sizes, TTShape.of_cores(cores)
        return self._known[1]

    @property
    def ranks(self) -> tuple[int, ...]:
        """All ranks, the outer 1s included."""
        return self.shape.ranks

    @property
    def rank(self) -> int:
        """The largest rank."""
        return max(self.ranks)

    @property
    def weight(self) -> Num[Tensor, "o i"]:
        """The dense matrix, rebuilt at every access; gradients reach the cores, writing to it raises."""
        return rebuilt(self._matrix())

    def _matrix(self) -> Tensor:
        return tt_matrix(list(self.cores))[: self._rows, : self._columns]

    def __setattr__(self, name: str, value: Tensor | nn.Module) -> None:
        if name == "weight":
            raise InputError(
                f"the weight of a {type(self).__name__} is rebuilt from its cores and cannot be set or "
                "shared; change `cores`, or make a layer of a matrix by from_linear or from_embedding"
            )
        super().__setattr__(name, value)

    @property
    def n_parameters(self) -> int:
        """Number of weights of all parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    @torch.no_grad()
    def _draw_cores(self, std: float) -> None:
        """Fills the cores with Gaussians so that the used entries have exactly the root mean square `std`."""
        count = len(self.cores)
        ranks = math.prod(core.shape[0] for core in self.cores)
        for core in self.cores:
            nn.init.normal_(core, std=(std / math.sqrt(ranks)) ** (1 / count))
        if not holds_numbers(self.cores[0]):
            return
        norm = matrix_norm(list(self.cores), self._rows, self._columns)
        if norm > 0:
            factor = (std * math.sqrt(self._rows * self._columns) / norm) ** (1 / count)
            for core in self.cores:
                core.mul_(factor)

    def _take_cores(self, cores: Sequence[Tensor], trained: Sequence[bool]) -> None:
        """Makes these cores the parameters, each with or without a gradient."""
        self.cores = nn.ParameterList(
            nn.Parameter(core.contiguous(), wanted) for core, wanted in zip(cores, trained, strict=True)
        )
        self._known = tuple(core.shape for core in self.cores), TTShape.of_cores(cores)
