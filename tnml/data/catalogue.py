"""`load`: any data set by name, folder or file; and the list of the sets known by name."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from tnml.data import idx
from tnml.data.dataset import Dataset, Part, Scale, from_arrays, from_parts, real_numbers
from tnml.data.download import VARIABLE, fetch, locate
from tnml.data.npz import from_npz
from tnml.data.shipped import SHIPPED
from tnml.data.splits import held_out_quarter
from tnml.data.tables import is_table, read_table
from tnml.data.transforms import pool_images, resize_images
from tnml.errors import InputError, choose
from tnml.files import cache_folder, user_path

SPLITS = {"train": ("train",), "test": ("test",), "all": ("train", "test")}
DIGITS_ORIGIN = "optical digits: Alpaydin, Kaynak, UCI Machine Learning Repository (1998), by scikit-learn"


@dataclass(frozen=True)
class DatasetRecord:
    """One line of `available`.

    Attributes:
        name: what `load` calls it.
        where: the folder that holds it, or how to get it.
        n_train: samples of the train part.
        n_test: samples of the test part.
        present: whether it can be loaded without a download.
        origin: authors and publication.

    Example:
        >>> available()[0].name
        'digits'
    """

    name: str
    where: str
    n_train: int
    n_test: int
    present: bool
    origin: str


def load(
    name: str | os.PathLike[str],
    *,
    split: str = "train",
    pool: int = 1,
    resize: tuple[int, int] | None = None,
    scale: Scale = "auto",
    cache: str | os.PathLike[str] | None = None,
    download: bool = True,
    target: str | None = None,
    drop: Sequence[str] = (),
    real_targets: bool = False,
) -> Dataset:
    """A data set as arrays in [0, 1] with labels.

    Args:
        name: "digits" (comes with scikit-learn; a fixed stratified quarter is the test part), "mnist" or
            "fashion-mnist" (looked for in `$TNML_DATA/<name>`, then in the user's cache, else downloaded),
            a folder with IDX files (see `from_idx`), a .npz file (see `from_npz`), or a .csv or .parquet
            file (see `from_table`). A known name takes precedence over a folder of that name: write `./mnist`
            for the folder.
        split: "train", "test" or "all".
        pool: mean over pool x pool blocks of pixels: `pool=2` takes 28 x 28 to 14 x 14.
        resize: (height, width) to interpolate to, after pooling; see `resize_images`.
        scale: for your own files, as in `from_arrays`; of a table as in `from_table`.
        cache: folder for downloads, instead of the user's cache.
        download: whether a missing set may be downloaded.
        target: of a table, the column to predict.
        drop: of a table, columns to leave out.
        real_targets: whether whole numbers are real targets (float64), not labels.

    Raises:
        InputError: unknown name, missing or damaged files, a failed download, or bad options.

    Example:
        >>> load("digits", pool=2)
        Dataset('digits', split='train', 1346 samples, 16 sites, 4x4)
    """
    choose("split", split, SPLITS)
    known = isinstance(name, str) and name in ("digits", *SHIPPED)
    if not known and is_table(name):
        dataset = read_table(name).dataset(
            split, target=target, drop=drop, scale=scale, real_targets=real_targets
        )
    elif target is not None or drop:
        raise InputError(
            f"target and drop name columns of a table, a .csv or .parquet file, and {name} is none; leave "
            "them out"
        )
    else:
        dataset = _read(name, split, scale, cache, download, real_targets)
        if real_targets:
            dataset = replace(dataset, y=real_numbers(dataset.y, dataset.name))
    if pool != 1:
        dataset = _pooled(dataset, pool)
    return dataset if resize is None else _resized(dataset, resize)


def available(cache: str | os.PathLike[str] | None = None) -> list[DatasetRecord]:
    """The data sets known by name, and whether each is on this machine; nothing is downloaded.

    Args:
        cache: instead of the user's cache.

    Example:
        >>> [record.name for record in available()]
        ['digits', 'mnist', 'fashion-mnist']
    """
    records = [DatasetRecord("digits", "comes with scikit-learn", 1346, 451, True, DIGITS_ORIGIN)]
    for name, shipped in SHIPPED.items():
        folder = locate(name, list(shipped.counts), cache)
        where = (
            f"downloaded when first used, or by `tnml data fetch {name}`" if folder is None else str(folder)
        )
        counts = shipped.counts
        records.append(
            DatasetRecord(name, where, counts["train"], counts["test"], folder is not None, shipped.origin)
        )
    return records


def _read(
    name: str | os.PathLike[str],
    split: str,
    scale: Scale,
    cache: str | os.PathLike[str] | None,
    download: bool,
    real_targets: bool,
) -> Dataset:
    """Resolves what `name` refers to and reads it."""
    if name == "digits" or (isinstance(name, str) and name in SHIPPED):
        if not isinstance(scale, str) or scale != "auto":
            raise InputError(f"{name} is already in [0, 1]; leave scale at 'auto', got {scale!r}")
        return _digits(split) if name == "digits" else _shipped(name, split, cache, download)
    path = user_path(name)
    if path.is_dir():
        return idx.from_idx(path, split, scale=scale)
    if path.suffix == ".npz":
        return from_npz(path, split, scale=scale, real_targets=real_targets)
    if path.is_file():
        raise InputError(
            f"{path} is neither a .npz file nor a folder with IDX files, nor a .csv or .parquet table; "
            "convert it with numpy.savez"
        )
    if isinstance(name, str) and path.name == name:
        choose("data set", name, dict.fromkeys(("digits", *SHIPPED, "FOLDER", "FILE.npz", "FILE.csv")))
    names = ", ".join(("digits", *SHIPPED))
    raise InputError(
        f"no file or folder at {path}; give {names}, a folder with IDX files, a .npz file or a table"
    )


def _digits(split: str) -> Dataset:
    """scikit-learn's 1797 digits, 8 x 8, 0 to 16."""
    from sklearn.datasets import load_digits  # loaded when used: keeps `import tnml` quick

    images, labels = load_digits(return_X_y=True)
    x, y = images.reshape(-1, 8, 8), labels
    if split == "all":
        return from_arrays(x, y, "digits", split=split, scale=(0, 16), provenance=DIGITS_ORIGIN)
    train, test = held_out_quarter(y)
    parts: dict[str, Part] = {"train": lambda: (x[train], y[train]), "test": lambda: (x[test], y[test])}
    origin = f"{DIGITS_ORIGIN}; a stratified quarter held out"
    return from_parts(parts, split, name="digits", scale=(0, 16), provenance=origin)


def _shipped(name: str, split: str, cache: str | os.PathLike[str] | None, download: bool) -> Dataset:
    """A split of a downloadable set, whose size and shape must be those of the original."""
    shipped = SHIPPED[name]
    folder = locate(name, SPLITS[split], cache)
    if folder is None and not download:
        raise InputError(
            f"{name} is neither in ${VARIABLE}/{name} nor in {cache_folder(cache) / name}; "
            f"set {VARIABLE}, or let it be downloaded (`tnml data fetch {name}`)"
        )
    place = fetch(name, cache=cache) if folder is None else folder
    parts: dict[str, Part] = {}
    for part in SPLITS[split]:
        pair = idx.find_part(place, part)
        if pair is None:
            raise InputError(f"{place} holds no {part} part of {name}; remove the folder and fetch it again")
        parts[part] = _original(name, part, *pair)
    return from_parts(parts, split, name=name, scale="pixels", provenance=shipped.origin)


def _original(name: str, part: str, images: Path, labels: Path) -> Part:
    """Reads a pair of IDX files that must have the original number and shape of images."""
    shipped = SHIPPED[name]
    expected = (shipped.counts[part], *shipped.image_shape)

    def read() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        x, y = idx.read_part(images, labels)
        if x.shape != expected:
            raise InputError(
                f"{images} holds {list(x.shape)}, but {name} {part} is {list(expected)}; "
                "replace it with the original, or load your own set by its folder"
            )
        return x, y

    return read


def _sides(dataset: Dataset, option: str) -> tuple[int, int]:
    if dataset.image_shape is None:
        raise InputError(
            f"{option} needs images, but {dataset.name} has plain columns; give x as [n, height, width]"
        )
    return dataset.image_shape


def _pooled(dataset: Dataset, factor: int) -> Dataset:
    height, width = _sides(dataset, "pool")
    x = pool_images(dataset.x, (height, width), factor)
    note = f"{dataset.provenance}; mean over {factor}x{factor} blocks"
    return replace(dataset, x=x, image_shape=(height // factor, width // factor), provenance=note)


def _resized(dataset: Dataset, size: tuple[int, int]) -> Dataset:
    x = resize_images(dataset.x, _sides(dataset, "resize"), size)
    note = f"{dataset.provenance}; resized to {size[0]}x{size[1]}"
    return replace(dataset, x=x, image_shape=(size[0], size[1]), provenance=note)
