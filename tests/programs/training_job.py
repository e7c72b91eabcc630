"""A small training run as a program, for tests that kill it, interrupt it or start it several times.

Usage: python training_job.py RUN_DIR WEIGHTS_FILE [--options JSON] [--dropout P] [--resume]
       [--pause SECONDS] [--hold FILE] [--own weights|seed]
Writes the final weights to WEIGHTS_FILE.RANK and prints one line from rank 0.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tnml.training import LoopOptions, StepView, TrainingInterrupted, is_main_process, run

SAMPLES, STEPS = 37, 6  # 37 samples in 6 batches of 7: the last batch has 2


class Net(nn.Module):
    """Two layers with dropout between them."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first, self.second = nn.Linear(5, 16), nn.Linear(16, 3)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.dropout(torch.tanh(self.first(x))))


class Batches:
    """Batches of 7 in a fixed order; the last is smaller."""

    steps_per_epoch = STEPS

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(2)
        self.x = torch.randn(SAMPLES, 5, generator=generator)
        self.y = torch.randint(0, 3, (SAMPLES,), generator=generator)

    def __call__(self, epoch: int, step: int) -> tuple[Tensor, ...]:
        chosen = slice(7 * step, 7 * step + 7)
        return self.x[chosen], self.y[chosen]


class OneBatch(Batches):
    """All samples at once, in double precision."""

    steps_per_epoch = 1

    def __call__(self, epoch: int, step: int) -> tuple[Tensor, ...]:
        return self.x.double(), self.y


def mean_loss(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(module(x), y)


def losses(module: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    logits = module(x)
    return nn.functional.cross_entropy(logits, y, reduction="none"), {"accuracy": logits.argmax(1) == y}


class Pause:
    """Makes every step take a while, so that a kill lands in the middle of the run.

    The last step but one waits for a file, if one is named: however late the kill comes, the run is not over.
    """

    def __init__(self, seconds: float, hold: Path | None) -> None:
        self.seconds, self.hold = seconds, hold

    def __call__(self, view: StepView) -> None:
        time.sleep(self.seconds)
        last = view.epoch == view.epochs and view.step == view.steps_per_epoch - 1
        while last and self.hold is not None and not self.hold.exists():
            time.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir")
    parser.add_argument("weights")
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--hold", type=Path)
    parser.add_argument("--own", choices=["weights", "seed"], help="what every process makes for itself")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    module = Net(arguments.dropout)
    options = LoopOptions(device="cpu", **arguments.options)
    rank = int(os.environ.get("RANK", "0"))
    if arguments.own == "weights":
        with torch.no_grad():
            module.first.weight += rank
    elif arguments.own == "seed":
        options = replace(options, seed=rank)
    on_step = Pause(arguments.pause, arguments.hold) if arguments.pause else None
    run_dir = None if arguments.run_dir == "none" else arguments.run_dir
    try:
        result = run(
            module, losses, Batches(), options, on_step=on_step, run_dir=run_dir, resume=arguments.resume
        )
    except TrainingInterrupted as stop:
        if is_main_process():
            print(f"interrupted: {stop.run_dir}")
        raise SystemExit(130) from None
    torch.save(module.state_dict(), f"{arguments.weights}.{rank}")
    if is_main_process():
        print(f"done: loss {result.history[-1]['loss']:.6f} in {len(result.history)} epochs")


if __name__ == "__main__":
    main()
