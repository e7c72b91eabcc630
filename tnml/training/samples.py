"""Data of supervised training, checked: inputs, targets, weights, what is held out, what an image is."""

import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tnml.data import stratified_split
from tnml.errors import InputError
from tnml.randomness import Stream, generator
from tnml.training.inputs import Array, check_whole, checked_inputs, dtype_of, outputs_of, refusal
from tnml.training.tasks import Task


@dataclass(frozen=True)
class Part:
    """Some of the samples of one training.

    Attributes:
        x: `[b, ...]` inputs.
        y: `[b]` labels or `[b, c]` targets.
        index: `[b]` their rows in the arrays that were handed in.
        weight: `[b]` of mean 1, or None.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    weight: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Checked samples of one training.

    Args:
        x: `[b, ...]` inputs.
        y: `[b]` labels or `[b, c]` targets.
        outputs: the layer's outputs c.
        task: what is to be learned.
        test: the like, measured once after training.
        image_shape: (height, width) where images are shifted.
        index: `[b]` rows in the arrays handed in, which had samples of weight 0, too; None: all of them.
        weight: `[b]` positive, or None.
    """

    x: Tensor
    y: Tensor
    outputs: int
    task: Task
    test: tuple[Tensor, Tensor] | None = None
    image_shape: tuple[int, int] | None = None
    index: Tensor | None = None
    weight: Tensor | None = None

    def identity(self) -> dict[str, str | int | float]:
        """What must be the same when a run is resumed: the size, all targets and about a thousand inputs."""
        some = self.x[:: max(1, len(self.x) // 1000)]
        found: dict[str, str | int | float] = {"samples": len(self.x)}
        found["data checksum"] = checksum(self.y, some)
        if self.weight is not None:
            found["weights checksum"] = checksum(self.weight)
        return found

    def split(self, validation: float, seed: int) -> tuple[Tensor, Tensor]:
        """Indices to train on and to hold out, stratified by label where there are labels.

        Raises:
            InputError: nothing would be left to train on.
        """
        return split_rows(len(self.x), self.y if self.task.stratified else None, validation, seed)

    def parts(self, validation: float, seed: int) -> tuple[Part, Part]:
        """The samples to train on, and those held out; weights have mean 1 in each.

        Raises:
            InputError: nothing would be left to train on.
        """
        keep, held = self.split(validation, seed)
        if not len(held):
            index = torch.arange(len(self.x)) if self.index is None else self.index
            return Part(self.x, self.y, index, of_mean_one(self.weight)), self._part(held)
        return self._part(keep), self._part(held)

    def _part(self, rows: Tensor) -> Part:
        index = rows if self.index is None else self.index[rows]
        weight = None if self.weight is None else of_mean_one(self.weight[rows])
        return Part(self.x[rows], self.y[rows], index, weight)


def samples_for(
    task: Task,
    layer: nn.Module,
    x: Array,
    y: Array | None,
    x_test: Array | None = None,
    y_test: Array | None = None,
    *,
    sample_weight: Array | None = None,
    precision: str = "auto",
    image_shape: tuple[int, int] | None = None,
    max_shift: int = 0,
) -> Samples:
    """Inputs and targets of a task for a layer `[b, ...] -> [b, c]`, checked.

    Args:
        task: what is to be learned.
        layer: gives real outputs `[b, c]`.
        x: `[b, ...]` inputs.
        y: targets as the task wants them.
        x_test: like `x`.
        y_test: like `y`.
        sample_weight: `[b]`, not negative; samples of weight 0 are left out.
        precision: of the training.
        image_shape: (height, width) of an input, for `max_shift`.
        max_shift: whether images are to be shifted.

    Raises:
        InputError: data, weights and layer do not fit, or an input is not finite.

    Example:
        >>> from tnml.training.tasks import CLASSIFICATION
        >>> samples_for(CLASSIFICATION, nn.Identity(), torch.eye(2), torch.arange(2)).outputs
        2
    """
    dtype = dtype_of(layer, precision)
    inputs = checked_inputs("x", x, dtype)
    outputs = outputs_of(layer, inputs)
    check_whole("x", x, refusal(layer, x))
    targets = task.checked("y", y, len(inputs), outputs, dtype)
    test = None
    if x_test is not None or y_test is not None:
        if x_test is None or (y_test is None and y is not None):
            raise InputError("x_test and y_test go together; give both or neither")
        tested = checked_inputs("x_test", x_test, dtype)
        check_whole("x_test", x_test, refusal(layer, x_test))
        test = tested, task.checked("y_test", y_test, len(tested), outputs, dtype)
    weight, index = positive_weights(sample_weight, len(inputs), dtype)
    if index is not None:
        inputs, targets = inputs[index], targets[index]
    return Samples(
        x=inputs,
        y=targets,
        outputs=outputs,
        task=task,
        test=test,
        image_shape=shape_of_images(image_shape, inputs, max_shift),
        index=index,
        weight=weight,
    )


def split_rows(count: int, labels: Tensor | None, validation: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to train on and to hold out, ascending.

    Args:
        count: how many there are.
        labels: `[count]`, of which both parts get the same shares; None draws from all alike.
        validation: share to hold out.
        seed: of the run.

    Raises:
        InputError: nothing would be left to train on.

    Example:
        >>> split_rows(4, None, 0.0, seed=0)
        (tensor([0, 1, 2, 3]), tensor([], dtype=torch.int64))
    """
    if not validation:
        return torch.arange(count), torch.arange(0)
    if labels is not None:
        keep, held = stratified_split(labels.numpy(), validation, seed)
        return torch.from_numpy(keep), torch.from_numpy(held)
    order = torch.randperm(count, generator=generator(seed, 0, stream=Stream.SPLIT))
    size = max(1, round(count * validation))
    if size >= count:
        raise InputError(f"validation={validation} of {count} samples leaves none to train on; lower it")
    return order[size:].sort().values, order[:size].sort().values


def positive_weights(given: Any, rows: int, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """Positive weights, and their rows where others are 0; None where there are none.

    Raises:
        InputError: they are not one finite number, not negative, for each row, or all 0.

    Example:
        >>> positive_weights([2.0, 0.0], 2, torch.float32)
        (tensor([2.]), tensor([0]))
    """
    if given is None:
        return None, None
    weight = checked_inputs("sample_weight", given, dtype)
    if weight.shape != (rows,):
        raise InputError(f"sample_weight must have shape [{rows}] as x has, got {list(weight.shape)}")
    if bool((weight < 0).any()):
        raise InputError(f"sample_weight must not be negative, got {float(weight.min()):g}")
    (index,) = weight.nonzero(as_tuple=True)
    if not len(index):
        raise InputError("every sample_weight is 0, which leaves no sample to train on")
    return (weight, None) if len(index) == rows else (weight[index], index)


def checksum(*tensors: Tensor, start: int = 0) -> int:
    """One number from the bytes of tensors of any dtype, in this order, after those behind `start`.

    Example:
        >>> checksum(torch.ones(2)) == zlib.crc32(torch.ones(2).numpy())
        True
    """
    for tensor in tensors:
        start = zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, start)
    return start


def of_mean_one(weight: Tensor | None) -> Tensor | None:
    """Weights over their mean; equal ones need none.

    Example:
        >>> of_mean_one(torch.tensor([1.0, 3.0]))
        tensor([0.5000, 1.5000])
    """
    if weight is None or not len(weight) or bool((weight == weight[0]).all()):
        return None
    return weight / weight.double().mean().to(weight.dtype)


def shape_of_images(shape: tuple[int, int] | None, x: Tensor, max_shift: int) -> tuple[int, int] | None:
    """The shape shifts work on; checked only where shifts are asked for.

    Raises:
        InputError: inputs `x` are not images of that shape, or the shifts are too large for it.

    Example:
        >>> shape_of_images(None, torch.ones(1, 9), max_shift=1)
        (3, 3)
    """
    if not max_shift:
        return None
    if x.dim() != 2:
        raise InputError(f"max_shift moves images [n, height * width], got x of shape {list(x.shape)}")
    side = round(x.shape[1] ** 0.5)
    height, width = (side, side) if shape is None else (int(length) for length in shape)
    if height * width != x.shape[1]:
        raise InputError(
            f"images of {x.shape[1]} values are not {height} x {width}; give image_shape=(height, width)"
        )
    if max_shift >= min(height, width):
        raise InputError(f"max_shift must be below the smaller side of {height} x {width}, got {max_shift}")
    return height, width
