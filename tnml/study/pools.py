"""Where units are done: in this process, in processes of this machine, or on a Dask cluster."""

import logging
import multiprocessing
import os
import queue
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any, NamedTuple, Protocol

from tnml.errors import InputError
from tnml.loop.loggers import quiet
from tnml.study.work_unit import Unit, perform

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_POLL = 0.5  # seconds between two looks at the workers
_CONNECT = 15  # seconds to reach a scheduler
_PATIENCE = "120s"  # for a worker process to come back; starting one takes long on a busy machine


class Done(NamedTuple):
    """What became of a unit.

    Attributes:
        unit: as it was handed out.
        errors: for each run None or the last line of its error.
        lost: the units' worker died or never answered, so the error has not been stored.
    """

    unit: Unit
    errors: dict[str, str | None]
    lost: bool = False


class Pool(Protocol):
    """Does units."""

    def free(self) -> bool:
        """Whether it takes one more now."""

    def submit(self, unit: Unit) -> None:
        """Takes a unit."""

    def collect(self) -> Done | None:
        """The next unit that has ended; None after a while without one."""


class Here:
    """Does units in this process, one after the other, without Dask.

    Example:
        >>> Here().free()
        True
    """

    def __init__(self) -> None:
        self._next: Unit | None = None

    def free(self) -> bool:
        """Whether no unit waits."""
        return self._next is None

    def submit(self, unit: Unit) -> None:
        """Keeps the unit for `collect`."""
        self._next = unit

    def collect(self) -> Done | None:
        """Does the unit."""
        unit, self._next = self._next, None
        return None if unit is None else Done(unit, perform(unit))


class DaskPool:
    """Does units on the workers of a Dask client.

    Args:
        client: a `distributed.Client`.
        slots: units on their way at once; None leaves it to the scheduler. Few are better where workers may
            die, since Dask holds all units a dead worker had against them.
        repair: called every half second without news.
    """

    def __init__(self, client: Any, slots: int | None, repair: Callable[[], None]) -> None:
        self._client, self._slots, self._repair = client, slots, repair
        self._flying: dict[str, tuple[Unit, Any]] = {}
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    def free(self) -> bool:
        """Whether a worker may be without a unit."""
        return self._slots is None or len(self._flying) < self._slots

    def submit(self, unit: Unit) -> None:
        """Sends the unit to the scheduler."""
        key = f"tnml-{unit.ids[0]}-{secrets.token_hex(8)}"
        future = self._client.submit(perform, unit, key=key, pure=False)
        self._flying[key] = (unit, future)
        future.add_done_callback(lambda ended: self._ended.put(ended.key))

    def collect(self) -> Done | None:
        """Waits a little for a unit.

        Raises:
            InputError: the scheduler is gone.
        """
        key = None
        with suppress(queue.Empty):
            key = self._ended.get(timeout=_POLL)
        if key is None:
            self._repair()
            return None
        unit, future = self._flying.pop(key)
        if future.status == "finished":
            return Done(unit, future.result())
        if future.status in ("cancelled", "lost"):
            raise InputError(
                "the connection to the scheduler is lost; run the study again: what is finished is kept"
            )
        text = " ".join(str(future.exception()).split())
        return Done(unit, dict.fromkeys(unit.ids, f"the worker gave up: {text}"), lost=True)


@contextmanager
def cluster_pool(workers: int, threads: int) -> Iterator[DaskPool]:
    """A pool of worker processes on this machine, gone after the block.

    Args:
        workers: how many processes.
        threads: threads that the numerical libraries take in each, unless the environment says otherwise.

    Raises:
        InputError: Dask is not installed, or the processes end while they start.
    """
    distributed = _distributed()
    settings = {
        "distributed.nanny.pre-spawn-environ": {name: str(threads) for name in _THREADS},
        "distributed.scheduler.worker-ttl": None,  # numba holds Python's lock while it compiles
        "distributed.deploy.lost-worker-timeout": _PATIENCE,
        "distributed.admin.tick.limit": "1h",  # the same: no warnings of a silent event loop
    }
    with (
        _environment_kept(),
        quiet(
            "distributed", "tornado", "asyncio", level=logging.CRITICAL
        ),  # dead workers, closed connections
        _dask_set(settings),
        distributed.LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            processes=True,
            memory_limit=None,
            dashboard_address="127.0.0.1:0",  # None would take port 8787
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        resource_tracker.ensure_running()  # the first to start it would take the signal again
        cluster.sync(_without_ctrl_c)
        keeper = _Keeper(cluster, workers)
        keeper()
        yield DaskPool(client, workers, keeper)


@contextmanager
def scheduler_pool(address: str) -> Iterator[DaskPool]:
    """A pool of the workers of a Dask scheduler, which all see the folder of the study.

    Raises:
        InputError: Dask is not installed, or nothing answers at the address.
    """
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=_CONNECT)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address!r} ({error}); start one with `dask scheduler`"
        ) from error
    with client:
        yield DaskPool(client, None, lambda: None)


def check_main_guard() -> None:
    """Raises where a worker process has come back to the call that started it, by importing the main script.

    Raises:
        InputError: it has.

    Example:
        >>> check_main_guard()
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(
            "worker processes import your script again, which must not run the study again: put the call "
            "under `if __name__ == '__main__':`, or use workers=0"
        )


def _distributed() -> Any:
    """Dask's package, which is in an extra."""
    try:
        import distributed
    except ImportError as error:
        raise InputError(
            "several workers need Dask: pip install 'tnml[study]', or use workers=0 (--workers 0)"
        ) from error
    return distributed


def _dask_set(settings: Mapping[str, object]) -> Any:
    import dask

    return dask.config.set(settings)


async def _without_ctrl_c() -> None:
    """Keeps Ctrl-C from the processes that the calling thread starts; the driver gets it and stops them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


class _Keeper:
    """Starts the workers, and restarts those whose process was killed while it started: Dask drops them."""

    def __init__(self, cluster: Any, workers: int) -> None:
        self._cluster, self._workers = cluster, workers
        self._given_up, self._seen = 0, False

    def __call__(self) -> None:
        cluster = self._cluster
        self._seen = self._seen or bool(cluster.scheduler_info["workers"])
        for name, nanny in list(cluster.workers.items()):
            if nanny.status.name in ("closed", "failed") and cluster.worker_spec.pop(name, None):
                self._given_up += 1
        if self._given_up > self._workers * (50 if self._seen else 12):
            raise InputError(
                "the worker processes end while they start: put the call under `if __name__ == '__main__':`, "
                "look at what they wrote, or do without them: workers=0 (--workers 0)"
            )
        if len(cluster.worker_spec) < self._workers:
            cluster.scale(self._workers)


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Undoes what the block changed in the environment; Dask sets threads there and leaves them."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
