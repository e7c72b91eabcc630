"""The record every data set becomes, and how arrays are checked, scaled to [0, 1] and put into it."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tnml.checks import entries
from tnml.data.scaling import clipping
from tnml.errors import InputError, choose

Scale: TypeAlias = str | tuple[int | float, int | float]  # "auto", "pixels", "minmax" or (low, high)
Part: TypeAlias = Callable[[], tuple[npt.NDArray[Any], npt.NDArray[Any]]]

PIXELS = "pixels / 255"
"""What the provenance says where bytes were divided by 255."""

_BRIGHT = 128  # bytes that reach it are taken for pixels of 0 to 255, others are not


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Samples in [0, 1] with their labels, and where they came from.

    Attributes:
        x: `[n, sites]` float32, every value in [0, 1]; images are flattened row by row.
        y: `[n]` labels (int64 for whole numbers) or real targets.
        name: what the set is called.
        split: "train", "test" or "all".
        image_shape: (height, width) with height * width = sites, or None for plain columns.
        provenance: source, scaling and pooling in one line.
        feature_names: of the columns of a table; None where they have none.
        feature_range: `[2, sites]`, which values of each column of a table became 0 and 1; else None.

    Raises:
        InputError: the shapes do not fit each other, there is no sample, or a value is outside [0, 1].

    Example:
        >>> Dataset(np.zeros((5, 6), np.float32), np.arange(5), "blank", "all", (2, 3), "made here")
        Dataset('blank', split='all', 5 samples, 6 sites, 2x3)
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[Any]
    name: str
    split: str
    image_shape: tuple[int, int] | None
    provenance: str
    feature_names: tuple[str, ...] | None = None
    feature_range: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or self.x.dtype != np.float32 or self.x.size == 0:
            raise InputError(
                f"{self.name}: x must be a non-empty float32 array [n, sites], got {self.x.dtype} "
                f"{list(self.x.shape)}; `from_arrays` converts and scales"
            )
        if self.y.shape != (len(self.x),):
            raise InputError(f"{self.name}: y must have shape [{len(self.x)}], got {list(self.y.shape)}")
        if self.image_shape is not None and int(np.prod(self.image_shape)) != self.x.shape[1]:
            raise InputError(
                f"{self.name}: image_shape {self.image_shape} does not fit {self.x.shape[1]} sites"
            )
        if not (self.x.min() >= 0 and self.x.max() <= 1):
            raise InputError(f"{self.name}: x must lie in [0, 1], and not be NaN; `from_arrays` scales")

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        shape = "" if self.image_shape is None else f", {self.image_shape[0]}x{self.image_shape[1]}"
        size = f"{len(self)} samples, {self.x.shape[1]} sites{shape}"
        return f"Dataset({self.name!r}, split={self.split!r}, {size})"

    def subset(self, indices: npt.ArrayLike) -> "Dataset":
        """The samples `indices` (whole numbers or a mask, not empty), in that order, copied.

        Raises:
            InputError: an index is out of range, or none is given.

        Example:
            >>> from_arrays([[0.0], [0.5], [1.0]], ["a", "b", "c"]).subset([2, 0]).y.tolist()
            ['c', 'a']
        """
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or chosen.size == 0 or chosen.dtype.kind not in "iub":
            raise InputError(
                f"{self.name}: a subset needs a non-empty list of indices or a mask, got {indices!r}"
            )
        try:
            x, y = self.x[chosen], self.y[chosen]
        except IndexError as error:
            raise InputError(f"{self.name}: no such samples among {len(self)}: {error}") from error
        return replace(self, x=x, y=y, provenance=f"{self.provenance}; {len(x)} of {len(self)} samples")


def from_arrays(
    x: npt.ArrayLike | Tensor,
    y: npt.ArrayLike | Tensor,
    name: str = "arrays",
    image_shape: tuple[int, int] | None = None,
    *,
    split: str = "all",
    scale: Scale = "auto",
    provenance: str = "arrays",
) -> Dataset:
    """A `Dataset` holding a checked, scaled copy of your arrays.

    Args:
        x: `[n, sites]`, or images `[n, height, width]`, which are flattened and keep their shape; a single
            channel, as in `[n, 1, height, width]` or `[n, height, width, 1]`, is left out.
        y: `[n]` or `[n, 1]` labels (whole numbers, text, booleans) or real targets.
        name: what errors and records call it.
        image_shape: (height, width) of a row of `x`; not needed for images.
        split: recorded as it is.
        scale: "auto" divides bytes (uint8) that reach 128 by 255, for they are pixels, and keeps every other
            value, which must then lie in [0, 1]; "pixels" divides bytes by 255 in any case, but refuses those
            that are nothing but 0 and 1; "minmax" maps the smallest and largest value of the whole array
            to 0 and 1; a pair (low, high) maps that range to [0, 1] and refuses values outside.
        provenance: where the arrays come from; the scaling is added to it.

    Raises:
        InputError: no data, ragged rows, objects, NaN or infinity, values that need scaling,
            or lengths and shapes that do not fit.

    Example:
        >>> from_arrays([[0, 8], [16, 4]], ["no", "yes"], scale=(0, 16)).x
        array([[0.  , 0.5 ],
               [1.  , 0.25]], dtype=float32)
    """
    values = _values(x, name)
    labels = _labels(y, name)
    if len(labels) != len(values):
        raise InputError(
            f"{name}: x has {len(values)} samples but y has {len(labels)}; give one label for each row of x"
        )
    listed = entries(image_shape)
    shape = image_shape = image_shape if listed is None else cast(tuple[int, int], tuple(map(int, listed)))
    if values.ndim == 3:
        shape = (int(values.shape[1]), int(values.shape[2]))
        if image_shape not in (None, shape):
            raise InputError(f"{name}: image_shape {image_shape} contradicts the images, which are {shape}")
        values = values.reshape(len(values), -1)
    scaled, note = _scaled(values, scale, name)
    return Dataset(scaled, labels, name, split, shape, f"{provenance}; {note}" if note else provenance)


def from_parts(parts: Mapping[str, Part], split: str, *, name: str, scale: Scale, provenance: str) -> Dataset:
    """One split of a set that comes in a train and a test part; "all" joins the parts that exist.

    With `scale="minmax"` the range is that of the train part, and test values outside it are clipped, with a
    warning where they are many. With "auto" the train part says whether bytes are pixels.

    Raises:
        InputError: the part asked for is missing, or the parts do not fit each other.

    Example:
        >>> parts = {"train": lambda: (np.array([[0.0], [4.0]]), np.array([0, 1]))}
        >>> from_parts(parts, "train", name="tiny", scale="minmax", provenance="made here").provenance
        'made here; values 0..4 scaled to 0..1'
    """
    wanted = choose("split", split, {"train": ["train"], "test": ["test"], "all": list(parts)})
    if not set(wanted) <= set(parts):
        raise InputError(
            f"{name} has no {split} part, only {', '.join(parts)}; choose that as the split, or add the part"
        )
    read = {part: parts[part]() for part in wanted}
    if isinstance(scale, str) and scale in ("minmax", "auto") and "train" in parts and "test" in read:
        x, y = read["test"]
        train = _values((read["train"] if "train" in read else parts["train"]())[0], name)
        if scale == "minmax":
            scale = _range(train, name)
            read["test"] = _clipped(_values(x, name), scale, name), y
        elif train.dtype == np.uint8 and _array(x, name).dtype == np.uint8:
            scale = "pixels" if train.max() >= _BRIGHT else (0, 1)
    made = [
        from_arrays(x, y, name, split=split, scale=scale, provenance=provenance) for x, y in read.values()
    ]
    if len({(dataset.x.shape[1], dataset.image_shape) for dataset in made}) != 1:
        raise InputError(f"{name}: the parts differ in width: {', '.join(repr(dataset) for dataset in made)}")
    if len(made) == 1:
        return made[0]
    x, y = np.concatenate([d.x for d in made]), np.concatenate([d.y for d in made])
    return Dataset(x, y, name, split, made[0].image_shape, made[0].provenance)


def real_numbers(y: npt.NDArray[Any], name: str) -> npt.NDArray[np.float64]:
    """Numbers as real targets, whole ones and truth values, too.

    Raises:
        InputError: they are text or something else.

    Example:
        >>> real_numbers(np.array([True, False]), "mine")
        array([1., 0.])
    """
    if y.dtype.kind not in "biuf":
        raise InputError(f"{name}: real targets must be numbers, got {y.dtype}; encode them as numbers")
    return y.astype(np.float64)


def _array(data: Any, what: str) -> npt.NDArray[Any]:
    """`data` as an array, tensors included; rows of unequal length are refused."""
    try:
        return np.asarray(data.detach().cpu() if isinstance(data, Tensor) else data)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{what} is not a regular array ({error}); give every sample the same number of values"
        ) from error


def _values(x: Any, name: str) -> npt.NDArray[Any]:
    """The samples as a finite numeric array `[n, sites]` or `[n, height, width]`."""
    values = _array(x, f"{name}: x")
    if values.dtype.kind not in "biuf":
        raise InputError(
            f"{name}: x must hold real numbers, got dtype {values.dtype}; convert it, e.g. x.astype(float)"
        )
    if values.ndim == 4 and (values.shape[1] == 1) != (values.shape[3] == 1):  # both: which is the channel?
        values = values.squeeze(1 if values.shape[1] == 1 else 3)
    if values.ndim not in (2, 3):
        raise InputError(
            f"{name}: x must be [n, sites] or images [n, height, width], got shape {list(values.shape)}; "
            "reshape it (colour images: use one channel, or flatten each image)"
        )
    if values.size == 0:
        raise InputError(
            f"{name}: x is empty (shape {list(values.shape)}); give at least one sample and one site"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = ~np.isfinite(values).reshape(len(values), -1)
        raise InputError(
            f"{name}: x holds {int(bad.sum())} NaN or infinite values, the first in sample "
            f"{int(bad.any(1).argmax())}; remove those samples or fill the gaps"
        )
    return values


def _labels(y: Any, name: str) -> npt.NDArray[Any]:
    """The labels as an array `[n]` of whole numbers (int64), booleans, text or finite reals."""
    labels = _array(y, f"{name}: y")
    if labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(np.str_)
    if labels.dtype.kind not in "biufUS":
        raise InputError(
            f"{name}: y must hold numbers or text, got dtype {labels.dtype}; convert it, e.g. y.astype(str)"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise InputError(
            f"{name}: y must be one label for each sample, shape [n], got {list(labels.shape)}; try y.ravel()"
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        bad = int((~np.isfinite(labels)).sum())
        raise InputError(f"{name}: y holds {bad} NaN or infinite values; remove those samples")
    whole = labels.dtype.kind in "iu" and np.can_cast(labels.dtype, np.int64)
    return labels.astype(np.int64 if whole else labels.dtype)


def _clipped(values: npt.NDArray[Any], ends: tuple[float, float], name: str) -> npt.NDArray[Any]:
    """The values, those beyond both ends cut off; many of them are worth a warning."""
    told = clipping(values.reshape(-1, 1), np.array(ends, np.float64)[:, None])
    if told is not None:
        warnings.warn(f"{name}: in the test part {told}", UserWarning, stacklevel=4)
    cut: npt.NDArray[Any] = np.clip(values, *ends)
    return cut


def _are_pixels(values: npt.NDArray[Any], scale: Scale, name: str) -> bool:
    """Whether values are bytes to be divided by 255.

    Raises:
        InputError: they have to be by `scale`, but are 0 and 1 only.
    """
    if values.dtype != np.uint8 or scale not in ("auto", "pixels"):
        return False
    most = values.max()
    if scale == "pixels" and most == 1:
        raise InputError(
            f"{name}: x holds only 0 and 1, and pixels up to 255 are expected, as in training; pass "
            "scale=(low, high), the range that becomes [0, 1]"
        )
    return bool(most >= _BRIGHT) or scale == "pixels"


def _range(values: npt.NDArray[Any], name: str) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise InputError(f"{name}: every value of x is {low:g}, so min..max cannot be scaled; check the data")
    return low, high


def _scaled(values: npt.NDArray[Any], scale: Scale, name: str) -> tuple[npt.NDArray[np.float32], str]:
    """`values` as a new float32 array in [0, 1], and how it was made."""
    listed = entries(scale)
    scale = scale if listed is None else (listed[0], listed[-1])
    if isinstance(scale, str):
        choose("scale", scale, dict.fromkeys(("auto", "pixels", "minmax")))
    if _are_pixels(values, scale, name):
        pixels = values.astype(np.float32)
        pixels /= 255
        return pixels, PIXELS
    if isinstance(scale, str):
        low, high = _range(values, name) if scale == "minmax" else (0.0, 1.0)
    else:
        low, high = float(scale[0]), float(scale[1])
    if not low < high:
        raise InputError(
            f"scale must be 'auto', 'minmax' or a pair (low, high) with low < high, got {scale!r}"
        )
    least, most = values.min(), values.max()
    if least < low or most > high:
        raise InputError(
            f"{name}: x must lie in [{low:g}, {high:g}], got values from {least:g} to {most:g}; "
            "scale it first, or pass scale='minmax' or scale=(low, high)"
        )
    if scale in ("auto", "pixels"):
        return values.astype(np.float32), ""
    # float64 keeps whole numbers exact; the clip removes a final rounding above 1
    scaled = np.clip((values.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    note = f"values {low:g}..{high:g} scaled to 0..1" if (low, high) != (0, 1) else ""
    return scaled.astype(np.float32), note
