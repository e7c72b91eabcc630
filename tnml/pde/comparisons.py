"""Checks that the functions of a problem agree with each other, and that it asks for nothing unsolved."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tnml.checks import one_of
from tnml.errors import InputError

_MOVED = 0.01  # distance between the points, as a part of the noise up to the horizon
_SAME = 1e-4  # of the largest value: equal up to rounding, also in single precision
_SLOPE = 1e-3  # of the largest value, for gradients
_REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "jump": "paths are continuous: jumps have no place here",
        "hessian": "the driver may depend on u and Du, not on D2u: fully nonlinear equations are not solved",
        "sigma": "sigma must not depend on the solution; a drift may, see coupled_drift",
    }
)
# Arguments of other libraries and papers, by what they ask for.
_NAMES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("jump", "jumps", "jump_measure", "intensity", "levy", "compensator"), "jump"),
        **dict.fromkeys(("hessian", "driver_hessian", "second_order", "d2u"), "hessian"),
        **dict.fromkeys(("coupled_diffusion", "coupled_sigma", "sigma_y"), "sigma"),
    }
)


class InDouble:
    """A function whose constants are in double precision, for batches in any dtype.

    Example:
        >>> matrix = torch.eye(2, dtype=torch.float64)
        >>> InDouble(lambda x: x @ matrix)(torch.ones(1, 2)).dtype
        torch.float32
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The value in the dtype of the last input."""
        return self.function(*(part.double() for part in inputs)).to(inputs[-1].dtype)


def refuse_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Raises for an argument that no problem has, and says so if it names something that is not solved.

    Raises:
        InputError: the first such argument.

    Example:
        >>> refuse_names(["jumps"], ["dim"])
        Traceback (most recent call last):
        tnml.errors.InputError: jumps: paths are continuous: jumps have no place here
    """
    for name in given:
        if name in _NAMES and name not in known:
            raise InputError(f"{name}: {_REFUSED[_NAMES[name]]}")
        one_of("argument of Problem", name, known)


def refuse_arguments(driver: object, diffusion: object) -> None:
    """Raises if a driver takes D2u, or a diffusion the solution.

    Raises:
        InputError: the number of arguments says so.

    Example:
        >>> refuse_arguments(None, lambda t, x, v, y: v)
        Traceback (most recent call last):
        tnml.errors.InputError: diffusion takes 4 arguments: sigma must not depend on the solution; ...
    """
    for name, function, most, reason in (
        ("driver", driver, 4, "hessian"),
        ("diffusion", diffusion, 3, "sigma"),
    ):
        count = _arguments(function)
        if count > most:
            raise InputError(f"{name} takes {count} arguments: {_REFUSED[reason]}")


def as_constant(value: Any) -> Any:
    """Arrays as tensors and NumPy numbers as Python numbers; everything else as it is.

    Example:
        >>> as_constant(np.ones(2)), as_constant(np.float32(0.5))
        (tensor([1., 1.], dtype=torch.float64), 0.5)
    """
    if isinstance(value, np.ndarray):
        return torch.tensor(value)
    return value.item() if isinstance(value, np.generic) else value


def points_around(
    x: Tensor, sigma: Callable[[Tensor, Tensor, Tensor], Tensor], horizon: float
) -> tuple[Tensor, Tensor]:
    """Times `[m, 1]` and points `[m, d]`, all different: the first is the start, the others are near it.

    Args:
        x: the starting point, `[m, d]`.
        sigma: of the problem.
        horizon: T.

    Example:
        >>> t, x = points_around(torch.zeros(3, 1), lambda t, x, v: v, 1.0)
        >>> t[:, 0].tolist(), x[0].item(), len(x.unique())
        ([0.0, 0.25, 0.5], 0.0, 3)
    """
    rows = len(x)
    draw = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    draw[0] = 0
    moved = sigma(x.new_zeros(rows, 1), x, _MOVED * math.sqrt(horizon) * draw)
    times = torch.tensor([0.0, 0.25, 0.5, 0.75], dtype=x.dtype)[:rows, None] * horizon
    return times, x + torch.where(moved.isfinite(), moved, 0.0)


def check_rows(what: str, function: Callable[..., Tensor], whole: Tensor, *inputs: Tensor) -> None:
    """Raises unless a function gives each point the same value alone as in a batch.

    Args:
        what: its name.
        function: of batches.
        whole: what it returned for the batch.
        inputs: the batch.

    Raises:
        InputError: some points differ.

    Example:
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> check_rows("terminal", lambda x: x - x.mean(), x - x.mean(), x)
        Traceback (most recent call last):
        tnml.errors.InputError: terminal gives a point a different value in a batch than alone; ...
    """
    alone = torch.cat([function(*(part[i : i + 1] for part in inputs)) for i in range(len(whole))])
    scale = whole[whole.isfinite()].abs().max() if bool(whole.isfinite().any()) else whole.new_zeros(())
    if not torch.allclose(alone, whole, rtol=0.0, atol=_SAME * float(scale), equal_nan=True):
        raise InputError(
            f"{what} gives a point a different value in a batch than alone; reduce over the coordinates, "
            "x.sum(1, keepdim=True), never over the batch, and draw no random numbers"
        )


def check_gradient(given: Tensor, terminal: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Raises unless the given gradient is that of the terminal value, wherever the latter has one.

    Args:
        given: at the points; the first of them, the start, may be a kink and is not checked.
        terminal: g.
        x: the points.

    Raises:
        InputError: they differ.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> check_gradient(2 * x, torch.square, x)
    """
    with torch.enable_grad():
        inputs = x.detach().requires_grad_()
        value = terminal(inputs)
        if not value.requires_grad:
            return
        (own,) = torch.autograd.grad(value.sum(), inputs, materialize_grads=True)
    own, given = own[1:], given[1:].detach()
    if not bool(own.isfinite().all()) or not bool(own.any()):
        return
    worst = (own - given).abs().max()
    if not worst <= _SLOPE * own.abs().max():
        raise InputError(
            f"terminal_gradient is not the gradient of terminal: near x0 they differ by {float(worst):.3g} "
            f"with values up to {float(own.abs().max()):.3g}; correct it, or leave it out"
        )


def check_exact(exact: Callable[[Tensor, Tensor], Tensor], g: Tensor, x: Tensor, horizon: float) -> None:
    """Raises unless the exact solution ends in the terminal value, if it has a value at the horizon.

    Args:
        exact: u.
        g: terminal values at the points.
        x: the points.
        horizon: T.

    Raises:
        InputError: it ends in another value.

    Example:
        >>> x = torch.ones(2, 1)
        >>> check_exact(lambda t, x: x + (1 - t), x, x, 1.0)
    """
    end = exact(x.new_full((len(x), 1), horizon), x).detach().double()[1:]
    g = g.detach().double()[1:]
    known = end.isfinite() & g.isfinite()
    if not bool(known.any()):
        return
    worst, size = (end - g)[known].abs().max(), g[known].abs().max().clamp_min(end[known].abs().max())
    if not worst <= 10 * _SLOPE * size + 1e-9:
        raise InputError(
            f"exact(T, x) is not the terminal value: at T = {horizon:g} near x0 they differ by "
            f"{float(worst):.3g} with values up to {float(size):.3g}; correct one of them, or the horizon"
        )


def keeps_dtype(function: Callable[..., Tensor], *inputs: Tensor) -> bool:
    """Whether a function returns single precision when it is given batches in single precision.

    Example:
        >>> keeps_dtype(lambda x: x @ torch.eye(1, dtype=torch.float64), torch.ones(2, 1))
        False
    """
    try:
        found = function(*(part.float() for part in inputs))
    except RuntimeError as error:
        return "dtype" not in str(error) and "type" not in str(error)
    return isinstance(found, Tensor) and found.dtype == torch.float32


def _arguments(function: object) -> int:
    """How many arguments a function needs; 0 if that is not known."""
    if not callable(function) or isinstance(function, Tensor):
        return 0
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 0
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(part.kind in places and part.default is part.empty for part in parameters)
