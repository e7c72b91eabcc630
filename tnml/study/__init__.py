"""Studies: many runs over a grid of options, on all cores or a cluster, that survive crashes."""

from tnml.study.execute import default_folder, run
from tnml.study.grid import Study
from tnml.study.plain_values import run_id
from tnml.study.progress import StudyProgress, StudyReporter, StudyView
from tnml.study.shipped import STUDIES, find_study
from tnml.study.store import Store
from tnml.study.table import Table, read_table

__all__ = [
    "STUDIES",
    "Store",
    "Study",
    "StudyProgress",
    "StudyReporter",
    "StudyView",
    "Table",
    "default_folder",
    "find_study",
    "read_table",
    "run",
    "run_id",
]
