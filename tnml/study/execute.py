"""Runs a study: hands out what is not done, tries failures again, and makes the table."""

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tnml.checks import whole
from tnml.errors import InputError
from tnml.study.grid import Study, function_of
from tnml.study.plain_values import run_id
from tnml.study.pools import Done, Here, Pool, check_main_guard, cluster_pool, scheduler_pool
from tnml.study.progress import StudyReporter, StudyView
from tnml.study.shipped import find_study
from tnml.study.store import Store
from tnml.study.table import Table, read_table
from tnml.study.work_unit import Unit, after_failure, check_replicas, units


def default_folder(study: Study, *, smoke: bool = False) -> Path:
    """Where a study is stored by default: `runs/study-NAME`, a quick trial in `runs/study-NAME-smoke`.

    Example:
        >>> default_folder(Study(name="a", runner="m:f", grid={"seed": [0]}), smoke=True).as_posix()
        'runs/study-a-smoke'
    """
    return Path("runs") / f"study-{study.name}{'-smoke' if smoke else ''}"


def run(
    study: Study | str | os.PathLike[str],
    *,
    folder: str | os.PathLike[str] | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    retries: int = 1,
    smoke: bool = False,
    replicas: int | str = "auto",
    wait: bool = False,
    reporter: StudyReporter | None = None,
) -> Table:
    """Does every run of a study that is not done yet, and writes the table of all.

    May be stopped and called again at any time: what is finished is kept, and a run that was interrupted is
    started again in its folder, where its runner finds what it saved. A run that fails is tried again, then
    left, and the study goes on; `Table.failed` says why.

    Args:
        study: a `Study`, the name of one that is known, or a YAML file.
        folder: where the runs are stored; None takes `default_folder`.
        scheduler: address of a Dask scheduler ("tcp://host:8786") whose workers see `folder`; None starts
            processes on this machine.
        workers: how many processes; None takes as many as there are cores (and no more than units), and 0 for
            a quick trial. 0 does all in this process, without Dask.
        retries: how many more times a run that failed is tried.
        smoke: do the quick trial of the study.
        replicas: how many runs are done together at most, where the study can; "auto" takes all that it may.
        wait: wait for another process that runs this study; else it is an error.
        reporter: see `StudyReporter`; None reports nothing.

    Returns:
        The table, also in `folder` as `table.csv` and `table.parquet`.

    Raises:
        InputError: the study cannot be found or used, `folder` holds another one, or another process runs it.

    Example:
        >>> import tempfile
        >>> study = Study(name="a", runner="builtins:dict", grid={"x": [1, 2]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = run(study, folder=folder, workers=0, retries=0)
        >>> len(table.rows), set(table.failed.values())
        (0, {'TypeError: dict expected at most 1 argument, got 2'})
    """
    check_main_guard()
    found = find_study(study)
    _check(workers, retries, scheduler, replicas)
    if smoke:
        found = _quick(found)
        workers = 0 if workers is None and scheduler is None else workers
    function_of("runner", found.runner)
    if found.group_runner is not None:
        function_of("group_runner", found.group_runner)
    store = Store(default_folder(found, smoke=smoke) if folder is None else folder)
    with store.driving(wait=wait):
        store.keep(found)
        all_runs = found.options()
        left = [options for options in all_runs if not store.done(run_id(options))]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        asked = cores if workers is None else workers
        todo = units(found, left, store.folder, replicas=replicas, workers=max(1, asked), retries=retries)
        desk = _Desk(
            found, store, todo, StudyView(total=len(all_runs), kept=len(all_runs) - len(left)), reporter
        )
        try:
            if todo:
                with _pool(scheduler, min(asked, len(todo)), cores) as pool:
                    desk.work(pool)
        finally:
            table = read_table(store)
            table.write(store.folder)
    return table


def _check(workers: int | None, retries: int, scheduler: str | None, replicas: int | str) -> None:
    """Raises where the numbers of a call cannot be used."""
    if workers is not None:
        whole("workers", workers)
    whole("retries", retries)
    if scheduler is not None and workers is not None:
        raise InputError("workers are those of the scheduler; leave one of the two out")
    check_replicas(replicas)


def _quick(study: Study) -> Study:
    """The quick trial of a study that defines one."""
    if not study.smoke:
        raise InputError(
            f"the study {study.name} does not say what a quick trial changes; give it smoke, such as "
            "{'seed': [0]}"
        )
    return study.smoked()


@contextmanager
def _pool(scheduler: str | None, workers: int, cores: int) -> Iterator[Pool]:
    if scheduler is not None:
        with scheduler_pool(scheduler) as pool:
            yield pool
    elif workers == 0:
        yield Here()
    else:
        with cluster_pool(workers, max(1, cores // workers)) as pool:
            yield pool


class _Desk:
    """Hands out units and collects their outcomes."""

    def __init__(
        self, study: Study, store: Store, todo: list[Unit], view: StudyView, reporter: StudyReporter | None
    ) -> None:
        self.study, self.store, self.reporter = study, store, reporter
        self.waiting = deque(todo)
        self.total, self.kept, self.done, self.failed, self.running = view.total, view.kept, view.kept, 0, 0
        self.began = time.monotonic()

    def work(self, pool: Pool) -> None:
        """Works until no run is left."""
        self.began = time.monotonic()
        if self.reporter is not None:
            self.reporter.start(self.view())
        try:
            while self.waiting or self.running:
                while self.waiting and pool.free():
                    unit = self.waiting.popleft()
                    pool.submit(unit)
                    self.running += len(unit.runs)
                self._tell()
                ended = pool.collect()
                if ended is not None:
                    self._take(ended)
            self._tell()
        finally:
            if self.reporter is not None:
                self.reporter.stop()

    def _tell(self) -> None:
        if self.reporter is not None:
            self.reporter.update(self.view())

    def view(self) -> StudyView:
        """Where the study is."""
        return StudyView(
            total=self.total,
            kept=self.kept,
            done=self.done,
            running=self.running,
            failed=self.failed,
            seconds=time.monotonic() - self.began,
        )

    def _take(self, ended: Done) -> None:
        self.running -= len(ended.unit.runs)
        errors = {identity: error for identity, error in ended.errors.items() if error is not None}
        if ended.lost:  # the worker may have finished some of them before it died
            errors = {identity: error for identity, error in errors.items() if not self.store.done(identity)}
            for identity, error in errors.items():
                self.store.fail(identity, error)
        self.done += len(ended.unit.runs) - len(errors)
        again = after_failure(ended.unit, list(errors), self.study.runner)
        self.waiting.extend(again)
        self.failed += 0 if again else len(errors)
        if self.reporter is not None:
            for identity, error in errors.items():
                self.reporter.failed(identity, error, again=bool(again))
