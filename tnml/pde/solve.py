"""Solving a parabolic equation: a network, a loss along random paths, and the one loop."""

import copy
import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tnml.errors import InputError, choose
from tnml.pde.accuracy import exact_along, fresh_paths, relative_l2, values_along
from tnml.pde.ansatz import Ansatz
from tnml.pde.deep_bsde import DeepBSDE, DeepBSDELoss
from tnml.pde.losses import EulerLoss, UnbiasedLoss
from tnml.pde.noise import increments, sign_design
from tnml.pde.options import NETWORKS, SolveOptions, preset
from tnml.pde.paths import Paths, euler_maruyama
from tnml.pde.problem import Problem
from tnml.pde.solution import Solution
from tnml.training.checkpoint import load as load_checkpoint
from tnml.training.engine import CHECKPOINT
from tnml.training.job import Reporter
from tnml.training.loop import run
from tnml.training.outcomes import Row
from tnml.training.processes import device_of, started_outside
from tnml.training.seeds import forked_rng, step_seed

Model = Ansatz | DeepBSDE
Loss = Callable[[Any, Problem, Paths], Tensor]  # (model, problem, paths) -> mean over the paths

_NAMED = {name: name for name in NETWORKS}
_WEIGHTS = 7  # stream of seeds of the starting weights
_FRESH = 1  # stream of noise of the losses that look ahead from every point
_WATCH_SET = 1000  # number of the set of paths behind the error in the history
_WATCHED = 64  # paths that the error in the history is measured on
_CHECKED = 8  # paths that the problem's functions are tried on before training
_PROBED = (2, 8, 1.0)  # iterations to warm up, the most to time, seconds to time


def solve(
    problem: Problem,
    network: nn.Module | str | None = None,
    *,
    loss: Loss | str | None = None,
    options: SolveOptions | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Solution:
    """The solution u(t, x) of a parabolic equation, near the paths that start at (0, x0).

    A network becomes a function with the terminal value g, see `Ansatz`; it is trained on new random paths at
    every step, which depend on seed and step only. With `run_dir` a run can be continued after a crash at any
    moment and ends in the same bits on the CPU, see `tnml.training.run`.

    Args:
        problem: the equation.
        network: `[m, d + 1] -> [m, 1]`, trained in place in the dtype of the options; or "dense" or "tnn";
            None: what the options say.
        loss: instead of the options' one: a name, or any `loss(ansatz, problem, paths) -> mean over paths`;
            its `fresh_increments`, if it has any, says how many `paths.fresh` holds at every point.
        options: see `SolveOptions`; None: `preset(problem)`.
        run_dir: folder of the run; None writes nothing.
        resume: continue what is in `run_dir`.
        reporter: who is told, for example `tnml.training.ProgressReporter()`; None is silence.

    Raises:
        InputError: the network, the loss or the options do not suit the problem, or a function of the problem
            is not finite on paths; `run_dir` holds another run.
        TrainingDiverged: the loss became NaN or infinite.
        TrainingInterrupted: after Ctrl-C.

    Example:
        >>> from tnml.pde import BlackScholesBarenblatt, preset
        >>> problem = BlackScholesBarenblatt(2)
        >>> options = preset(problem, iterations=40, paths=20, time_steps=5, width=16, lr=1e-2, device="cpu")
        >>> solution = solve(problem, options=options)
        >>> abs(solution.value / solution.true_value.value - 1) < 0.05
        True
    """
    options = options or preset(problem)
    if network is not None and not isinstance(network, nn.Module | str):
        raise InputError(f"network must be a torch.nn.Module or a name, got {type(network).__name__}")
    if isinstance(network, str):
        options, network = dataclasses.replace(options, network=choose("network", network, _NAMED)), None
    if isinstance(loss, str):
        options = dataclasses.replace(options, loss=loss)
    options = options.settled(problem)
    chosen = loss_of(options, problem.dim) if loss is None or isinstance(loss, str) else loss
    with forked_rng(torch.device("cpu")):
        torch.manual_seed(step_seed(options.seed, 0, stream=_WEIGHTS))
        model = options.make_model(problem, network)
    on_paths = OnPaths(problem, options, chosen)
    _check_on_paths(model, on_paths.draw(0, min(_CHECKED, options.paths), 0))
    folder = None if run_dir is None else Path(run_dir)
    total = _iterations(model, on_paths, folder, resume=resume)
    loop, steps = options.loop(total)
    result = run(
        model,
        on_paths,
        PathBatches(options.paths, steps),
        loop,
        evaluate=Watch(problem, options.time_steps, options.torch_dtype),
        reporter=reporter,
        run_dir=folder,
        resume=resume,
        identity=_identity(problem, options, chosen, model),
    )
    return Solution(
        problem=problem,
        model=model.eval(),
        options=options,
        history=result.history,
        seconds=result.seconds,
        iterations=loop.epochs * steps,
        own_network=network is not None,
    )


class PathBatches:
    """The numbers of the paths of each step, and of the step itself; the noise follows from both.

    Args:
        paths: in a batch.
        steps_per_epoch: steps between two reports.

    Example:
        >>> PathBatches(3, 10)(2, 5)
        (tensor([0, 1, 2]), tensor([25, 25, 25]))
    """

    def __init__(self, paths: int, steps_per_epoch: int) -> None:
        self.paths, self.steps_per_epoch = paths, steps_per_epoch

    def __call__(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Both, for all paths."""
        number = epoch * self.steps_per_epoch + step
        return torch.arange(self.paths), torch.full((self.paths,), number)


class OnPaths:
    """A loss on the paths of one step, as the loop calls it: every process draws its own part of the noise.

    Args:
        problem: gives the process.
        options: paths, steps, noise, seed and dtype.
        loss: of an ansatz on paths.
    """

    def __init__(self, problem: Problem, options: SolveOptions, loss: Loss) -> None:
        self.problem, self.options, self.loss = problem, options, loss

    def __call__(self, ansatz: nn.Module, index: Tensor, number: Tensor) -> Tensor:
        """The mean of the loss over the paths with these numbers."""
        device = index.device
        return self.loss(ansatz, self.problem, self.draw(int(index[0]), len(index), int(number[0]), device))

    def draw(self, first: int, count: int, number: int, device: torch.device | str = "cpu") -> Paths:
        """The paths `first` to `first + count - 1` of step `number`."""
        options, problem = self.options, self.problem
        n, d, dt = options.time_steps, problem.dim, problem.horizon / options.time_steps
        shared = {"seed": options.seed, "step": number, "dtype": options.torch_dtype, "device": device}
        dw = increments(
            count,
            n,
            d,
            dt,
            antithetic=options.antithetic,
            method=options.noise,
            first=first,
            **shared,  # type: ignore[arg-type]
        )
        each = getattr(self.loss, "fresh_increments", 0)
        if not each:
            return euler_maruyama(problem, dw)
        design = options.group_noise == "design"
        drawn = increments(
            count,
            n if design else n * each,
            d,
            dt,
            method="signs" if design else options.group_noise,
            first=first,
            stream=_FRESH,
            **shared,  # type: ignore[arg-type]
        )
        fresh = drawn.view(count, n, -1, d)
        return euler_maruyama(problem, dw, fresh=fresh * sign_design(d).to(fresh) if design else fresh)


class Watch:
    """What the history tells: u(0, x0), its relative error, and that along a few fresh paths.

    Args:
        problem: with the truth, where it is known.
        time_steps: of the paths.
        dtype: of the model.

    Example:
        >>> from tnml.pde import BlackScholesBarenblatt
        >>> problem = BlackScholesBarenblatt(2)
        >>> model = SolveOptions(width=8).make_model(problem)
        >>> sorted(Watch(problem, 5, torch.float32)(model))
        ['error', 'path_error', 'u0']
    """

    def __init__(self, problem: Problem, time_steps: int, dtype: torch.dtype) -> None:
        self._problem, self._time_steps, self._dtype = problem, time_steps, dtype
        self._truth = problem.true_value()
        self._paths: Paths | None = None
        self._exact: Tensor | None = None

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> Row:
        """The measured numbers of an `Ansatz` or a `DeepBSDE`."""
        like = next(iter(model.parameters()))
        device = like.device
        row: Row = {}
        if isinstance(model, DeepBSDE):
            row["u0"] = model.value
        else:
            x = self._problem.start(self._dtype, device)[None]
            row["u0"] = float(model(x.new_zeros(1, 1), x))
        if self._truth is not None and self._truth.value:
            row["error"] = abs(row["u0"] / self._truth.value - 1)
        if self._problem.exact is None or self._problem.coupled:
            return row
        if self._paths is None or self._exact is None or self._paths.x.device != device:
            self._paths = fresh_paths(
                self._problem,
                _WATCHED,
                self._time_steps,
                seed=0,
                number=_WATCH_SET,
                dtype=self._dtype,
                device=device,
            )
            self._exact = exact_along(self._problem, self._paths)
        if isinstance(model, DeepBSDE):
            found = model(self._paths).double()
        else:
            found = values_along(model, self._paths)
        row["path_error"] = relative_l2(found, self._exact)
        return row


def loss_of(options: SolveOptions, dim: int) -> Loss:
    """The loss that settled options name, for a problem of that many dimensions.

    Example:
        >>> loss_of(SolveOptions(loss="unbiased", group=2), dim=3).fresh_increments
        4
    """
    design = options.group_noise == "design"
    made: dict[str, Callable[[], Loss]] = {
        "euler": lambda: EulerLoss(chunk=options.chunk),
        "unbiased": lambda: UnbiasedLoss(
            group=len(sign_design(dim)) if design else options.group,
            groups=1 if design else 2,
            ahead=options.ahead,
            relative=options.relative,
            chunk=options.chunk,
        ),
        "deep-bsde": lambda: DeepBSDELoss(chunk=options.chunk),
    }
    return made[options.loss]()


def _identity(
    problem: Problem, options: SolveOptions, loss: Loss, model: nn.Module
) -> dict[str, str | int | float]:
    """What has to be the same when a run is resumed, beyond the options of the loop."""
    about: dict[str, str | int | float] = {
        "problem": problem.name,
        "dim": problem.dim,
        "horizon": problem.horizon,
        "model": repr(model),
    }
    about |= {"problem options": repr(dict(problem.options or {})), "loss object": type(loss).__name__}
    return {**about, **options.identity()}


@torch.no_grad()
def _check_on_paths(model: nn.Module, paths: Paths) -> None:
    """Raises where a function of the problem is not finite somewhere on paths, and says which and where."""
    problem: Any = model.problem
    if problem.coupled:
        return
    _check_finite("x, from the drift and the diffusion,", paths.x.flatten(0, 1), paths)
    t, x = paths.points(0, paths.steps + 1)
    y, z = problem.g(x), problem.g_gradient(x)
    _check_finite("terminal", y, paths)
    _check_finite("the gradient of terminal", z, paths)
    _check_finite("the driver", problem.phi(t, x, y, z), paths)


def _check_finite(what: str, values: Tensor, paths: Paths) -> None:
    bad = ~values.isfinite().all(1).view(-1, paths.steps + 1)
    if bool(bad.any()):
        path, step = (int(i) for i in bad.nonzero()[0])
        raise InputError(
            f"{what} is not finite at t = {float(paths.times[step]):g} on a path from x0 (|x| = "
            f"{float(paths.x[path, step].norm()):.4g}, with g for y); correct the problem's function"
        )


def _iterations(model: Model, on_paths: OnPaths, folder: Path | None, *, resume: bool) -> int:
    """How many iterations the run has: those of the options, or as many as fit into `max_seconds`."""
    options = on_paths.options
    if options.max_seconds is None:
        return options.iterations
    if started_outside():
        raise InputError("max_seconds goes with processes that tnml starts; under torchrun give iterations")
    if resume and folder is not None and (folder / CHECKPOINT).exists():
        stored = load_checkpoint(folder / CHECKPOINT)
        return int(stored["options"]["epochs"]) * int(stored["identity"]["steps_per_epoch"])
    fit = int(options.max_seconds / _seconds_per_iteration(model, on_paths))
    return max(1, min(options.iterations, fit))


def _seconds_per_iteration(model: Model, on_paths: OnPaths) -> float:
    """The time of one iteration on a copy of the model, the share of one process where there are several."""
    options = on_paths.options
    device = device_of(options.device)
    count = -(-options.paths // options.devices)
    twin = copy.deepcopy(model).to(device).train()
    parameters = [p for p in twin.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.0, fused=True)
    warm, most, longest = _PROBED
    index = torch.arange(count, device=device)
    times: list[float] = []
    for number in range(warm + most):
        begin = time.perf_counter()
        optimizer.zero_grad()
        loss = on_paths(twin, index, torch.full_like(index, number))
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device
        if number >= warm:
            times.append(time.perf_counter() - begin)
        if sum(times) > longest:
            break
    return sum(times) / len(times)
