"""Data sets as arrays in [0, 1] with labels: by name, from your files, from your arrays."""

from tnml.data.catalogue import DatasetRecord, available, load
from tnml.data.dataset import Dataset, from_arrays
from tnml.data.download import fetch
from tnml.data.idx import from_idx
from tnml.data.npz import from_npz
from tnml.data.splits import stratified_split
from tnml.data.tables import from_table
from tnml.data.transforms import pool_images, random_shift, resize_images, shift_images

__all__ = [
    "Dataset",
    "DatasetRecord",
    "available",
    "fetch",
    "from_arrays",
    "from_idx",
    "from_npz",
    "from_table",
    "load",
    "pool_images",
    "random_shift",
    "resize_images",
    "shift_images",
    "stratified_split",
]
