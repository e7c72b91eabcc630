"""The row of one equation in the table: what makes its problem, its truth, and the recipe that solves it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tnml.pde.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Equation:
    """One named equation.

    Args:
        problem: makes the problem; its parameters are the options of the command line, and the first line of
            its docstring is what `tnml pde list` shows. The problem it makes has the name of the row.
        truth: the function behind the problem's `exact` or `reference`, if there is one: u at any (t, x), or
            u(0, x0) with an error bar. `tnml.pde.references` offers it by its name.
        recipe: the options of `tnml.pde.SolveOptions` that suit the equation, where they differ from the
            defaults.

    Example:
        >>> from tnml.pde.equations.table import EQUATIONS
        >>> EQUATIONS["allen-cahn"].recipe["iterations"]
        4000
    """

    problem: Callable[..., Problem]
    truth: Callable[..., Any] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
