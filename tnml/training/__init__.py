"""Training: one loop for any loss, supervised training on top of it, and training by sweeps."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tnml.training.dmrg.options import SweepOptions
from tnml.training.options import LoopOptions, TrainOptions
from tnml.training.outcomes import LoopResult, TrainingDiverged, TrainingInterrupted

if TYPE_CHECKING:
    from tnml.training.dmrg.train import SweepResult, sweep_classifier, sweep_regressor
    from tnml.training.dmrg.truncate import truncate_layer
    from tnml.training.job import Batches, Reporter, StepView
    from tnml.training.loop import run
    from tnml.training.processes import is_main_process
    from tnml.training.progress import ProgressReporter
    from tnml.training.replicas import train_replicas, worth_it
    from tnml.training.supervised import TrainResult, evaluate, train_classifier, train_regressor

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
    "sweep_regressor",
    "train_classifier",
    "train_regressor",
    "train_replicas",
    "truncate_layer",
    "worth_it",
]

_HOMES = {  # these load lightning_fabric or rich, so they wait until they are used
    "Batches": "job",
    "ProgressReporter": "progress",
    "Reporter": "job",
    "StepView": "job",
    "SweepResult": "dmrg.train",
    "TrainResult": "supervised",
    "evaluate": "supervised",
    "is_main_process": "processes",
    "run": "loop",
    "sweep_classifier": "dmrg.train",
    "sweep_regressor": "dmrg.train",
    "train_classifier": "supervised",
    "train_regressor": "supervised",
    "train_replicas": "replicas",
    "truncate_layer": "dmrg.truncate",
    "worth_it": "replicas",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tnml.training' has no attribute {name!r}")
    value = getattr(import_module(f"tnml.training.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
