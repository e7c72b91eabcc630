"""Data sets in NumPy's .npz archives; nothing in them is ever unpickled."""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tnml.data.dataset import Dataset, Part, Scale, from_arrays, from_parts, real_numbers
from tnml.data.splits import held_out_quarter
from tnml.errors import InputError, choose
from tnml.files import user_path

DAMAGE = (OSError, EOFError, ValueError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def from_npz(
    path: str | os.PathLike[str], split: str = "train", *, scale: Scale = "auto", real_targets: bool = False
) -> Dataset:
    """A `Dataset` from a .npz file with the arrays x, y, or x_train, y_train and x_test, y_test.

    Of a file with x and y alone, "train" and "test" are a fixed stratified split with a quarter held
    out (of real-valued targets a plain random quarter) and "all" is every sample in the file's order.

    Args:
        path: the file; write one with `numpy.savez_compressed(path, x=x, y=y)`.
        split: "train", "test" or "all".
        scale: as in `from_arrays`; "minmax" takes the range of the train part and clips the test part to it,
            and with "auto" the train part says whether bytes are pixels.
        real_targets: whether whole numbers and truth values in y are real targets, too.

    Raises:
        InputError: no such file, a damaged one, one with Python objects, missing arrays, or arrays
            that `from_arrays` refuses.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder) / "toy.npz", x=np.eye(8), y=np.arange(8) % 2)
        ...     from_npz(Path(folder) / "toy.npz")
        Dataset('toy', split='train', 6 samples, 8 sites)
    """
    choose("split", split, dict.fromkeys(("train", "test", "all")))
    source = user_path(path)
    arrays = _read(source, split, scale)
    name, provenance = source.stem, f"NumPy archive {source}"
    if real_targets:
        targets = {key: real_numbers(arrays[key], f"{name}: {key}") for key in arrays if key[0] == "y"}
        arrays |= targets
    if "x" in arrays:
        x, y = arrays["x"], arrays["y"]
        if split == "all":
            return from_arrays(x, y, name, split=split, scale=scale, provenance=provenance)
        return _quarter(x, y, split, name=name, scale=scale, provenance=provenance)
    parts: dict[str, Part] = {}
    for part in ("train", "test"):
        if f"x_{part}" in arrays:
            parts[part] = lambda part=part: (arrays[f"x_{part}"], arrays[f"y_{part}"])  # type: ignore[misc]
    return from_parts(parts, split, name=name, scale=scale, provenance=provenance)


def _quarter(
    x: npt.NDArray[Any], y: npt.NDArray[Any], split: str, *, name: str, scale: Scale, provenance: str
) -> Dataset:
    """One part of x and y with a fixed quarter held out."""
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if x.ndim == 0 or y.ndim != 1 or len(x) != len(y):
        raise InputError(
            f"{name}: x {list(x.shape)} and y {list(y.shape)} must have one label for each sample, y as [n]"
        )
    if len(y) == 0:
        raise InputError(f"{name}: x is empty (shape {list(x.shape)}); give at least one sample and one site")
    train, test = held_out_quarter(y)
    parts: dict[str, Part] = {"train": lambda: (x[train], y[train]), "test": lambda: (x[test], y[test])}
    note = (
        f"{provenance}; a stratified quarter held out"
        if y.dtype.kind != "f"
        else f"{provenance}; a quarter held out"
    )
    return from_parts(parts, split, name=name, scale=scale, provenance=note)


def _read(source: Path, split: str, scale: Scale) -> dict[str, npt.NDArray[Any]]:
    """The arrays of the archive that the split needs."""
    if not source.is_file():
        raise InputError(f"no .npz file at {source}; check the path")
    with open(source, "rb") as stream:  # NumPy leaves the file open where the archive is damaged
        try:
            archive = np.load(stream, allow_pickle=False)
        except DAMAGE as error:
            raise InputError(
                f"{source} is not a readable .npz archive ({error}); save it again with numpy.savez"
            ) from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(
                f"{source} holds a single array; expected an archive with x and y, saved with numpy.savez"
            )
        with archive:
            wanted = _keys(source, list(archive.files))
            first = wanted
            if "x" not in wanted and split != "all":
                first = [key for key in wanted if key[2:] == split] or wanted
            found = {key: _member(archive, key, source) for key in first}
            if isinstance(scale, str) and (
                scale == "minmax" or (scale == "auto" and found[first[0]].dtype == np.uint8)
            ):
                rest = [key for key in wanted if key.endswith("_train") and key not in found]
                found |= {key: _member(archive, key, source) for key in rest}  # it says what the range is
            return found


def _keys(source: Path, present: list[str]) -> list[str]:
    """The names to read: x and y, or the pairs of train and test; refuses anything else."""
    if {"x", "y"} <= set(present):
        return ["x", "y"]
    pairs = [[f"x_{part}", f"y_{part}"] for part in ("train", "test")]
    lone = [key for pair in pairs for key in pair if key in present and not set(pair) <= set(present)]
    keys = [key for pair in pairs if set(pair) <= set(present) for key in pair]
    if lone or not keys:
        raise InputError(
            f"{source} holds the arrays {', '.join(present) or '(none)'}; expected x and y, "
            "or x_train and y_train, and x_test and y_test"
        )
    return keys


def _member(archive: Any, key: str, source: Path) -> npt.NDArray[Any]:
    try:
        array = archive[key]
    except DAMAGE as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"{key} in {source} holds Python objects, which are never unpickled; "
                "save it as numbers or text, e.g. y.astype(str)"
            ) from error
        raise InputError(
            f"{key} in {source} cannot be read ({error}); the file is damaged: save it again"
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{key} in {source} is not an array; save it with numpy.savez")
    return array
