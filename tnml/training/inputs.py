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
