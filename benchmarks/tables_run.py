"""One fit of the benchmark of tables, measured; and the journal from which an interrupted run continues.

Every finished fit is a line of JSON in the journal. Its key names the set, the split, the method with its
parameters, the processor, and what the method's code is: for scikit-learn its version, for tnml a checksum of
its sources. A later run reuses the lines with the keys that it would measure again, though their times are of
another day.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score
from threadpoolctl import threadpool_limits

import tnml
from benchmarks.machine import cpu_model
from benchmarks.tables_data import Split, TableSet
from benchmarks.tables_methods import LEVEL, Maker, last_step, parameters_of

Row = dict[str, Any]


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS, OpenMP and torch with one thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


def fitted(table: TableSet, split: Split, maker: Maker) -> Row:
    """Score, times and size of one fit; a fit that fails is a row with an error and without a score."""
    row: Row = {"rows": len(split.x), "columns": split.x.shape[1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence, and of classes with fewer samples than folds
        try:
            model = maker(split.words, len(split.x))
            wall, cpu = time.perf_counter(), time.process_time()
            model.fit(split.x, split.y)
            row["seconds"], row["cpu_seconds"] = time.perf_counter() - wall, time.process_time() - cpu
            row |= scores(table.task, model, split)
            row["parameters"] = parameters_of(model)
        except Exception as error:  # noqa: BLE001 - what cannot be fitted is a result, too
            row["error"] = f"{type(error).__name__}: {error}"[:300]
    return row


def scores(task: str, model: Any, split: Split) -> Row:
    """Accuracy and log loss of labels; R2, mean square error and intervals of real targets."""
    found = np.asarray(model.predict(split.x_test))
    if found.shape != split.y_test.shape:
        raise ValueError(f"predictions of shape {found.shape} for targets of shape {split.y_test.shape}")
    if task == "classification":
        if strange := set(found.tolist()) - set(split.y.tolist()):
            raise ValueError(f"predicted labels that were not in training: {sorted(strange)[:5]}")
        row: Row = {"score": float(accuracy_score(split.y_test, found))}
        if hasattr(model, "predict_proba"):
            row["log_loss"] = _log_loss(model, split)
        return row
    if not np.isfinite(found).all():
        raise ValueError("predictions that are not finite")
    row = {
        "score": float(r2_score(split.y_test, found)),
        "mse": float(mean_squared_error(split.y_test, found)),
    }
    return row | (intervals(model, split) if task == "regression" else {})


def _log_loss(model: Any, split: Split) -> float | None:
    known = np.isin(split.y_test, model.classes_)
    if not known.any():
        return None
    probability = np.clip(model.predict_proba(split.x_test[known]), 1e-15, 1.0)
    probability /= probability.sum(axis=1, keepdims=True)
    return float(log_loss(split.y_test[known], probability, labels=model.classes_))


def intervals(model: Any, split: Split) -> Row:
    """Coverage of the intervals of 90 % and their mean width, in deviations of the training targets."""
    held_out = getattr(last_step(model), "validation_fraction", 1.0) > 0  # without it there are no intervals
    if not (held_out and hasattr(last_step(model), "predict_interval")):
        return {}
    x = split.x_test
    for _, step in getattr(model, "steps", [])[:-1]:
        x = step.transform(x)
    low, high = (np.asarray(end) for end in _ends(last_step(model).predict_interval(x, LEVEL), len(x)))
    inside = (low <= split.y_test) & (split.y_test <= high)
    deviation = float(np.std(split.y)) or 1.0
    return {"coverage": float(inside.mean()), "width": float(np.mean(high - low)) / deviation}


def _ends(found: Any, rows: int) -> tuple[Any, Any]:
    """The lower and the upper ends, from a pair or from columns `[b, 2]`."""
    if isinstance(found, tuple):
        low, high = found
        return low, high
    array = np.asarray(found)
    return (array[:, 0], array[:, 1]) if array.shape == (rows, 2) else (array[0], array[1])


@cache
def sources() -> str:
    """A checksum of tnml's Python files: another one means another program, whatever its version says."""
    found = hashlib.sha256()
    folder = Path(tnml.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:16]


def key_of(table: TableSet, split: int, method: str, options: Any) -> str:
    """What a fit has to share with one in the journal to be the same."""
    code = f"scikit-learn {sklearn.__version__}" if options is None else f"tnml {sources()}"
    entries = [table.task, table.name, split, method, options, code, cpu_model()]
    return json.dumps(entries, sort_keys=True)


class Journal:
    """The lines of finished fits by their keys.

    Args:
        path: of the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # the line in which an earlier run was interrupted
                    continue
                self.rows[entry["key"]] = entry["row"]

    def add(self, key: str, row: Row) -> None:
        """Writes the line to the disk."""
        self.rows[key] = row
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            if file.tell() and not _ends_a_line(file):
                file.write(b"\n")
            file.write((json.dumps({"key": key, "row": row}) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def run(
    table: TableSet,
    count: int,
    methods: dict[str, tuple[Maker, Any]],
    journal: Journal,
    tell: Callable[[str], None],
) -> list[Row]:
    """The rows of one set: each split with each method, new ones measured and written down.

    Args:
        table: the set.
        count: splits.
        methods: for each name what makes the model, and its parameters if it is tnml's.
        journal: of finished fits.
        tell: called with a line before each fit.
    """
    keys = {
        (number, name): key_of(table, number, name, options)
        for number in range(count)
        for name, (_, options) in methods.items()
    }
    if any(key not in journal.rows for key in keys.values()):
        for split in table.splits(count):
            for name, (maker, _) in methods.items():
                key = keys[split.number, name]
                if key not in journal.rows:
                    tell(f"{table.name}, split {split.number + 1} of {count}: {name}")
                    journal.add(key, {"date": time.strftime("%Y-%m-%d"), **fitted(table, split, maker)})
    place = {"set": table.name, "task": table.task, "half": table.half}
    return [
        {**place, "split": number, "method": name, **journal.rows[key]}
        for (number, name), key in keys.items()
    ]
