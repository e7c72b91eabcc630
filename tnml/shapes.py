"""The letters of every axis, and the one validator of matrix product state cores.

| letter | axis |
|---|---|
| b | batch (sample) |
| n | site of the chain |
| d | physical (feature) dimension |
| l, r | left and right bond |
| c | class or output |
| k | replica |
| t, m, x | time step, path, space |

A core is `(l, d, r)`; a uniform stretch of a chain is stacked as `(n, d, l, r)`.
"""

from collections.abc import Sequence

from torch import Tensor

from tnml.errors import InputError


def check_cores(
    cores: Sequence[Tensor], *, left: int | None = 1, right: int | None = 1, same_physical: bool = True
) -> None:
    """Raises unless `cores` is a matrix product state: order-3 cores `(l, d, r)` whose bonds fit.

    The outer bonds must be `left` and `right` (None: anything), the dtype the same on every site, and with
    `same_physical` also the physical dimension.

    Raises:
        InputError: says which core breaks the rule, what was expected and what was given.

    Example:
        >>> import torch
        >>> check_cores([torch.ones(1, 2, 3), torch.ones(3, 2, 1)])
        >>> check_cores([torch.ones(1, 2, 3), torch.ones(4, 2, 1)])
        Traceback (most recent call last):
        tnml.errors.InputError: core 1 has left bond 4, expected 3, the right bond of core 0
    """
    if len(cores) == 0:
        raise InputError("expected at least one core of shape (l, d, r), got none")
    for site, core in enumerate(cores):
        if not isinstance(core, Tensor) or core.dim() != 3:
            came = tuple(core.shape) if isinstance(core, Tensor) else type(core).__name__
            raise InputError(f"core {site} must be a tensor of shape (l, d, r), got {came}")
        if same_physical and core.shape[1] != cores[0].shape[1]:
            raise InputError(
                f"core {site} has physical dimension {core.shape[1]}, "
                f"expected {cores[0].shape[1]} as in core 0"
            )
        if core.dtype != cores[0].dtype:
            raise InputError(f"core {site} has dtype {core.dtype}, expected {cores[0].dtype} as in core 0")
        expected = cores[site - 1].shape[2] if site else left
        if expected is not None and core.shape[0] != expected:
            owner = f", the right bond of core {site - 1}" if site else " at the left end"
            raise InputError(f"core {site} has left bond {core.shape[0]}, expected {expected}{owner}")
    if right is not None and cores[-1].shape[2] != right:
        raise InputError(
            f"the last core has right bond {cores[-1].shape[2]}, expected {right} at the right end"
        )


def growing_bonds(n_sites: int, physical: int, bond_dim: int) -> tuple[int, ...]:
    """Bonds `min(bond_dim, d^i)`, i = 0 .. n, of a half chain from its outer end: more would be redundant.

    Example:
        >>> growing_bonds(4, 2, 5)
        (1, 2, 4, 5, 5)
    """
    dims = [1]
    for _ in range(n_sites):
        dims.append(min(bond_dim, dims[-1] * physical))
    return tuple(dims)
