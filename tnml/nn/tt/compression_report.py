"""What a compression did to each dense layer of a model, as numbers and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from tnml.contraction import TTShape


@dataclass(frozen=True)
class CompressRow:
    """What became of one dense layer.

    Args:
        name: of the layer in the model.
        also: further names of the same layer.
        in_features: inputs; of a convolution its channels times the taps of its kernel.
        out_features: outputs; of a convolution its channels.
        shape: factors and ranks of the tensor train; None where the layer was left.
        parameters_before: weights and biases of the dense layer.
        parameters_after: of what stands there now.
        flops_before: floating point operations for one sample; of a convolution for one of its outputs.
        flops_after: of what stands there now, in the cheapest order.
        error: relative error |W - W'| / |W| that was made.
        reason: why the layer was left; empty where it was replaced.
    """

    name: str
    also: tuple[str, ...]
    in_features: int
    out_features: int
    shape: TTShape | None
    parameters_before: int
    parameters_after: int
    flops_before: int
    flops_after: int
    error: float
    reason: str

    @property
    def replaced(self) -> bool:
        """Whether a tensor train took the layer's place."""
        return self.shape is not None


@dataclass(frozen=True)
class CompressReport:
    """What `compress` did: a row for every dense layer, and the size of the whole model; str() is a table.

    Args:
        rows: one for each dense layer of the model, in its order.
        parameters_before: of the whole model.
        parameters_after: of its compressed copy.

    Example:
        >>> from torch import nn
        >>> from tnml.nn import compress
        >>> report = compress(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), rank=2).report
        >>> report.parameters_before, report.parameters_after, report.n_replaced
        (4810, 970, 1)
        >>> [row.reason for row in report.rows]
        ['', 'fewer than 4,096 parameters']
    """

    rows: tuple[CompressRow, ...]
    parameters_before: int
    parameters_after: int

    @property
    def ratio(self) -> float:
        """Parameters after over parameters before."""
        return self.parameters_after / max(1, self.parameters_before)

    @property
    def n_replaced(self) -> int:
        """Number of layers that were replaced."""
        return sum(row.replaced for row in self.rows)

    @property
    def flops_before(self) -> int:
        """Floating point operations of all dense layers for one sample, each applied once."""
        return sum(row.flops_before for row in self.rows)

    @property
    def flops_after(self) -> int:
        """The same for what stands there now."""
        return sum(row.flops_after for row in self.rows)

    def __str__(self) -> str:
        table = [("layer", "size", "factors", "ranks", "parameters", "flops", "error", "")]
        for row in self.rows:
            shape = row.shape
            table.append(
                (
                    " = ".join((row.name or "(model)", *row.also)),
                    f"{row.in_features} -> {row.out_features}",
                    f"{_times(shape.ins)} -> {_times(shape.outs)}" if shape else "",
                    ", ".join(map(str, shape.ranks[1:-1])) if shape else "",
                    _change(row.parameters_before, row.parameters_after),
                    _change(row.flops_before, row.flops_after),
                    f"{row.error:.4f}" if shape else "",
                    f"left: {row.reason}" if row.reason else "",
                )
            )
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
        parameters = _change(self.parameters_before, self.parameters_after)
        total = f"{self.n_replaced} of {len(self.rows)} dense layers replaced; model: {parameters} parameters"
        return "\n".join([*lines, f"{total} ({self.ratio:.1%})"])


def _times(factors: Sequence[int]) -> str:
    return " x ".join(map(str, factors))


def _change(before: int, after: int) -> str:
    return f"{before:,}" if before == after else f"{before:,} -> {after:,}"
