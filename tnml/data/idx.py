"""The IDX file format of MNIST and its relatives, plain or gzip.

Layout (Y. LeCun, "THE MNIST DATABASE", the page that came with the files): two zero bytes, one byte for
the type of the numbers, one for the number of axes, then the length of each axis as a big-endian 32-bit
number, then the numbers, big-endian, last axis fastest.
"""

import gzip
import io
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tnml.data.dataset import Dataset, Part, Scale, from_parts
from tnml.errors import InputError
from tnml.files import user_path

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
PREFIXES = {"train": ("train",), "test": ("t10k", "test")}
GZIP_MAGIC = b"\x1f\x8b"
CHUNK_BYTES = 1 << 20


def read_idx(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """The array stored in an IDX file, in native byte order; gzip is recognised by its first bytes.

    Never reads more than the header promises, so a lying header or a gzip bomb costs no memory.

    Raises:
        InputError: no such file, not IDX, an unknown number type, or more or fewer bytes than promised.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "a").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        ...     read_idx(Path(folder) / "a")
        array([7, 8, 9], dtype=uint8)
    """
    source = user_path(path)
    if not source.is_file():
        raise InputError(f"no IDX file at {source}; check the path")
    try:
        with open(source, "rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            if not packed:
                return _read(raw, source)
            with gzip.open(raw, "rb") as stream:
                return _read(stream, source)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{source} cannot be read ({error}); it is damaged or truncated: get it again"
        ) from error


def _read(stream: io.BufferedIOBase, source: Path) -> npt.NDArray[Any]:
    start = stream.read(4)
    if len(start) < 4 or start[:2] != b"\0\0":
        raise InputError(
            f"{source} is not an IDX file: expected bytes 00 00, type, axes, got {start.hex(' ') or 'none'}; "
            "give MNIST-like files, plain or gzip"
        )
    if start[2] not in DTYPES:
        known = ", ".join(f"{code:02x} {np.dtype(name).name}" for code, name in DTYPES.items())
        raise InputError(f"{source} has the unknown IDX number type {start[2]:02x}; known types: {known}")
    dtype, axes = np.dtype(DTYPES[start[2]]), start[3]
    if not 1 <= axes <= 8:
        raise InputError(f"{source} claims {axes} axes, expected 1 to 8; the file is damaged or not IDX")
    header = stream.read(4 * axes)
    if len(header) < 4 * axes:
        raise InputError(f"{source} ends inside its header; it is truncated: get it again")
    shape = struct.unpack(f">{axes}I", header)
    promised = dtype.itemsize
    for length in shape:
        promised *= length
    data = bytearray()
    while len(data) <= promised and (chunk := stream.read(min(CHUNK_BYTES, promised + 1 - len(data)))):
        data += chunk
    if len(data) != promised:
        found = "more" if len(data) > promised else f"only {len(data)}"
        raise InputError(
            f"{source} promises {promised} bytes (shape {list(shape)}) but holds {found}; get it again"
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def find_part(folder: Path, part: str) -> tuple[Path, Path] | None:
    """The image file and the label file of the "train" or "test" part in a folder, or None.

    Names are those of MNIST, `train-images-idx3-ubyte` or `t10k-labels.idx1-ubyte`, with or without `.gz`
    and with anything before them (`emnist-letters-train-images-idx3-ubyte.gz`).
    A plain file takes precedence over a packed one.

    Raises:
        InputError: the folder holds several such sets.

    Example:
        >>> find_part(Path("nowhere"), "train") is None
        True
    """
    prefixes = "|".join(PREFIXES[part])
    found: dict[tuple[str, str], Path] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = re.fullmatch(
            rf"((?:.*[-_.])?(?:{prefixes}))-(images|labels)[-.]idx\d-[a-z0-9]+(?:\.gz)?", file.name
        )
        if match:
            found.setdefault((match[1], match[2]), file)
    stems = sorted({stem for stem, kind in found if (stem, "images") in found and (stem, "labels") in found})
    if len(stems) > 1:
        raise InputError(f"{folder} holds several {part} sets ({', '.join(stems)}); keep one set in a folder")
    return (found[stems[0], "images"], found[stems[0], "labels"]) if stems else None


def read_part(images: Path, labels: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Images `[n, ...]` and labels `[n]` of one pair of IDX files, as stored.

    Raises:
        InputError: a file is damaged, the two are swapped, or their numbers of samples differ.

    Example:
        >>> read_part(Path("images"), Path("labels"))
        Traceback (most recent call last):
        tnml.errors.InputError: no IDX file at labels; check the path
    """
    y = read_idx(labels)
    if y.ndim != 1:
        raise InputError(f"{labels} has {y.ndim} axes, but labels have 1; is it an image file?")
    x = read_idx(images)
    if x.ndim not in (2, 3):
        raise InputError(
            f"{images} has {x.ndim} axes, but images have 3 (or 2, flattened); is it a label file?"
        )
    if len(x) != len(y):
        raise InputError(
            f"{images} holds {len(x)} samples but {labels} holds {len(y)}; they do not belong together"
        )
    return x, y


def from_idx(folder: str | os.PathLike[str], split: str = "train", *, scale: Scale = "auto") -> Dataset:
    """A `Dataset` from a folder of MNIST-like IDX files, plain or gzip.

    Args:
        folder: holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and, for the test part, the
            same with `t10k-` or `test-`; names and variants as in `find_part`.
        split: "train", "test" or "all" (the parts there are, joined).
        scale: as in `from_arrays`; with "auto" the train part says whether bytes are pixels.

    Raises:
        InputError: no such folder or files, or damaged ones.

    Example:
        >>> from_idx("nowhere")
        Traceback (most recent call last):
        tnml.errors.InputError: no folder at nowhere; give a folder with IDX files
    """
    place = user_path(folder)
    if not place.is_dir():
        raise InputError(f"no folder at {place}; give a folder with IDX files")
    found = {part: pair for part in PREFIXES if (pair := find_part(place, part))}
    if not found:
        raise InputError(
            f"{place} holds no pair of IDX files; expected train-images-idx3-ubyte and "
            "train-labels-idx1-ubyte (or t10k-...), plain or .gz"
        )
    parts: dict[str, Part] = {part: lambda pair=pair: read_part(*pair) for part, pair in found.items()}  # type: ignore[misc]
    return from_parts(
        parts, split, name=place.resolve().name, scale=scale, provenance=f"IDX files in {place}"
    )
