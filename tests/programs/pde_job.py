"""A run of `solve` for the tests that kill it or start it in two processes: folder, devices, result file.

With a fourth word it waits for ever at step 50, so that a kill never comes too late.
"""

import json
import math
import sys
import time
from pathlib import Path

import torch

from tnml.pde import BlackScholesBarenblatt, SolveOptions, solve

OPTIONS = {
    "iterations": 60,
    "reports": 6,
    "paths": 6,
    "time_steps": 4,
    "width": 8,
    "depth": 2,
    "terminal": "multiplicative",
    "device": "cpu",
    "checkpoint_seconds": 0.05,
}


class Told:
    """Writes the number of each step to a file, so that a test can kill the process at any of them."""

    def __init__(self, path: str, last: float) -> None:
        self.path, self.count, self.last = Path(path), 0, last

    def start(self) -> None: ...

    def step(self, view: object) -> None:
        self.count += 1
        self.path.write_text(str(self.count))
        while self.count >= self.last:
            time.sleep(60)

    def epoch(self, row: object, epochs: int) -> None: ...

    def stop(self) -> None: ...


def main(folder: str, devices: str, out: str, held: str = "") -> None:
    problem = BlackScholesBarenblatt(3)
    options = SolveOptions(**OPTIONS, devices=int(devices))
    resume = Path(folder).exists()
    reporter = Told(f"{out}.steps", 50 if held else math.inf) if devices == "1" else None
    solution = solve(problem, options=options, run_dir=folder, resume=resume, reporter=reporter)
    torch.save(solution.model.state_dict(), out)
    Path(f"{out}.json").write_text(json.dumps({"value": solution.value}))


if __name__ == "__main__":
    main(*sys.argv[1:])
