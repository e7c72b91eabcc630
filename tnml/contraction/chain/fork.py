"""Whether this process was forked: OpenMP's threads do not survive a fork, and waiting for them hangs."""

import os
import threading

FORKED = threading.Event()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=FORKED.set)
