"""One implementation on one case, in a process of its own: choose the setting, check the answer, measure."""

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from benchmarks.contenders import CONTENDERS, Contender, Setting
from benchmarks.machine import GemmPeak, peak_resident, relative_error, reset_peak, resident, timed
from benchmarks.reference import Instance, answer, make_instance

CLASSES = 10
CHECK_SITES, CHECK_BATCH = 20, 50  # of the instance on which the answer is checked
TOLERANCE = 2e-5  # float32 against float64, relative to the largest value of each tensor
CALL_SECONDS, MOST_CALLS = 0.1, 10  # of one kind in one round
SLOW = 3.0  # seconds a step from which one call has to do

# Another library may fail in its own way on a case; that is a result.
FAILURES = (RuntimeError, MemoryError, ValueError, TypeError, LookupError, AttributeError, ImportError)


@dataclass(frozen=True)
class Case:
    """One row of the benchmark."""

    n_sites: int
    batch: int
    bond_dim: int


def check(contender: Contender, setting: Setting, case: Case) -> dict[str, Any]:
    """How far outputs and gradients are from float64, on a short chain of the same bond dimension."""
    sites, batch = min(CHECK_SITES, case.n_sites), min(CHECK_BATCH, case.batch)
    instance = make_instance(sites, case.bond_dim, CLASSES, seed=1, noise=0.3 / case.bond_dim**0.5)
    generator = torch.Generator().manual_seed(2)
    x, weights = (
        torch.rand(batch, sites, generator=generator),
        torch.randn(batch, CLASSES, generator=generator),
    )
    true, true_gradients = answer(instance, x, weights)
    model = contender.build(instance, setting)
    found = model(x)
    found.backward(weights)
    gradients = model.gradients()
    of_gradients = max(relative_error(g, t) for g, t in zip(gradients, true_gradients, strict=True))
    errors = relative_error(found, true), of_gradients
    return {
        "logits": errors[0],
        "gradients": errors[1],
        "matched": max(errors) <= TOLERANCE,
        "tolerance": TOLERANCE,
    }


class Worker:
    """The measurement of one contender on one case.

    Args:
        contender: who is measured.
        case: on what.
        trial_seconds: how long settings may be tried.
        gemm_size: of the GEMM peak.
    """

    def __init__(self, contender: Contender, case: Case, trial_seconds: float, gemm_size: int) -> None:
        self._contender, self._case = contender, case
        self._threads = torch.get_num_threads()
        generator = torch.Generator().manual_seed(3)
        self._x = torch.rand(case.batch, case.n_sites, generator=generator)
        self._outgoing = torch.randn(case.batch, CLASSES, generator=generator) / case.batch
        self.report: dict[str, Any] = {}
        self._setting = self.report["setting"] = self._fastest(trial_seconds)
        self.report["check"] = check(contender, self._setting, case)
        self.report["memory"] = self._measure_memory()
        self.report["finite"] = self._finite()
        self._gemm = GemmPeak(gemm_size)

    def round(self) -> dict[str, Any]:
        """Samples of one round: the GEMM peak first, then training steps and forward passes."""
        torch.set_num_threads(self._threads)
        gemm = self._gemm()
        self._use(self._setting)
        step = self._samples(self._step)
        forward = self._samples(self._forward)
        return {"gemm": gemm, "step": step, "forward": forward}

    def _samples(self, call: Callable[[], object]) -> dict[str, list[float]]:
        first = timed(call, 1)
        seconds = first["wall"][0]
        more = timed(call, 0 if seconds > SLOW else min(MOST_CALLS, int(CALL_SECONDS / seconds)))
        # the first call of a round warms the caches after the others' turns; it counts only where it is alone
        return more if more["wall"] else first

    def _two_steps(self) -> float:
        """Seconds of the faster of two training steps; a slow one is not repeated."""
        first = timed(self._step, 1)["wall"][0]
        return first if first > SLOW else min(first, *timed(self._step, 1)["wall"])

    def _use(self, setting: Setting) -> None:
        torch.set_num_threads(1 if setting.get("threads") == 1 else self._threads)

    def _step(self) -> None:
        for parameter in self._model.parameters():
            parameter.grad = None
        self._model(self._x).backward(self._outgoing)

    @torch.no_grad()
    def _forward(self) -> Tensor:
        return self._model(self._x)

    def _instance(self) -> Instance:
        return make_instance(self._case.n_sites, self._case.bond_dim, CLASSES, seed=0)

    def _fastest(self, trial_seconds: float) -> Setting:
        """The fastest of the contender's settings, each built and stepped twice, until the time is up."""
        settings = self._contender.settings
        if len(settings) == 1:
            return settings[0]
        instance, end = self._instance(), time.monotonic() + trial_seconds
        trials: list[tuple[float, Setting]] = []
        for setting in settings:
            if trials and time.monotonic() > end:
                break
            self._use(setting)
            self._model = self._contender.build(instance, setting)
            trials.append((self._two_steps(), setting))
            del self._model
            reset_peak()
        self.report["trials"] = [{**setting, "seconds": seconds} for seconds, setting in trials]
        return min(trials, key=lambda trial: trial[0])[1]

    def _measure_memory(self) -> dict[str, int | bool]:
        """Builds the model; the peak of two training steps, beyond what the process held without a model."""
        reset_peak()
        start = resident()
        self._use(self._setting)
        self._model = self._contender.build(self._instance(), self._setting)
        without_building = reset_peak()
        self._two_steps()
        return {"peak_bytes": max(0, peak_resident() - start), "without_building": without_building}

    def _finite(self) -> bool:
        """Whether outputs and gradients of the full size are finite."""
        return all(bool(torch.isfinite(value).all()) for value in [self._forward(), *self._model.gradients()])


def serve(connection: Connection, name: str, case: Case, trial_seconds: float, gemm_size: int) -> None:
    """Answers "prepare" and "round" until "stop": the process's main function."""
    worker: Worker | None = None
    if CONTENDERS[name].peer:
        warnings.simplefilter("ignore")  # other libraries' deprecations are not ours to show
    connection.send({"ready": asdict(case)})
    while (word := connection.recv()) != "stop":
        try:
            if worker is None:
                worker = Worker(CONTENDERS[name], case, trial_seconds, gemm_size)
                connection.send(worker.report)
            else:
                connection.send(worker.round())
        except FAILURES as error:
            connection.send({"failed": f"{type(error).__name__} in {word}: {error}"[:300]})
