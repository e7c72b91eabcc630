"""Whether this process was forked: OpenMP's threads do not survive a fork, and waiting for them hangs."""

import os
import threading

import torch

FORKED = threading.Event()


def _after_fork() -> None:
    """One thread from now on, for tnml and for torch: the others stayed in the parent."""
    FORKED.set()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
