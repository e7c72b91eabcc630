"""One implementation on one case, in a process of its own: choose the setting, check the answer, measure."""

from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.contenders import CONTENDERS, Contender, Setting
from benchmarks.machine import GemmPeak, peak_resident, relative_error, reset_peak, resident, timed
from benchmarks.reference import Instance, answer, make_instance
from benchmarks.worker_process import StepWorker, answer_words

CLASSES = 10
CHECK_SITES, CHECK_BATCH = 20, 50  # of the instance on which the answer is checked
TOLERANCE = 2e-5  # float32 against float64, relative to the largest value of each tensor
SLOW = 3.0  # seconds per step above which a single call has to do


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


class Worker(StepWorker):
    """The measurement of one contender on one case.

    Args:
        contender: the implementation to measure.
        case: what it is measured on.
        trial_seconds: time limit for trying settings.
        gemm_size: of the GEMM peak.
    """

    CALL_SECONDS, MOST_CALLS = 0.1, 10

    def __init__(self, contender: Contender, case: Case, trial_seconds: float, gemm_size: int) -> None:
        super().__init__(contender)
        self._case = case
        generator = torch.Generator().manual_seed(3)
        self._x = torch.rand(case.batch, case.n_sites, generator=generator)
        self._outgoing = torch.randn(case.batch, CLASSES, generator=generator) / case.batch
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
        return {"gemm": gemm, **super().round()}

    def _instance(self) -> Instance:
        return make_instance(self._case.n_sites, self._case.bond_dim, CLASSES, seed=0)

    def _trial(self) -> float:
        """Seconds of the faster of two training steps; a slow one is not repeated."""
        first = timed(self._step, 1)["wall"][0]
        return first if first > SLOW else min(first, *timed(self._step, 1)["wall"])

    def _measure_memory(self) -> dict[str, int | bool]:
        """Builds the model; the peak of two training steps, beyond what the process held without a model."""
        reset_peak()
        start = resident()
        self._use(self._setting)
        self._model = self._contender.build(self._instance(), self._setting)
        without_building = reset_peak()
        self._trial()
        return {"peak_bytes": max(0, peak_resident() - start), "without_building": without_building}

    def _finite(self) -> bool:
        """Whether outputs and gradients of the full size are finite."""
        return all(bool(torch.isfinite(value).all()) for value in [self._forward(), *self._model.gradients()])


def serve(connection: Connection, name: str, case: Case, trial_seconds: float, gemm_size: int) -> None:
    """The process's main function: answers until "stop"."""
    contender = CONTENDERS[name]
    make = partial(Worker, contender, case, trial_seconds, gemm_size)
    answer_words(connection, name, make, peer=contender.peer)
