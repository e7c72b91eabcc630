"""The folder of a study: whole files, one holder of a lock, no result written twice."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import child
from filelock import lock_descriptor, unlock_descriptor

from tnml.errors import InputError
from tnml.study import Store, Study, run_id
from tnml.study.locks import held, holder, is_held

HOLD = """
import sys, time
from pathlib import Path
from tnml.study.locks import held
with held(Path(sys.argv[1]), "x"):
    print("held", flush=True)
    time.sleep(600)
"""
STUDY = Study(name="a", runner="m:f", grid={"x": [1, 2, 3, 4]})
IDS = [run_id(options) for options in STUDY.options()]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "study")
    found.keep(STUDY)
    return found


def begun(store: Store, x: int) -> str:
    store.begin({"x": x})
    return run_id({"x": x})


@pytest.fixture
def other_process(tmp_path: Path, project_root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock in `tmp_path`."""
    settings = {**os.environ, "PYTHONPATH": str(project_root)}
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with child(command, env=settings) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_ends_with_its_process(other_process: subprocess.Popen[str], tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert is_held(path)
    with (
        pytest.raises(InputError, match=rf"^somebody else: pid {other_process.pid} on "),
        held(path, "somebody else"),
    ):
        pass
    entered = threading.Event()

    def wait_for_it() -> None:
        with held(path, "x", wait=True):
            entered.set()

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    assert not entered.wait(0.2)
    other_process.kill()
    assert entered.wait(60)
    waiting.join()
    assert not is_held(path)
    with held(path, "somebody else"):
        assert path.read_text().startswith(f"pid {os.getpid()} on ")


def test_a_look_at_a_lock_does_not_stop_others(tmp_path: Path) -> None:
    stop, seen, entered = threading.Event(), [], 0

    def look() -> None:
        while not stop.wait(0.002):
            seen.append(is_held(tmp_path / "lock"))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        while entered < 20 or len(seen) < 5:
            with held(tmp_path / "lock", "x"):
                entered += 1
    finally:
        stop.set()
        looking.join()
    assert entered >= 20, "nobody was refused"
    assert len(seen) >= 5
    assert not is_held(tmp_path / "lock")


def test_a_look_waits_for_another_look_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who looks holds the lock for a moment; that is no holder."""
    with open(tmp_path / "lock", "w+b") as stream:
        assert lock_descriptor(stream.fileno(), blocking=False)
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                unlock_descriptor(stream.fileno())

        monkeypatch.setattr("tnml.study.locks.time.sleep", pause)
        assert not is_held(tmp_path / "lock")
        assert lock_descriptor(stream.fileno(), blocking=False), "the look left the lock free"
        assert is_held(tmp_path / "lock")
        assert sum(pauses) < 0.5, "a look is quick"


def test_a_look_and_a_refusal_leave_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    assert not path.exists(), "a look makes no file"
    assert holder(path) == "pid unknown"
    with held(path, "x"):
        text = path.read_bytes()
        assert is_held(path)
        with pytest.raises(InputError, match="refused: pid"), held(path, "refused"):
            pass
        assert path.read_bytes() == text
        assert holder(path) == text.decode().strip()
    assert not is_held(path)
    assert path.read_bytes() == text, "it names the last holder"
    path.write_bytes(b"")
    assert holder(path) == "pid unknown"


def test_the_lock_is_that_of_the_system(tmp_path: Path) -> None:
    """A tnml before filelock, which called `flock` itself, and this one respect each other."""
    fcntl = pytest.importorskip("fcntl", reason="flock is a call of Unix")
    path = tmp_path / "lock"
    with open(path, "w+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert is_held(path)
        with pytest.raises(InputError, match="refused: pid unknown"), held(path, "refused"):
            pass
        fcntl.flock(stream, fcntl.LOCK_UN)
        with held(path, "x"), pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("tnml.study.locks.lock_descriptor", nothing)
    with (
        pytest.raises(InputError, match=r"cannot lock .*: Function not implemented; choose a folder on"),
        held(tmp_path / "lock", "x"),
    ):
        pass


def test_what_lies_in_the_folder(store: Store) -> None:
    identity = begun(store, 1)
    folder = store.folder / "runs" / identity
    assert json.loads((folder / "options.json").read_text()) == {"x": 1}
    assert not store.done(identity)
    store.finish(identity, {"error": 0.25, "history": [{"epoch": 1}], "bad": float("nan")})
    assert json.loads((folder / "result.json").read_text())["error"] == 0.25
    assert store.done(identity)
    store.finish(identity, {"error": 0.5})
    assert store.result(identity)["error"] == 0.25, "the first result stays"  # type: ignore[index]
    assert store.study().record() == STUDY.record()
    assert Store(store.folder).finished() == [identity]


def test_states(store: Store) -> None:
    for x in (1, 2, 3):
        begun(store, x)
    store.finish(IDS[0], {})
    store.fail(IDS[1], "Traceback\nValueError: one")
    store.fail(IDS[1], "Traceback\n--- failure 7 --- in a text\nValueError: two\n")
    assert store.failures(IDS[1]) == 2
    assert store.error(IDS[1]).splitlines()[0] == "--- failure 1 ---"
    assert store.error(IDS[1]).splitlines()[-1] == "ValueError: two"
    with store.working([IDS[2]]):
        assert tuple(store.counts(STUDY)) == (1, 1, 1, 1)
        assert store.state(IDS[2]) == "running"
    assert store.state(IDS[2]) == "waiting"
    store.finish(IDS[1], {})
    assert store.state(IDS[1]) == "done", "a result outweighs the failures before it"


@pytest.mark.parametrize("text", ["", '{"a": 1', "[1]", "\x00"])
def test_a_result_that_cannot_be_read_is_none(text: str, store: Store) -> None:
    identity = begun(store, 1)
    path = store.run_folder(identity) / "result.json"
    path.write_text(text)
    assert not store.done(identity)
    store.finish(identity, {"a": 2})
    assert store.result(identity) == {"a": 2}


def test_what_a_killed_process_left_is_removed(store: Store) -> None:
    folder = store.run_folder(begun(store, 1))
    left = [folder / ".result.json.ab12.tmp", store.folder / ".study.json.ab12.tmp"]
    own = folder / ".mine.tmp"
    for path in [*left, own]:
        path.write_text("{")
    store.begin({"x": 1})
    store.keep(STUDY)
    assert [path.exists() for path in [*left, own]] == [False, False, True]


def test_results_that_cannot_be_kept(store: Store) -> None:
    identity = begun(store, 1)
    for result, message in (
        ([1], "a runner must return a dictionary, got list"),
        ({"a": object()}, "result.a must be made of numbers"),
    ):
        with pytest.raises(InputError, match=message):
            store.finish(identity, result)  # type: ignore[arg-type]
    assert not store.done(identity)


def test_a_folder_holds_one_study(store: Store) -> None:
    store.finish(begun(store, 4), {})
    store.keep(Study(name="a", runner="m:f", grid={"x": [1, 2, 3, 4, 5]}))
    assert len(store.study().options()) == 5, "a study may grow"
    with pytest.raises(InputError, match=r"1 finished runs with options that this study has not.*'x': 4"):
        store.keep(Study(name="a", runner="m:f", grid={"x": [1]}))
    with pytest.raises(InputError, match="with name 'a', got 'b'; take another folder"):
        store.keep(Study(name="b", runner="m:f", grid={"x": [4]}))
    with pytest.raises(InputError, match="with runner 'm:f', got 'm:g'"):
        store.keep(Study(name="a", runner="m:g", grid={"x": [4]}))
    (store.folder / "study.json").write_text("{")
    with pytest.raises(InputError, match="is damaged; run the study again"):
        store.study()


def test_one_driver(store: Store) -> None:
    with store.driving():
        assert store.driver() == (store.folder / "lock").read_text().strip()
        with pytest.raises(InputError, match=rf"another process runs .*: pid {os.getpid()}"), store.driving():
            pass
    assert store.driver() is None
