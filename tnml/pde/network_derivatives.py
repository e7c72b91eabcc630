"""Derivatives of a network with respect to its inputs: for a `TNN` with its layers' own fast products.

A `TNN` is differentiated by hand, layer by layer. Both ways then consist of plain products with its layers
and of `Jet`, so training goes backward through them once, where generic autograd goes twice or loses the
layers' hand-written adjoints; sine and cosine of an activation are computed once. Every other network takes
the generic way.
"""

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tnml.contraction import tt_linear
from tnml.nn import TNN, TTLinear
from tnml.nn.tnn import Sine
from tnml.pde.derivatives import forward_slope, reverse_gradient

Network = Callable[[Tensor], Tensor]  # [m, d + 1] -> [m, 1]


def network_slope(network: Network, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs `[m, 1]` and their derivatives along v `[m, 1]`, by forward mode.

    Cost: 2 products with every layer forward and 4 backward.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> y, slope = network_slope(layer, torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        >>> bool(slope.item() == layer.weight[0, 0].item())
        True
    """
    if not _by_hand(network, x):
        return forward_slope(network, x, v)
    for layer, activation, scale in zip(network.layers, network.activations, network.scales, strict=False):
        value, first = jet(activation, layer(x))
        slope = first * _without_bias(layer, v)
        x, v = (value, slope) if scale is None else (x + scale * value, v + scale * slope)
    last = network.layers[-1]
    return last(x), _without_bias(last, v)


def network_gradient(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs `[m, 1]` and their gradients `[m, i]`, by reverse mode.

    Cost: 2 products with every layer forward and 4 backward.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> bool((network_gradient(layer, torch.zeros(1, 2))[1] == layer.weight).all())
        True
    """
    if not _by_hand(network, x):
        return reverse_gradient(network, x)
    firsts = []
    for layer, activation, scale in zip(network.layers, network.activations, network.scales, strict=False):
        value, first = jet(activation, layer(x))
        x = value if scale is None else x + scale * value
        firsts.append(first)
    y = network.layers[-1](x)
    z = _transposed(network.layers[-1], torch.ones_like(y))
    for layer, first, scale in reversed(list(zip(network.layers, firsts, network.scales, strict=False))):
        back = _transposed(layer, z * first)
        z = back if scale is None else z + scale * back
    return y, z


def _by_hand(network: Network, x: Tensor) -> TypeGuard[TNN]:
    """Whether the hand-written way holds: a plain `TNN` of one kind of block, no hooks, x without a graph.

    A graph behind x may want derivatives of a higher order than `Jet` gives.
    """
    return (
        type(network) is TNN
        and network.norm is None
        and not (network.training and network.dropout.p > 0)
        and not any(_hooked(module) for module in network.modules())
        and all(type(layer) in (nn.Linear, TTLinear) for layer in network.layers)
        and not (x.requires_grad and torch.is_grad_enabled())
        and not torch.is_autocast_enabled(x.device.type)
    )


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or hasattr(module, "parametrizations"))


def _without_bias(layer: nn.Module, v: Tensor) -> Tensor:
    if isinstance(layer, TTLinear):
        return tt_linear(v, list(layer.cores), out_features=layer.out_features, plan=layer.plan)
    return functional.linear(v, layer.weight)  # type: ignore[arg-type]


def _transposed(layer: nn.Module, g: Tensor) -> Tensor:
    """`g W` for a layer with the matrix W."""
    if isinstance(layer, TTLinear):
        cores = [core.transpose(1, 2) for core in layer.cores]
        return tt_linear(g, cores, out_features=layer.in_features)
    return g @ layer.weight  # type: ignore[operator]


def jet(activation: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """An activation and its first derivative at every entry of x.

    Example:
        >>> jet(nn.Tanh(), torch.zeros(1))
        (tensor([0.]), tensor([1.]))
    """
    formula = _FORMULAS.get(type(activation))
    if formula is None:
        return forward_slope(activation, x, torch.ones_like(x))
    value, first = Jet.apply(x, formula)  # type: ignore[no-untyped-call]
    return value, first


class Jet(torch.autograd.Function):
    """`f(x)` and `f'(x)`, and their adjoint by formulas for f, f' and f''; called as `Jet.apply(x, formula)`.

    Example:
        >>> Jet.apply(torch.zeros(1), _sine)
        (tensor([0.]), tensor([1.]))
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, formula: Callable[[Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, Tensor]:
        """Value and first derivative."""
        value, first, second = formula(x)
        # sin'' = -sin and the like need no tensor of their own: `second` is then None
        ctx.negated = second is None
        ctx.save_for_backward(first, value if second is None else second)
        return value, first

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_value: Tensor, of_first: Tensor) -> tuple[Tensor, None]:
        """The gradient with respect to x."""
        first, second = ctx.saved_tensors
        return (of_value * first).addcmul_(of_first, second, value=-1 if ctx.negated else 1), None


def _sine(x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    return torch.sin(x), torch.cos(x), None


def _tanh(x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    y = torch.tanh(x)
    first = 1 - y.square()
    return y, first, -2 * y * first


def _silu(x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    s = torch.sigmoid(x)
    y = x * s
    rest = s * (1 - s)
    first = s + x * rest
    return y, first, rest * (2 + x - 2 * y)


_FORMULAS: dict[type[nn.Module], Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None]]] = {
    Sine: _sine,
    nn.Tanh: _tanh,
    nn.SiLU: _silu,
}
