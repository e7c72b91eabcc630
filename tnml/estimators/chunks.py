"""Data that do not fit in memory, for `partial_fit`: one pass over them in chunks."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from tnml.errors import InputError
from tnml.training.rows import DatasetRows, MappedArray, MemmapRows, Rows, is_mapped, pair_of

ROWS, BYTES = 10_000, 100_000_000  # a chunk is full when it reaches either
_BLOCK = 1000  # rows read at a time

Part = tuple[Any, Any, Any]


def chunks(X: Any, y: Any, sample_weight: Any = None) -> Iterator[Part]:
    """Samples, targets and weights of a mapped file, a Dataset or a DataLoader, about 10,000 at a time.

    If the last chunk is less than half full, it is joined to the one before. Any other data are returned
    unchanged, as one part.

    Args:
        X: the samples.
        y: their targets; None if `X` contains them.
        sample_weight: one for each sample, or None; samples of weight 0 are left out.

    Raises:
        InputError: there are no samples, or the number of targets or weights differs from theirs.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> [(x.shape, y.shape) for x, y, _ in chunks(TensorDataset(torch.ones(3, 2), torch.ones(3)), None)]
        [((3, 2), (3,))]
    """
    if not (isinstance(X, Dataset | DataLoader) or is_mapped(X)):
        yield X, y, sample_weight
        return
    ready: list[Part] = []
    waiting: list[Part] = []
    for block in _blocks(X, y, sample_weight):
        waiting.append(block)
        if _fullness(waiting) >= 1:
            yield from _joined(ready)
            ready, waiting = waiting, []
    if ready and _fullness(waiting) >= 0.5:
        yield from _joined(ready)
        ready = []
    if not (ready or waiting):
        raise InputError("there are no samples, or none with a weight above 0, to train on")
    yield from _joined(ready + waiting)


def _blocks(X: Any, y: Any, sample_weight: Any) -> Iterable[Part]:
    """The samples that count, as arrays, in the portions in which they are read."""
    if isinstance(X, Dataset | DataLoader) and y is not None:
        raise InputError(f"a {type(X).__name__} gives its targets itself; leave y out")
    if isinstance(X, DataLoader):
        if sample_weight is not None:
            raise InputError("sample_weight needs numbered samples; give the Dataset, not its DataLoader")
        for batch in X:
            x, targets = pair_of(batch, "a DataLoader")
            yield np.asarray(x), _array(targets), None
        return
    rows: Rows = DatasetRows(X) if isinstance(X, Dataset) else MemmapRows(MappedArray("X", X), None)
    beside = [_column(name, v, len(rows)) for name, v in (("y", y), ("sample_weight", sample_weight))]
    for start in range(0, len(rows), _BLOCK):
        index = np.arange(start, min(len(rows), start + _BLOCK))
        known, weight = (None if column is None else np.asarray(column[index]) for column in beside)
        if weight is not None:
            there = weight != 0
            index, weight = index[there], weight[there]
            known = None if known is None else known[there]
        if len(index):
            x, own = rows.rows(index)
            yield np.asarray(x), _array(own) if known is None else known, weight


def _column(name: str, values: Any, rows: int) -> Any:
    """Values, one for each sample, as an array."""
    if values is None:
        return None
    found = np.asarray(values)
    if found.ndim == 0 or len(found) != rows:
        raise InputError(f"{name} must have {rows} rows as X has, got shape {list(found.shape)}")
    return found


def _array(values: Any) -> Any:
    return None if values is None else np.asarray(values)


def _fullness(parts: list[Part]) -> float:
    """How many chunks the parts fill."""
    rows, size = sum(len(x) for x, _, _ in parts), sum(int(x.nbytes) for x, _, _ in parts)
    return max(rows / ROWS, size / BYTES)


def _joined(parts: list[Part]) -> Iterator[Part]:
    """The parts as one; nothing if there are none."""
    if parts:
        columns = zip(*parts, strict=True)
        x, y, weight = (None if any(v is None for v in c) else np.concatenate(c) for c in columns)
        yield x, y, weight
