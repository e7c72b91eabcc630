"""Reads tables for models that encode the columns themselves: numbers, text and gaps, found by name."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tnml.cli.reading import note_unused
from tnml.cli.saved import SavedModel
from tnml.data.table_files import GAPS, TRUTH, Column, read_cells
from tnml.data.tables import Table, is_table
from tnml.errors import InputError, choose
from tnml.files import user_path


def read_columns(path: str | os.PathLike[str], model: SavedModel) -> npt.NDArray[np.object_]:
    """The columns `[b, n]` that a model was trained on: numbers and text, None where a value is missing.

    What a column holds was settled in training. Without names from then columns count by their place.

    Args:
        path: a .csv file with the names in its first line, or a .parquet file.
        model: encodes columns itself.

    Raises:
        InputError: the file is missing, damaged or no table, a column is not there, or a cell is no number
            in a column of numbers.
    """
    source = user_path(path)
    if not is_table(source):
        raise InputError(
            f"{model.path} encodes the columns of a table itself; give them as .csv or .parquet, with names"
        )
    cells, encoders = read_cells(source), model.encoders
    names = model.names
    if names is None:
        names = list(cells)
        if len(names) != len(encoders):
            raise InputError(
                f"{source} has {len(names)} columns, the model was trained on {len(encoders)} without names; "
                "give these, in the same order"
            )
    found = [cells[choose(f"column of {source.name}", name, {n: n for n in cells})] for name in names]
    note_unused(Table(source=source, columns={name: Column("", np.empty(0)) for name in cells}), names)
    rows = np.empty((len(found[0]), len(found)), dtype=object)
    for place, (name, column, encoder) in enumerate(zip(names, found, encoders, strict=True)):
        rows[:, place] = _text(column) if encoder.is_text else _numbers(source, name, column)
    return rows


def _text(column: Sequence[Any]) -> list[str | None]:
    return [None if cell is None else str(cell) for cell in column]


def _numbers(source: Path, name: str, column: Sequence[Any]) -> list[float | None]:
    found: list[float | None] = []
    for row, cell in enumerate(column, 1):
        word = cell.lower() if isinstance(cell, str) else cell
        try:
            found.append(None if word is None or word in GAPS else float(TRUTH.get(word, word)))
        except (TypeError, ValueError):
            raise InputError(
                f"{source}, row {row}: column {name!r} held numbers in training and holds {cell!r} here; "
                "convert it, or leave the cell empty if the value is missing"
            ) from None
    return found
