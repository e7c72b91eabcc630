"""What the methods of a matrix product state accept: one clear error for everything else."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tnml.checks import entries, is_number, whole
from tnml.errors import InputError, choose
from tnml.shapes import check_cores

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
}


def check_state_cores(cores: Sequence[Tensor]) -> None:
    """Raises unless the cores `(l, d, r)` fit each other, on one device, and hold finite numbers only.

    Raises:
        InputError: says which core breaks the rule.

    Example:
        >>> check_state_cores([torch.ones(1, 2, 3), torch.ones(3, 5, 1)])
    """
    check_cores(cores, same_physical=False)
    for site, core in enumerate(cores):
        if core.dtype not in DTYPES.values():
            raise InputError(f"core {site} has dtype {core.dtype}, expected one of {', '.join(DTYPES)}")
        if core.device != cores[0].device:
            raise InputError(f"core {site} is on {core.device}, expected {cores[0].device} as core 0")
        if core.numel() == 0:
            raise InputError(f"core {site} is empty, its shape is {tuple(core.shape)}")
        if not bool(torch.isfinite(core).all()):
            raise InputError(f"core {site} holds NaN or infinite values; a state needs finite numbers")


def checked_log_scale(value: object, device: torch.device) -> Tensor:
    """The logarithm of a scale as a float64 tensor without axes.

    Raises:
        InputError: it is not one finite real number.

    Example:
        >>> checked_log_scale(2, torch.device("cpu"))
        tensor(2., dtype=torch.float64)
    """
    if not isinstance(value, Tensor) and not is_number(value):
        raise InputError(f"log_scale must be a real number, got {type(value).__name__}")
    log = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
    if log.dim() or log.is_complex() or not bool(torch.isfinite(log.detach())):
        raise InputError(f"log_scale must be one finite real number, got {value}")
    return log.to(device, torch.float64)


def checked_dtype(value: str | torch.dtype) -> torch.dtype:
    """The torch dtype called `value`, one of float32, float64, complex64 and complex128.

    Raises:
        InputError: it is none of these.

    Example:
        >>> checked_dtype("float64")
        torch.float64
    """
    return choose("dtype", str(value).removeprefix("torch."), DTYPES)


def checked_site(site: object, n_sites: int, what: str = "site") -> int:
    """`site` as an int if it is one of 0 to n_sites - 1.

    Raises:
        InputError: it is not; `what` names it.

    Example:
        >>> checked_site(2, 3)
        2
    """
    return whole(what, site, 0, n_sites - 1)


def checked_limits(max_bond: object, n_bonds: int) -> list[int | None]:
    """The largest bond dimension of each inner bond.

    Raises:
        InputError: `max_bond` is neither a positive integer, nor one for each bond, nor None.

    Example:
        >>> checked_limits(5, 2), checked_limits([2, 3], 2), checked_limits(None, 1)
        ([5, 5], [2, 3], [None])
    """
    if max_bond is None:
        return [None] * n_bonds
    given = entries(max_bond)
    if given is None:
        return [whole("max_bond", max_bond, 1)] * n_bonds
    limits: list[int | None] = [whole("every entry of max_bond", limit, 1) for limit in given]
    if len(limits) != n_bonds:
        raise InputError(f"max_bond must name {n_bonds} inner bonds (sites - 1), got {len(limits)}")
    return limits


def weight_budget(max_error: object, n_bonds: int) -> float:
    """The weight that each of `n_bonds` may lose so that the error of the whole stays below `max_error`.

    Raises:
        InputError: `max_error` is negative or not a number.

    Example:
        >>> weight_budget(0.5, 5)
        0.05
    """
    if max_error is None:
        return 0.0
    if not is_number(max_error) or not max_error >= 0:
        raise InputError(f"max_error must be a number of at least 0 (relative error), got {max_error!r}")
    return float(max_error) ** 2 / max(n_bonds, 1)


def check_nonzero(witness: Tensor) -> None:
    """Raises if the center of a canonical form, or the square of the norm, is zero, and with it the state.

    Raises:
        InputError: it is.

    Example:
        >>> check_nonzero(torch.ones(1, 2, 1))
    """
    if not bool((witness != 0).any()):
        raise InputError(
            "the state is zero, so it has no Schmidt values, probabilities or expectation values"
        )


def shortened(numbers: Sequence[int]) -> str:
    """Many numbers as text: the first few, and the last.

    Example:
        >>> shortened([1, 2, 1]), shortened(range(20))
        ('[1, 2, 1]', '[0, 1, 2, 3, 4, .., 19]')
    """
    told = list(map(str, numbers))
    return f"[{', '.join(told if len(told) <= 12 else [*told[:5], '..', told[-1]])}]"
