"""The stored runs of a study with their histories."""

import math
import os
from typing import Any, NamedTuple

from tnml.checks import is_number
from tnml.errors import InputError
from tnml.study import Store, Study, read_table


class Run(NamedTuple):
    """One finished run.

    Attributes:
        identity: the name of its folder.
        options: those that it was run with, nested options as "a.b".
        row: its row of the study's table: options and result together.
        history: rows along the training.
    """

    identity: str
    options: dict[str, Any]
    row: dict[str, Any]
    history: list[dict[str, Any]]


class StoredStudy(NamedTuple):
    """What a study's folder holds.

    Attributes:
        study: what was to be run.
        runs: the finished ones, in the order of the study.
        failed: the last line of the error of each run that failed, by its identity.
        waiting: how many runs are neither finished nor failed.
    """

    study: Study
    runs: list[Run]
    failed: dict[str, str]
    waiting: int


def read_study(folder: str | os.PathLike[str]) -> StoredStudy:
    """Every finished run of a study.

    Args:
        folder: of the study, as `tnml study run` leaves it.

    Raises:
        InputError: no such study, or none of its runs is finished.

    Example:
        >>> read_study("nowhere")
        Traceback (most recent call last):
        tnml.errors.InputError: there is no study in nowhere: it holds no study.json; check the path
    """
    store = Store(folder)
    study = store.study()
    table = read_table(store)
    if not table.rows:
        raise InputError(f"no run of the study in {folder} is finished; run it first: tnml study resume")
    asked = set(study.option_names())
    runs = []
    for line in table.rows:
        row = dict(line)
        identity = row.pop("run")
        options = {name: value for name, value in row.items() if name.partition(".")[0] in asked}
        history = (store.result(identity) or {}).get("history")
        kept = [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []
        runs.append(Run(identity, options, row, kept))
    return StoredStudy(study, runs, table.failed, table.waiting)


def is_finite(value: object) -> bool:
    """Whether a value is a number, neither NaN nor infinite; True and False do not count.

    Example:
        >>> [is_finite(value) for value in (2, 0.5, float("nan"), True, "2", None)]
        [True, True, False, False, False, False]
    """
    return is_number(value) and math.isfinite(value)
