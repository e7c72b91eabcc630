"""The record of a check: a corrected value with its interval, measures of trust, and doubts in words."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple


class Flag(NamedTuple):
    """A doubt: a name for programs and a sentence for people.

    | name | what is meant |
    |---|---|
    | "paths" | paths or values that are not finite |
    | "off" | u(0, x0) is not in the interval |
    | "wide" | the interval says little |
    | "steps" | shorter time steps move the corrected value |
    | "gradient" | Du is not that of the solution |
    | "jump" | Du jumps |
    | "trivial" | the trivial answer is closer to the corrected value than u(0, x0) |
    | "training" | the loss was still falling |
    | "stiff" | the driver changes faster than a time step |
    | "blow-up" | the solution may not exist on the whole horizon |
    | "exact" | the exact solution that was given solves another equation |
    | "sign" | the driver looks like discounting with the wrong sign |

    Example:
        >>> str(Flag("jump", "the gradient jumps"))
        'the gradient jumps'
    """

    name: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class Check:
    """What fresh paths say about a solution when the truth is not known; see `tnml.pde.Solution.check`.

    Args:
        passed: whether there are no doubts.
        flags: the doubts.
        value: the corrected u(0, x0).
        error: its standard error.
        interval: 95 %, of the solution; None if there is none.
        kind: what the interval is. "unbiased": the driver is linear, and the corrected value is right up to
            noise. "bounds": the driver is convex or concave around the solution, and the interval reaches
            from the cost of the policy to a dual bound. "estimate": the interval rests on how much the slopes
            of the driver change nearby. "none": there is none.
        network: u(0, x0) as the solution has it.
        deviation: root mean square over the paths of what the solution misses of the equation up to the
            horizon; 0 for the truth, up to the time steps.
        gradient_error: relative root mean square error of `sigma' Du` along the paths, estimated.
        gradient_size: the factor that Du would have to be multiplied by; 1 is right.
        dt_bias: how far off the time steps leave the corrected value before it is extrapolated; with
            `dt_bias_error`.
        dt_bias_error: its standard error.
        trivial: the trivial answer, see `Problem.trivial`; None for coupled problems.
        scale: what errors are relative to: the size of the value, or a tenth of the spread of g(X_T).
        tolerance: relative error above which there is a doubt.
        paths: how many were used.
        time_steps: of each.
        seconds: that it took.

    Example:
        >>> from tnml.pde import HeatEquation, SolveOptions, solve
        >>> options = SolveOptions(iterations=30, reports=3, paths=8, time_steps=8, width=8, device="cpu")
        >>> found = solve(HeatEquation(2), options=options).check(paths=400)
        >>> found.kind, found.interval[0] < 4 < found.interval[1]
        ('unbiased', True)
    """

    passed: bool
    flags: tuple[Flag, ...]
    value: float
    error: float
    interval: tuple[float, float] | None
    kind: str
    network: float
    deviation: float
    gradient_error: float
    gradient_size: float
    dt_bias: float
    dt_bias_error: float
    trivial: float | None
    scale: float
    tolerance: float
    paths: int
    time_steps: int
    seconds: float

    @property
    def standard_errors(self) -> float:
        """How many standard errors u(0, x0) is away from the corrected value."""
        away = abs(self.network - self.value)
        return away / self.error if self.error > 0 else math.inf if away > 0 else 0.0

    def summary(self) -> list[tuple[str, str]]:
        """Names and values as readable text."""
        rows = []
        if math.isfinite(self.value):
            rows.append(("corrected value", f"{_number(self.value, self.error)} +- {self.error:.1g}"))
        if self.interval is not None:
            low, high = (_number(end, (self.interval[1] - self.interval[0]) / 20) for end in self.interval)
            rows.append(("95 % interval", f"{low} to {high} ({_KINDS[self.kind]})"))
        rows.append(("error of the gradient, estimated", f"{100 * self.gradient_error:.2g} %"))
        rows.append(("check", "passed" if self.passed else "failed"))
        rows += [("doubt", str(flag)) for flag in self.flags]
        return rows

    def record(self) -> dict[str, Any]:
        """Plain numbers, words and lists for JSON; what is not finite is None.

        Example:
            >>> from tnml.pde import HeatEquation, SolveOptions, solve
            >>> options = SolveOptions(iterations=3, paths=2, time_steps=4, width=4, device="cpu")
            >>> sorted(solve(HeatEquation(2), options=options).check(paths=64).record())[:3]
            ['deviation', 'dt_bias', 'dt_bias_error']
        """
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        found["flags"] = [{"name": flag.name, "text": flag.text} for flag in self.flags]
        return {name: _plain(value) for name, value in found.items()}


_KINDS = {
    "unbiased": "unbiased",
    "bounds": "policy and dual bound",
    "estimate": "by the curvature of the driver",
}


def _number(value: float, unit: float) -> str:
    """A number with the digits that are meaningful when its error is `unit`."""
    if not (math.isfinite(value) and unit > 0):
        return f"{value:.8g}"
    digits = max(0, min(12, 1 - math.floor(math.log10(unit))))
    return f"{value:.{digits}f}"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
