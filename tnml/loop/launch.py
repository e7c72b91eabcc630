"""Starts the processes of a run from a plain program and brings back what rank 0 returned."""

import multiprocessing
import os
import pickle
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from tnml.errors import InputError
from tnml.loop.interrupt import StopRequest
from tnml.loop.loggers import quiet

_GRACE = 20.0  # seconds a process has after its parent's death
_STOP = "stop"


def launch(function: Callable[..., Any], argument: object, count: int) -> Any:
    """`function(argument, request)` run in `count` processes at once; the value of rank 0.

    Every process finds its place in the environment variables of torchrun (RANK, WORLD_SIZE, MASTER_ADDR,
    ...). Ctrl-C is passed on as a file that `request`, a `StopRequest`, looks for, and never reaches the
    processes as a signal; so is the death of this process. Argument and results go through files of a
    private temporary folder, not through shared memory, of which a container may have next to none.

    Args:
        function: a module's function (not a lambda or a local one), so that another process can import it.
        argument: anything that can be pickled.
        count: how many processes.

    Raises:
        InputError: `argument` cannot be pickled, or the main script starts processes while it is imported.
        BaseException: whatever the first failing process raised.
        RuntimeError: a process died without raising an error (it was killed, or ran out of memory).
    """
    _check_main_guard()
    with (
        tempfile.TemporaryDirectory(prefix="tnml-") as name,
        StopRequest() as request,
        quiet("torch.multiprocessing.spawn"),
    ):
        folder = Path(name)
        (folder / "job").write_bytes(_pickled((function, argument)))
        threads = max(1, torch.get_num_threads() // count)
        with request.withheld():  # a process must not die of a Ctrl-C while it starts
            context = start_processes(
                _worker,
                args=(name, count, _free_port(), threads, os.getpid()),
                nprocs=count,
                join=False,
                start_method="spawn",
            )
        died = ""
        try:
            while not context.join(timeout=0.1):
                if request.made():
                    (folder / _STOP).touch()
        except (ProcessExitedException, ProcessRaisedException) as error:
            died = str(error)
        return _outcome(folder, died)


def _pickled(job: object) -> bytes:
    try:
        return pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"devices > 1 sends the module, loss and batches to other processes, which failed: {error}; "
            "use functions and classes of a module instead of lambdas and local ones, or start with torchrun"
        ) from error


def _check_main_guard() -> None:
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(
            "devices > 1 imports your script again in every process, which must not train again: "
            "put the call under `if __name__ == '__main__':`, or start the script with torchrun"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _worker(rank: int, folder: str, count: int, port: int, threads: int, parent: int) -> None:
    """One process: joins the group, runs the job and leaves its outcome as a file."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    os.environ.setdefault("NUMBA_NUM_THREADS", str(threads))
    torch.set_num_threads(threads)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    here = Path(folder)
    try:
        function, argument = pickle.loads((here / "job").read_bytes())
        result = function(argument, StopRequest(here / _STOP, parent))
        _leave(here, rank, result if rank == 0 else None, None)
    except BaseException as error:
        error.add_note(f"in process {rank}:\n{traceback.format_exc()}")
        _leave(here, rank, None, error)
        raise


def _follow(parent: int) -> None:
    """Ends this process some seconds after its parent, even where it waits for a partner that never started.

    A run in progress stops by itself between two steps, and has these seconds to save.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    time.sleep(_GRACE)
    os._exit(1)


def _leave(folder: Path, rank: int, result: Any, error: BaseException | None) -> None:
    """Writes the outcome of one process, whole or not at all."""
    try:
        content = pickle.dumps((time.time(), result, error))
    except (pickle.PicklingError, AttributeError, TypeError):
        content = pickle.dumps(
            (time.time(), None, RuntimeError(f"{type(error or result).__name__}: {error}"))
        )
    temporary = folder / f"part-{rank}"
    temporary.write_bytes(content)
    os.replace(temporary, folder / f"outcome-{rank}")


def _outcome(folder: Path, died: str) -> Any:
    """Rank 0's result; or raises what the first failing process raised (the others lost their partner)."""
    outcomes = {path.name: pickle.loads(path.read_bytes()) for path in folder.glob("outcome-*")}
    errors = [(when, error) for when, _, error in outcomes.values() if error is not None]
    if errors:
        raise min(errors, key=lambda item: item[0])[1]
    if "outcome-0" not in outcomes:
        raise RuntimeError(
            f"a training process ended without a word ({died}); was it out of memory, or killed?"
        )
    return outcomes["outcome-0"][1]
