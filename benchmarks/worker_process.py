"""One process per implementation and case, measured in turns: the parent's side and the process's own.

The processes of a case are prepared one after another, then measured in rounds, each in its turn, so that
drift of the machine affects all equally.
"""

import contextlib
import math
import multiprocessing
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import reset_peak, timed

Setting = dict[str, Any]

PATIENCE = 180.0  # seconds for one answer of a worker

# Another library may fail in its own way on a case; that is a result.
FAILURES = (RuntimeError, MemoryError, ValueError, TypeError, LookupError, AttributeError, ImportError)


def start_process(serve: Callable[..., None], *arguments: Any) -> Connection:
    """A new process that runs `serve(connection, *arguments)`; the parent's end of the connection."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    return here


class Turn(ABC):
    """The parent's side of one worker.

    Args:
        record: of the measurement, filled in as it proceeds; its "status" is "ok".
        connection: to the process.
    """

    def __init__(self, record: dict[str, Any], connection: Connection) -> None:
        self.record, self._connection = record, connection
        self._rounds: list[dict[str, Any]] = []

    @abstractmethod
    def _judge(self) -> None:
        """Reads the check in the record: fails, or makes a note, if the answer is wrong."""

    @abstractmethod
    def _sum_up(self) -> None:
        """Adds the rounds to the record."""

    def prepare(self) -> bool:
        """Waits for the imports; lets the worker try settings and check its answer; whether to continue."""
        self._receive()
        self.record |= self._ask("prepare")
        if "check" in self.record:
            self._judge()
        return bool(self.record["status"] == "ok")

    def measure(self) -> None:
        """One round."""
        if found := self._ask("round"):
            self._rounds.append(found)

    def finish(self) -> None:
        """Ends the process and sums up."""
        with contextlib.suppress(OSError):  # it may have ended already
            self._connection.send("stop")
        self._connection.close()
        if self.record["status"] == "ok":
            self._sum_up()

    def _samples(self, kind: str, clock: str) -> list[float]:
        """Seconds of every call of one kind ("step", "forward") by one clock ("wall", "cpu")."""
        return [sample for found in self._rounds for sample in found[kind][clock]]

    def _ask(self, word: str) -> dict[str, Any]:
        if self.record["status"] != "ok":
            return {}
        try:
            self._connection.send(word)
        except OSError:
            return self._fail("its process ended")
        answer = self._receive()
        return self._fail(answer["failed"]) if "failed" in answer else answer

    def _receive(self) -> dict[str, Any]:
        try:
            if self._connection.poll(PATIENCE):
                answer: dict[str, Any] = self._connection.recv()
                return answer
        except (EOFError, OSError):
            return self._fail("its process ended, perhaps because it ran out of memory")
        return self._fail(f"no answer in {PATIENCE:.0f} seconds")

    def _fail(self, reason: str) -> dict[str, Any]:
        if self.record["status"] == "ok":
            self.record |= {"status": "failed", "reason": reason}
        return {}


def take_turns(turns: Sequence[Turn], rounds: int) -> None:
    """Prepares all, measures the remaining ones in rounds that start with a different one, and ends all."""
    live = [turn for turn in turns if turn.prepare()]
    for number in range(rounds):
        first = number % max(1, len(live))
        for turn in live[first:] + live[:first]:
            turn.measure()
    for turn in turns:
        turn.finish()


class StepWorker(ABC):
    """The measurement of one contender on one case: training steps and forward passes, in its own process.

    A subclass says how many calls a round takes and fills `_x`, `_outgoing`, `_model` and `report`.

    Args:
        contender: the implementation to measure: its `settings` and `build(instance, setting)`.
    """

    CALL_SECONDS: float  # of one kind in one round
    MOST_CALLS: int

    _x: Tensor
    _outgoing: Tensor
    _model: Any

    def __init__(self, contender: Any) -> None:
        self._contender = contender
        self._threads = torch.get_num_threads()
        self.report: dict[str, Any] = {}

    @abstractmethod
    def _instance(self) -> Any:
        """The numbers of the case."""

    @abstractmethod
    def _trial(self) -> float:
        """Seconds of a step of the model as it is set."""

    def round(self) -> dict[str, Any]:
        """Samples of one round: training steps and forward passes."""
        return {"step": self._samples(self._step), "forward": self._samples(self._forward)}

    def _samples(self, call: Callable[[], object]) -> dict[str, list[float]]:
        first = timed(call, 1)
        more = timed(call, min(self.MOST_CALLS, int(self.CALL_SECONDS / first["wall"][0])))
        # the first call of a round warms the caches after the others' turns; it counts only if it is alone
        return more if more["wall"] else first

    def _use(self, setting: Setting) -> None:
        torch.set_num_threads(1 if setting.get("threads") == 1 else self._threads)

    def _step(self) -> None:
        self._x.grad = None
        for parameter in self._model.parameters():
            parameter.grad = None
        self._model(self._x).backward(self._outgoing)

    @torch.no_grad()
    def _forward(self) -> Tensor:
        found: Tensor = self._model(self._x)
        return found

    def _fastest(self, trial_seconds: float = math.inf) -> Setting:
        """The contender's setting with the fastest step; each is built and tried until the time is up."""
        settings: Sequence[Setting] = self._contender.settings
        if len(settings) == 1:
            return settings[0]
        instance, end = self._instance(), time.monotonic() + trial_seconds
        trials: list[tuple[float, Setting]] = []
        for setting in settings:
            if trials and time.monotonic() > end:
                break
            self._use(setting)
            self._model = self._contender.build(instance, setting)
            trials.append((self._trial(), setting))
            del self._model
            reset_peak()
        self.report["trials"] = [{**setting, "seconds": seconds} for seconds, setting in trials]
        return min(trials, key=lambda trial: trial[0])[1]


def answer_words(connection: Connection, name: str, make: Callable[[], StepWorker], *, peer: bool) -> None:
    """Answers "prepare" (the report) and "round" until "stop"; a failure is an answer as well."""
    worker: StepWorker | None = None
    if peer:
        warnings.simplefilter("ignore")  # other libraries' deprecations are not ours to show
    connection.send({"ready": name})
    while (word := connection.recv()) != "stop":
        try:
            if worker is None:
                worker = make()
                connection.send(worker.report)
            else:
                connection.send(worker.round())
        except FAILURES as error:
            connection.send({"failed": f"{type(error).__name__} in {word}: {error}"[:300]})
