"""The table of the named equations, and the lookup of a problem by name."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tnml.checks import one_of
from tnml.errors import choose
from tnml.pde.equations import (
    allen_cahn,
    arithmetic_basket,
    black_scholes_barenblatt,
    burgers,
    cir_bond,
    default_risk,
    double_well,
    geometric_basket,
    hamilton_jacobi_bellman,
    heat,
    heston,
    linear_quadratic,
    reaction_diffusion,
    two_rates,
)
from tnml.pde.equations.equation import Equation
from tnml.pde.problem import Problem

# A new equation is a file next to this one and a row here, under the name that its problem has.
EQUATIONS: dict[str, Equation] = {
    "bsb": black_scholes_barenblatt.EQUATION,
    "hjb": hamilton_jacobi_bellman.EQUATION,
    "allen-cahn": allen_cahn.EQUATION,
    "heston": heston.EQUATION,
    "geometric-basket": geometric_basket.EQUATION,
    "arithmetic-basket": arithmetic_basket.EQUATION,
    "heat": heat.EQUATION,
    "default-risk": default_risk.EQUATION,
    "two-rates": two_rates.EQUATION,
    "burgers": burgers.EQUATION,
    "reaction-diffusion": reaction_diffusion.EQUATION,
    "linear-quadratic": linear_quadratic.EQUATION,
    "cir-bond": cir_bond.EQUATION,
    "double-well": double_well.EQUATION,
    "coupled-double-well": double_well.COUPLED,
}


class _Makers(Mapping[str, Callable[..., Problem]]):
    """The makers of the problems in `EQUATIONS`, whatever rows that table has."""

    def __getitem__(self, name: str) -> Callable[..., Problem]:
        return EQUATIONS[name].problem

    def __iter__(self) -> Iterator[str]:
        return iter(EQUATIONS)

    def __len__(self) -> int:
        return len(EQUATIONS)


PROBLEMS: Mapping[str, Callable[..., Problem]] = _Makers()


def problem(name: str, **options: Any) -> Problem:
    """The named problem, made with these options.

    Args:
        name: a key of `PROBLEMS`.
        options: what its maker takes; the makers' docstrings say what.

    Raises:
        InputError: the name or an option is unknown (the text gives the nearest known ones), or a value is
            out of range.

    Example:
        >>> problem("hjb", dim=20).dim
        20
        >>> problem("hbj")
        Traceback (most recent call last):
        tnml.errors.InputError: unknown problem 'hbj'; did you mean 'hjb'? Choose from: bsb, hjb, ...
    """
    maker = choose("problem", name, PROBLEMS)
    known = inspect.signature(maker).parameters
    for option in options:
        one_of(f"option of problem {name!r}", option, known)
    return maker(**options)
