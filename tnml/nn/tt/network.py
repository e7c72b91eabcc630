"""Networks of tensor-train layers: activations, starting weights, and `TNN`."""

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tnml.checks import entries, is_number, is_whole, probability
from tnml.contraction import Plan
from tnml.contraction.tt.plans import checked_plan
from tnml.errors import InputError, choose
from tnml.nn.entry import check_input, on_the_cpu, refuse_scripting
from tnml.nn.tt.factors import checked_n_cores, checked_rank
from tnml.nn.tt.linear import TTLinear
from tnml.quadrature import gauss_legendre

_WIDEST = 12.0  # standard deviations that the quadrature of an activation's moments covers
_POINTS = 300  # on either side of zero


class Sine(nn.Module):
    """The sine of every entry.

    Example:
        >>> Sine()(torch.zeros(2))
        tensor([0., 0.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """`sin(x)`."""
        return torch.sin(x)


class Elementwise(nn.Module):
    """A user's function of tensors as a module.

    Example:
        >>> Elementwise(torch.square)(torch.tensor([3.0]))
        tensor([9.])
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """`function(x)`."""
        return self.function(x)

    def extra_repr(self) -> str:
        """The function's name."""
        return getattr(self.function, "__name__", type(self.function).__name__)


# Every activation by name: how it is made from alpha, and whether its first derivative is continuous.
ACTIVATIONS: dict[str, tuple[Callable[[float], nn.Module], Callable[[float], bool]]] = {
    "sin": (lambda alpha: Sine(), lambda alpha: True),
    "tanh": (lambda alpha: nn.Tanh(), lambda alpha: True),
    "elu": (nn.ELU, lambda alpha: alpha == 1.0),
    "relu": (lambda alpha: nn.ReLU(), lambda alpha: False),
    "silu": (lambda alpha: nn.SiLU(), lambda alpha: True),
    "gelu": (lambda alpha: nn.GELU(), lambda alpha: True),
    "softplus": (lambda alpha: nn.Softplus(), lambda alpha: True),
    "identity": (lambda alpha: nn.Identity(), lambda alpha: True),
}
_NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


def activation_moments(activation: nn.Module) -> tuple[float, float]:
    """`E[act(z)]` and `E[act(z)^2]` for a standard normal z, by Gauss-Legendre quadrature.

    Zero, where many activations have a kink, parts the two intervals. In double precision, with a copy of
    the activation in evaluation mode.

    Raises:
        InputError: the activation is not a function of each entry, not finite, or zero everywhere.

    Example:
        >>> mean, square = activation_moments(Sine())
        >>> abs(mean) < 1e-12, abs(square - (1 - math.exp(-2)) / 2) < 1e-12
        (True, True)
    """
    points, weights = map(torch.from_numpy, gauss_legendre(_POINTS))
    half = _WIDEST * (points + 1) / 2
    z = torch.cat([-half, half])
    weight = torch.cat([weights, weights]) * torch.exp(-z.square() / 2)
    weight /= weight.sum()
    value = _entry_by_entry(copy.deepcopy(activation).to("cpu", torch.float64).eval(), z)
    mean, square = (weight * value).sum().item(), (weight * value.square()).sum().item()
    if not (math.isfinite(square) and square > 0):
        raise InputError(
            f"the mean square of the activation is {square:g} for a standard normal input; "
            "it must be positive and finite"
        )
    return mean, square


def _entry_by_entry(activation: nn.Module, z: Tensor) -> Tensor:
    """Values of an activation at `z`, which must not depend on the other entries or on their number."""
    rule = "an activation maps every entry by itself, alike every time"
    some = torch.arange(0, len(z), 7).flip(0)  # fewer, and in another order
    try:
        with torch.no_grad():
            value: Tensor = activation(z.clone())
            again: Tensor = activation(z[some])
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{rule}: it failed for {tuple(z.shape)}: {error}") from error
    for found, shape in ((value, z.shape), (again, some.shape)):
        if not isinstance(found, Tensor) or found.shape != shape or not found.is_floating_point():
            came = (
                f"{tuple(found.shape)}, {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
            )
            raise InputError(f"{rule}: expected {tuple(shape)} out of {tuple(shape)}, got {came}")
    if not torch.allclose(value[some], again, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise InputError(f"{rule}: this one gives other values where some entries are left out or moved")
    return value


def starting_scales(
    widths: Sequence[int], *, skip: bool, mean: float, square: float
) -> tuple[list[float], list[float | None]]:
    """Gains of all layers, and scales of all blocks with skips, that keep a signal's size through a network.

    The weights of layer k start with variance `gain_k^2 / widths[k]`. With `gain_k^2 = 1 / E[x_k^2]`, x_k
    being what reaches the layer, every activation meets numbers of variance one, if the inputs have
    `E[x^2] = 1`. The last layer has gain 1.

    A block with a skip adds `scale * act(..)` to its input; None marks blocks without one. In a run of n
    such blocks `scale = (n Var[act] + n^2 E[act]^2)^(-1/2)`: what they add up to has mean square 1 for any
    n, whereas a plain sum would grow with the depth, and fastest where the activation has a mean.

    Args:
        widths: n + 2 of them for n blocks and a last layer.
        skip: whether blocks of equal widths have skips.
        mean: E[act(z)] for a standard normal z.
        square: E[act(z)^2].

    Source: own design, after the idea of a starting variance that is matched to the activation in Patel et
    al., arXiv:2212.14076.

    Example:
        >>> starting_scales([8, 4, 4, 2], skip=True, mean=0.0, square=0.25)
        ([1.0, 2.0, 1.0], [None, 2.0])
    """
    gains: list[float] = []
    scales: list[float | None] = []
    reached, level = 1.0, 0.0  # mean square and mean of what reaches the next layer
    same = [skip and a == b for a, b in itertools.pairwise(widths[:-1])]
    for skipped, run in itertools.groupby(same):
        n = len(list(run))
        scale = (n * (square - mean**2) + (n * mean) ** 2) ** -0.5 if skipped else None
        for _ in range(n):
            gains.append(reached**-0.5)
            scales.append(scale)
            if scale is None:
                reached, level = square, mean
            else:
                reached += scale**2 * square + 2 * scale * mean * level
                level += scale * mean
    return [*gains, 1.0], scales


class TNN(nn.Module):
    """A tensor neural network: a multilayer perceptron whose layers are tensor-train layers.

    A block is `dropout(act(norm(layer(x))))`. With `skip`, a block whose two widths agree adds that, times a
    fixed scale, to its input; blocks whose widths differ silently have no skip. The last layer stands alone.

    The starting weights keep the size of a signal: if the inputs have variance one, every activation meets
    numbers of about variance one, at any depth; see `tnml.nn.tt.network.starting_scales`, which also gives
    the scales of skips. Biases start at zero. The weights come from torch's global random state.

    Args:
        widths: inputs, hidden widths and outputs, (in, hidden, .., hidden, out).
        rank: rank of the tensor-train layers, or one number for each inner rank. None: every layer is an
            `nn.Linear` that starts alike, which is the dense network to compare with.
        activation: "sin", "tanh", "elu", "relu", "silu", "gelu", "softplus", "identity", a function or a
            module. A function must map every entry by itself; a module is copied for every block.
        alpha: of "elu".
        norm: None, "batch" or "layer".
        dropout: probability of dropping a value after an activation.
        skip: whether blocks of equal widths have skips.
        first: the first layer is a tensor train ("tt") or an `nn.Linear` ("dense").
        last: the same for the last layer, which decides where a network has one layer only.
        n_cores: cores of a tensor-train layer.
        plan: how the tensor-train layers are contracted, see `tnml.nn.TTLinear`.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        InputError: a width or an option is out of range, or a name is unknown.

    Source: Patel et al., Quantum-inspired tensor neural networks for partial differential equations,
    arXiv:2208.02235.

    Example:
        >>> network = TNN([64, 64, 64, 10], rank=4)
        >>> network(torch.rand(5, 64)).shape
        torch.Size([5, 10])
        >>> network.n_parameters, network.dense_parameters, network.smooth
        (1802, 8970, True)
    """

    __prepare_scriptable__ = refuse_scripting

    def __init__(
        self,
        widths: Sequence[int],
        *,
        rank: int | Sequence[int] | None = 4,
        activation: str | Callable[[Tensor], Tensor] | nn.Module = "sin",
        alpha: float = 1.0,
        norm: str | None = None,
        dropout: float = 0.0,
        skip: bool = False,
        first: str = "tt",
        last: str = "dense",
        n_cores: int | None = 2,
        plan: str | Plan = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.widths = _checked_widths(widths)
        self.rank = None if rank is None else checked_rank(rank)
        n_cores, kinds = checked_n_cores(n_cores), {"tt": True, "dense": False}
        first_tt, last_tt = (choose("kind of layer", kind, kinds) for kind in (first, last))
        checked_plan(plan)
        share = probability("dropout", dropout)
        self.activation, starting, self._smooth = _activation(activation, alpha)
        self.norm = None if norm is None else choose("norm", norm, {name: name for name in _NORMS})
        with on_the_cpu():
            mean, square = activation_moments(starting)
        gains, self.scales = starting_scales(self.widths, skip=skip, mean=mean, square=square)
        self._stds = [gain / math.sqrt(width) for gain, width in zip(gains, self.widths, strict=False)]

        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.layers = nn.ModuleList()
        for number, (i, o) in enumerate(itertools.pairwise(self.widths)):
            train = last_tt if number == len(gains) - 1 else first_tt or number > 0
            if train and self.rank is not None:
                options: dict[str, Any] = {"n_cores": n_cores, "std": self._stds[number], "plan": plan}
                self.layers.append(TTLinear(i, o, rank=self.rank, **options, **place))
            else:
                self.layers.append(nn.Linear(i, o, **place))
        hidden = self.widths[1:-1]
        self.norms = nn.ModuleList([_NORMS[self.norm](h, **place) for h in hidden] if self.norm else [])
        self.activations = nn.ModuleList([copy.deepcopy(starting).to(device, dtype) for _ in hidden])
        self.dropout = nn.Dropout(share)
        self._start()

    def _start(self) -> None:
        """Gaussian weights for the dense layers, as those of tensor trains; biases zero."""
        for layer, std in zip(self.layers, self._stds, strict=True):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0.0, std)
            bias: Any = layer.bias
            nn.init.zeros_(bias)

    def reset_parameters(self) -> None:
        """Draws new starting weights, and resets norms and activations that can be reset."""
        for module in (*self.layers, *self.norms, *self.activations):
            reset: Any = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
        self._start()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs `[..., out]` of inputs `[..., in]`.

        Raises:
            InputError: `x` is not a tensor, its last axis is not the first width, or it is `torch.jit.trace`
                that calls.
        """
        check_input(x)
        if x.dim() == 0 or x.shape[-1] != self.widths[0]:
            raise InputError(
                f"expected inputs [..., {self.widths[0]}], got {list(x.shape)}; flatten images to one row "
                "per sample"
            )
        leading = x.shape[:-1]
        x = x.reshape(-1, self.widths[0])
        for number, (activation, scale) in enumerate(zip(self.activations, self.scales, strict=True)):
            y = self.layers[number](x)
            if self.norm is not None:
                y = self.norms[number](y)
            y = self.dropout(activation(y))
            x = y if scale is None else x + scale * y
        outputs: Tensor = self.layers[-1](x)
        return outputs.reshape(*leading, self.widths[-1])

    @property
    def smooth(self) -> bool | None:
        """Whether the activation's first derivative is continuous; None where that is not known."""
        return self._smooth

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def dense_parameters(self) -> int:
        """Number of parameters of the same network with dense layers."""
        layers = sum(parameter.numel() for parameter in self.layers.parameters())
        dense = sum((i + 1) * o for i, o in itertools.pairwise(self.widths))
        return self.n_parameters - layers + dense

    def extra_repr(self) -> str:
        """Widths, rank, activation, and the parameters next to those of the dense network."""
        skips = sum(scale is not None for scale in self.scales)
        return (
            f"{' -> '.join(map(str, self.widths))}, rank={self.rank}, activation={self.activation!r}, "
            f"skips={skips}, {self.n_parameters:,} parameters ({self.dense_parameters:,} if dense)"
        )


def _checked_widths(widths: Sequence[int]) -> tuple[int, ...]:
    checked = tuple(entries(widths) or (widths if isinstance(widths, Iterable) else ()))
    if len(checked) < 2 or not all(is_whole(width, 1) for width in checked):
        raise InputError(
            f"widths are at least two positive integers, (in, hidden, .., hidden, out); got {widths!r}"
        )
    return tuple(int(width) for width in checked)


def _activation(
    activation: str | Callable[[Tensor], Tensor] | nn.Module, alpha: float
) -> tuple[str, nn.Module, bool | None]:
    """Name, module, and whether the first derivative is continuous."""
    if not is_number(alpha):
        raise InputError(f"alpha must be a number, got {alpha!r}")
    if isinstance(activation, str):
        make, smooth = choose("activation", activation, ACTIVATIONS)
        if not (math.isfinite(alpha) and alpha > 0):
            raise InputError(f"alpha must be positive and finite, got {alpha}")
        if activation != "elu" and alpha != 1.0:
            raise InputError(f"alpha belongs to the activation 'elu', got alpha={alpha} for {activation!r}")
        return activation, make(float(alpha)), smooth(alpha)
    if isinstance(activation, nn.Module):
        return type(activation).__name__, activation, None
    if not callable(activation):
        raise InputError(
            f"an activation is a name, a function or a module, got {type(activation).__name__}; "
            f"names: {', '.join(ACTIVATIONS)}"
        )
    made = Elementwise(activation)
    return made.extra_repr(), made, None
