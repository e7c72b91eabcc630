"""Derivatives of a network with respect to its inputs, by its layers' own fast products if they are known.

A `TNN`, or an `nn.Sequential` of linear layers and activations, is differentiated by hand, layer by layer.
Both ways then consist of plain products with its layers and of `Jet`, so training goes backward through them
once, where generic autograd goes twice or loses the hand-written adjoints of tensor-train layers. Sine and
cosine of an activation are computed once. Every other network is differentiated in the generic way, by
reverse mode.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tnml.contraction import tt_linear
from tnml.nn import TNN, TTLinear
from tnml.nn.tt.network import Elementwise, Sine
from tnml.pde.derivatives import reverse_gradient
from tnml.torch_private import has_forward_hooks

Network = Callable[[Tensor], Tensor]  # [m, d + 1] -> [m, 1]


class Block(NamedTuple):
    """`activation(layer(x))`, times `scale` and added to x if there is a scale.

    Example:
        >>> Block(nn.Linear(2, 2), nn.Tanh(), None).scale is None
        True
    """

    layer: nn.Module
    activation: nn.Module
    scale: float | None


def network_slope(network: Network, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs `[m, 1]` and their derivatives along v `[m, 1]`: in forward mode if the layers are known.

    Cost: 2 products with every layer forward and 4 backward.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> y, slope = network_slope(layer, torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        >>> bool(slope.item() == layer.weight[0, 0].item())
        True
    """
    known = _blocks(network, x)
    if known is None:
        y, z = reverse_gradient(network, x)
        return y, (z * v).sum(1, keepdim=True)
    blocks, last = known
    for layer, activation, scale in blocks:
        value, first = jet(activation, layer(x))
        slope = first * _without_bias(layer, v)
        x, v = (value, slope) if scale is None else (x + scale * value, v + scale * slope)
    return last(x), _without_bias(last, v)


def network_gradient(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs `[m, 1]` and their gradients `[m, i]`, by reverse mode.

    Cost: 2 products with every layer forward and 4 backward.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> bool((network_gradient(layer, torch.zeros(1, 2))[1] == layer.weight).all())
        True
    """
    known = _blocks(network, x)
    if known is None:
        return reverse_gradient(network, x)
    blocks, last = known
    firsts = []
    for layer, activation, scale in blocks:
        value, first = jet(activation, layer(x))
        x = value if scale is None else x + scale * value
        firsts.append(first)
    y = last(x)
    z = _transposed(last, torch.ones_like(y))
    for (layer, _, scale), first in reversed(list(zip(blocks, firsts, strict=True))):
        back = _transposed(layer, z * first)
        z = back if scale is None else z + scale * back
    return y, z


def _blocks(network: Network, x: Tensor) -> tuple[list[Block], nn.Module] | None:
    """Blocks and last layer of a network that can be differentiated by hand; None if it cannot.

    It cannot with hooks, nor if x has a graph, which may need higher derivatives than `Jet` gives.
    """
    if (x.requires_grad and torch.is_grad_enabled()) or torch.is_autocast_enabled(x.device.type):
        return None
    if type(network) is TNN:
        if network.norm is not None or (network.training and network.dropout.p > 0):
            return None
        layers, activations, scales = list(network.layers), list(network.activations), network.scales
    elif type(network) is nn.Sequential:
        parts = list(network)
        layers, activations = parts[::2], parts[1::2]
        if len(parts) % 2 == 0 or not all(type(part) in _ELEMENTWISE for part in activations):
            return None
        scales = [None] * len(activations)
    else:
        return None
    if not all(type(layer) in _LAYERS for layer in layers) or any(map(_hooked, network.modules())):
        return None
    return [Block(*parts) for parts in zip(layers, activations, scales, strict=False)], layers[-1]


def _hooked(module: nn.Module) -> bool:
    return has_forward_hooks(module) or hasattr(module, "parametrizations")


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
        _prepare_forward_mode()
        value, first, *_ = torch.func.jvp(activation, (x,), (torch.ones_like(x),))
        return value, first
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
_ELEMENTWISE = {*_FORMULAS, Elementwise, nn.ELU, nn.GELU, nn.Softplus, nn.Sigmoid, nn.Identity}
_LAYERS = {nn.Linear, TTLinear}


@functools.cache
def _prepare_forward_mode() -> None:
    """Torch compiles formulas at the first use of forward mode, with a warning that is not for users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))
