"""Checks of the numbers and functions of an equation."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tnml.checks import is_number, number
from tnml.errors import InputError


def as_number(name: str, value: object, *, above: float | None = None) -> float:
    """`value` if it is a finite number above `above`: a Python number as it is, a NumPy number as a float.

    The options of a problem are kept in files and compared when a run is resumed: there 1 and 1.0 differ, and
    NumPy numbers cannot be written.

    Raises:
        InputError: it is not.

    Example:
        >>> import numpy as np
        >>> as_number("sigma", 1, above=0.0), as_number("sigma", np.float32(0.5), above=0.0)
        (1, 0.5)
    """
    found = number(name, value, above=above)
    return value if type(value) in (int, float) else found  # type: ignore[return-value]


def starting_point(x0: Tensor | Sequence[float] | float, dim: int) -> Tensor:
    """The point `[d]` in float64.

    Raises:
        InputError: it has the wrong number of coordinates, or one is not finite.

    Example:
        >>> starting_point(0.5, 2)
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    point = torch.as_tensor(x0, dtype=torch.float64).detach().cpu()
    if point.dim() == 0:
        point = point.expand(dim).clone()
    if tuple(point.shape) != (dim,):
        raise InputError(f"x0 must be one number or have dim = {dim} numbers, got shape {tuple(point.shape)}")
    if not bool(point.isfinite().all()):
        raise InputError("x0 must be finite")
    return point


def check_constant(what: str, value: object, dim: int, *, matrix: bool = True) -> None:
    """Raises unless a constant is a number, `[d]` or, if `matrix` allows it, `[d, d]`.

    Functions and None pass.

    Raises:
        InputError: it is something else.

    Example:
        >>> check_constant("diffusion", torch.ones(3), 3)
    """
    if isinstance(value, Tensor):
        shapes = [(), (dim,), *([(dim, dim)] if matrix else [])]
        if tuple(value.shape) not in shapes:
            wanted = " or ".join(str(list(shape)) for shape in shapes[1:])
            raise InputError(f"{what} must be a number or a tensor {wanted}, got {list(value.shape)}")
    elif not (value is None or callable(value) or is_number(value)):
        raise InputError(f"{what} must be a function, a number or a tensor, got {type(value).__name__}")


def shaped(what: str, shape: tuple[int, int], function: Callable[..., object], *inputs: Tensor) -> Tensor:
    """What a function returns for a batch of starting points, if it has the right shape.

    Raises:
        InputError: it fails, or returns a wrong shape.

    Example:
        >>> shaped("drift", (1, 2), torch.sin, torch.zeros(1, 2))
        tensor([[0., 0.]])
    """
    try:
        value = function(*inputs)
    except (RuntimeError, TypeError, IndexError) as error:
        text = str(error).partition("\n")[0]
        took = ", ".join(str(list(part.shape)) for part in inputs)
        hint = "its arguments and shapes are those of the docstring of Problem"
        if "dtype" in text:
            hint = "let its constants take the dtype of x, as in `A.to(x)`"
        kind = type(error).__name__
        raise InputError(f"{what} fails for float64 inputs {took} ({kind}: {text}); {hint}") from error
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        came = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        advice = "; sum with keepdim=True" if shape[1] == 1 else ""
        if what == "terminal" and isinstance(value, Tensor) and value.dim() == 2 and value.shape[1] > 1:
            advice += " for one value; u has only one, systems of equations are not solved here"
        raise InputError(f"{what} must return {list(shape)} for {shape[0]} points, got {came}{advice}")
    return value


def check_finite(what: str, value: Tensor) -> None:
    """Raises unless all entries of what a function returned at the start are finite.

    Raises:
        InputError: one is not.

    Example:
        >>> check_finite("terminal", torch.zeros(1))
    """
    if not bool(value.isfinite().all()):
        raise InputError(f"{what} is not finite at (0, x0); check the formula and x0")


def checked(what: str, shape: tuple[int, int], function: Callable[..., object], *inputs: Tensor) -> Tensor:
    """What a function returns for a batch of starting points, if it has the right shape and is finite.

    Raises:
        InputError: it fails, or returns a wrong shape or a number that is not finite.

    Example:
        >>> checked("terminal", (1, 1), torch.exp, torch.zeros(1, 1))
        tensor([[1.]])
    """
    value = shaped(what, shape, function, *inputs)
    check_finite(what, value)
    return value
