"""The ways to multiply a batch by a tensor-train matrix, and the choice among them."""

import functools
import itertools
from collections.abc import Iterator

import torch

from tnml.checks import whole
from tnml.contraction.tt.costs import NETWORKS, Bill, Plan, dense_cost, network_cost, slices_cost, walk_cost
from tnml.contraction.tt.rates import Rates, rates_of
from tnml.contraction.tt.shape import TTShape
from tnml.errors import InputError, choose

PLANS = ("auto", "dense", "slices", "left", "right", *NETWORKS)
CACHED = (2**21, 2**20, 2**19)  # bytes of an intermediate that may stay in a CPU's cache
UNCHUNKED = 2**28  # the same where memory is not cached that way: on a GPU
ROOM = 1.08  # memory a plan may take relative to the dense layer


def _compositions(total: int) -> Iterator[tuple[int, ...]]:
    """All ways to cut a row of this many into runs."""
    if total == 0:
        yield ()
    for first in range(1, total + 1):
        yield from ((first, *others) for others in _compositions(total - first))


@functools.lru_cache(maxsize=4096)
def list_plans(shape: TTShape, batch: int, itemsize: int, gradient: bool, rates: Rates) -> tuple[Plan, ...]:
    """Every plan, the quickest by estimate first.

    Example:
        >>> rates = Rates(1e11, 4.0, 1e10, 0.0, 1e-8, 1e-6)
        >>> plans = list_plans(TTShape((16,) * 3, (16,) * 3, (1, 4, 4, 1)), 128, 4, True, rates)
        >>> plans[0].name, plans[0].groups, plans[-1].seconds > 5 * plans[0].seconds
        ('left', (1, 1, 1), True)
    """

    def bill() -> Bill:
        return Bill(rates, itemsize)

    sizes = CACHED if rates.fresh else (UNCHUNKED, *CACHED)
    found = [dense_cost(bill(), shape, batch, gradient)]
    if shape.n_cores > 1:
        found += [network_cost(bill(), shape, name, batch, gradient) for name in NETWORKS]
    for groups in _compositions(shape.n_cores):
        for keep in (True, False) if gradient else (False,):
            if len(groups) > 1:
                found += [
                    walk_cost(bill(), shape, groups, name, keep, batch, gradient, cached)
                    for name, cached in itertools.product(("right", "left"), sizes)
                ]
            if len(groups) == 2:
                found += [slices_cost(bill(), shape, groups, keep, batch, gradient, size) for size in sizes]
    return tuple(sorted(found, key=lambda plan: plan.seconds))


@functools.lru_cache(maxsize=4096)
def choose_plan(shape: TTShape, batch: int, name: str, itemsize: int, gradient: bool, rates: Rates) -> Plan:
    """The quickest plan, by estimate, of those that take little more memory than the dense layer.

    Args:
        shape: of the matrix.
        batch: samples.
        name: "auto", or the name of the plan that has to be taken, whatever its memory.
        itemsize: bytes of a number.
        gradient: whether a backward pass follows.
        rates: of the device.

    Raises:
        InputError: unknown name.

    Example:
        >>> rates = Rates(1e11, 4.0, 1e10, 0.0, 1e-8, 1e-6)
        >>> choose_plan(TTShape((16, 16), (16, 16), (1, 16, 1)), 5000, "auto", 4, True, rates).name
        'dense'
    """
    choose("plan", name, dict.fromkeys(PLANS))
    plans = list_plans(shape, batch, itemsize, gradient, rates)
    if name != "auto":
        named = [plan for plan in plans if plan.name == name]
        return named[0] if named else next(plan for plan in plans if plan.name == "dense")
    return fitting_plans(shape, batch, itemsize, gradient, rates)[0]


@functools.lru_cache(maxsize=4096)
def fitting_plans(
    shape: TTShape, batch: int, itemsize: int, gradient: bool, rates: Rates
) -> tuple[Plan, ...]:
    """The plans that take little more memory than the dense layer, the quickest by estimate first.

    Where there are none it is the most frugal of all.

    Example:
        >>> rates = Rates(1e11, 4.0, 1e10, 0.0, 1e-8, 1e-6)
        >>> fitting_plans(TTShape((16, 16), (16, 16), (1, 16, 1)), 5000, 4, True, rates)[0].name
        'dense'
    """
    plans = list_plans(shape, batch, itemsize, gradient, rates)
    weights = shape.in_size * shape.out_size
    dense = (1 + gradient) * weights + batch * (shape.in_size + shape.out_size)
    here = shape.n_weights * (1 + gradient) + batch * (shape.in_size + shape.out_size)
    room = (ROOM * dense - here) * itemsize
    fitting = tuple(plan for plan in plans if plan.memory <= room)
    return fitting or (min(plans, key=lambda plan: plan.memory),)


def checked_plan(plan: str | Plan, n_cores: int | None = None) -> str | Plan:
    """`plan` if it is the name of one, or one that `tt_plans` made for a matrix of as many cores.

    Args:
        plan: see `tnml.contraction.tt_linear`.
        n_cores: of the matrix; None where it is not known yet.

    Raises:
        InputError: it is not.

    Example:
        >>> checked_plan("dense"), checked_plan(Plan("left", (1, 2), 100, True, 0, 0, 0.0), 3).name
        ('dense', 'left')
    """
    if not isinstance(plan, Plan):
        return choose("plan", plan, dict.fromkeys(PLANS, plan))
    runs = {"dense": 1, "slices": 2}.get(plan.name)
    cores = len(plan.order) if plan.name in NETWORKS else sum(plan.groups)
    if plan.name not in PLANS[1:] or plan.chunk < 1 or runs not in (None, len(plan.groups)):
        raise InputError(f"expected a plan as `tt_plans` makes them, got {plan!r}")
    if n_cores is not None and cores != n_cores:
        raise InputError(
            f"the plan {plan.name!r} is one for {cores} cores, the matrix has {n_cores}; take one of "
            "tt_plans(shape, batch) with the shape of this matrix"
        )
    return plan


def tt_plans(
    shape: TTShape,
    batch: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    gradient: bool = True,
) -> list[Plan]:
    """The plans for a product with a tensor-train matrix, the quickest by estimate first; `print` shows them.

    Each can be given as `plan` to `tt_linear`, `TTLinear` and `TNN`, for this and any other batch.

    Args:
        shape: factors and ranks of the matrix.
        batch: samples.
        dtype: of the numbers.
        device: where the product runs. The first question about a device measures its rates, in less than a
            second, and keeps them in the user's cache folder.
        gradient: whether a backward pass follows.

    Example:
        >>> plans = tt_plans(TTShape((16, 16), (16, 16), (1, 2, 1)), 100)
        >>> sorted({plan.name for plan in plans})
        ['dense', 'left', 'middle', 'path', 'right', 'slices']
    """
    batch = whole("batch", batch, 1)
    return list(list_plans(shape, batch, dtype.itemsize, gradient, rates_of(torch.device(device), dtype)))
