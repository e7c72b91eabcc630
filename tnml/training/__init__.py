"""Training: one loop for any loss, supervised training on top of it, and training by sweeps."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tnml.loop.options import LoopOptions
from tnml.loop.results import LoopResult, TrainingDiverged, TrainingInterrupted
from tnml.training.dmrg.options import SweepOptions
from tnml.training.options import TrainOptions

if TYPE_CHECKING:
    from tnml.loop.entry import run
    from tnml.loop.processes import is_main_process
    from tnml.loop.progress import ProgressReporter
    from tnml.loop.protocols import Batches, Reporter, StepView
    from tnml.training.dmrg.likelihood import sweep_density
    from tnml.training.dmrg.train import SweepResult, sweep_classifier, sweep_regressor
    from tnml.training.dmrg.truncate import truncate_layer
    from tnml.training.replicas.train import train_replicas, worth_it
    from tnml.training.supervised import (
        TrainResult,
        evaluate,
        train_classifier,
        train_density,
        train_regressor,
    )

__all__ = [
    "Batches",
    "LoopOptions",
    "LoopResult",
    "ProgressReporter",
    "Reporter",
    "StepView",
    "SweepOptions",
    "SweepResult",
    "TrainOptions",
    "TrainResult",
    "TrainingDiverged",
    "TrainingInterrupted",
    "evaluate",
    "is_main_process",
    "run",
    "sweep_classifier",
    "sweep_density",
    "sweep_regressor",
    "train_classifier",
    "train_density",
    "train_regressor",
    "train_replicas",
    "truncate_layer",
    "worth_it",
]

_HOMES = {  # these load lightning_fabric or rich, so they wait until they are used
    "Batches": "tnml.loop.protocols",
    "ProgressReporter": "tnml.loop.progress",
    "Reporter": "tnml.loop.protocols",
    "StepView": "tnml.loop.protocols",
    "SweepResult": "tnml.training.dmrg.train",
    "TrainResult": "tnml.training.supervised",
    "evaluate": "tnml.training.supervised",
    "is_main_process": "tnml.loop.processes",
    "run": "tnml.loop.entry",
    "sweep_classifier": "tnml.training.dmrg.train",
    "sweep_density": "tnml.training.dmrg.likelihood",
    "sweep_regressor": "tnml.training.dmrg.train",
    "train_classifier": "tnml.training.supervised",
    "train_density": "tnml.training.supervised",
    "train_regressor": "tnml.training.supervised",
    "train_replicas": "tnml.training.replicas.train",
    "truncate_layer": "tnml.training.dmrg.truncate",
    "worth_it": "tnml.training.replicas.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tnml.training' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
