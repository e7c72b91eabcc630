"""A study in worker processes: the same table, dead workers, a killed driver, a scheduler elsewhere."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
from children import child, complete, finish, wait_until

from tnml.errors import InputError
from tnml.study import Store, Study, run, run_id

pytest.importorskip("distributed", reason="worker processes need Dask, which is in the extra `study`")
psutil = pytest.importorskip("psutil", reason="Dask brings psutil")

PROGRAM = "study_runs.py"


@pytest.fixture
def settings(project_root: Path) -> dict[str, Any]:
    """How the programs of these tests are started: without the warnings and the checks of the test run."""
    places = [str(project_root), str(project_root / "tests" / "programs"), os.environ.get("PYTHONPATH", "")]
    threads = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return {
        "env": {**threads, "PYTHONPATH": os.pathsep.join(filter(None, places))},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }


def start(
    study: Study, folder: Path, workers: int, settings: dict[str, Any]
) -> AbstractContextManager[subprocess.Popen[str]]:
    program = Path(__file__).parent / "programs" / PROGRAM
    command = [sys.executable, str(program), json.dumps(study.record()), str(folder), str(workers)]
    return child(command, **settings)


def workers_of(driver: int) -> list[Any]:
    """The worker processes of a driver."""
    try:
        children = psutil.Process(driver).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


@pytest.mark.slow
def test_two_workers_and_one_that_dies(tmp_path: Path, settings: dict[str, Any]) -> None:
    kinds = ["fine", "kills once", "always", "nan", "fine too"]
    study = Study(name="moods", runner="study_runs:moody", grid={"kind": kinds})
    with socket.socket() as taken:
        with suppress(OSError):  # Dask would like this port, and would tell that it is taken
            taken.bind(("127.0.0.1", 8787))
            taken.listen()
        with start(study, tmp_path, 2, settings) as process:
            shown = finish(process)
    assert "rows 4 failed 1" in shown.splitlines()
    assert "Port 8787" not in shown, "no note of Dask about the port"
    store = Store(tmp_path)
    results = {kind: store.result(run_id({"kind": kind})) for kind in kinds}
    assert results["always"] is None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = str(max(1, (cores or 1) // 2))
    assert results["fine"] == results["kills once"] == {"value": 1, "threads": threads}
    tries = [len((store.run_folder(run_id({"kind": k})) / "tries").read_text()) for k in kinds[:3]]
    assert tries == [1, 2, 2], "a retry for each of the last two"
    assert store.failures(run_id({"kind": "kills once"})) == 0, "the death of a worker is no failure"
    assert all(store.driver() is None and store.state(run_id({"kind": k})) == "done" for k in kinds[:2])


def test_no_scheduler(tmp_path: Path) -> None:
    study = Study(name="a", runner="math:sqrt", grid={"x": [1]})
    with pytest.raises(InputError, match=r"no Dask scheduler answers at 'nowhere:"):
        run(study, folder=tmp_path, scheduler="nowhere:/x")


@pytest.mark.slow
def test_a_run_that_always_kills_its_worker(tmp_path: Path, settings: dict[str, Any]) -> None:
    study = Study(name="moods", runner="study_runs:moody", grid={"kind": ["kills", "a", "b"]})
    with start(study, tmp_path, 2, settings) as process:
        shown = finish(process)
    assert "rows 2 failed 1" in shown.splitlines()  # among what Dask logs about dead workers
    error = Store(tmp_path).error(run_id({"kind": "kills"}))
    assert "the worker gave up: Attempted to run task" in error
    assert error.count("--- failure ") == 2


@pytest.mark.slow
def test_a_second_driver_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    study = Study(name="s", runner="study_runs:slow", grid={"until": [str(tmp_path / "go")]})
    folder = tmp_path / "s"
    begun = Store(folder).run_folder(run_id(study.options()[0])) / "begun"
    with start(study, folder, 0, settings) as first:
        wait_until(begun.exists, first)
        command = [sys.executable, "-m", "tnml", "study", "resume", str(folder), "--workers", "0"]
        second = subprocess.run(command, check=False, **settings)
        assert second.returncode == 2
        complaint = second.stdout.splitlines()[-1]
        assert complaint.startswith("error: another process runs the study in ")
        assert f": pid {first.pid} on " in complaint
        with child([*command, "--wait"], **settings) as third:
            assert third.stdout is not None
            lines = [third.stdout.readline() for _ in range(3)]
            assert lines[2].startswith(f"waiting for the process that runs this study: pid {first.pid} on ")
            (tmp_path / "go").touch()
            assert finish(first) == "rows 1 failed 0\n"
            assert "done:   1" in finish(third)


@pytest.fixture
def scheduler(settings: dict[str, Any], tmp_path: Path) -> Iterator[str]:
    """The address of a scheduler with one worker, each a process of its own."""
    place = {**settings, "cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    note, dask = tmp_path / "scheduler.json", [sys.executable, "-m", "distributed.cli"]
    begin = [f"{dask[-1]}.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    work = [f"{dask[-1]}.dask_worker", "--nthreads", "1", "--no-dashboard", "--memory-limit", "0"]
    shared = ["--scheduler-file", str(note)]
    with (
        child([*dask[:2], *begin, *shared], **place) as first,
        child([*dask[:2], *work, *shared], **place),
    ):
        wait_until(lambda: note.exists() and note.read_text().rstrip().endswith("}"), first)
        yield json.loads(note.read_text())["address"]


@pytest.mark.slow
def test_a_scheduler_elsewhere(tmp_path: Path, settings: dict[str, Any], scheduler: str) -> None:
    study = Study(
        name="a", runner="study_runs:one", grid={"x": [1, 2], "seed": [0]}, fixed={"pause": 0.0, "log": None}
    )
    file = tmp_path / "a.yaml"
    file.write_text(json.dumps(study.record()))
    command = [sys.executable, "-m", "tnml", "study", "run", str(file), "--folder", str(tmp_path / "s")]
    complete([*command, "--scheduler", scheduler], **settings)
    values = [Store(tmp_path / "s").result(run_id(options))["value"] for options in study.options()]  # type: ignore[index]
    assert values == [33.0, 63.0]


@pytest.mark.slow
def test_ctrl_c_and_resume(tmp_path: Path, settings: dict[str, Any]) -> None:
    study = Study(name="s", runner="study_runs:slow", grid={"until": [str(tmp_path / n) for n in ("a", "b")]})
    (tmp_path / "s.yaml").write_text(json.dumps(study.record()))
    folder, runs = tmp_path / "s", [run_id(options) for options in study.options()]
    (tmp_path / "a").touch()
    command = [sys.executable, "-m", "tnml", "study"]
    words = ["run", str(tmp_path / "s.yaml"), "--folder", str(folder), "--workers", "2"]
    with child([*command, *words], **settings) as process:
        wait_until(
            lambda: Store(folder).done(runs[0]) and (Store(folder).run_folder(runs[1]) / "begun").exists(),
            process,
        )
        found = workers_of(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the driver and to its workers
        shown = finish(process, 130)
        psutil.wait_procs(found)  # no worker is left behind
    assert f"tnml: stopped; continue with `tnml study resume {folder}`" in shown.splitlines()
    assert "Traceback" not in shown
    assert len((folder / "table.csv").read_text().splitlines()) == 2
    (tmp_path / "b").touch()
    assert "run 2/2" in complete([*command, "resume", str(folder), "--workers", "2"], **settings)
    assert len((folder / "table.csv").read_text().splitlines()) == 3


class Storm:
    """Kills workers and drivers of a study, counted in finished runs: a busy machine does not matter."""

    def __init__(self, seed: int, store: Store) -> None:
        self.random, self.store = random.Random(seed), store
        self.kept: dict[str, tuple[int, str]] = {}
        self.kills = 0
        self.dead: set[str] = set()

    def look(self) -> None:
        """No finished result is gone, or was written again."""
        now = {}
        for identity in self.store.finished():
            path = self.store.run_folder(identity) / "result.json"
            now[identity] = (path.stat().st_mtime_ns, path.read_text())
        assert {identity: now.get(identity) for identity in self.kept} == self.kept
        self.kept = now

    def pause(self, process: subprocess.Popen[str]) -> None:
        """Until a few more runs are finished, or a moment into the start, and then a little more."""
        early = self.random.random() < 0.25
        wanted = len(self.kept) + self.random.randint(0, 4)
        while process.poll() is None and not early and len(self.store.finished()) < wanted:
            time.sleep(0.02)
        end = time.monotonic() + self.random.uniform(0.0, 4.0 if early else 0.4)
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)

    def strike(self, process: subprocess.Popen[str]) -> list[Any]:
        """Kills one worker, or the driver; the workers that were there."""
        found = workers_of(process.pid)
        if found and self.random.random() < 0.6:
            struck = self.random.choice(found)
            self.dead.add(str(struck.pid))
            struck.kill()
        else:
            self.dead |= {str(worker.pid) for worker in found}
            process.kill()
        self.kills += 1
        return found


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(2))
def test_workers_and_drivers_are_killed(
    seed: int, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"

    def study(log: Path | None, pause: float) -> Study:
        grid = {"x": list(range(8)), "seed": [0, 1, 2]}
        fixed = {"pause": pause, "log": None if log is None else str(log)}
        return Study(name="self-test", runner="study_runs:one", grid=grid, fixed=fixed)

    stormy = study(log, 0.3)
    store = Store(tmp_path / "killed")
    storm = Storm(seed, store)
    for _ in range(40):
        found = []
        with start(stormy, store.folder, 2, settings) as process:
            while process.poll() is None and storm.kills < 10:
                storm.pause(process)
                if process.poll() is None:
                    found += storm.strike(process)
                storm.look()
            shown, _ = process.communicate()
            psutil.wait_procs(found)  # no worker is left behind
        storm.look()
        if process.returncode == 0:
            break
    assert "rows 24 failed 0" in shown.splitlines()
    assert storm.kills >= 6

    # One line each. Only a kill between the runner's line and the result's file can leave a line before it.
    last: dict[str, str] = {}
    before: list[str] = []
    for identity, _, pid in map(str.split, log.read_text().splitlines()):
        before += [last[identity]] if identity in last else []
        last[identity] = pid
    assert last.keys() == set(store.finished()) == {run_id(options) for options in stormy.options()}
    assert set(before) <= storm.dead
    assert max(Counter(before).values(), default=1) == 1, "a process dies once"
    assert not list(store.folder.rglob(".*.tmp"))

    monkeypatch.syspath_prepend(str(Path(__file__).parent / "programs"))
    calm = run(study(None, 0.0), folder=tmp_path / "calm", workers=0)
    killed = (store.folder / "table.csv").read_text().splitlines()
    columns = killed[0].split(",")
    same = [columns.index(name) for name in ("x", "seed", "value")]
    rows = [[line.split(",")[i] for i in same] for line in killed[1:]]
    assert rows == [[str(row["x"]), str(row["seed"]), repr(row["value"])] for row in calm.rows]
