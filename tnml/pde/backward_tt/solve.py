"""Solving an equation by regression with a tensor train: paths, a fit, and again from there."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tnml.errors import InputError
from tnml.files import user_path
from tnml.loop import checkpoint
from tnml.loop.interrupt import StopRequest
from tnml.loop.loop import CHECKPOINT, METRICS, check_folder, remove_leftovers
from tnml.loop.protocols import Callback, Reporter
from tnml.loop.records import write_metrics
from tnml.loop.results import Row, TrainingDiverged, TrainingInterrupted
from tnml.pde.ansatz.ansatz import Ansatz
from tnml.pde.backward_tt.network import FunctionalTrain
from tnml.pde.backward_tt.options import METHOD, TTOptions
from tnml.pde.backward_tt.regression import FitOptions, fit
from tnml.pde.backward_tt.samples import Samples, samples
from tnml.pde.identity import check_same, identity_of
from tnml.pde.problem import Problem
from tnml.pde.solution import Solution
from tnml.pde.watch import Watch


def solve_tt(
    problem: Problem,
    options: TTOptions | None = None,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    callbacks: Sequence[Callback] = (),
) -> Solution:
    """What `tnml.pde.solve(problem, method="tt")` returns; see there.

    Args:
        problem: the equation.
        options: see `TTOptions`.
        run_dir: folder of the run; None writes nothing.
        resume: continue what is in `run_dir` at the pass where it stopped, to the same bits; with more
            `passes` a finished run goes on.
        reporter: told after every pass.
        callbacks: called with (model, None, row) after every pass.

    Raises:
        InputError: the options do not suit the problem, or `run_dir` holds another run.
        TrainingDiverged: paths or samples are not finite.
        TrainingInterrupted: after Ctrl-C.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> solution = solve_tt(HeatEquation(5), TTOptions(paths=64, time_steps=4, passes=2, degree=2))
        >>> abs(solution.value - 10) < 1e-3
        True
    """
    return _Run(problem, options or TTOptions(), run_dir, resume, reporter, tuple(callbacks)).execute()


class _Run:
    """A run from its first pass or its checkpoint to the solution."""

    def __init__(
        self,
        problem: Problem,
        options: TTOptions,
        run_dir: str | os.PathLike[str] | None,
        resume: bool,
        reporter: Reporter | None,
        callbacks: tuple[Callback, ...],
    ) -> None:
        self.problem, self.options = problem, options
        self.folder = None if run_dir is None else user_path(run_dir)
        self.resume, self.reporter, self.callbacks = resume, reporter, callbacks
        self.model = options.make_model(problem).eval()
        self.identity = {**identity_of(problem, solve_tt, self.model), **options.identity()}
        self.history: list[Row] = []
        self.seconds = 0.0

    def execute(self) -> Solution:
        """All passes, and the solution."""
        check_folder(self.folder, self.resume)
        if self.folder is not None:
            remove_leftovers(self.folder, (CHECKPOINT, METRICS))
            if self.resume and (self.folder / CHECKPOINT).exists():
                self._restore(self.folder / CHECKPOINT)
        if self.reporter is not None:
            self.reporter.start()
        try:
            with StopRequest() as request, torch.no_grad():
                while self._goes_on():
                    self._pass()
                    if request.made():
                        raise TrainingInterrupted(self.folder, self.history)
        finally:
            if self.reporter is not None:
                self.reporter.stop()
        return Solution(
            problem=self.problem,
            model=self.model,
            options=self.options,
            history=self.history,
            seconds=self.seconds,
            iterations=len(self.history),
            loss=METHOD,
        )

    def _goes_on(self) -> bool:
        done, limit = len(self.history), self.options.max_seconds
        late = limit is not None and done > 0 and self.seconds * (done + 1) / done > limit
        return done < self.options.passes and not late

    def _pass(self) -> None:
        """New paths, and the tensor train that fits them."""
        begin, number, options = time.perf_counter(), len(self.history), self.options
        found = samples(
            self.problem, self.model, paths=options.paths, time_steps=options.time_steps,
            points=options.points, seed=options.seed, number=number,
        )  # fmt: skip
        if not bool(found.rest.isfinite().all()) or not bool(found.x.isfinite().all()):
            raise TrainingDiverged(
                f"the paths of {self.problem.name!r} in pass {number + 1} are not finite; take more "
                "time_steps, a smaller degree, or the network: solve(problem)"
            )
        residual = fit_to(self.model, found, options, number)
        row: Row = {"pass": number + 1, "loss": residual**2, "spread": found.spread}
        row |= Watch(self.problem, options.time_steps, options.torch_dtype)(self.model)
        ranks = _train(self.model).ranks
        row |= {"largest_rank": max(ranks), "mean_rank": sum(ranks) / len(ranks)}
        self.seconds += time.perf_counter() - begin
        row["seconds"] = self.seconds
        for callback in self.callbacks:
            row |= callback(self.model, None, row) or {}
        self.history.append(row)
        self._save()
        if self.reporter is not None:
            self.reporter.epoch(row, options.passes)

    def _save(self) -> None:
        if self.folder is None:
            return
        state = {
            "options": self.options.record(),
            "identity": dict(self.identity),
            "model": self.model.state_dict(),
            "history": self.history,
            "seconds": self.seconds,
        }
        checkpoint.save(self.folder / CHECKPOINT, state)
        write_metrics(self.folder / METRICS, self.history)

    def _restore(self, source: Path) -> None:
        stored = checkpoint.load(source)
        check_same(stored, self.identity, source)
        try:
            self.model.load_state_dict(stored["model"])
            self.history, self.seconds = [dict(row) for row in stored["history"]], float(stored["seconds"])
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{source} is not the checkpoint of this run ({error}); start a new run"
            ) from error


def fit_to(model: Ansatz, found: Samples, options: TTOptions, number: int = 0) -> float:
    """Fits the tensor train of an ansatz to samples of u, and gives what is left, root mean square.

    Inputs are standardised by these samples first.

    Args:
        model: changed in place.
        found: the samples.
        options: rank, cutoff, sweeps and seed.
        number: of the pass.
    """
    train = _train(model)
    shift, factor = model.shift.double(), model.factor.double()
    if not any(core.any() for core in train.cores):
        x = found.x.flatten(0, 1)
        deviation = x.std(0)
        shift[1:], factor[1:] = x.mean(0), 1 / torch.where(deviation > 1e-12, deviation, 1.0)
    features, slopes = _features(model, found, shift, factor)
    base, slope = _known(model, found)
    wanted = found.at_chosen(found.rest.flatten()) - found.rows(base, slope)[0]
    size = float(wanted.square().mean().sqrt()) or 1.0
    chosen = FitOptions(
        max_rank=options.rank,
        cutoff=options.cutoff,
        sweeps=options.sweeps,
        observations=2.0 * len(found.x),
        seed=options.seed + number,
    )
    before = [train.cores[0] / size, *train.cores[1:]]
    values = found.at_chosen(found.rest.flatten() - base[0]) / size
    plain = (lambda value, slope: found.at_chosen(value)), values
    fitted = fit(before, features, wanted / size, chosen, slopes=slopes, rows=found.rows, plain=plain)
    model.shift.copy_(shift)
    model.factor.copy_(factor)
    train.adopt([fitted.cores[0] * size, *fitted.cores[1:]])
    return fitted.residual * size


def _train(model: Ansatz) -> FunctionalTrain:
    if not isinstance(model.network, FunctionalTrain):
        raise InputError(f"method='tt' fits a tensor train, got {type(model.network).__name__}")
    return model.network


def _known(model: Ansatz, found: Samples) -> tuple[Tensor, Tensor]:
    """What is known of u at all points: its base, and along the noise the base less the whole of v."""
    t, x, noise = (part.flatten(0, 1).to(model.shift) for part in (found.t, found.x, found.noise))
    base, slope = model._base_and_slope(t, x, noise)
    _, whole = model.value_and_slope(t, x, noise)
    return base.double().T, (slope - whole).double().T


def _features(model: Ansatz, found: Samples, shift: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """The features of every site at all points, and their derivatives along the noise."""
    train, problem = _train(model), model.problem
    t, x, noise = (part.flatten(0, 1) for part in (found.t, found.x, found.noise))
    inputs = ((torch.cat([t, x], 1) - shift) * factor).T
    along = (torch.cat([torch.zeros_like(t), noise], 1) * factor).T
    features, slopes = train.features_and_slopes(inputs.contiguous(), along.contiguous())
    weight, bend = problem.horizon - t, torch.zeros_like(t)
    if model.terminal == "multiplicative":
        bend = weight * (problem.g_gradient(x) * noise).sum(1, keepdim=True)
        weight = weight * problem.g(x)
    else:
        weight = weight * model.scale.double()
    slopes[0], features[0] = features[0] * bend.T, features[0] * weight.T  # time has no noise of its own
    return features, slopes
