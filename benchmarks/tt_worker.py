"""One implementation on one case of `tt_linear`, in a process of its own: check the answer, measure."""

import itertools
import math
import time
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import relative_error, timed
from benchmarks.tt_peers import CONTENDERS, Case, Contender, Instance, Setting, answer, make_instance
from benchmarks.worker_process import StepWorker, answer_words

TOLERANCE = 2e-5  # float32 against float64, relative to the largest value of each tensor
TRIAL_SECONDS, LEAST_CALLS = 0.1, 2  # of one setting


def inputs(case: Case) -> tuple[Tensor, Tensor]:
    """Inputs `[b, i]` that require a gradient, as within a network, and a gradient `[b, o]`."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(case.batch, math.prod(case.ins), generator=generator)
    outgoing = torch.randn(case.batch, math.prod(case.outs), generator=generator) / case.batch
    return x.requires_grad_(), outgoing


def check(contender: Contender, setting: Setting, case: Case) -> dict[str, Any]:
    """How far outputs and all gradients are from float64."""
    instance = make_instance(case, seed=1)
    x, outgoing = inputs(case)
    true = answer(instance, x, outgoing)
    model = contender.build(instance, setting)
    found = model(x)
    found.backward(outgoing)
    errors = {"outputs": relative_error(found, true.outputs)}
    if x.grad is None:
        raise ValueError("the inputs got no gradient")
    errors["x"] = relative_error(x.grad, true.x)
    cores = iter(true.cores)
    gradients = model.gradients()
    for name, gradient in gradients:
        wanted = next(cores) if name == "cores" else getattr(true, name)
        errors[name] = max(errors.get(name, 0.0), relative_error(gradient.reshape(wanted.shape), wanted))
    whole = len(gradients) == len(model.parameters())
    matched = whole and all(error <= TOLERANCE for error in errors.values())  # false where one is NaN
    return {"errors": errors, "matched": matched, "tolerance": TOLERANCE}


class Worker(StepWorker):
    """The measurement of one contender on one case.

    Args:
        contender: the implementation to measure.
        case: what it is measured on.
    """

    CALL_SECONDS, MOST_CALLS = 0.15, 20

    def __init__(self, contender: Contender, case: Case) -> None:
        super().__init__(contender)
        self._case = case
        self._x, self._outgoing = inputs(case)
        self._setting = self.report["setting"] = self._fastest()
        self._use(self._setting)
        self.report["check"] = check(contender, self._setting, case)
        self.report["memory"] = self._measure_memory()

    def _instance(self) -> Instance:
        return make_instance(self._case, seed=0)

    def _trial(self) -> float:
        """Seconds of the fastest of some steps."""
        self._step()
        end, seconds = time.monotonic() + TRIAL_SECONDS, []
        while len(seconds) < LEAST_CALLS or time.monotonic() < end:
            seconds += timed(self._step, 1)["wall"]
        return min(seconds)

    def _measure_memory(self) -> dict[str, int]:
        """Bytes of the parameters, and the most that tensors took beyond them in two training steps."""
        self._x.grad = None
        self._model = self._contender.build(self._instance(), self._setting)
        held = sum(p.numel() * p.element_size() for p in self._model.parameters())
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            self._step()
            self._step()
        events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
        changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
        return {"peak_bytes": held + max(itertools.accumulate(changes), default=0), "parameters": held}


def serve(connection: Connection, name: str, case: Case) -> None:
    """The process's main function: answers until "stop"."""
    contender = CONTENDERS[name]
    answer_words(connection, name, partial(Worker, contender, case), peer=contender.peer)
