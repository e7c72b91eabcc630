"""An embedding whose table is a tensor-train matrix."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from jaxtyping import Int, Num
from torch import Tensor, nn

from tnml.checks import whole
from tnml.contraction import TTShape
from tnml.contraction.transforms import traced, transformed
from tnml.errors import InputError
from tnml.nn.entry import check_input
from tnml.nn.tt.convert import TTFit, cores_of_matrix, relative_error, truncated_cores
from tnml.nn.tt.factors import factors_text, matrix_shape
from tnml.nn.tt.module import TTModule
from tnml.nn.tt.rebuilt import rebuilt

_NAMES = ("embedding_dim", "num_embeddings", "column_factors", "row_factors")


class TTEmbedding(TTModule):
    """Rows of a table `[num_embeddings, embedding_dim]` kept as a tensor train, looked up by index.

        W[(o1 .. oK), (i1 .. iK)] = G1[1, o1, i1, :] G2[:, o2, i2, :] .. GK[:, oK, iK, 1]

    It can replace a `torch.nn.Embedding`. A lookup multiplies the slices `G_k[:, o_k]` that the digits
    `o_k` of the index name; the table is never made.

    Args:
        num_embeddings: rows of the table.
        embedding_dim: columns of the table.
        rank: largest rank, or one for each place between two cores. Ranks that the sizes cannot use are cut.
        n_cores: 1 to 6; None: 2 where both sizes are at most 1024, else 3.
        row_factors: factors of the rows, one per core; their product is at least `num_embeddings`. None: as
            equal as the size allows with little padding.
        column_factors: the same for `embedding_dim`.
        padding_idx: this index gives zeros and no gradient, whatever the cores; None for none.
        std: standard deviation of the starting entries; `torch.nn.Embedding` has 1.
        device: where the parameters live.
        dtype: their dtype.

    Raises:
        InputError: an argument is out of range; the text says which and what to do.

    Cost: embedding_dim r^2 multiply-adds for every index.

    Source: Khrulkov et al., Tensorized embedding layers, arXiv 1901.10787.

    Example:
        >>> table = TTEmbedding(10_000, 64, rank=8)
        >>> table(torch.tensor([[3, 4], [9_999, 0]])).shape
        torch.Size([2, 2, 64])
        >>> table
        TTEmbedding(10000 = 25 x 20 x 20, 64 = 4 x 4 x 4, ranks=(1, 8, 8, 1))
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        rank: int | Sequence[int] = 8,
        n_cores: int | None = None,
        row_factors: Sequence[int] | None = None,
        column_factors: Sequence[int] | None = None,
        padding_idx: int | None = None,
        std: float = 1.0,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape = matrix_shape(
            embedding_dim, num_embeddings, rank, n_cores, column_factors, row_factors, names=_NAMES
        )
        super().__init__(shape, num_embeddings, embedding_dim, std, device, dtype)
        self.padding_idx = _checked_padding(padding_idx, self._rows)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new Gaussian cores from torch's global random state.

        They are scaled so that the mean square of the entries of the table is exactly `std²`.
        """
        self._draw_cores(1.0 if self.std is None else self.std)

    def forward(self, indices: Int[Tensor, "*lead"]) -> Num[Tensor, "*lead q"]:
        """Rows `[..., embedding_dim]` of the table.

        Raises:
            InputError: the indices are not a tensor of integers, or one is out of range. Where checking the
                numbers would make a device wait or break a graph, the second is torch's own error.
        """
        check_input(indices)
        if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
            raise InputError(f"expected indices of an integer dtype, got {indices.dtype}")
        flat = indices.reshape(-1).long()
        valid = (flat >= 0) & (flat < self.num_embeddings)
        may_look = flat.is_cpu and not traced() and not transformed(flat, *self.cores)
        if may_look and not bool(valid.all()):
            raise InputError(
                f"indices must lie in 0 .. {self.num_embeddings - 1}, got some from {int(flat.min())} to "
                f"{int(flat.max())}"
            )
        rows = self._rows_of(flat, valid)
        if self.padding_idx is not None:
            rows = rows.masked_fill((flat == self.padding_idx).unsqueeze(1), 0)
        return rows.reshape(*indices.shape, self.embedding_dim)

    def _rows_of(self, flat: Tensor, valid: Tensor) -> Tensor:
        """Rows `[b, q]` of indices `[b]`; torch itself refuses an index that is not valid."""
        batch = flat.shape[0]
        stride = math.prod([core.shape[1] for core in self.cores])
        rows = flat
        for place, core in enumerate(self.cores):
            left, factor, columns, right = core.shape
            stride //= factor
            digits = flat // stride % factor
            if place == 0:
                digits = torch.where(valid, digits, factor)  # a digit that no slice has
            slices = core.index_select(1, digits).transpose(0, 1).reshape(batch, left, columns * right)
            rows = torch.bmm(rows, slices) if place else slices
            rows = rows.reshape(batch, rows.shape[1] * columns, right)
        return rows.squeeze(2)[:, : self.embedding_dim]

    @property
    def num_embeddings(self) -> int:
        """Rows of the table."""
        return self._rows

    @property
    def embedding_dim(self) -> int:
        """Columns of the table."""
        return self._columns

    @property
    def weight(self) -> Num[Tensor, "o q"]:
        """The table `[num_embeddings, embedding_dim]`, rebuilt at every access, with gradients; read only."""
        table = self._matrix()
        if self.padding_idx is not None:
            rows = torch.arange(self.num_embeddings, device=table.device)
            table = table.masked_fill((rows == self.padding_idx).unsqueeze(1), 0)
        return rebuilt(table)

    @classmethod
    def from_embedding(
        cls,
        embedding: nn.Embedding,
        *,
        rank: int | Sequence[int] | None = None,
        max_error: float | None = None,
        n_cores: int | None = None,
        row_factors: Sequence[int] | None = None,
        column_factors: Sequence[int] | None = None,
    ) -> TTFit[Self]:
        """The table nearest to a dense one by TT-SVD, and the relative error |W - W'| / |W| it makes.

        Dtype, device, training mode, `padding_idx` and what is to be trained stay as they are.

        Args:
            embedding: the dense table; it is not changed.
            rank: largest rank, or one for each place between two cores.
            max_error: largest relative error. With both, `rank` holds whatever the error.
            n_cores: see `TTEmbedding`, as the other arguments.
            row_factors: factors of the rows.
            column_factors: factors of the columns.

        Raises:
            InputError: neither limit is given, one is out of range, the table is not finite, or it has
                `max_norm`, `sparse` or `scale_grad_by_freq`, which a tensor train cannot honour.

        Cost: n_cores - 1 singular value decompositions, the first of `(o1 i1) x (rest)`, in double precision.

        Source: Oseledets, SIAM J. Sci. Comput. 33 (2011) 2295, algorithm 1.

        Example:
            >>> table, error = TTEmbedding.from_embedding(torch.nn.Embedding(100, 16), rank=8)
            >>> table.ranks, 0 < error < 1
            ((1, 8, 1), True)
        """
        if not isinstance(embedding, nn.Embedding):
            raise InputError(f"expected a torch.nn.Embedding, got {type(embedding).__name__}")
        if embedding.max_norm is not None:
            raise InputError(
                f"the embedding rescales rows to max_norm={embedding.max_norm} as they are looked up, "
                "which a tensor train cannot; set max_norm to None first"
            )
        for option in ("sparse", "scale_grad_by_freq"):
            if getattr(embedding, option):
                raise InputError(
                    f"the embedding has {option}=True, but gradients of cores are dense and of all indices "
                    f"together; set {option} to False first"
                )
        sizes = embedding.num_embeddings, embedding.embedding_dim
        shape = matrix_shape(*sizes[::-1], 1, n_cores, column_factors, row_factors, names=_NAMES)
        cores, error = cores_of_matrix(embedding.weight, shape, rank, max_error)
        trained = [embedding.weight.requires_grad] * len(cores)
        table = cls._with(cores, trained, *sizes, embedding.padding_idx)
        if table.padding_idx is not None:
            error = relative_error(table.weight, embedding.weight)
        return TTFit(table.train(embedding.training), error)

    def to_embedding(self) -> nn.Embedding:
        """The dense table with the same rows; it shares no memory with this one.

        Training mode and what is to be trained stay.
        """
        embedding: nn.Embedding = nn.Embedding.from_pretrained(
            self.weight.detach().clone(memory_format=torch.contiguous_format),  # one core: W is a view
            freeze=not any(core.requires_grad for core in self.cores),
            padding_idx=self.padding_idx,
        )
        return embedding.train(self.training)

    def truncate(
        self, *, rank: int | Sequence[int] | None = None, max_error: float | None = None
    ) -> TTFit[Self]:
        """A table of smaller rank, and the relative error |W - W'| / |W|; this one is not changed.

        The row `padding_idx` counts in the error with what the cores hold there.

        Args:
            rank: see `from_embedding`.
            max_error: see `from_embedding`.

        Raises:
            InputError: neither limit is given, or one is out of range.

        Cost: O(o i r^3) for every core, in double precision, and up to 64 times that for padded sizes, see
            `tnml.nn.tt.convert.truncated_cores`; the table is not made.

        Example:
            >>> TTEmbedding(100, 16, rank=8).truncate(rank=4).layer.ranks
            (1, 4, 1)
        """
        cores, error = truncated_cores(list(self.cores), self._rows, self._columns, rank, max_error)
        trained = [core.requires_grad for core in self.cores]
        table = self._with(cores, trained, self._rows, self._columns, self.padding_idx)
        table.std = self.std
        return TTFit(table.train(self.training), error)

    @classmethod
    def _with(
        cls,
        cores: list[Tensor],
        trained: list[bool],
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
    ) -> Self:
        """A table of these cores. No random number is drawn."""
        shape = TTShape.of_cores(cores)
        options: dict[str, Any] = {"row_factors": shape.outs, "column_factors": shape.ins}
        table = cls(num_embeddings, embedding_dim, rank=1, padding_idx=padding_idx, device="meta", **options)
        table._take_cores(cores, trained)
        return table

    def extra_repr(self) -> str:
        """How the sizes factor, and the ranks."""
        shape = self.shape
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return (
            f"{factors_text(self.num_embeddings, shape.outs)}, "
            f"{factors_text(self.embedding_dim, shape.ins)}, ranks={shape.ranks}{padding}"
        )


def _checked_padding(value: int | None, rows: int) -> int | None:
    """`padding_idx` counted from the start; negative ones count from the end, as in `torch.nn.Embedding`."""
    if value is None:
        return None
    return whole("padding_idx", value, -rows, rows - 1) % rows
