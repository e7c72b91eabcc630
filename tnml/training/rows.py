"""Samples that are read when they are needed: files mapped by NumPy, and PyTorch's Datasets."""

import mmap
import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, default_collate

from tnml.errors import InputError

Index = npt.NDArray[np.int64]

_PAIRS = "(x, y) pairs, or x alone for a density"


class Rows(Protocol):
    """Samples by their numbers. Inputs and targets come as they are: to check them is the reader's part."""

    def __len__(self) -> int:
        """How many there are."""

    def rows(self, index: Index) -> tuple[Any, Any]:
        """Inputs and targets (None where there are none) of some rows, whose numbers ascend."""

    def hint(self, index: Index) -> None:
        """Says which rows will be asked for next."""

    def targets(self) -> Tensor | None:
        """All targets where they can be had without the inputs, else None."""

    def facts(self) -> dict[str, str | int | float]:
        """What else has to be the same when a run is resumed."""


def is_mapped(values: object) -> bool:
    """Whether `values` lie in a file that NumPy has mapped; what arithmetic makes of such an array does not.

    Example:
        >>> is_mapped(np.zeros(3))
        False
    """
    return isinstance(values, np.memmap) and values.filename is not None and values.size > 0


class MappedArray:
    """Reads rows of a mapped file, without the mapping: its pages would count as this process's memory.

    Rows that lie in one piece are read with the system's `pread`, which costs a fifth of what the page faults
    of a mapping cost; others (and all on Windows) through a mapping that lasts for one call. A mapping that
    cannot be opened once more (its file was removed, or changes are kept in memory, mode "c") is read itself.

    Args:
        name: what errors call it.
        values: the mapped array, or any view of one.

    Raises:
        InputError: the file becomes shorter while it is in use.

    Example:
        >>> from tempfile import NamedTemporaryFile
        >>> with NamedTemporaryFile() as file:
        ...     _ = file.write(np.arange(6, dtype=np.float32).tobytes())
        ...     file.flush()
        ...     MappedArray("x", np.memmap(file.name, np.float32, "r", shape=(3, 2))).rows(np.array([0, 2]))
        array([[0., 1.],
               [4., 5.]], dtype=float32)
    """

    def __init__(self, name: str, values: np.memmap[Any, Any]) -> None:
        self.name, self.shape, self.dtype = name, values.shape, values.dtype
        self._strides, self._path = values.strides, Path(values.filename or "").absolute()
        self._offset, self._end = _place(values)
        self._row = int(values[:1].nbytes) if values[0].flags.c_contiguous and hasattr(os, "preadv") else 0
        self._given: npt.NDArray[Any] | None = None
        self._opened: int | None = None
        try:
            self._file = self._path.stat().st_ino
            ends = np.array([0, len(values) - 1])
            same = values.mode != "c" and self.rows(ends).tobytes() == np.asarray(values)[ends].tobytes()
        except (OSError, InputError):
            same = False
        if not same:
            self._given, self._row = np.asarray(values), 0

    def __len__(self) -> int:
        return int(self.shape[0])

    @property
    def file_size(self) -> int:
        """Bytes of the whole file."""
        return os.fstat(self._descriptor()).st_size if self._given is None else self._given.nbytes

    def rows(self, index: Index) -> npt.NDArray[Any]:
        """A copy of some rows, whose numbers ascend."""
        if not self._row:
            return np.array(self._view()[index])
        file = self._descriptor()
        found = np.empty((len(index), *self.shape[1:]), self.dtype)
        memory = found.reshape(-1).view(np.uint8).data
        for place, start, stop in self._pieces(index):
            piece, at = memory[start * self._row : stop * self._row], place
            while (count := os.preadv(file, [piece], at)) < len(piece):
                if not count:
                    raise self._shorter()
                piece, at = piece[count:], at + count
        return found

    def whole(self) -> npt.NDArray[Any]:
        """A copy of everything."""
        return np.array(self._view())

    def hint(self, index: Index) -> None:
        """Has the system read rows ahead, all at once and while this process goes on."""
        if not self._row or not hasattr(os, "posix_fadvise"):
            return
        file = self._descriptor()
        for first, start, stop in self._pieces(index):
            os.posix_fadvise(file, first, (stop - start) * self._row, os.POSIX_FADV_WILLNEED)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _descriptor(self) -> int:
        """The open file, opened again in another process."""
        if self._opened is None:
            try:
                found = os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            except OSError as error:
                raise InputError(
                    f"{self.name} is mapped from a file that cannot be opened: {error}"
                ) from error
            weakref.finalize(self, os.close, found)
            if os.fstat(found).st_ino != self._file:
                raise InputError(f"{self.name} is mapped from {self._path}, which is another file by now")
            self._opened = found
        return self._opened

    def _view(self) -> npt.NDArray[Any]:
        """The array, mapped anew."""
        if self._given is not None:
            return self._given
        file = self._descriptor()
        if os.fstat(file).st_size < self._end:  # beyond a file's end a mapping ends the process
            raise self._shorter()
        memory = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
        return np.ndarray(self.shape, self.dtype, memory, self._offset, self._strides)

    def _shorter(self) -> InputError:
        return InputError(
            f"{self.name} is mapped from {self._path}, which has become shorter; leave the file as it is "
            "while it is in use"
        )

    def _pieces(self, index: Index) -> Iterator[tuple[int, int, int]]:
        """Rows that lie one after the other: their place in the file, the first and the last in `index`."""
        follows = np.zeros(len(index), bool)
        if self._strides[0] == self._row:
            follows[1:] = np.diff(index) == 1
        starts = np.flatnonzero(~follows)
        stops = [*starts[1:].tolist(), len(index)]
        places = self._offset + index[starts] * self._strides[0]
        return zip(places.tolist(), starts.tolist(), stops, strict=True)


class MemmapRows:
    """Samples whose inputs lie in a mapped file.

    Args:
        x: `[n, ...]` inputs.
        y: `[n]` or `[n, c]` targets, in memory or in a file; None where there are none.
    """

    def __init__(self, x: MappedArray, y: MappedArray | Tensor | None) -> None:
        self._x, self._y = x, y

    def __len__(self) -> int:
        return len(self._x)

    def rows(self, index: Index) -> tuple[Any, Any]:
        """Copies of some rows."""
        x, y = self._x.rows(index), self._y
        if isinstance(y, Tensor):
            return x, y[torch.from_numpy(index)]
        return x, None if y is None else y.rows(index)

    def hint(self, index: Index) -> None:
        """Has the system read rows ahead."""
        self._x.hint(index)
        if isinstance(self._y, MappedArray):
            self._y.hint(index)

    def targets(self) -> Tensor | None:
        """All targets, where they are in memory."""
        return self._y if isinstance(self._y, Tensor) else None

    def facts(self) -> dict[str, str | int | float]:
        """Dtype and size of the file; a checksum of all of it would take as long as an epoch."""
        return {"data dtype": str(self._x.dtype), "data file bytes": self._x.file_size}


class DatasetRows:
    """Samples of a map-style `torch.utils.data.Dataset`, with its `__getitems__` where it has one.

    Raises:
        InputError: it has no length or no rows, or an item is something else than (x, y) or x.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> DatasetRows(TensorDataset(torch.eye(2), torch.arange(2))).rows(np.array([1]))
        (tensor([[0., 1.]]), tensor([1]))
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise InputError(
                f"a Dataset needs numbered samples and a length, got {type(dataset).__name__}; "
                "give an IterableDataset as a DataLoader"
            )
        self._dataset, self._length = dataset, len(dataset)
        if self._length < 1:
            raise InputError(f"the Dataset {type(dataset).__name__} has no samples")

    def __len__(self) -> int:
        return self._length

    def rows(self, index: Index) -> tuple[Any, Any]:
        """Some rows, stacked."""
        numbers = index.tolist()
        several = getattr(self._dataset, "__getitems__", None)
        items = several(numbers) if callable(several) else [self._dataset[number] for number in numbers]
        if len(items) != len(numbers):
            raise InputError(f"__getitems__ of {len(numbers)} numbers gave {len(items)} samples")
        pairs = [pair_of(item, "a Dataset") for item in items]
        y = None if all(y is None for _, y in pairs) else stacked("y", [y for _, y in pairs])
        return stacked("x", [x for x, _ in pairs]), y

    def hint(self, index: Index) -> None:
        """Nothing: a Dataset knows no way."""

    def targets(self) -> None:
        """None: they come with the inputs."""

    def facts(self) -> dict[str, str | int | float]:
        """The name of its class."""
        return {"data": type(self._dataset).__name__}


def pair_of(item: Any, source: str) -> tuple[Any, Any]:
    """(x, y) of a sample or a batch; y is None where there is none.

    Raises:
        InputError: it is something else.

    Example:
        >>> pair_of((1.0, 2), "a Dataset"), pair_of(torch.ones(1), "a Dataset")
        ((1.0, 2), (tensor([1.]), None))
    """
    if isinstance(item, Tensor | np.ndarray):
        return item, None
    if isinstance(item, tuple | list) and len(item) in (1, 2):
        return item[0], item[1] if len(item) == 2 else None
    size = f" of {len(item)}" if isinstance(item, tuple | list) else ""
    raise InputError(f"{source} must give {_PAIRS}, got {type(item).__name__}{size}")


def stacked(name: str, values: Sequence[Any]) -> Any:
    """Tensors, arrays or numbers of equal shapes as one tensor.

    Raises:
        InputError: they cannot be put together.

    Example:
        >>> stacked("y", [1, 0])
        tensor([1, 0])
    """
    try:
        return default_collate(list(values))
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{name} of several samples cannot be stacked: {error}") from error


def _place(values: np.memmap[Any, Any]) -> tuple[int, int]:
    """Where in its file the first entry of a mapped array begins, and where the last in the file ends."""
    base: Any = values
    while isinstance(base, np.ndarray):
        base = base.base
    mapped = np.frombuffer(base, np.uint8).__array_interface__["data"][0]
    start = values.offset - values.offset % mmap.ALLOCATIONGRANULARITY
    first = start + values.__array_interface__["data"][0] - mapped
    steps = [step * (size - 1) for step, size in zip(values.strides, values.shape, strict=True)]
    return first, first + sum(step for step in steps if step > 0) + values.itemsize
