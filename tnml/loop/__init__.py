"""The one optimisation loop: any module, any loss, any batches; it knows no network and no data set."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tnml.loop.options import LoopOptions
from tnml.loop.results import LoopResult, TrainingDiverged, TrainingInterrupted

if TYPE_CHECKING:
    from tnml.loop.entry import run
    from tnml.loop.processes import is_main_process
    from tnml.loop.progress import ProgressReporter
    from tnml.loop.protocols import Batches, Reporter, StepView

__all__ = [
    "Batches",
    "LoopOptions",
    "LoopResult",
    "ProgressReporter",
    "Reporter",
    "StepView",
    "TrainingDiverged",
    "TrainingInterrupted",
    "is_main_process",
    "run",
]

_HOMES = {  # these load lightning_fabric or rich, so they wait until they are used
    "Batches": "protocols",
    "ProgressReporter": "progress",
    "Reporter": "protocols",
    "StepView": "protocols",
    "is_main_process": "processes",
    "run": "entry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tnml.loop' has no attribute {name!r}")
    value = getattr(import_module(f"tnml.loop.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
