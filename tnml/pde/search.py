"""Solving within a time: short runs of a few strategies, compared by the check; the best continues."""

import copy
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import nn

from tnml.checks import number
from tnml.errors import InputError
from tnml.files import user_path, write_text
from tnml.loop.protocols import Callback, Reporter
from tnml.loop.results import TrainingDiverged, TrainingInterrupted
from tnml.pde.ansatz.ansatz import CLOSED
from tnml.pde.aposteriori.result import Check
from tnml.pde.losses.named import Loss
from tnml.pde.options import SolveOptions
from tnml.pde.problem import Problem
from tnml.pde.settle import Settled, settle
from tnml.pde.solution import Solution
from tnml.pde.strategies import Strategy, more_steps, score, strategies_of
from tnml.pde.train import solution_of, train

JOURNAL = "search.json"
_CANDIDATES = 3
_SHORT, _MAIN, _NEXT, _CHECK = 0.08, 0.4, 0.15, 0.1  # parts of the time: a candidate, the best, the next one
_ENOUGH = 0.3  # of the tolerance: half an interval that needs no more training
_FEW, _MOST = 256, 2**14  # paths of a check: of a candidate, at most
_ITERATIONS = 10**7  # more than fit


class Trial(NamedTuple):
    """A strategy with its solution and what the check says.

    Example:
        >>> Trial._fields
        ('strategy', 'solution', 'check')
    """

    strategy: Strategy
    solution: Solution
    check: Check


def search(
    problem: Problem,
    network: nn.Module | str | None = None,
    *,
    loss: Loss | str | None = None,
    options: SolveOptions,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    callbacks: Sequence[Callback] = (),
    start: Solution | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Solution:
    """The solution found in `options.seconds`, with the strategy it was found by; see `tnml.pde.solve`.

    Up to three strategies are trained for a twelfth of the time each and compared by the width of the
    interval that the check gives them. The best continues, unless it needs no more training. If its check
    fails then, the next one continues, or the same with more time steps if the check asks for them. What is
    left of the time goes into the paths of the last check. With `run_dir` every run has a folder of its own
    in it, and `search.json` says which were begun; a resumed search repeats the same ones.

    Args:
        problem: see `tnml.pde.solve`.
        network: see there; a module is copied for every strategy and gets the weights of the best.
        loss: see there.
        options: with `seconds`.
        run_dir: see there.
        resume: see there.
        reporter: see there.
        callbacks: see there.
        start: see there; every strategy that has the same parameters starts from it.
        clock: gives the time in seconds.

    Raises:
        InputError: as `tnml.pde.solve`.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> options = SolveOptions(seconds=0.5, paths=8, time_steps=8, width=8, device="cpu")
        >>> found = search(HeatEquation(2), options=options)
        >>> found.checked is not None, len(found.trials) >= 1
        (True, True)
    """
    return _Search(
        problem, network, loss, options, None if run_dir is None else user_path(run_dir), resume, reporter,
        callbacks, start, clock,
    ).found()  # fmt: skip


class _Search:
    def __init__(
        self,
        problem: Problem,
        network: nn.Module | str | None,
        loss: Loss | str | None,
        options: SolveOptions,
        folder: Path | None,
        resume: bool,
        reporter: Reporter | None,
        callbacks: Sequence[Callback],
        start: Solution | None,
        clock: Callable[[], float],
    ) -> None:
        self._problem, self._network, self._loss = problem, network, loss
        self._seconds = number("seconds", options.seconds, above=0.0)
        self._options = dataclasses.replace(options, seconds=None)
        self._folder, self._resume = folder, resume
        self._reporter, self._callbacks, self._start, self._clock = reporter, callbacks, start, clock
        self._begin = clock()
        self._trials: list[Trial] = []
        self._journal: list[dict[str, Any]] = []
        self._stored: list[dict[str, Any]] = []
        if folder is not None and resume and (folder / JOURNAL).exists():
            self._stored = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))

    def found(self) -> Solution:
        """The best solution, checked on as many paths as there is time for."""
        options = self._options
        if isinstance(self._loss, str):  # open only as far as the user left it so
            options = dataclasses.replace(options, loss=self._loss)
        elif self._loss is not None:
            options = dataclasses.replace(options, loss="unbiased")
        waiting = strategies_of(options.on_paths(self._problem), options)
        for strategy in waiting[:_CANDIDATES]:
            trial = self._try(strategy, _SHORT, self._start)
            if trial is not None and _is_enough(trial.check):
                break
        if not self._trials:
            raise self._failure
        best = min(self._trials, key=lambda trial: score(trial.check))
        if not _is_enough(best.check):
            best = self._continued(best, best.strategy, _MAIN) or best
        if not best.check.passed:
            best = min(best, self._next(best, waiting), key=lambda trial: score(trial.check))
        return self._finished(best)

    def _try(self, strategy: Strategy, share: float, start: Solution | None) -> Trial | None:
        """A run of one strategy with its check; None if it diverged or does not suit the problem."""
        number_ = len(self._journal)
        known = self._stored[number_] if number_ < len(self._stored) else {}
        changes = dict(known.get("changes", strategy.changes))
        limits: dict[str, Any] = {"iterations": _ITERATIONS, "max_seconds": share * self._seconds}
        if "iterations" in known:
            limits = {"iterations": known["iterations"], "max_seconds": None}
        network = copy.deepcopy(self._network) if isinstance(self._network, nn.Module) else self._network
        loss = None if "loss" in changes else self._loss
        folder = None if self._folder is None else self._folder / f"{number_}"
        resume = self._resume and folder is not None and folder.exists()
        options = dataclasses.replace(self._options, **{**changes, **limits})
        entry: dict[str, Any] = {"words": strategy.words, "changes": changes}
        self._journal.append(entry)
        try:
            try:
                settled = settle(
                    self._problem, network, loss=loss, options=options, run_dir=folder,
                    resume=resume, start=start, clock=self._clock,
                )  # fmt: skip
            except InputError:
                if start is None or start is not self._start:
                    raise
                settled = settle(
                    self._problem, network, loss=loss, options=options, run_dir=folder,
                    resume=resume, clock=self._clock,
                )  # fmt: skip
            settled = _with_its_iterations(settled)
            entry["iterations"] = settled.iterations
            self._write()
            untrained = None
            if start is None and network is None and settled.options.terminal in CLOSED:
                untrained = self._untrained(settled, strategy, int(known.get("paths", self._paths())))
            solution = solution_of(
                settled, train(settled, reporter=self._reporter, callbacks=self._callbacks)
            )
        except TrainingInterrupted as stop:
            raise TrainingInterrupted(self._folder) from stop
        except (InputError, TrainingDiverged) as error:
            self._failure = error
            entry["failed"] = str(error)
            return None
        paths = int(known.get("paths", self._paths()))
        check = self._checked(solution, paths)
        entry |= {"paths": paths, "check": check.record()}
        self._write()
        trial = Trial(Strategy(strategy.words, changes), solution, check)
        if untrained is not None and score(untrained.check) <= score(check):
            trial = untrained
            entry["untrained"] = untrained.check.record()
        self._trials.append(trial)
        return trial

    def _untrained(self, settled: Settled, strategy: Strategy, paths: int) -> Trial:
        """What the solution is built on, without the network: training may have made it worse."""
        solution = Solution(
            problem=settled.problem, model=copy.deepcopy(settled.model).eval(), options=settled.options,
            own_network=settled.own_network, loss=settled.loss,
        )  # fmt: skip
        return Trial(strategy, solution, self._checked(solution, paths))

    def _continued(self, best: Trial, strategy: Strategy, share: float) -> Trial | None:
        """The better one of a trial and its continuation with this strategy."""
        later = self._try(strategy, share, best.solution)
        return later if later is None else min(later, best, key=lambda trial: score(trial.check))

    def _next(self, best: Trial, waiting: Sequence[Strategy]) -> Trial:
        """What follows a failed check."""
        finer = more_steps(best.check, cast(SolveOptions, best.solution.options))
        if finer is not None:
            strategy = Strategy(
                f"{best.strategy.words}, {finer.words}", {**best.strategy.changes, **finer.changes}
            )
            return self._continued(best, strategy, _NEXT) or best
        others = [trial for trial in self._trials if trial.strategy.words != best.strategy.words]
        if len(waiting) > _CANDIDATES:
            new = self._try(waiting[_CANDIDATES], _NEXT, self._start)
            return best if new is None else new
        if not others:
            return best
        second = min(others, key=lambda trial: score(trial.check))
        return self._continued(second, second.strategy, _NEXT) or second

    def _finished(self, best: Trial) -> Solution:
        paths = self._paths(last=True)
        check = best.check
        if paths > 1.5 * check.paths:
            check = self._checked(best.solution, paths)
        if isinstance(self._network, nn.Module):
            self._network.load_state_dict(best.solution.ansatz.network.state_dict())  # type: ignore[union-attr]
        return dataclasses.replace(
            best.solution,
            strategy=_words(best, check, self._journal),
            trials=tuple(self._journal),
            checked=check,
            seconds=self._clock() - self._begin,
        )

    def _paths(self, *, last: bool = False) -> int:
        """Paths for which there is time, from what a path took before."""
        if not last and len(self._journal) <= _CANDIDATES:
            return _FEW
        each = self._per_path
        left = self._seconds - (self._clock() - self._begin)
        part = max(left, 0.02 * self._seconds) if last else _CHECK * self._seconds
        return max(_FEW, min(_MOST, int(part / each) // _FEW * _FEW))

    def _checked(self, solution: Solution, paths: int) -> Check:
        """The check, whose time is kept."""
        begin = self._clock()
        check = solution.check(paths=paths, seed=self._options.seed)
        self._per_path = max(self._clock() - begin, 1e-6) / paths
        return check

    def _write(self) -> None:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_text(self._folder / JOURNAL, json.dumps(self._journal, indent=2) + "\n")


def _with_its_iterations(settled: Settled) -> Settled:
    """The same run, known by the number of its iterations and not by the time it was given."""
    count = settled.iterations
    return dataclasses.replace(
        settled,
        options=dataclasses.replace(settled.options, iterations=count, max_seconds=None),
        identity={**settled.identity, "iterations": count},
    )


def _is_enough(check: Check) -> bool:
    """Whether more training is not worth its time."""
    return check.passed and score(check) < _ENOUGH * check.tolerance


def _words(best: Trial, check: Check, journal: Sequence[Mapping[str, Any]]) -> str:
    """What was chosen, and among what."""
    options = cast(SolveOptions, best.solution.options)  # a search trains networks
    chosen = f"{options.terminal} terminal, {best.solution.loss} loss, {options.time_steps} time steps"
    if options.stretch != 1:
        chosen += ", stretched network"
    tried = list(dict.fromkeys(entry["words"] for entry in journal))
    text = f"{chosen}; tried: {', '.join(tried)}"
    return text if check.passed else f"{text}; none passed the check"
