"""Reads unlabelled samples for `tnml predict` and prepares them like the model's training data."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32
from numpy import ndarray

from tnml.cli.reading import chosen_scale, note_unused, pair, scaling_advice
from tnml.cli.saved import SavedModel
from tnml.data import from_arrays, pool_images, resize_images
from tnml.data.dataset import Scale
from tnml.data.idx import read_idx
from tnml.data.npz import DAMAGE
from tnml.data.tables import is_table, read_table
from tnml.errors import InputError
from tnml.files import user_path


def read_samples(
    path: str | os.PathLike[str], model: SavedModel, scale: Scale | None = None
) -> Float32[ndarray, "b n"]:
    """Inputs `[n, sites]` in the form that the network takes, from a .npz, .npy, .csv, .parquet or IDX file.

    A model that was trained on a table finds its columns by name, if the file has names.

    Args:
        path: the file. An .npz holds `x` (or one array under any name).
        model: gives the number of sites, and the pooling and resizing of its training data.
        scale: range of the values; None takes that of the training data.

    Raises:
        InputError: the file is missing, damaged or of another kind, or its samples do not match the model.
    """
    source = user_path(path)
    if not source.is_file():
        raise InputError(f"no file at {source}; give samples as .npz, .npy, .csv, .parquet or an IDX file")
    if model.names is not None and _has_names(source):
        return _named(source, model, scale)
    values = _read(source)
    if values.ndim == 0:
        raise InputError(f"{source} holds a single value; expected an array [n, sites], one row per sample")
    if model.scales_itself:
        scale = _range_of(values)
        from_arrays(values, np.zeros(len(values), np.int64), source.name, scale=scale)  # only as a check
        x = values.reshape(len(values), -1)
    else:
        x = _prepared(values, source.name, model, chosen_scale(model, scale))
    if x.shape[1] != model.layer.n_sites:
        raise InputError(
            f"{source}: expected {model.layer.n_sites} values in each sample, one per site of the model, "
            f"got {x.shape[1]}; give the columns it was trained on, without index or label"
        )
    return model.in_unit(x)


def _has_names(source: Path) -> bool:
    """Whether a file is a table whose columns have names: a line of numbers is not a heading."""
    if source.suffix.lower() != ".csv":
        return is_table(source)
    try:
        with open(source, newline="", encoding="utf-8-sig") as stream:
            first = next(csv.reader(stream), [])
    except (UnicodeDecodeError, csv.Error):
        return True  # reading it will then report what is wrong
    try:
        [float(cell) for cell in first]
    except ValueError:
        return True
    return not first


def _named(source: Path, model: SavedModel, scale: Scale | None) -> Float32[ndarray, "b n"]:
    """The columns of a table that the model was trained on, found by name."""
    if scale is not None:
        raise InputError(f"{model.path} scales the columns of a table itself; leave --scale out")
    table, names = read_table(source), model.names or []
    x = model.in_unit(table.numbers(names))
    note_unused(table, [*names, *model.data.get("drop", ())])
    return x


def _range_of(values: npt.NDArray[Any]) -> Scale:
    """A range that holds all values; "auto" if they are not all finite numbers, which is an error later."""
    if values.dtype.kind not in "biuf" or not values.size or not np.isfinite(values).all():
        return "auto"
    return float(values.min()), float(values.max()) + 1.0


def _prepared(
    values: npt.NDArray[Any], name: str, model: SavedModel, scale: Scale
) -> npt.NDArray[np.float32]:
    """Scaled samples; images with the original size of the training images are pooled and resized, too."""
    original = pair(model.data.get("original_shape"))
    if original is not None and values.shape[1:] == (original[0] * original[1],):
        values = values.reshape(-1, *original)
    with scaling_advice():
        read = from_arrays(values, np.zeros(len(values), np.int64), name, scale=scale)
    x, sides = read.x, read.image_shape
    if sides is None or x.shape[1] == model.layer.n_sites:
        return x
    pool, resize = model.data.get("pool", 1), pair(model.data.get("resize"))
    if pool != 1:
        x, sides = pool_images(x, sides, pool), (sides[0] // pool, sides[1] // pool)
    return x if resize is None else resize_images(x, sides, resize)


def _read(source: Path) -> npt.NDArray[Any]:
    """The array in a file, by its extension; any other file is read as IDX."""
    kind = source.suffix.lower()
    if kind == ".csv":
        return _read_csv(source)
    if kind == ".parquet":
        table = read_table(source)
        return table.numbers(table.names)
    if kind not in (".npy", ".npz"):
        return read_idx(source)
    try:
        with open(source, "rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            names = list(found.files)
            chosen = [name for name in ("x", "x_test") if name in names] or (names if len(names) == 1 else [])
            array = found[chosen[0]] if chosen else None
    except DAMAGE as error:
        reason = (
            "it holds Python objects, which are never unpickled" if "allow_pickle" in str(error) else error
        )
        raise InputError(f"{source} cannot be read ({reason}); save it again with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{source} holds {', '.join(names) or 'nothing'}; expected an array called x")
    return array


def _read_csv(source: Path) -> npt.NDArray[np.float64]:
    """Numbers separated by commas, after at most one line of headings."""
    rows: list[list[float]] = []
    try:
        with open(source, newline="", encoding="utf-8-sig") as stream:
            for number, cells in enumerate(csv.reader(stream), 1):
                if not cells:
                    continue
                try:
                    rows.append([float(cell) for cell in cells])
                except ValueError as error:
                    if not rows and number == 1:
                        continue  # the heading
                    raise InputError(f"{source}, line {number}: {error}; expected numbers only") from error
                if len(rows[-1]) != len(rows[0]):
                    raise InputError(
                        f"{source}, line {number}: expected {len(rows[0])} numbers as in the first line, "
                        f"got {len(rows[-1])}; complete the line"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source} is not a readable CSV file ({error}); save it as text, UTF-8") from error
    if not rows:
        raise InputError(f"{source} holds no samples; expected one line of numbers for each")
    return np.array(rows)
