"""The folder of a study: one folder per run, and in it `result.json`, the only proof that a run is done."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tnml.errors import InputError
from tnml.files import user_path, write_text
from tnml.study.grid import Study
from tnml.study.locks import held, holder, is_held
from tnml.study.plain_values import plain, run_id

STUDY, RUNS, LOCK = "study.json", "runs", "lock"
OPTIONS, RESULT, ERROR = "options.json", "result.json", "error.txt"
_FAILURE = re.compile(r"^--- failure (\d+) ---$", re.MULTILINE)


class Counts(NamedTuple):
    """How many runs of a study are in which state.

    Attributes:
        done: have a result.
        running: are being done by some process now.
        failed: have failed and are not being done again.
        waiting: all others.
    """

    done: int
    running: int
    failed: int
    waiting: int

    @property
    def total(self) -> int:
        """All runs."""
        return sum(self)


class Store:
    """The stored runs of one study.

    `study.json` says what the study is. `runs/<id>/` holds `options.json`, `result.json` once the run is
    done, `error.txt` where it failed, and whatever the runner writes. Files are whole or absent; a result is
    never written twice. Locks end with the process that holds them.

    Args:
        folder: need not exist yet.

    Example:
        >>> Store("nowhere").result("0123456789abcdef") is None
        True
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = user_path(folder)

    def run_folder(self, identity: str) -> Path:
        """The folder of the run with this name.

        Example:
            >>> Store("here").run_folder("0123456789abcdef").as_posix()
            'here/runs/0123456789abcdef'
        """
        return self.folder / RUNS / identity

    def study(self) -> Study:
        """The study that `study.json` describes.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        path = self.folder / STUDY
        if not path.is_file():
            raise InputError(f"there is no study in {self.folder}: it holds no {STUDY}; check the path")
        content = _read(path)
        if content is None:
            raise InputError(f"{path} is damaged; run the study again with --folder {self.folder}")
        return Study.from_record(content, str(path))

    def keep(self, study: Study) -> None:
        """Writes `study.json`, after checking what the folder already holds.

        A study may grow: more values, more seeds. Finished runs that it does not have would mix with its own.

        Raises:
            InputError: the folder holds another study, or finished runs with other options.
        """
        if _read(self.folder / STUDY) is not None:  # a damaged one is written again
            before = self.study()
            for name in ("name", "runner"):
                if (then := getattr(before, name)) != (now := getattr(study, name)):
                    raise InputError(
                        f"{self.folder} holds a study with {name} {then!r}, got {now!r}; take another folder"
                    )
        own = {run_id(options) for options in study.options()}
        if others := sorted(set(self.finished()) - own):
            raise InputError(
                f"{self.folder} holds {len(others)} finished runs with options that this study has not, "
                f"such as {_read(self.run_folder(others[0]) / OPTIONS)}; choose another folder"
            )
        record = json.dumps(study.record(), indent=1, ensure_ascii=False) + "\n"
        if not (self.folder / STUDY).is_file() or (self.folder / STUDY).read_text("utf-8") != record:
            write_text(self.folder / STUDY, record)
        _remove_leftovers(self.folder)

    def finished(self) -> list[str]:
        """The names of all runs that are done, in order."""
        home = self.folder / RUNS
        names = sorted(path.name for path in home.iterdir()) if home.is_dir() else []
        return [name for name in names if self.done(name)]

    def done(self, identity: str) -> bool:
        """Whether the run has a result that can be read."""
        return self.result(identity) is not None

    def result(self, identity: str) -> dict[str, Any] | None:
        """What the run returned; None where it is not done."""
        return _read(self.run_folder(identity) / RESULT)

    def failures(self, identity: str) -> int:
        """How many times the run has failed."""
        return len(_FAILURE.findall(self.error(identity)))

    def error(self, identity: str) -> str:
        """The tracebacks of all failures of the run, the last line what went wrong; empty without any."""
        try:
            return (self.run_folder(identity) / ERROR).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def begin(self, options: Mapping[str, Any]) -> Path:
        """The folder of the run with these options, made where it is missing; hold the run's lock."""
        folder = self.run_folder(run_id(options))
        _remove_leftovers(folder)
        if _read(folder / OPTIONS) is None:
            write_text(folder / OPTIONS, json.dumps(plain(options), indent=1, ensure_ascii=False) + "\n")
        return folder

    def finish(self, identity: str, result: Mapping[str, Any]) -> None:
        """Writes what the run returned; from here on it is done. A first result stays; hold the run's lock.

        Raises:
            InputError: the result is not a dictionary of things that JSON can hold, or the disk is full.
        """
        if not isinstance(result, Mapping):
            raise InputError(f"a runner must return a dictionary, got {type(result).__name__}")
        text = json.dumps(plain(result, "result"), indent=1, ensure_ascii=False) + "\n"
        if not self.done(identity):
            write_text(self.run_folder(identity) / RESULT, text)

    def fail(self, identity: str, text: str) -> None:
        """Adds a failure to the run's `error.txt`."""
        before = self.error(identity)
        head = f"--- failure {len(_FAILURE.findall(before)) + 1} ---"
        write_text(self.run_folder(identity) / ERROR, f"{before}{head}\n{text.strip()}\n")

    @contextmanager
    def driving(self, *, wait: bool = False) -> Iterator[None]:
        """Inside the block no other process hands out runs of this study.

        Args:
            wait: wait until the process that does so has ended.

        Raises:
            InputError: another process does so and `wait` is off.
        """
        what = f"another process runs the study in {self.folder}, wait for it (--wait) or stop it first"
        with held(self.folder / LOCK, what, wait=wait):
            yield

    def driver(self) -> str | None:
        """The process that hands out runs of this study now, or None."""
        path = self.folder / LOCK
        return holder(path) if is_held(path) else None

    @contextmanager
    def working(self, identities: Iterable[str]) -> Iterator[None]:
        """Inside the block no other process works on these runs; waits for those that do.

        A worker may outlive the process that gave it work. The next one waits here and then finds the
        result, so no run is done twice.
        """
        with ExitStack() as stack:
            for identity in sorted(identities):  # in one order, so that two groups cannot wait for each other
                stack.enter_context(held(self.run_folder(identity) / LOCK, "another worker", wait=True))
            yield

    def counts(self, study: Study) -> Counts:
        """How many runs of the study are in which state now."""
        found = dict.fromkeys(Counts._fields, 0)
        for options in study.options():
            found[self.state(run_id(options))] += 1
        return Counts(**found)

    def state(self, identity: str) -> str:
        """The run's state: "done", "running", "failed" or "waiting"."""
        if self.done(identity):
            return "done"
        if is_held(self.run_folder(identity) / LOCK):
            return "running"
        return "failed" if self.failures(identity) else "waiting"


def _read(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of a process that was killed while it wrote."""
    for name in (STUDY, OPTIONS, RESULT, ERROR, "table.csv", "table.parquet"):
        for leftover in folder.glob(f".{name}.*.tmp"):
            leftover.unlink(missing_ok=True)
