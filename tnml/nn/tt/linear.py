"""A linear layer whose matrix is a tensor train."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from jaxtyping import Num
from torch import Tensor, nn

from tnml.contraction import Plan, TTShape, tt_linear
from tnml.contraction.tt.plans import checked_plan
from tnml.errors import InputError
from tnml.nn.entry import check_input
from tnml.nn.tt.convert import TTFit, cores_of_matrix, truncated_cores
from tnml.nn.tt.factors import factors_text, matrix_shape
from tnml.nn.tt.module import TTModule


class TTLinear(TTModule):
    """`[..., in_features]` inputs to `[..., out_features]` outputs by a matrix that is a tensor train.

        y = W x + b,   W[(o1 .. oK), (i1 .. iK)] = G1[1, o1, i1, :] G2[:, o2, i2, :] .. GK[:, oK, iK, 1]

    It can replace a `torch.nn.Linear`. Sizes that do not factor well are padded up to the product of
    their factors; inputs and outputs keep the sizes asked for.

    Args:
        in_features: size of the inputs.
        out_features: size of the outputs.
        rank: largest rank, or one for each place between two cores. Ranks that the sizes cannot use are cut.
        n_cores: 1 to 6; None: 2 where both sizes are at most 1024, else 3.
        in_factors: factors of the inputs, one per core; their product is at least `in_features`. None: as
            equal as the size allows with little padding.
        out_factors: the same for the outputs.
        bias: whether a bias is added.
        std: standard deviation of the starting weights W; None takes that of `torch.nn.Linear`.
        plan: how the product is computed: "auto", or a name or plan that `tnml.contraction.tt_linear` knows.
        device: where the parameters live.
        dtype: their dtype.

    Raises:
        InputError: an argument is out of range; the text says which and what to do.

    Cost: see `tnml.contraction.tt_linear`.

    Source: Novikov et al., Tensorizing neural networks, arXiv 1509.06569.

    Example:
        >>> layer = TTLinear(784, 512, rank=4)
        >>> layer(torch.rand(5, 784)).shape, layer.n_parameters
        (torch.Size([5, 512]), 5888)
        >>> layer
        TTLinear(784 = 28 x 28, 512 = 32 x 16, ranks=(1, 4, 1), bias=True)
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank: int | Sequence[int] = 8,
        n_cores: int | None = None,
        in_factors: Sequence[int] | None = None,
        out_factors: Sequence[int] | None = None,
        bias: bool = True,
        std: float | None = None,
        plan: str | Plan = "auto",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape = matrix_shape(in_features, out_features, rank, n_cores, in_factors, out_factors)
        super().__init__(shape, out_features, in_features, std, device, dtype)
        self.plan = checked_plan(plan, shape.n_cores)
        self.bias = nn.Parameter(torch.empty(self._rows, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws new starting weights from torch's global random state, as `torch.nn.Linear` does.

        The cores are Gaussian and scaled so that the mean square of the entries of W is `std²`, or
        1 / (3 in_features) as in `torch.nn.Linear`: exactly, as the product of a few Gaussian cores varies a
        lot. The bias is uniform in +-1 / sqrt(in_features).
        """
        self._draw_cores(1 / math.sqrt(3 * self.in_features) if self.std is None else self.std)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Num[Tensor, "*lead _"]) -> Num[Tensor, "*lead _"]:
        """Outputs `[..., out_features]` of inputs `[..., in_features]`.

        Raises:
            InputError: `x` is not a tensor, its last axis has another size, or it is `torch.jit.trace` that
                calls.
        """
        check_input(x)
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise InputError(f"expected inputs [..., {self.in_features}], got {list(x.shape)}")
        flat = x if x.dim() == 2 else x.reshape(-1, self.in_features)
        cores = list(self.cores)
        shape, rows = self._shape_of(cores), self.out_features
        y = tt_linear(flat, cores, self.bias, out_features=rows, plan=self.plan, shape=shape)
        return y if x.dim() == 2 else y.reshape(*x.shape[:-1], rows)

    @property
    def in_features(self) -> int:
        """Size of the inputs."""
        return self._columns

    @property
    def out_features(self) -> int:
        """Size of the outputs."""
        return self._rows

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        *,
        rank: int | Sequence[int] | None = None,
        max_error: float | None = None,
        n_cores: int | None = None,
        in_factors: Sequence[int] | None = None,
        out_factors: Sequence[int] | None = None,
        plan: str | Plan = "auto",
    ) -> TTFit[Self]:
        """The layer nearest to a dense one by TT-SVD, and the relative error |W - W'| / |W| it makes.

        Bias, dtype, device, training mode and what is to be trained stay as they are.

        Args:
            linear: the dense layer; it is not changed.
            rank: largest rank, or one for each place between two cores.
            max_error: largest relative error. With both, `rank` holds whatever the error.
            n_cores: see `TTLinear`, as the other arguments.
            in_factors: factors of the inputs.
            out_factors: factors of the outputs.
            plan: how the product is computed.

        Raises:
            InputError: neither limit is given, one is out of range, or the weights are not finite.

        Cost: n_cores - 1 singular value decompositions, the first of `(o1 i1) x (rest)`, in double precision.

        Source: Oseledets, SIAM J. Sci. Comput. 33 (2011) 2295, algorithm 1.

        Example:
            >>> dense = torch.nn.Linear(64, 64)
            >>> layer, error = TTLinear.from_linear(dense, max_error=0.5)
            >>> error <= 0.5 and layer.rank < 64
            True
        """
        if not isinstance(linear, nn.Linear):
            raise InputError(f"expected a torch.nn.Linear, got {type(linear).__name__}")
        sizes = linear.in_features, linear.out_features
        shape = matrix_shape(*sizes, 1, n_cores, in_factors, out_factors)
        cores, error = cores_of_matrix(linear.weight, shape, rank, max_error)
        trained = [linear.weight.requires_grad] * len(cores)
        layer = cls._with(cores, trained, linear.bias, *sizes, plan)
        return TTFit(layer.train(linear.training), error)

    def to_linear(self) -> nn.Linear:
        """The dense layer with the same outputs; it shares no memory with this one.

        Training mode and what is to be trained stay.
        """
        weight = self.weight.detach().clone(memory_format=torch.contiguous_format)  # one core: W is a view
        has_bias = self.bias is not None
        linear = nn.Linear(self.in_features, self.out_features, bias=has_bias, device="meta")
        linear.weight = nn.Parameter(weight, any(core.requires_grad for core in self.cores))
        if self.bias is not None:
            linear.bias = _copied(self.bias)
        return linear.train(self.training)

    def truncate(
        self, *, rank: int | Sequence[int] | None = None, max_error: float | None = None
    ) -> TTFit[Self]:
        """A layer of smaller rank, and the relative error |W - W'| / |W|; this one is not changed.

        Args:
            rank: see `from_linear`.
            max_error: see `from_linear`.

        Raises:
            InputError: neither limit is given, or one is out of range.

        Cost: O(o i r^3) for every core, in double precision, and up to 64 times that for padded sizes, see
            `tnml.nn.tt.convert.truncated_cores`; the matrix is not made.

        Example:
            >>> layer, error = TTLinear(64, 64, rank=8).truncate(rank=4)
            >>> layer.ranks, 0 < error < 1
            ((1, 4, 1), True)
        """
        cores, error = truncated_cores(list(self.cores), self.out_features, self.in_features, rank, max_error)
        trained = [core.requires_grad for core in self.cores]
        layer = self._with(cores, trained, self.bias, self.in_features, self.out_features, self.plan)
        layer.std = self.std
        return TTFit(layer.train(self.training), error)

    @classmethod
    def _with(
        cls,
        cores: list[Tensor],
        trained: list[bool],
        bias: nn.Parameter | None,
        in_features: int,
        out_features: int,
        plan: str | Plan,
    ) -> Self:
        """A layer of these cores; `bias` is copied. No random number is drawn."""
        shape = TTShape.of_cores(cores)
        options: dict[str, Any] = {"in_factors": shape.ins, "out_factors": shape.outs, "plan": plan}
        layer = cls(in_features, out_features, rank=1, bias=bias is not None, device="meta", **options)
        layer._take_cores(cores, trained)
        layer.bias = None if bias is None else _copied(bias)
        return layer

    def extra_repr(self) -> str:
        """How the sizes factor, and the ranks."""
        shape = self.shape
        plan = "" if self.plan == "auto" else f", plan={getattr(self.plan, 'name', self.plan)!r}"
        return (
            f"{factors_text(self.in_features, shape.ins)}, {factors_text(self.out_features, shape.outs)}, "
            f"ranks={shape.ranks}, bias={self.bias is not None}{plan}"
        )


def _copied(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
