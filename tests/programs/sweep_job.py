"""A small training by sweeps as a program, for tests that kill it or interrupt it.

Usage: python sweep_job.py RUN_DIR WEIGHTS_FILE [--options JSON] [--resume] [--pause SECONDS] [--hold FILE]
Writes the final weights to WEIGHTS_FILE.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from tnml.nn import MPSLayer
from tnml.training import StepView, SweepOptions, TrainingInterrupted, sweep_classifier

SIDE = 3


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(80, SIDE * SIDE, generator=torch.Generator().manual_seed(2))
    return x, (x[:, 0] + x[:, 5] > x[:, 3] + x[:, 8]).long()


class Pause:
    """Makes every bond take a while, so that a kill lands in the middle of a sweep.

    The last bond but one waits for a file, if one is named: however late the kill comes, the run is not over.
    """

    def __init__(self, seconds: float, hold: Path | None) -> None:
        self.seconds, self.hold = seconds, hold

    def step(self, view: StepView) -> None:
        time.sleep(self.seconds)
        last = view.epoch == view.epochs and view.step == view.steps_per_epoch - 1
        while last and self.hold is not None and not self.hold.exists():
            time.sleep(0.01)

    def start(self) -> None: ...

    def epoch(self, row: object, epochs: int) -> None: ...

    def stop(self) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir")
    parser.add_argument("weights")
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--hold", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    layer = MPSLayer(SIDE * SIDE, 2, bond_dim=2, seed=3)
    try:
        result = sweep_classifier(
            layer,
            *problem(),
            SweepOptions(device="cpu", **arguments.options),
            run_dir=None if arguments.run_dir == "none" else arguments.run_dir,
            resume=arguments.resume,
            progress=Pause(arguments.pause, arguments.hold),
        )
    except TrainingInterrupted as stop:
        print(f"interrupted: {stop.run_dir}")
        raise SystemExit(130) from None
    torch.save(layer.state_dict(), arguments.weights)
    print(f"done: loss {result.history[-1]['loss']:.6f} in {len(result.history)} sweeps")


if __name__ == "__main__":
    main()
