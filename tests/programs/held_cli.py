"""`tnml` whose run waits for ever after some epochs or sweeps, so that a kill never comes too late.

Usage: python held_cli.py EPOCHS WORDS...; the epochs are counted in this process.
"""

import sys
import time

from tnml.cli import main
from tnml.loop.progress import ProgressReporter
from tnml.loop.results import Row


def hold_after(count: int) -> None:
    told = ProgressReporter.epoch
    epochs = []

    def tell_and_wait(self: ProgressReporter, row: Row, of: int) -> None:
        told(self, row, of)
        epochs.append(row)
        while len(epochs) >= count:
            time.sleep(60)

    ProgressReporter.epoch = tell_and_wait  # type: ignore[method-assign]


if __name__ == "__main__":
    hold_after(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
