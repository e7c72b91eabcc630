"""Solving a parabolic equation: a network, a loss along random paths, and the one loop."""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tnml.errors import InputError, choose
from tnml.loop.checkpoint import load as load_checkpoint
from tnml.loop.entry import run
from tnml.loop.loop import CHECKPOINT
from tnml.loop.protocols import Reporter
from tnml.loop.results import Row, TrainingDiverged
from tnml.pde.accuracy import exact_along, fresh_paths, relative_l2, values_along
from tnml.pde.budget import iterations_of, seconds_per_iteration
from tnml.pde.identity import check_same, identity_of
from tnml.pde.losses.deep_bsde import DeepBSDE, DeepBSDELoss
from tnml.pde.losses.euler import EulerLoss
from tnml.pde.losses.unbiased import UnbiasedLoss
from tnml.pde.options import LOSS_NAMES, NETWORKS, SolveOptions, preset
from tnml.pde.path_checks import examine, explained
from tnml.pde.paths.noise import increments, sign_design
from tnml.pde.paths.simulation import Paths, euler_maruyama
from tnml.pde.problem import Problem
from tnml.pde.solution import Solution
from tnml.pde.streams import LOOK_AHEAD, WEIGHTS
from tnml.randomness import forked_rng, step_seed

Loss = Callable[[Any, Problem, Paths], Tensor]  # (model, problem, paths) -> mean over the paths

_NAMED = {name: name for name in NETWORKS}
_LOSSES = {name: name for name in LOSS_NAMES}
_WATCH_SET = 1000  # number of the set of paths behind the error in the history
_WATCHED = 64  # paths that the error in the history is measured on
_CHECKED = 8  # paths that the problem's functions are tried on before training
_KINDS = {"euler": EulerLoss, "unbiased": UnbiasedLoss, "deep-bsde": DeepBSDELoss}
_OWN = "own"  # name of any other loss


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
        loss: instead of the options' one: a name; an object such as `EulerLoss(terminal_weight=3.0)`; or any
            `loss(ansatz, problem, paths) -> mean over paths`, whose `fresh_increments`, if it has any, says
            how many `paths.fresh` holds at every point. An object is used as it is: `group`, `ahead`,
            `relative` and `chunk` of the options are for losses that go by a name. The design of
            `group_noise` goes to losses with `groups = 1`, the others get signs in its place.
        options: see `SolveOptions`; None: `preset(problem)`.
        run_dir: folder of the run; None writes nothing.
        resume: continue what is in `run_dir`.
        reporter: who is told, for example `tnml.training.ProgressReporter()`; None is silence.

    Raises:
        InputError: the network, the loss or the options do not suit the problem; a function of the problem is
            not finite on paths, before training or where it breaks off; `run_dir` holds another run.
        TrainingDiverged: the loss became NaN or infinite, and no function of the problem is seen to be why.
        TrainingInterrupted: after Ctrl-C.

    Example:
        >>> from tnml.pde import BlackScholesBarenblatt, preset
        >>> problem = BlackScholesBarenblatt(2)
        >>> options = preset(problem, iterations=40, paths=20, time_steps=5, width=16, lr=1e-2, device="cpu")
        >>> solution = solve(problem, options=options)
        >>> abs(solution.value / solution.true_value.value - 1) < 0.05
        True
    """
    if network is not None and not isinstance(network, nn.Module | str):
        raise InputError(f"network must be a torch.nn.Module or a name, got {type(network).__name__}")
    name = _name_of(loss)
    options, network = _asked(problem, network, name, options)
    chosen = loss_of(options, problem.dim) if loss is None or isinstance(loss, str) else loss
    with forked_rng(torch.device("cpu")):
        torch.manual_seed(step_seed(options.seed, 0, stream=WEIGHTS))
        model = options.make_model(problem, network)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        on_paths = OnPaths(problem, options, chosen)
        draw = partial(on_paths.draw, device=next(model.parameters()).device)
        examine(model, draw(0, min(_CHECKED, options.paths), 0))
    folder = None if run_dir is None else Path(run_dir)
    identity = {**identity_of(problem, chosen, model), **options.identity()}
    stored = None
    if resume and folder is not None and (folder / CHECKPOINT).exists():
        stored = load_checkpoint(folder / CHECKPOINT)
        check_same(stored, identity, folder / CHECKPOINT)
    seconds = partial(seconds_per_iteration, model, on_paths, options)
    loop, steps = options.loop(iterations_of(options, seconds, stored))
    try:
        result = run(
            model,
            on_paths,
            PathBatches(options.paths, steps),
            loop,
            evaluate=Watch(problem, options.time_steps, options.torch_dtype),
            reporter=reporter,
            run_dir=folder,
            resume=resume,
            identity=identity,
        )
    except TrainingDiverged as error:
        found = explained(error, model, start, draw, options.paths)
        if found is error:
            raise
        raise found from error
    return Solution(
        problem=problem,
        model=model.eval(),
        options=options,
        history=result.history,
        seconds=result.seconds,
        iterations=loop.epochs * steps,
        own_network=network is not None,
        loss=_OWN if name == _OWN else options.loss,
    )


def _asked(
    problem: Problem, network: nn.Module | str | None, name: str | None, options: SolveOptions | None
) -> tuple[SolveOptions, nn.Module | None]:
    """The options with what is asked for by name put in, and the network if it is a module."""
    if options is None:
        options = preset(problem) if name in (None, _OWN) else preset(problem, loss=name)
    if isinstance(network, str):
        options, network = dataclasses.replace(options, network=choose("network", network, _NAMED)), None
    if name is not None and name != _OWN:
        options = dataclasses.replace(options, loss=name)
    return options.settled(problem, loss=name), network


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
        named = options.group_noise == "design"
        design = named and getattr(self.loss, "groups", None) == 1
        drawn = increments(
            count,
            n if design else n * each,
            d,
            dt,
            method="signs" if named else options.group_noise,
            first=first,
            stream=LOOK_AHEAD,
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


def _name_of(loss: object) -> str | None:
    """The name of a loss given to `solve`, that of its kind for an object; None where none is given.

    Raises:
        InputError: it is no loss, or no name of one.
    """
    if loss is None:
        return None
    if isinstance(loss, str):
        return choose("loss", loss, _LOSSES)
    if isinstance(loss, type) or not callable(loss):
        came = f"the class {loss.__name__}" if isinstance(loss, type) else type(loss).__name__
        raise InputError(
            f"loss must be a name ({', '.join(LOSS_NAMES)}) or a function loss(ansatz, problem, paths), such "
            f"as the object EulerLoss(); got {came}"
        )
    return next((name for name, kind in _KINDS.items() if isinstance(loss, kind)), _OWN)
