"""The record of one parabolic problem: coefficients as functions of batches, checked when it is made."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError
from tnml.pde.checks import as_number, check_constant, check_finite, checked, shaped, starting_point
from tnml.pde.comparisons import (
    InDouble,
    as_constant,
    check_exact,
    check_gradient,
    check_rows,
    keeps_dtype,
    points_around,
    refuse_arguments,
    refuse_names,
)
from tnml.pde.paths.sampling import antithetic_mean

_EULER_STEPS = 100  # of the trivial baseline, if no exact step to the horizon is known


class Reference(NamedTuple):
    """A number to compare with: its value, how far off it may be, and where it comes from.

    `error` is a standard error if the number was sampled, a bound if it was solved for, and 0 if a formula
    gives all digits.

    Example:
        >>> Reference(4.590161724605, 1e-12, "integral")._asdict()
        {'value': 4.590161724605, 'error': 1e-12, 'source': 'integral'}
    """

    value: float
    error: float
    source: str


class LogNormal(NamedTuple):
    """Geometric Brownian motion `dX_i = rate_i X_i dt + X_i (factor dW)_i`, whose steps are known exactly.

    Args:
        rate: a number or `[d]`.
        factor: a number, volatilities `[d]`, or a matrix `[d, d]` (rows: what each coordinate takes of the
            noise).

    Example:
        >>> LogNormal(0.05, 0.2)
        LogNormal(rate=0.05, factor=0.2)
    """

    rate: float | Tensor
    factor: float | Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A parabolic equation with a terminal condition, and the diffusion that solves it.

    With `dX = mu dt + sigma dW` and `dY = phi dt + Z' sigma dW`, `Y = u(t, X)` and `Z = Du(t, X)`:

        u_t = -1/2 Tr(sigma sigma' D2u) - mu . Du + phi,    u(T, x) = g(x)

    Every function takes a batch: `t [m, 1]`, `x [m, d]`, `y [m, 1]`, `z [m, d]`, `v [m, d]`, in any float
    dtype and on any device, and is differentiable. Write functions at the top level of a module if the
    problem is to be sent to other processes.

    Args:
        name: its name in tables.
        dim: d, the number of space coordinates and of independent noises.
        horizon: T, the final time; time starts at 0.
        x0: the starting point, `[d]` or one number for all coordinates; kept as float64 `[d]`, see `start`.
        terminal: g, `x -> [m, 1]`.
        diffusion: `(t, x, v) -> sigma(t, x) v [m, d]`; or constant: a number, a diagonal `[d]` or a matrix
            `[d, d]`. Not given together with `log_normal`.
        drift: mu, `(t, x) -> [m, d]`; None is zero.
        driver: phi, `(t, x, y, z) -> [m, 1]`; None is zero.
        driver_value: for a driver that is linear in z, `phi = driver_value(t, x, y) + z . driver_direction(t,
            x)`, this part `[m, 1]`; only a directional derivative of u is needed then. Instead of `driver`.
        driver_direction: the other part, `[m, d]`; either may be left out.
        terminal_gradient: Dg, `x -> [m, d]`; by autograd if not given.
        coupled_drift: mu, `(t, x, y, z) -> [m, d]`, if it depends on the solution. Instead of `drift`.
        exact: u, `(t, x) -> [m, 1]`, computed in float64.
        reference: u(0, x0) if that is all that is known, or a function that computes it when it is first
            needed.
        log_normal: says that X is a geometric Brownian motion; drift and diffusion follow, and paths take
            exact steps.
        inside: `x [m, d] -> [m, d]`, the point of the domain that stands for a state of Euler steps, which
            may lie outside; u is learnt and judged there. The steps continue from the state itself.
        smoothed_terminal: `(t, x) -> [m, 1]`, equal to g at T and near the mean of g(X_T) given X_t = x
            before, in closed form.
        discount: r of a driver `r y` (+ other terms), with which `trivial` discounts.
        options: what the maker of a named problem was called with; None for a problem of one's own. A saved
            solution names the problem by it, so a caller who changes a named problem with
            `dataclasses.replace` must set `options=None` there: the record cannot see that it is no longer
            the named one.

    NumPy arrays serve as constants. A function whose own constants are in double precision is computed in
    double precision, and its result is returned in the dtype of its inputs.

    Raises:
        InputError: a value is out of range, a function fails or gives a wrong shape or no finite number at
            (0, x0) (if drift or driver has none at y = g(x0), y = |g(x0)| + 1 is tried too), gives a point
            a different value in a batch than alone, two ways of saying the same thing are given or disagree
            (`terminal_gradient`, `exact` at T, `discount`), or what is asked for is not solved here: systems,
            jumps, D2u in the driver, the solution in sigma.

    Example:
        >>> def square(x):
        ...     return x.square().sum(1, keepdim=True)
        >>> heat = Problem(name="heat", dim=3, horizon=1.0, x0=0.0, terminal=square, diffusion=2**0.5)
        >>> heat.g(torch.ones(2, 3))
        tensor([[3.],
                [3.]])
    """

    name: str
    dim: int
    horizon: float
    x0: Tensor | Sequence[float] | float
    terminal: Callable[[Tensor], Tensor]
    diffusion: Callable[[Tensor, Tensor, Tensor], Tensor] | Tensor | float | None = None
    drift: Callable[[Tensor, Tensor], Tensor] | None = None
    driver: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None
    driver_value: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    driver_direction: Callable[[Tensor, Tensor], Tensor] | None = None
    terminal_gradient: Callable[[Tensor], Tensor] | None = None
    coupled_drift: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None
    exact: Callable[[Tensor, Tensor], Tensor] | None = None
    reference: Reference | Callable[[], Reference] | None = None
    log_normal: LogNormal | None = None
    inside: Callable[[Tensor], Tensor] | None = None
    smoothed_terminal: Callable[[Tensor, Tensor], Tensor] | None = None
    discount: float = 0.0
    options: Mapping[str, Any] | None = None

    def __new__(cls, *_: Any, **given: Any) -> Self:
        """The record; arguments that no problem has are refused by name before the others are checked."""
        refuse_names(given, cls.__dataclass_fields__)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", whole("dim", self.dim, 1))
        object.__setattr__(self, "diffusion", as_constant(self.diffusion))
        if self.log_normal is not None:
            object.__setattr__(self, "log_normal", LogNormal(*map(as_constant, self.log_normal)))
        refuse_arguments(self.driver, self.diffusion)
        object.__setattr__(self, "horizon", as_number("horizon", self.horizon, above=0.0))
        object.__setattr__(self, "x0", starting_point(self.x0, self.dim))
        self._check_combination()
        check_constant("diffusion", self.diffusion, self.dim)
        if self.log_normal is not None:
            check_constant("factor of log_normal", self.log_normal.factor, self.dim)
            check_constant("rate of log_normal", self.log_normal.rate, self.dim, matrix=False)
        self._check_functions()

    @property
    def coupled(self) -> bool:
        """Whether mu depends on y and z, so that a path is known only together with the solution."""
        return self.coupled_drift is not None

    @property
    def linear_in_z(self) -> bool:
        """Whether phi is given by `driver_value` and `driver_direction`, or is zero."""
        return self.driver is None

    @property
    def constant_diffusion(self) -> float | Tensor | None:
        """Sigma as a number, `[d]` or `[d, d]` if it is constant, else None."""
        return None if callable(self.diffusion) else self.diffusion

    def start(
        self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Float[Tensor, " d"]:
        """The starting point."""
        return torch.as_tensor(self.x0).to(device=device, dtype=dtype)

    def g(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m 1"]:
        """The terminal value."""
        return self.terminal(x)

    def g_gradient(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Dg: the one given, or by autograd; differentiable with respect to x if x requires it.

        It is zero if the terminal value is constant on either side of a jump.
        """
        if self.terminal_gradient is not None:
            return self.terminal_gradient(x)
        inputs = x if x.requires_grad else x.detach().requires_grad_()
        with torch.enable_grad():
            value = self.terminal(inputs)
            if not value.requires_grad:  # a digital payoff, say
                return torch.zeros_like(x)
            (found,) = torch.autograd.grad(
                value.sum(), inputs, create_graph=x.requires_grad, materialize_grads=True
            )
        return found

    def mu(
        self,
        t: Float[Tensor, "m 1"],
        x: Float[Tensor, "m d"],
        y: Float[Tensor, "m 1"] | None = None,
        z: Float[Tensor, "m d"] | None = None,
    ) -> Float[Tensor, "m d"]:
        """The drift; y and z are needed by coupled problems only."""
        if self.coupled_drift is not None:
            if y is None or z is None:
                raise InputError(f"the drift of {self.name!r} depends on y and z; pass both")
            return self.coupled_drift(t, x, y, z)
        if self.drift is not None:
            return self.drift(t, x)
        if self.log_normal is not None:
            return _like(self.log_normal.rate, x) * x
        return torch.zeros_like(x)

    def sigma(
        self, t: Float[Tensor, "m 1"], x: Float[Tensor, "m d"], v: Float[Tensor, "m d"]
    ) -> Float[Tensor, "m d"]:
        """Sigma(t, x) applied to v, without a matrix per sample."""
        if self.log_normal is not None:
            return x * _applied(self.log_normal.factor, v)
        if callable(self.diffusion):
            return self.diffusion(t, x, v)
        return _applied(1.0 if self.diffusion is None else self.diffusion, v)

    def phi(
        self,
        t: Float[Tensor, "m 1"],
        x: Float[Tensor, "m d"],
        y: Float[Tensor, "m 1"],
        z: Float[Tensor, "m d"],
    ) -> Float[Tensor, "m 1"]:
        """The driver, whichever way it was given."""
        if self.driver is not None:
            return self.driver(t, x, y, z)
        value = torch.zeros_like(y) if self.driver_value is None else self.driver_value(t, x, y)
        if self.driver_direction is not None:
            value = value + (z * self.driver_direction(t, x)).sum(1, keepdim=True)
        return value

    def step(
        self, t: Float[Tensor, "m 1"], x: Float[Tensor, "m d"], dt: float, dw: Float[Tensor, "m d"]
    ) -> Float[Tensor, "m d"]:
        """X at t + dt from X at t: exact for geometric Brownian motion, else one step of Euler and Maruyama.

        Args:
            t: times.
            x: where the paths are.
            dt: length of the step.
            dw: Brownian increments, variance dt.
        """
        if self.log_normal is None:
            return x + self.mu(t, x) * dt + self.sigma(t, x, dw)
        rate, factor = (_like(part, x) for part in self.log_normal)
        variance = factor.square().sum(1) if factor.dim() == 2 else factor.square()
        return x * torch.exp((rate - variance / 2) * dt + _applied(factor, dw))

    def true_value(self) -> Reference | None:
        """u(0, x0) if it is known: from `exact`, else `reference`; None if neither is given."""
        if self.exact is not None:
            x = self.start(torch.float64)[None]
            return Reference(float(self.exact(x.new_zeros(1, 1), x)), 0.0, "exact")
        reference = self.reference
        if callable(reference):
            reference = reference()
            object.__setattr__(self, "reference", reference)
        return reference

    def trivial(self, samples: int = 2**16, steps: int | None = None, seed: int = 0) -> Reference:
        """The trivial answer `exp(-discount T) E[g(X_T)]`: the rest of the driver is ignored.

        A solution that has learnt something is closer to the truth than this. For a driver `discount y` it is
        the truth.

        Args:
            samples: paths, in antithetic pairs.
            steps: time steps; None takes one if that is exact and 100 otherwise.
            seed: of the noise.

        Raises:
            InputError: the problem is coupled, so that X is not known without the solution; or fewer than 4
                samples or no step are requested.

        Example:
            >>> from tnml.pde import HeatEquation
            >>> answer = HeatEquation(3).trivial()
            >>> abs(answer.value - 6) < 4 * answer.error
            True
        """
        if self.coupled:
            raise InputError(f"{self.name!r} is coupled: without its solution X_T is not known")
        if steps is not None:
            steps = whole("steps", steps, 1)
        count = steps or (1 if self._one_step_is_exact else _EULER_STEPS)
        dt = self.horizon / count
        start = self.start(torch.float64)

        def value(noise: Tensor) -> Tensor:
            x = start.expand(noise.shape[0], -1)
            for n in range(count):
                x = self.step(x.new_full((x.shape[0], 1), n * dt), x, dt, math.sqrt(dt) * noise[:, n])
            return self.terminal(x)[:, 0]

        mean, error = antithetic_mean(value, (count, self.dim), samples, seed)
        factor = math.exp(-self.discount * self.horizon)
        return Reference(factor * mean, factor * error, f"Monte Carlo, {samples:,} paths, {count:,} steps")

    @property
    def _one_step_is_exact(self) -> bool:
        return self.log_normal is not None or (self.constant_diffusion is not None and self.drift is None)

    def _check_combination(self) -> None:
        if self.driver is not None and (self.driver_value is not None or self.driver_direction is not None):
            raise InputError(
                "the driver is given twice; give driver, or driver_value and driver_direction (their sum "
                "driver_value + z . driver_direction is phi), not both"
            )
        if self.log_normal is not None and not (self.diffusion is None and self.drift is None):
            raise InputError("log_normal says what drift and diffusion are; leave those out")
        if self.log_normal is None and self.diffusion is None:
            raise InputError("diffusion is missing; give a function, a number or a tensor, or log_normal")
        if self.coupled_drift is not None and (self.drift is not None or self.log_normal is not None):
            raise InputError("coupled_drift is the whole drift; leave drift and log_normal out")

    def _check_functions(self) -> None:
        rows = 3 if self.dim != 3 else 4  # not d, so that a swap of the axes shows
        start = self.start(torch.float64).expand(rows, -1).clone()
        one, all_ = (rows, 1), (rows, self.dim)
        checked("diffusion", all_, self.sigma, start.new_zeros(rows, 1), start, torch.ones_like(start))
        t, x = points_around(start, self.sigma, self.horizon)
        g = self._checked("terminal", one, self.terminal, x)
        z = self._checked("the gradient of terminal", all_, self.g_gradient, x)
        self._checked("diffusion", all_, self.sigma, t, x, 1 + x.abs())
        if self.driver_direction is not None:
            self._checked("driver_direction", all_, self.driver_direction, t, x)
        for y in (g, g.abs() + 1):  # a call's g is 0 at the strike, where u is not: y ln y is a valid driver
            found = {"the drift": shaped("the drift", all_, self.mu, t, x, y, z)}
            if self.driver_value is not None:
                found["driver_value"] = shaped("driver_value", one, self.driver_value, t, x, y)
            found["driver"] = shaped("driver", one, self.phi, t, x, y, z)
            if all(bool(value[0].isfinite().all()) for value in found.values()):
                break
        for name, value in found.items():
            check_finite(name, value[:1])
        check_rows("the drift", self.mu, found["the drift"], t, x, y, z)
        check_rows("driver", self.phi, found["driver"], t, x, y, z)
        for name in ("exact", "smoothed_terminal"):
            if getattr(self, name) is not None:
                checked(name, one, getattr(self, name), start.new_zeros(rows, 1), start)
        if self.terminal_gradient is not None:
            check_gradient(z, self.terminal, x)
        if self.exact is not None:
            check_exact(self.exact, g, x, self.horizon)
        if self.discount:
            self._check_discount(t, x, y, z)
        self._use_double(t, x, y, z)

    @staticmethod
    def _checked(
        what: str, shape: tuple[int, int], function: Callable[..., Tensor], *inputs: Tensor
    ) -> Tensor:
        """What a function returns, if it has the right shape, is finite at the start and mixes no points."""
        value = shaped(what, shape, function, *inputs)
        check_finite(what, value[:1])
        check_rows(what, function, value, *inputs)
        return value

    def _check_discount(self, t: Tensor, x: Tensor, y: Tensor, z: Tensor) -> None:
        slopes = (self.phi(t, x, y + 1, z) - self.phi(t, x, y, z))[:, 0]
        for time, slope in zip(t[:, 0].tolist(), slopes.tolist(), strict=True):
            if math.isfinite(slope) and not math.isclose(slope, self.discount, rel_tol=1e-6, abs_tol=1e-9):
                raise InputError(
                    f"discount={self.discount} promises a driver discount * y, but phi grows by {slope:.6g} "
                    f"when y grows by 1 at t = {time:g}; correct one of them"
                )

    def _use_double(self, t: Tensor, x: Tensor, y: Tensor, z: Tensor) -> None:
        """Wraps functions with constants in double precision, so that they are computed in it."""
        for name, inputs in {
            "terminal": (x,),
            "terminal_gradient": (x,),
            "diffusion": (t, x, x),
            "drift": (t, x),
            "driver": (t, x, y, z),
            "driver_value": (t, x, y),
            "driver_direction": (t, x),
            "coupled_drift": (t, x, y, z),
            "smoothed_terminal": (t, x),
        }.items():
            function = getattr(self, name)
            if callable(function) and not keeps_dtype(function, *inputs):
                object.__setattr__(self, name, InDouble(function))


def _like(value: float | Tensor, x: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=x.dtype, device=x.device)


def _applied(factor: float | Tensor, v: Tensor) -> Tensor:
    """A number, a diagonal or a matrix applied to the rows of v."""
    if not isinstance(factor, Tensor):
        return factor * v
    factor = _like(factor, v)
    return v @ factor.T if factor.dim() == 2 else factor * v
