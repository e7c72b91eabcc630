"""Equations as a practitioner would write them, with the public API alone, and their true values."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import solve_banded
from scipy.stats import norm

from tnml.pde import LogNormal, Problem

DOUBLE = torch.float64


class Case(NamedTuple):
    """One row: its name, what makes the problem, and its value; None where there is none."""

    name: str
    make: Callable[[], Problem]
    truth: Callable[[], float] | None


def burgers(d: int = 20, horizon: float = 1.0) -> Problem:
    """Burgers type (Chassagneux): `u = logistic(t + mean x)`."""
    return Problem(
        name="burgers",
        dim=d,
        horizon=horizon,
        x0=0.0,
        diffusion=float(d),
        terminal=lambda x: torch.sigmoid(horizon + x.mean(1, keepdim=True)),
        driver=lambda t, x, y, z: -(y - (2 + d) / (2 * d)) * d * z.sum(1, keepdim=True),
    )


def wave(times: float = 5.0, d: int = 100, base: float = 1.6, horizon: float = 1.0) -> Problem:
    """Gobet and Turkedjiev's reaction-diffusion equation, oscillating `times` faster."""
    k = times / math.sqrt(d)

    def u(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return base + torch.sin(k * x.sum(1, keepdim=True)) * torch.exp(k**2 * d * (t - horizon) / 2)

    return Problem(
        name="wave",
        dim=d,
        horizon=horizon,
        x0=0.1,
        diffusion=1.0,
        terminal=lambda x: base + torch.sin(k * x.sum(1, keepdim=True)),
        driver_value=lambda t, x, y: -torch.clamp((y - u(t, x)) ** 2, max=1.0),
    )


def wave_value() -> float:
    """At the start."""
    return 1.6 + math.sin(5.0) * math.exp(-12.5)


def _control(d: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    root = math.sqrt(d)
    a = 0.3 * rng.standard_normal((d, d)) / root - 0.2 * np.eye(d)
    b = np.eye(d) + 0.3 * rng.standard_normal((d, d)) / root
    s = 0.5 * (np.eye(d) + 0.4 * rng.standard_normal((d, d)) / root)
    m = rng.standard_normal((d, d)) / root
    q = 0.5 * np.eye(d) + 0.5 * m @ m.T
    r = np.eye(d) + 0.2 * np.ones((d, d)) / d
    m = rng.standard_normal((d, d)) / root
    return {"a": a, "gain": b @ np.linalg.inv(r) @ b.T, "s": s, "q": q, "g": np.eye(d) + m @ m.T}


def control(d: int, *, coupled: bool = False) -> Problem:
    """Linear-quadratic control with dense matrices; its optimal drift in the paths if `coupled`."""
    parts = {name: torch.tensor(part) for name, part in _control(d).items()}

    def form(x: torch.Tensor, name: str) -> torch.Tensor:
        return (x * (x @ parts[name].to(x))).sum(1, keepdim=True)

    shared = {
        "dim": d, "horizon": 1.0, "x0": 0.5, "diffusion": parts["s"], "terminal": lambda x: form(x, "g")
    }  # fmt: skip
    if not coupled:
        return Problem(
            name="control",
            drift=lambda t, x: x @ parts["a"].to(x).T,
            driver=lambda t, x, y, z: 0.25 * form(z, "gain") - form(x, "q"),
            **shared,
        )
    return Problem(
        name="coupled",
        coupled_drift=lambda t, x, y, z: x @ parts["a"].to(x).T - 0.5 * z @ parts["gain"].to(x),
        driver=lambda t, x, y, z: -form(x, "q") - 0.25 * form(z, "gain"),
        **shared,
    )


def control_value(d: int) -> float:
    """By the Riccati equation."""
    parts = _control(d)
    a, gain, s = parts["a"], parts["gain"], parts["s"]

    def slope(_: float, y: np.ndarray) -> np.ndarray:
        p = y[:-1].reshape(d, d)
        dp = a.T @ p + p @ a + parts["q"] - p @ gain @ p
        return np.append(dp.ravel(), np.trace(s @ s.T @ p))

    end = solve_ivp(slope, (0, 1), np.append(parts["g"].ravel(), 0.0), rtol=1e-9, atol=1e-10).y[:, -1]
    x = np.full(d, 0.5)
    return float(x @ end[:-1].reshape(d, d) @ x + end[-1])


def two_rates(d: int = 100) -> Problem:
    """Different rates for borrowing and lending (Bergman; Han, Jentzen, E)."""

    def terminal(x: torch.Tensor) -> torch.Tensor:
        m = x.max(1, keepdim=True).values
        return (m - 120).clamp(min=0) - 2 * (m - 150).clamp(min=0)

    def driver(t: torch.Tensor, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        e = (x * z).sum(1, keepdim=True)
        return 0.04 * y + 0.02 * e - 0.02 * (e - y).clamp(min=0)

    return Problem(
        name="two rates", dim=d, horizon=0.5, x0=100.0, terminal=terminal,
        log_normal=LogNormal(0.06, 0.2), driver=driver,
    )  # fmt: skip


def asian(rate: float = 0.05, volatility: float = 0.3) -> Problem:
    """A call on the geometric mean of a price over time: price and running integral of its logarithm."""
    return Problem(
        name="asian",
        dim=2,
        horizon=1.0,
        x0=[100.0, 0.0],
        terminal=lambda x: (x[:, 1:].exp() - 100).clamp(min=0),
        drift=lambda t, x: torch.cat([rate * x[:, :1], x[:, :1].clamp(min=1e-6).log()], 1),
        diffusion=lambda t, x, v: torch.cat([volatility * x[:, :1] * v[:, :1], 0 * v[:, :1]], 1),
        driver_value=lambda t, x, y: rate * y,
        discount=rate,
    )


def asian_value(rate: float = 0.05, volatility: float = 0.3) -> float:
    """Kemna and Vorst's formula."""
    width = volatility / math.sqrt(3)
    forward = 100 * math.exp((rate - volatility**2 / 6) / 2)
    above = math.log(forward / 100) / width + width / 2
    return math.exp(-rate) * (forward * norm.cdf(above) - 100 * norm.cdf(above - width))


def _market(**changes: object) -> dict[str, object]:
    return {
        "dim": 1, "horizon": 1.0, "x0": 100.0, "log_normal": LogNormal(0.05, 0.2),
        "driver_value": lambda t, x, y: 0.05 * y, **changes,
    }  # fmt: skip


def call() -> Problem:
    """An ordinary call."""
    return Problem(name="call", terminal=lambda x: (x - 100).clamp(min=0), **_market())


def call_value(sign: float = 1.0) -> float:
    """By Black and Scholes; with the sign of the discount."""
    above = (0.05 + 0.02) / 0.2
    price = 100 * norm.cdf(above) - 100 * math.exp(-0.05) * norm.cdf(above - 0.2)
    return float(price * math.exp((1 - sign) * 0.05))


def digital(d: int = 1) -> Problem:
    """A digital call on the geometric mean, whose gradient is zero."""
    correlation = 0.5 + 0.5 * torch.eye(d, dtype=DOUBLE)
    factor = 0.2 * torch.linalg.cholesky(correlation)
    return Problem(
        name="digital",
        terminal=lambda x: (x.log().mean(1, keepdim=True) > math.log(100)).to(x),
        **_market(dim=d, log_normal=LogNormal(0.05, factor)),
    )


def digital_value(d: int = 1) -> float:
    """The mean of the logarithm is normal."""
    variance = 0.04 * (0.5 + 0.5 / d)
    return math.exp(-0.05) * float(norm.cdf((0.05 - 0.02) / math.sqrt(variance)))


def barrier(rate: float = 500.0) -> Problem:
    """A call that is killed below 90 at a rate."""
    return Problem(
        name="barrier",
        terminal=lambda x: (x - 100).clamp(min=0),
        **_market(driver_value=lambda t, x, y: 0.05 * y + rate * (x < 90).to(x) * y),
    )


def penalty(rate: float = 20.0) -> Problem:
    """An American put by a penalty."""
    return Problem(
        name="put",
        terminal=lambda x: (100 - x).clamp(min=0),
        **_market(driver_value=lambda t, x, y: 0.05 * y - rate * ((100 - x).clamp(min=0) - y).clamp(min=0)),
    )


def max_call(rate: float = 50.0) -> Problem:
    """An American call on the largest of five assets by a penalty."""

    def payoff(x: torch.Tensor) -> torch.Tensor:
        return (x.max(1, keepdim=True).values - 100).clamp(min=0)

    return Problem(
        name="max call",
        terminal=payoff,
        **_market(
            dim=5, horizon=3.0, log_normal=LogNormal(-0.05, 0.2),
            driver_value=lambda t, x, y: 0.05 * y - rate * (payoff(x) - y).clamp(min=0),
        ),
    )  # fmt: skip


def on_a_grid(kind: str, rate: float, cells: int = 4000, steps: int = 4000) -> float:
    """The equation of `barrier` or `penalty` itself by implicit finite differences in ln x."""
    y = np.linspace(math.log(100) - 1.4, math.log(100) + 1.4, cells + 1)
    x, h, dt = np.exp(y), 2.8 / cells, 1.0 / steps
    payoff = np.maximum(x - 100, 0) if kind == "barrier" else np.maximum(100 - x, 0)
    up, down = 0.02 / h**2 + 0.03 / (2 * h), 0.02 / h**2 - 0.03 / (2 * h)
    u = payoff.copy()
    for _ in range(steps):
        extra = rate * (x < 90) if kind == "barrier" else rate * (payoff > u)
        source = 0.0 if kind == "barrier" else extra * payoff
        bands = np.zeros((3, cells + 1))
        bands[1] = 1 + dt * (up + down + 0.05 + extra)
        bands[0, 1:], bands[2, :-1] = -dt * up, -dt * down
        right = u + dt * source
        for edge in (0, -1):
            bands[1, edge] = 1.0
            right[edge] = u[edge]
        bands[0, 1] = bands[2, -2] = 0.0
        u = solve_banded((1, 1), bands, right)
    return float(np.interp(math.log(100), y, u))


def blow_up() -> Problem:
    """No solution exists up to T = 5."""
    return Problem(
        name="blow-up", dim=2, horizon=5.0, x0=0.0, diffusion=1.0,
        terminal=lambda x: 1 / (1 + x.square().sum(1, keepdim=True)), driver_value=lambda t, x, y: -(y**3),
    )  # fmt: skip


def slip() -> Problem:
    """A call whose discount has the wrong sign."""
    return Problem(
        name="sign slip", terminal=lambda x: (x - 100).clamp(min=0),
        **_market(driver_value=lambda t, x, y: -0.05 * y),
    )  # fmt: skip


def mixing() -> Problem:
    """A terminal value that takes the mean over the batch."""
    return Problem(name="mixing", terminal=lambda x: (x - x.mean()).clamp(min=0), **_market())


def default_risk(d: int = 100) -> Problem:
    """Default risk (Han, Jentzen, E)."""

    def driver(t: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        intensity = torch.clamp(0.2 - 0.009 * (y - 50), min=0.02, max=0.2)
        return intensity * y / 3 + 0.02 * y

    return Problem(
        name="default risk", dim=d, horizon=1.0, x0=100.0, log_normal=LogNormal(0.02, 0.2),
        terminal=lambda x: x.min(1, keepdim=True).values, driver_value=driver,
    )  # fmt: skip


CASES = [
    Case("Burgers type, d = 20, T = 1", burgers, lambda: 0.5),
    Case("reaction-diffusion, 5 times faster, d = 100", wave, wave_value),
    Case("linear-quadratic control, d = 100", lambda: control(100), lambda: control_value(100)),
    Case("two rates, d = 100", two_rates, lambda: 21.299),
    Case("geometric Asian call, d = 2", asian, asian_value),
    Case("coupled drift, control, d = 10", lambda: control(10, coupled=True), lambda: control_value(10)),
    Case("coupled drift, control, d = 100", lambda: control(100, coupled=True), lambda: control_value(100)),
    Case("call, d = 1", call, call_value),
    Case("digital call, d = 1", digital, digital_value),
    Case("geometric digital, d = 10", lambda: digital(10), lambda: digital_value(10)),
    Case("barrier by killing, rate 500", barrier, lambda: on_a_grid("barrier", 500.0)),
    Case("American max-call by penalty, d = 5", max_call, lambda: 26.2),
    Case("blow-up, T = 5", blow_up, None),
    Case("sign slip", slip, call_value),
    Case("batch mixing", mixing, None),
    Case("default risk, d = 100", default_risk, lambda: 57.300),
    Case("American put by penalty, rate 20", penalty, lambda: on_a_grid("put", 20.0)),
]
