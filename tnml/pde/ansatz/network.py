"""Networks for u: the ones that tnml makes, and what is required of any other."""

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from tnml.errors import InputError, choose
from tnml.nn import TNN, BondDropout, SiteDropout, TTLinear
from tnml.torch_private import is_batch_norm, is_dropout

_NETWORKS = {"dense": False, "tnn": True}
_START = 0.1  # the last layer starts at this part of its usual size

_KINKED = (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Hardshrink,
    nn.Softshrink, nn.Threshold, nn.SELU,
)  # fmt: skip


def make_network(
    name: str,
    dim: int,
    *,
    hidden: Sequence[int] = (64, 64, 64),
    rank: int | Sequence[int] = 4,
    activation: str = "silu",
    first: str = "tt",
    stretch: float = 1.0,
) -> TNN:
    """A network of d + 1 inputs and one output, with weights from torch's global random state.

    It starts smooth and small: with the weights of `torch.nn.Linear`, which are three times smaller than
    those of a `TNN` (a rough start leaves a dependence on x that takes long to unlearn and costs a factor of
    ten in the error), and with a tenth of them in the last layer, so that training begins near the terminal
    value that the solution is built on.

    Args:
        name: "dense", or "tnn" with tensor-train layers.
        dim: d, the space coordinates.
        hidden: widths.
        rank: of the tensor-train layers.
        activation: a smooth one, see `tnml.nn.TNN`.
        first: kind of the first layer of "tnn", "tt" or "dense".
        stretch: factor of the first layer's weights, for solutions that oscillate.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> make_network("dense", 100, hidden=(256, 256, 256, 256)).n_parameters
        223745
    """
    tensorised = choose("network", name, _NETWORKS)
    network = TNN(
        (dim + 1, *hidden, 1), rank=rank if tensorised else None, activation=activation, first=first
    )
    for layer in network.layers:
        if isinstance(layer, nn.Linear | TTLinear):
            if isinstance(layer, TTLinear):
                layer.std = None
            layer.reset_parameters()
    with torch.no_grad():
        for parameter in network.layers[-1].parameters():
            parameter.mul_(_START)
        if stretch != 1:
            named = network.layers[0].named_parameters()
            cores = [part for name, part in named if not name.startswith("bias")]
            for core in cores:
                core.mul_(stretch ** (1 / len(cores)))
    return network


def start_at_zero(network: TNN) -> None:
    """Sets the last layer to zero, so that training starts at what the solution is built on.

    Example:
        >>> network = make_network("dense", 2, hidden=(4,))
        >>> start_at_zero(network)
        >>> network(torch.ones(1, 3)).item()
        0.0
    """
    with torch.no_grad():
        for parameter in network.layers[-1].parameters():
            parameter.zero_()


def check_network(network: nn.Module) -> None:
    """Refuses what makes u depend on the batch or on chance, and warns of activations with a kink.

    Raises:
        InputError: there is batch norm, or dropout that drops anything.

    Warns:
        UserWarning: an activation is not smooth.

    Example:
        >>> check_network(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))
    """
    kinked = ""
    for name, module in network.named_modules():
        where = f"{type(module).__name__} ({name or 'the network itself'})"
        if is_batch_norm(module):
            raise InputError(
                f"the network has batch norm, {where}: u(t, x) would depend on the other points of the "
                "batch, and Du would not be its gradient; leave it out, or use layer norm"
            )
        if (is_dropout(module) or isinstance(module, BondDropout | SiteDropout)) and module.p > 0:
            raise InputError(
                f"the network has dropout, {where}, p={module.p}: the two ends of a time step would be "
                "values of two different functions; leave it out or set p=0"
            )
        rough = isinstance(module, _KINKED) or (isinstance(module, nn.ELU) and module.alpha != 1)
        kinked = kinked or (where if rough or getattr(module, "smooth", None) is False else "")
    if kinked:
        warnings.warn(
            f"{kinked} is not smooth: Du jumps, and little of the loss reaches the weights through it; "
            "use sin, tanh or SiLU",
            stacklevel=3,
        )
