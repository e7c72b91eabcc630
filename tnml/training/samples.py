"""Data of supervised training, checked: inputs, targets, what is held out, what an image is."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tnml.data import stratified_split
from tnml.errors import InputError
from tnml.randomness import generator

Array = npt.NDArray[Any] | Tensor

_SPLIT = 3  # stream of seeds
_ANY_LABELS = "tnml.MPSClassifier takes any labels"


@dataclass(frozen=True)
class Samples:
    """Checked samples of one training.

    Args:
        x: `[b, ...]` inputs.
        y: `[b]` labels or `[b, c]` targets.
        outputs: the layer's outputs c.
        test: the like, measured once after training.
        image_shape: (height, width) where images are shifted.
        labels: whether y are labels.
    """

    x: Tensor
    y: Tensor
    outputs: int
    test: tuple[Tensor, Tensor] | None = None
    image_shape: tuple[int, int] | None = None
    labels: bool = True

    def identity(self) -> dict[str, str | int | float]:
        """What must be the same when a run is resumed: the size, all targets and about a thousand inputs."""
        some = self.x[:: max(1, len(self.x) // 1000)].contiguous()
        checksum = zlib.crc32(some.numpy().tobytes(), zlib.crc32(self.y.numpy().tobytes()))
        return {"samples": len(self.x), "data checksum": checksum}

    def split(self, validation: float, seed: int) -> tuple[Tensor, Tensor]:
        """Indices to train on and to hold out, stratified by label where there are labels.

        Raises:
            InputError: nothing would be left to train on.
        """
        count = len(self.x)
        if not validation:
            return torch.arange(count), torch.arange(0)
        if self.labels:
            keep, held = stratified_split(self.y.numpy(), validation, seed)
            return torch.from_numpy(keep), torch.from_numpy(held)
        order = torch.randperm(count, generator=generator(seed, 0, stream=_SPLIT))
        size = max(1, round(count * validation))
        if size >= count:
            raise InputError(f"validation={validation} of {count} samples leaves none to train on; lower it")
        return order[size:].sort().values, order[:size].sort().values


def labelled_samples(
    layer: nn.Module,
    x: Array,
    y: Array,
    x_test: Array | None,
    y_test: Array | None,
    *,
    precision: str = "auto",
    image_shape: tuple[int, int] | None = None,
    max_shift: int = 0,
) -> Samples:
    """Inputs and labels `0 .. c - 1` for a layer `[b, ...] -> [b, c]`, checked.

    Raises:
        InputError: data and layer do not fit, or an input is not finite.

    Example:
        >>> labelled_samples(nn.Identity(), torch.eye(2), torch.arange(2), None, None).outputs
        2
    """
    dtype = dtype_of(layer, precision)
    outputs = outputs_of(layer, checked_inputs("x", x, dtype))
    inputs, labels = _with_labels("", x, y, dtype, outputs)
    test = None
    if x_test is not None or y_test is not None:
        if x_test is None or y_test is None:
            raise InputError("x_test and y_test go together; give both or neither")
        test = _with_labels("_test", x_test, y_test, dtype, outputs)
    return Samples(inputs, labels, outputs, test, _image_shape(image_shape, inputs, max_shift), labels=True)


def regression_samples(layer: nn.Module, x: Array, y: Array, *, precision: str = "auto") -> Samples:
    """Inputs and real targets `[b]` or `[b, c]` for a layer `[b, ...] -> [b, c]`, checked.

    Raises:
        InputError: data and layer do not fit, or a number is not finite.

    Example:
        >>> regression_samples(nn.Identity(), torch.ones(3, 1), torch.ones(3)).y.shape
        torch.Size([3, 1])
    """
    dtype = dtype_of(layer, precision)
    inputs = checked_inputs("x", x, dtype)
    outputs = outputs_of(layer, inputs)
    targets = checked_inputs("y", y, dtype)
    targets = targets[:, None] if targets.dim() == 1 else targets
    if targets.shape != (len(inputs), outputs):
        raise InputError(
            f"y must be [{len(inputs)}, {outputs}] as x and the layer say, got {list(np.shape(y))}"
        )
    return Samples(inputs, targets, outputs, labels=False)


def dtype_of(layer: nn.Module, precision: str) -> torch.dtype:
    """The real dtype the layer will compute with.

    Example:
        >>> dtype_of(nn.Linear(1, 1), "auto")
        torch.float32
    """
    if precision in ("32", "64"):
        return torch.float32 if precision == "32" else torch.float64
    first = next(layer.parameters(), torch.zeros(0))
    return first.dtype.to_real() if first.is_complex() or first.is_floating_point() else torch.float32


@torch.no_grad()
def outputs_of(layer: nn.Module, x: Tensor) -> int:
    """The number of outputs c, from one sample.

    Raises:
        InputError: the outputs are not real numbers `[b, c]`.

    Example:
        >>> outputs_of(nn.Linear(2, 3), torch.ones(1, 2))
        3
    """
    first = next(layer.parameters(), x)
    was_training = layer.training
    try:
        outputs = layer.eval()(x[:1].to(first.device, first.dtype.to_real()))
    finally:
        layer.train(was_training)
    if outputs.dim() != 2 or outputs.is_complex():
        raise InputError(
            f"the layer must give real outputs [b, c], got {outputs.dtype} {list(outputs.shape)}"
        )
    return int(outputs.shape[1])


def checked_inputs(name: str, values: Array, dtype: torch.dtype) -> Tensor:
    """A finite real tensor on the CPU, a copy where it has to be one.

    Raises:
        InputError: it is empty, or holds something else.

    Example:
        >>> checked_inputs("x", np.ones((2, 1)), torch.float32).dtype
        torch.float32
    """
    tensor = (
        values.detach().cpu()
        if isinstance(values, Tensor)
        else _as_tensor(name, values, "convert it to float32")
    )
    if tensor.dim() == 0 or len(tensor) == 0:
        raise InputError(
            f"{name} must have one row per sample and at least one, got shape {list(tensor.shape)}"
        )
    if tensor.is_complex():
        raise InputError(f"{name} must be real, got {tensor.dtype}")
    tensor = tensor.to(dtype)
    if not (torch.isfinite(tensor.sum()) or torch.isfinite(tensor).all()):  # a finite sum is the quick proof
        raise InputError(f"{name} holds NaN or infinite values; remove or replace them")
    return tensor


def _as_tensor(name: str, values: object, advice: str) -> Tensor:
    """`values` as a tensor that may be written to, a copy where torch cannot share the array."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"{name} must be an array of numbers ({error})") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} must hold numbers, got an array of {array.dtype}; {advice}")
    dtype = array.dtype.newbyteorder("=")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    shared = array.flags.writeable and dtype == array.dtype and all(step >= 0 for step in array.strides)
    return torch.from_numpy(array if shared else np.array(array, dtype, order="C"))


def _with_labels(suffix: str, x: Array, y: Array, dtype: torch.dtype, outputs: int) -> tuple[Tensor, Tensor]:
    """Checked inputs and labels of equal length."""
    inputs = checked_inputs(f"x{suffix}", x, dtype)
    name = f"y{suffix}"
    labels = y.detach().cpu() if isinstance(y, Tensor) else _as_tensor(name, y, _ANY_LABELS)
    if labels.dtype.is_floating_point or labels.dtype.is_complex:
        raise InputError(f"{name} must be whole numbers, got {labels.dtype}; {_ANY_LABELS}")
    if labels.shape != (len(inputs),):
        raise InputError(f"{name} must have shape [{len(inputs)}] as x{suffix} has, got {list(labels.shape)}")
    if labels.dtype == torch.uint64:  # which has no minimum; what does not fit is negative and refused
        labels = labels.to(torch.int64)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= outputs:
        raise InputError(f"{name} must lie in 0..{outputs - 1}, the layer's outputs, got {low}..{high}")
    return inputs, labels.to(torch.int64)


def _image_shape(shape: tuple[int, int] | None, x: Tensor, max_shift: int) -> tuple[int, int] | None:
    """The shape shifts work on; checked only where shifts are asked for."""
    if not max_shift:
        return None
    if x.dim() != 2:
        raise InputError(f"max_shift moves images [n, height * width], got x of shape {list(x.shape)}")
    side = round(x.shape[1] ** 0.5)
    height, width = shape or (side, side)
    if height * width != x.shape[1]:
        raise InputError(
            f"images of {x.shape[1]} values are not {height} x {width}; give image_shape=(height, width)"
        )
    if max_shift >= min(height, width):
        raise InputError(f"max_shift must be below the smaller side of {height} x {width}, got {max_shift}")
    return height, width
