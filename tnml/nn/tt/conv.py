"""Convolutions whose kernel is a tensor train."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Num
from torch import Tensor, nn
from torch.nn import functional

from tnml.checks import entries, one_of, whole
from tnml.contraction import TTShape
from tnml.errors import InputError
from tnml.nn.entry import check_input
from tnml.nn.tt.convert import TTFit, cores_of_matrix
from tnml.nn.tt.factors import fitting_ranks
from tnml.nn.tt.module import TTModule

PLANS = ("auto", "cores", "dense")
_THIN = 2.0  # by how much the three thin convolutions must be cheaper: they reach a lower rate


class TTConv(TTModule):
    """What `TTConv1d`, `TTConv2d` and `TTConv3d` share; see `TTConv2d`.

    Args:
        in_channels: channels of the inputs.
        out_channels: channels of the outputs.
        kernel_size: one number, or one for each axis, as the next three.
        stride: of the kernel.
        padding: zeros on both sides of each axis.
        dilation: of the kernel.
        rank: largest rank, or two: after the channels and before the outputs.
        bias: whether a bias is added.
        std: standard deviation of the starting kernel; None takes that of torch's convolutions.
        plan: "auto", "cores" or "dense".
        device: where the parameters live.
        dtype: their dtype.
    """

    axes: ClassVar[int]
    dense: ClassVar[type[nn.Module]]
    convolve: ClassVar[Callable[..., Tensor]]
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        *,
        rank: int | Sequence[int] = 8,
        bias: bool = True,
        std: float | None = None,
        plan: str = "auto",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self_in, self_out = whole("in_channels", in_channels, 1), whole("out_channels", out_channels, 1)
        sizes = self._each("kernel_size", kernel_size, 1)
        shape = kernel_shape(self_in, sizes, self_out, rank)
        super().__init__(shape, self_out, self_in * math.prod(sizes), std, device, dtype)
        self.kernel_size, self.plan = sizes, one_of("plan", plan, PLANS)
        self.stride, self.dilation = self._each("stride", stride, 1), self._each("dilation", dilation, 1)
        self.padding = self._each("padding", padding, 0)
        self.bias = nn.Parameter(torch.empty(self._rows, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def _each(self, name: str, value: object, least: int) -> tuple[int, ...]:
        given = entries(value)
        found = [value] * self.axes if given is None else given
        if len(found) != self.axes:
            raise InputError(
                f"{name} must be a whole number or {self.axes}, one for each axis, got {value!r}"
            )
        return tuple(whole(name, each, least) for each in found)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws new starting weights from torch's global random state, of the size of its convolutions."""
        fan_in = self._columns
        self._draw_cores(1 / math.sqrt(3 * fan_in) if self.std is None else self.std)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    @property
    def in_channels(self) -> int:
        """Channels of the inputs."""
        return int(self.cores[0].shape[2])

    @property
    def out_channels(self) -> int:
        """Channels of the outputs."""
        return self._rows

    @property
    def kernel(self) -> Num[Tensor, "o i *k"]:
        """The dense kernel, rebuilt at every access."""
        return self._matrix().view(self._rows, self.in_channels, *self.kernel_size)

    def forward(self, x: Num[Tensor, "..."]) -> Num[Tensor, "..."]:
        """Outputs `[b, o, ..]` of inputs `[b, i, ..]`; b is any number of axes.

        Raises:
            InputError: `x` is not a tensor, or has another number of axes or channels.
        """
        check_input(x)
        if x.dim() < self.axes + 1 or x.shape[-self.axes - 1] != self.in_channels:
            raise InputError(
                f"expected inputs [b, {self.in_channels}, {', '.join('hwd'[: self.axes])}], "
                f"got {list(x.shape)}"
            )
        if x.dim() > self.axes + 2:
            found: Tensor = self(x.reshape(-1, *x.shape[-self.axes - 1 :]))
            return found.reshape(*x.shape[: -self.axes - 1], *found.shape[1:])
        geometry = self.stride, self.padding, self.dilation
        convolve = type(self).convolve
        if self._chosen(x) == "dense":
            return convolve(x, self.kernel, self.bias, *geometry)
        first, middle, last = self.cores
        ones = (1,) * self.axes
        into = first.reshape(first.shape[2], -1).t().reshape(-1, self.in_channels, *ones)
        through = middle.squeeze(1).permute(2, 0, 1).unflatten(2, self.kernel_size)
        out = last.squeeze(3).squeeze(2).t().unflatten(1, (-1, *ones))
        return convolve(convolve(convolve(x, into), through, None, *geometry), out, self.bias)

    def _chosen(self, x: Tensor) -> str:
        """The plan: for "auto" whichever multiplies less, the thin convolutions counted twice."""
        if self.plan != "auto":
            return self.plan
        cores, dense = self.flops(tuple(x.shape[-self.axes :]))
        return "cores" if _THIN * cores < dense else "dense"

    def flops(self, size: Sequence[int]) -> tuple[int, int]:
        """Multiply-adds for one sample of a size: by the three cores one after the other, and densely.

        Example:
            >>> TTConv2d(64, 64, 3, padding=1, rank=8).flops((10, 10))
            (160000, 3686400)
        """
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        found = zip(size, self.padding, reach, self.stride, strict=True)
        outputs = math.prod(
            [max(0, (s + 2 * p - r) // t + 1) for s, p, r, t in found]
        )  # torch.compile reads it
        _, one, two, _ = self.ranks
        taps = math.prod(self.kernel_size)
        cores = math.prod(size) * self.in_channels * one + outputs * two * (one * taps + self._rows)
        return cores, outputs * self._columns * self._rows

    @classmethod
    def from_conv(
        cls,
        conv: nn.Module,
        *,
        rank: int | Sequence[int] | None = None,
        max_error: float | None = None,
        plan: str = "auto",
    ) -> TTFit[Self]:
        """The layer nearest to torch's convolution by TT-SVD, and the relative error |K - K'| / |K| it makes.

        Bias, dtype, device, training mode and what is to be trained stay as they are.

        Args:
            conv: a convolution of as many axes, with one group and zeros for padding; it is not changed.
            rank: largest rank, or two.
            max_error: largest relative error. With both, `rank` holds whatever the error.
            plan: how the product is computed.

        Raises:
            InputError: it is another module; neither limit is given, one is out of range, or the weights are
                not finite.

        Cost: two singular value decompositions, in double precision.

        Example:
            >>> layer, error = TTConv2d.from_conv(nn.Conv2d(16, 32, 3), max_error=0.5)
            >>> error <= 0.5
            True
        """
        if not isinstance(conv, cls.dense):
            raise InputError(f"expected a torch.nn.{cls.dense.__name__}, got {type(conv).__name__}")
        reason = unfit_geometry(conv)
        if reason:
            raise InputError(f"this convolution cannot become a tensor train: {reason}")
        facts: Any = conv
        channels, outputs, size = facts.in_channels, facts.out_channels, facts.kernel_size
        shape = kernel_shape(channels, size, outputs, 1)
        cores, error = cores_of_matrix(facts.weight.flatten(1), shape, rank, max_error)
        ranks = [core.shape[3] for core in cores[:-1]]
        layer = cls(
            *(channels, outputs, size, facts.stride, facts.padding, facts.dilation),
            rank=ranks,
            bias=False,
            plan=plan,
            device="meta",
        )
        layer._take_cores(cores, [facts.weight.requires_grad] * 3)
        if facts.bias is not None:
            layer.bias = nn.Parameter(facts.bias.detach().clone(), facts.bias.requires_grad)
        return TTFit(layer.train(conv.training), error)

    def to_conv(self) -> nn.Module:
        """Torch's convolution with the same outputs; it shares no memory with this one."""
        kernel = self.kernel.detach().clone()
        conv: Any = self.dense(
            *(
                self.in_channels,
                self.out_channels,
                self.kernel_size,
                self.stride,
                self.padding,
                self.dilation,
            ),
            bias=self.bias is not None,
            device="meta",
        )
        conv.weight = nn.Parameter(kernel, any(core.requires_grad for core in self.cores))
        if self.bias is not None:
            conv.bias = nn.Parameter(self.bias.detach().clone(), self.bias.requires_grad)
        module: nn.Module = conv.train(self.training)
        return module

    def extra_repr(self) -> str:
        """Channels, geometry and ranks."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, ranks={self.ranks}, bias={self.bias is not None}"
        )


class TTConv1d(TTConv):
    """`TTConv2d` along one axis.

    Example:
        >>> TTConv1d(8, 16, 3, rank=2)(torch.rand(5, 8, 10)).shape
        torch.Size([5, 16, 8])
    """

    axes, dense, convolve = 1, nn.Conv1d, functional.conv1d


class TTConv2d(TTConv):
    """`[b, i, h, w]` images to `[b, o, h', w']` by a convolution whose kernel is a tensor train.

        K[o, i, (y, x)] = sum_rs G1[i, r] G2[r, (y, x), s] G3[s, o]

    It can replace a `torch.nn.Conv2d` of one group. By "cores" it is three convolutions, of single pixels,
    of r to s channels, and of single pixels; by "dense" the kernel is built and used once. "auto" takes what
    multiplies less for the size of the images. A starting kernel has the root mean square entry of torch's.

    Cost: `flops`; "dense" costs what `Conv2d` does, and a kernel more.

    Source: Garipov, Podoprikhin, Novikov and Vetrov, arXiv 1611.03214; Kim et al., arXiv 1511.06530, for the
    three convolutions.

    Example:
        >>> layer = TTConv2d(64, 64, 3, padding=1, rank=8)
        >>> layer(torch.rand(2, 64, 10, 10)).shape, layer.n_parameters
        (torch.Size([2, 64, 10, 10]), 1664)
    """

    axes, dense, convolve = 2, nn.Conv2d, functional.conv2d


class TTConv3d(TTConv):
    """`TTConv2d` along three axes.

    Example:
        >>> TTConv3d(4, 6, 2, rank=2)(torch.rand(5, 4, 3, 3, 3)).shape
        torch.Size([5, 6, 2, 2, 2])
    """

    axes, dense, convolve = 3, nn.Conv3d, functional.conv3d


CONVOLUTIONS: dict[type[nn.Module], type[TTConv]] = {
    kind.dense: kind for kind in (TTConv1d, TTConv2d, TTConv3d)
}
"""Torch's convolutions and what can take their place."""


def kernel_shape(
    in_channels: int, kernel_size: Sequence[int], out_channels: int, rank: int | Sequence[int]
) -> TTShape:
    """The shape of a kernel as a matrix `[o, (i, taps)]` of three cores: channels, taps, outputs.

    Example:
        >>> kernel_shape(16, (3, 3), 32, 100)
        TTShape(ins=(16, 9, 1), outs=(1, 1, 32), ranks=(1, 16, 32, 1))
    """
    sizes = [in_channels, math.prod(kernel_size), out_channels]
    return TTShape((*sizes[:2], 1), (1, 1, sizes[2]), fitting_ranks(rank, sizes))


def unfit_geometry(conv: nn.Module) -> str:
    """Why torch's convolution has no tensor train here; empty where it has.

    Example:
        >>> unfit_geometry(nn.Conv2d(4, 4, 3)), unfit_geometry(nn.Conv2d(4, 4, 3, groups=2))
        ('', 'it has groups')
    """
    facts: Any = conv
    if facts.groups != 1:
        return "it has groups"
    if facts.padding_mode != "zeros" or isinstance(facts.padding, str):
        return "its padding is not a number of zeros"
    return ""
