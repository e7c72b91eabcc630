"""Programs started without their imports: forked from a server that has made them.

A program of tnml imports for four seconds and then may run for one. What a test proves about a run that is
killed, interrupted or resumed needs a process of its own, not an import of its own. The server only imports
and forks, so every program starts in the same clean state.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from children import finish

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["tnml.cli.train", "tnml.training", "lightning_fabric", "tnml.contraction.chain.native"]
)


class Fork:
    """A process with the part of `subprocess.Popen` that tests of programs use.

    Args:
        words: as for python: a script, "-m" and a module, or "-c" and code; and their words.
        folder: an empty one, for what the program prints.
        cwd: its current folder.
    """

    def __init__(self, words: Sequence[str | Path], folder: Path, cwd: Path | None) -> None:
        self.printed = folder / "output", folder / "errors"
        arguments = ([*map(str, words)], [*map(str, self.printed)], cwd)
        self._process = SERVER.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> None:
        self._process.join()

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self) -> tuple[str, str]:
        self.wait()
        output, errors = (path.read_text() for path in self.printed)
        return output, errors

    def lines(self) -> list[str]:
        """Whole lines that the program has printed so far."""
        return self.printed[0].read_text().split("\n")[:-1] if self.printed[0].exists() else []


@contextmanager
def fork(words: Sequence[str | Path], cwd: Path | None = None) -> Iterator[Fork]:
    """Starts a program with one thread, and kills it after the block if it still runs."""
    with tempfile.TemporaryDirectory() as folder:
        started = Fork(words, Path(folder), cwd)
        try:
            yield started
        finally:
            started.kill()
            started.wait()


def complete(words: Sequence[str | Path], cwd: Path | None = None) -> str:
    """What a program prints that has to end well."""
    with fork(words, cwd) as process:
        return finish(process)


def _run(words: list[str], printed: list[str], cwd: Path | None) -> None:
    import torch

    for number, path in enumerate(printed, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    if cwd is not None:
        os.chdir(cwd)
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        exec(compile(words[1], "<code>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
