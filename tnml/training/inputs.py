"""Inputs of supervised training as checked tensors, and what a layer makes of them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tnml.errors import InputError

Array = npt.NDArray[Any] | Tensor


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
        InputError: the outputs are not one tensor of real numbers `[b, c]`.

    Example:
        >>> outputs_of(nn.Linear(2, 3), torch.ones(1, 2))
        3
    """
    first = next(layer.parameters(), x)
    outputs = _of_one(layer, x[:1].to(first.dtype.to_real()))
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"the layer must give one tensor of outputs [b, c], got a {type(outputs).__name__}; wrap it in a "
            "module whose forward returns the outputs alone"
        )
    if outputs.dim() != 2 or outputs.is_complex():
        raise InputError(
            f"the layer must give real outputs [b, c], got {outputs.dtype} {list(outputs.shape)}"
        )
    return int(outputs.shape[1])


def _of_one(layer: nn.Module, sample: Tensor) -> Any:
    """What the layer makes of one sample, in eval mode."""
    first = next(layer.parameters(), sample)
    was_training = layer.training
    try:
        return layer.eval()(sample.to(first.device))
    finally:
        layer.train(was_training)


@torch.no_grad()
def refusal(layer: nn.Module, raw: Any) -> str | None:
    """What the layer says to whole numbers such as raw bytes; None where it takes them, or there are none.

    Training turns inputs into floats. Raw bytes would pass then where the layer itself refuses them, and
    features of values far beyond 1 make losses of 1e14.

    Args:
        layer: that will be trained.
        raw: `[b, ...]` inputs as they were given.

    Example:
        >>> from tnml.nn import MPSLayer
        >>> refusal(MPSLayer(2, 2), np.array([[0, 255]], np.uint8))
        'features need a floating-point tensor, got torch.uint8; convert pixels by x.float() / 255'
        >>> refusal(nn.Linear(2, 2), np.array([[0, 255]], np.uint8)) is None
        True
    """
    if not _are_whole(raw):
        return None
    try:
        _of_one(layer, raw[:1] if isinstance(raw, Tensor) else torch.from_numpy(np.array(raw[:1])))
    except InputError as error:
        return str(error)
    except Exception:  # noqa: BLE001 (torch's modules have no words for it: they take floats, and get them)
        return None
    return None


def check_whole(name: str, raw: Any, refused: str | None) -> None:
    """Raises where whole numbers other than 0 and 1 would reach a layer that refuses them.

    Args:
        name: what the error calls them.
        raw: inputs as they were given.
        refused: what `refusal` found.

    Raises:
        InputError: with the words of the layer.

    Example:
        >>> check_whole("x", np.array([[0, 1]]), "they are refused")
        >>> check_whole("x", np.array([[0, 2]]), "they are refused")
        Traceback (most recent call last):
        tnml.errors.InputError: x holds whole numbers from 0 to 2: they are refused
    """
    if refused is None or not _are_whole(raw):
        return
    values = np.asarray(raw.detach().cpu() if isinstance(raw, Tensor) else raw)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 1:
        raise InputError(f"{name} holds whole numbers from {low} to {high}: {refused}")


def _are_whole(raw: Any) -> bool:
    """Whether an array or tensor has a dtype of integers; truth values are none."""
    if isinstance(raw, Tensor):
        return not (raw.dtype.is_floating_point or raw.dtype.is_complex or raw.dtype == torch.bool)
    return isinstance(raw, np.ndarray) and raw.dtype.kind in "iu"


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
        else as_tensor(name, values, "convert it to float32")
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


def as_tensor(name: str, values: object, advice: str) -> Tensor:
    """`values` as a tensor that may be written to, a copy where torch cannot share the array.

    Args:
        name: what the error calls them.
        values: an array or what makes one.
        advice: what to do where they hold no numbers.

    Raises:
        InputError: they are no array of numbers.

    Example:
        >>> as_tensor("x", [[1, 2]], "convert it").shape
        torch.Size([1, 2])
    """
    if isinstance(values, Dataset | DataLoader):
        raise InputError(
            f"{name} must be an array or a tensor here, got a {type(values).__name__}; train_classifier, "
            "train_regressor and train_density take one in the place of x, without y"
        )
    if values is None:
        raise InputError(f"{name} is missing; only a density has no targets")
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
