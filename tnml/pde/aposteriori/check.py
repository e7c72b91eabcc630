"""The check of a solution: corrected value, interval, gradient and doubts, on paths of its own."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.checks import number, whole
from tnml.loop.results import Row
from tnml.pde.aposteriori import doubts
from tnml.pde.aposteriori.bounds import NORMAL, Sampled, backwards, extrapolated, interval, sampled
from tnml.pde.aposteriori.curvature import Curvature, curvature
from tnml.pde.aposteriori.linearised import Walk, coarser, has_driver, steps_are_exact, walk
from tnml.pde.aposteriori.result import Check, Flag
from tnml.pde.aposteriori.slopes import Gradient, gradient_of, jump_of
from tnml.pde.derivatives import Function
from tnml.pde.losses.deep_bsde import DeepBSDE
from tnml.pde.paths.noise import increments
from tnml.pde.paths.simulation import euler_maruyama
from tnml.pde.problem import Problem, Reference
from tnml.randomness import Noise

_BATCH = 256  # paths walked together
_FIRST = 10_000  # number of the first set of increments; other uses of that noise are below
_KEPT = 32  # paths, and points of them, at which the driver is examined
_TRIED = 2**13  # paths behind the trivial answer
_SURE = 3.0  # standard errors
_LEFT = 0.1  # relative error of the gradient above which there is a doubt
_WIDEST = 20.0  # times the size of the value, an interval that still says something
_SERIOUS = frozenset({"paths", "off", "wide"})
_ROUGH = 0.03  # relative error of the gradient above which a loss that still falls is a doubt


class Walked(NamedTuple):
    """The results of all batches of paths.

    Example:
        >>> Walked._fields[:3]
        ('raw', 'fine', 'raw_coarse')
    """

    raw: Tensor
    fine: Tensor
    raw_coarse: Tensor
    coarse: Tensor
    dual: tuple[Tensor, Tensor] | None
    missed: float
    steepest: float
    inflation: float
    near: Curvature
    first: Walk


def check(
    problem: Problem,
    v: Function,
    start: float,
    *,
    time_steps: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    history: Sequence[Row] = (),
    paths: int = 1024,
    seconds: float | None = None,
    seed: int = 0,
    tolerance: float = 0.01,
) -> Check:
    """What fresh paths say about v; see `tnml.pde.Solution.check`, which calls it.

    Args:
        problem: the equation.
        v: its solution, as a function of t and x.
        start: v(0, x0).
        time_steps: of the training; the paths take as many, or one more to make them even.
        dtype: of v.
        device: of v.
        history: of the training.
        paths: see there, as for the following.
        seconds: see there.
        seed: see there.
        tolerance: see there.
    """
    paths, tolerance = whole("paths", paths, 16), number("tolerance", tolerance, above=0.0)
    if seconds is not None:
        number("seconds", seconds, above=0.0)
    begin = time.perf_counter()
    n = 2 * max(1, -(-time_steps // 2))

    def noise(first: int, count: int) -> Tensor:
        return increments(
            count, n, problem.dim, problem.horizon / n, seed=seed, step=_FIRST, first=first,
            stream=Noise.ACCURACY, dtype=dtype, device=device,
        )  # fmt: skip

    walked = _walk_all(problem, v, noise, paths, None if seconds is None else begin + seconds)
    gradient = gradient_of(walked.raw, walked.fine, walked.coarse)
    trivial = None if problem.coupled else problem.trivial(_TRIED, seed=seed)
    values = _corrected(problem, walked, gradient)
    found = sampled(values)
    scale = max(abs(found.mean), 0.1 * float(walked.raw.std()), 1e-300)
    ends = None
    if math.isfinite(found.mean + found.error) and math.isfinite(start):
        ends = _ends(problem, walked, values, scale)
    bias = sampled(walked.coarse - walked.fine)
    flags = _of_values(found, ends, start, scale, tolerance, trivial)
    flags += _of_steps(bias, scale, tolerance)
    flags += _of_gradient(gradient, jump_of(problem, v, dtype) if math.isfinite(start) else None)
    flags += _of_equation(problem, walked, time_steps, doubtful=any(f.name in _SERIOUS for f in flags))
    falling = doubts.still_falling(history)
    if falling is not None and (flags or gradient.error > _ROUGH):
        flags.append(falling)
    kind = {"linear": "unbiased", "neither": "estimate"}.get(walked.near.shape, "bounds")
    return Check(
        passed=not flags,
        flags=tuple(flags),
        value=found.mean,
        error=found.error,
        interval=ends,
        kind="none" if ends is None else kind,
        network=start,
        deviation=walked.missed,
        gradient_error=gradient.error,
        gradient_size=gradient.size.mean,
        dt_bias=bias.mean,
        dt_bias_error=bias.error,
        trivial=None if trivial is None else trivial.value,
        scale=scale,
        tolerance=tolerance,
        paths=len(walked.fine),
        time_steps=n,
        seconds=time.perf_counter() - begin,
    )


def _ends(problem: Problem, walked: Walked, values: Tensor, scale: float) -> tuple[float, float] | None:
    """The interval; None if it says nothing, or one of its ends is not finite."""
    ends = interval(
        walked.near, values, walked.fine, walked.dual,
        horizon=problem.horizon, missed=walked.missed, inflation=walked.inflation,
    )  # fmt: skip
    return ends if ends[1] - ends[0] <= _WIDEST * scale else None


@torch.no_grad()
def check_steps(
    problem: Problem, model: DeepBSDE, *, paths: int = 1024, seed: int = 0, tolerance: float = 0.01
) -> Check:
    """The check of a `DeepBSDE`, which knows u at its own steps only: without bounds and halved steps.

    Args:
        problem: the equation.
        model: its solution.
        paths: see `tnml.pde.Solution.check`.
        seed: see there.
        tolerance: see there.
    """
    paths, tolerance = whole("paths", paths, 16), number("tolerance", tolerance, above=0.0)
    begin = time.perf_counter()
    like = next(iter(model.parameters()))
    shape = (paths, model.steps, problem.dim, problem.horizon / model.steps)
    dw = increments(
        *shape, seed=seed, step=_FIRST, stream=Noise.ACCURACY, dtype=like.dtype, device=like.device
    )
    made = euler_maruyama(problem, dw)
    missed = (problem.g(made.x[:, -1]) - model(made)[:, -1:])[:, 0].double()
    moved = (model.gradients(made) * made.sdw).sum((1, 2)).double()
    values = model.value + missed
    found, gradient = sampled(values), gradient_of(values + moved, values, values)
    scale = max(abs(found.mean), 0.1 * float((values + moved).std()), 1e-300)
    trivial = problem.trivial(_TRIED, seed=seed)
    ends = None
    if not has_driver(problem) and math.isfinite(found.mean + found.error):
        ends = found.mean - NORMAL * found.error, found.mean + NORMAL * found.error
    flags = _of_values(found, ends, model.value, scale, tolerance, trivial)
    flags = [flag for flag in flags if ends is not None or flag.name != "wide"]
    flags += _of_gradient(gradient, None)
    return Check(
        passed=not flags,
        flags=tuple(flags),
        value=found.mean,
        error=found.error,
        interval=ends,
        kind="none" if ends is None else "unbiased",
        network=model.value,
        deviation=float(missed.square().mean().sqrt()),
        gradient_error=gradient.error,
        gradient_size=gradient.size.mean,
        dt_bias=math.nan,
        dt_bias_error=math.nan,
        trivial=trivial.value,
        scale=scale,
        tolerance=tolerance,
        paths=paths,
        time_steps=model.steps,
        seconds=time.perf_counter() - begin,
    )


def _walk_all(problem: Problem, v: Function, noise: object, paths: int, until: float | None) -> Walked:
    """All batches of paths, at the full and at twice the time step."""
    raw, fine, raw_coarse, coarse, duals, missed = [], [], [], [], [], []
    steepest, inflation, near, first = 0.0, 1.0, None, None
    for number_ in range(0, paths, _BATCH):
        count = min(_BATCH, paths - number_)
        dw = noise(number_, count)  # type: ignore[operator]
        if near is None or first is None:
            first = walk(problem, v, dw[:_KEPT], keep=True)
            near = _near(problem, first)
        one, two = (walk(problem, v, part, keep=_dual_exists(near)) for part in (dw, coarser(dw)))
        if _dual_exists(near):
            duals.append((backwards(problem, one), backwards(problem, two)))
        raw.append(one.raw)
        fine.append(one.value)
        raw_coarse.append(two.raw)
        coarse.append(two.value)
        missed.append(one.missed * count)
        steepest, inflation = max(steepest, one.steepest), max(inflation, one.inflation)
        if until is not None and time.perf_counter() > until:
            break
    total = torch.stack(missed).sum(0) / sum(map(len, fine))
    dual = None
    if duals:
        dual = torch.cat([a for a, _ in duals]), torch.cat([b for _, b in duals])
    return Walked(
        torch.cat(raw), torch.cat(fine), torch.cat(raw_coarse), torch.cat(coarse), dual,
        math.sqrt(float(total.max())), steepest, inflation, near, first,  # type: ignore[arg-type]
    )  # fmt: skip


def _corrected(problem: Problem, walked: Walked, gradient: Gradient) -> Tensor:
    """The corrected values of the paths `[m]`, without what is linear in the time step.

    If the gradient clearly has the wrong size, the martingale is subtracted in the size that leaves the
    least.
    """
    size = gradient.size
    factor = size.mean if abs(size.mean - 1) > _SURE * size.error else 1.0
    fine = walked.raw - factor * (walked.raw - walked.fine)
    if steps_are_exact(problem):
        return fine
    return extrapolated(fine, walked.raw_coarse - factor * (walked.raw_coarse - walked.coarse))


def _dual_exists(near: Curvature) -> bool:
    """Whether the driver bends in y only, and to one side."""
    return near.shape in ("convex", "concave") and near.of_z <= 1e-12


def _near(problem: Problem, kept: Walk) -> Curvature:
    """The driver near the solution, at points of the first paths before the horizon."""
    count = len(kept.moved)
    rows = torch.linspace(0, count * kept.x.shape[1] - 1, _KEPT).long()
    t, x, y, z = (part[:count].flatten(0, 1)[rows] for part in (kept.t, kept.x, kept.y, kept.z))
    missed = math.sqrt(float(kept.missed.max()))
    size_y = float(y.square().mean().sqrt())
    size_z = float(kept.martingale.std()) / math.sqrt(problem.horizon)
    near_y = max(2 * missed, 1e-4 * size_y, 1e-12)
    near_z = max(3 * float(kept.value.std()) / math.sqrt(problem.horizon), 1e-4 * size_z, 1e-12)
    if not math.isfinite(near_y + near_z):
        return Curvature("neither", math.inf, math.inf, None)
    return curvature(problem, t, x, y, z, near_y, near_z)


def _of_values(
    found: Sampled,
    ends: tuple[float, float] | None,
    start: float,
    scale: float,
    tolerance: float,
    trivial: Reference | None,
) -> list[Flag]:
    """Doubts about u(0, x0)."""
    if not math.isfinite(found.mean + found.error + start):
        return [Flag("paths", "the solution or its paths are not finite; see whether a solution exists")]
    flags = []
    away = abs(start - found.mean)
    outside = 0.0 if ends is None else max(ends[0] - start, start - ends[1], 0.0)
    by = f"{100 * away / scale:.2g} %"
    if found.error > 0 and away / found.error < 1e4:
        by += f" ({away / found.error:.1f} standard errors)"
    if away > tolerance * scale and away > _SURE * found.error and (ends is None or outside > 0):
        flags.append(Flag("off", f"u(0, x0) of the network is off by {by} from the corrected value"))
    if ends is None:
        flags.append(
            Flag("wide", "there is no interval: the driver bends too much for what the solution misses")
        )
    elif (ends[1] - ends[0]) / 2 > tolerance * scale:
        half = 100 * (ends[1] - ends[0]) / 2 / scale
        flags.append(Flag("wide", f"the interval is wide, +- {half:.2g} %; train longer or take more paths"))
    if trivial is not None and away > tolerance * scale / 10:
        other = abs(trivial.value - found.mean)
        if other + _SURE * (trivial.error + found.error) < away:
            flags.append(Flag("trivial", f"the trivial answer {trivial.value:.6g} is closer"))
    return flags


def _of_steps(bias: Sampled, scale: float, tolerance: float) -> list[Flag]:
    if not abs(bias.mean) > max(_SURE * bias.error, 2 * tolerance * scale):
        return []
    return [
        Flag(
            "steps",
            f"the time steps are long: with half as many the corrected value moves by "
            f"{100 * abs(bias.mean) / scale:.2g} %; take more time_steps",
        )
    ]


def _of_gradient(gradient: Gradient, jump: tuple[float, float, float] | None) -> list[Flag]:
    flags = []
    size = gradient.size
    if gradient.error > _LEFT:
        text = f"the gradient is off by about {100 * gradient.error:.2g} % along the paths"
        if abs(size.mean - 1) > max(_SURE * size.error, _LEFT / 2):
            text += f"; it explains most when multiplied by {size.mean:.3g}"
        flags.append(Flag("gradient", text))
    if jump is not None:
        flags.append(
            Flag(
                "jump",
                f"the gradient jumps at t = {jump[0]:.3g}, by {jump[1]:.2g} or {100 * jump[2]:.2g} % of its "
                "range: a kink of the terminal value is not smoothed",
            )
        )
    return flags


def _of_equation(problem: Problem, walked: Walked, time_steps: int, *, doubtful: bool) -> list[Flag]:
    """Doubts about the equation itself; the search for an explosion is wider if values are doubtful."""
    kept = walked.first
    ends = kept.x[-1]
    found = [doubts.stiff(walked.steepest, problem.horizon / time_steps)]
    if bool(ends.isfinite().all()):
        found += [
            doubts.may_blow_up(problem, ends, largest=doubtful),
            doubts.wrong_sign(problem, kept.t[0], kept.x[0], kept.y[0]),
            doubts.exact_is_another(problem, kept.x[len(kept.moved) // 2]),
        ]
    return [flag for flag in found if flag is not None]
