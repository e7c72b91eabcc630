"""A small training by sweeps as a program, for tests that kill it or interrupt it.

Usage: python sweep_job.py RUN_DIR WEIGHTS_FILE [--options JSON] [--resume] [--pause SECONDS]
Writes the final weights to WEIGHTS_FILE; pauses after every bond.
"""

import argparse
import json
import time

import torch

from tnml.nn import MPSLayer
from tnml.training import SweepOptions, TrainingInterrupted, sweep_classifier

SIDE = 3


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(80, SIDE * SIDE, generator=torch.Generator().manual_seed(2))
    return x, (x[:, 0] + x[:, 5] > x[:, 3] + x[:, 8]).long()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir")
    parser.add_argument("weights")
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
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
            on_bond=lambda row: time.sleep(arguments.pause),
        )
    except TrainingInterrupted as stop:
        print(f"interrupted: {stop.run_dir}")
        raise SystemExit(130) from None
    torch.save(layer.state_dict(), arguments.weights)
    print(f"done: loss {result.history[-1]['loss']:.6f} in {len(result.history)} sweeps")


if __name__ == "__main__":
    main()
