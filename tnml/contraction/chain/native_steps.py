"""Training steps of a chain with its label core by one call of the native engine, many of them if wanted.

Between two steps nothing comes back to Python: at a few sites a step through autograd takes a hundred times
as long as its arithmetic. Everything runs on one thread.
"""

import ctypes
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tnml.contraction.chain import native, slots, step_slots
from tnml.contraction.chain.shape import ChainShape
from tnml.contraction.chain.workers import worker

STEPS = worker("steps_worker")
LOSSES = {"cross-entropy": step_slots.CROSS_ENTROPY, "mse": step_slots.SQUARED_ERROR}
_Vector = ctypes.c_int64 * step_slots.N_SLOTS


class Adam(NamedTuple):
    """Adam or AdamW with the state that it has now; tensors are those of the cores and of the label core.

    Attributes:
        means: of the gradients; they are updated.
        squares: the same of their squares.
        steps: taken so far.
        betas: the decays of both.
        eps: added to the root of the squares.
        decay: of the weights.
        decoupled: whether it is AdamW.
        clip: longest gradient; 0 clips nothing.
    """

    means: tuple[Tensor, Tensor]
    squares: tuple[Tensor, Tensor]
    steps: int
    betas: tuple[float, float]
    eps: float
    decay: float
    decoupled: bool
    clip: float = 0.0

    def rates(self, rates: Sequence[float]) -> np.ndarray:
        """The table of rates of the next steps."""
        beta1, beta2 = self.betas
        after = range(self.steps + 1, self.steps + 1 + len(rates))
        return np.array(
            [
                (rate, rate / (1 - beta1**step), math.sqrt(1 - beta2**step))
                for rate, step in zip(rates, after, strict=True)
            ]
        )


class NativeSteps:
    """Steps on one layer's chain; it keeps the memory that they need.

    Args:
        shape: bonds and label site.
        outputs: how many c.
        loss: a name of `LOSSES`.
        smoothing: share of the target spread evenly over the classes, of "cross-entropy".
    """

    def __init__(self, shape: ChainShape, outputs: int, loss: str, smoothing: float = 0.0) -> None:
        self.shape, self.outputs = shape, outputs
        self._ends = shape.left[-1], shape.right[0]
        self.gradients = torch.zeros(shape.n_weights), torch.zeros(self._ends[0], outputs, self._ends[1])
        self._numbers = np.zeros(step_slots.N_NUMBERS)
        self._numbers[step_slots.SMOOTHING] = smoothing
        self._largest = 0
        self._buffers: dict[int, Tensor] = {}
        self._passes: dict[tuple[int, ...], tuple[object, ...]] = {}
        self._q = q = _Vector()
        for slot, value in (
            (step_slots.LOSS, LOSSES[loss]),
            (step_slots.NUMBERS, self._numbers.ctypes.data), (step_slots.N_WEIGHTS, shape.n_weights),
            (step_slots.N_LEFT, self._ends[0]), (step_slots.N_RIGHT, self._ends[1]),
            (step_slots.N_OUTPUTS, outputs), (step_slots.FORWARD, native.FORWARD.address),
            (step_slots.BACKWARD, native.BACKWARD.address),
            (step_slots.OF_WEIGHT, self.gradients[0].data_ptr()),
            (step_slots.OF_LABEL, self.gradients[1].data_ptr()),
        ):  # fmt: skip
            q[slot] = value

    def take(
        self,
        features: Tensor,
        y: Tensor,
        counts: Tensor | None,
        sizes: Sequence[int],
        rates: Sequence[float],
        parameters: tuple[Tensor, Tensor],
        adam: Adam,
    ) -> list[list[float]]:
        """The losses and the right answers of each step before it is taken, summed over its samples.

        Args:
            features: `[b, n, d]` of the samples of all steps, float32.
            y: `[b]` labels in range, int64, or `[b, c]` targets, float32; contiguous.
            counts: `[b]` weights of the samples, contiguous; None: all count alike.
            sizes: samples of each step.
            rates: learning rate of each step.
            parameters: the cores `[shape.n_weights]` and the label core `(l, c, r)`, contiguous; they move.
            adam: its tensors are updated.
        """
        self._make_room(max(sizes))
        q, table = self._q, np.zeros((len(sizes), step_slots.N_COLUMNS), dtype=np.int64)
        for row, samples in zip(table, sizes, strict=True):
            row[:] = self._vectors(samples, features, parameters[0])
        corrected = adam.rates(rates)
        self._numbers[step_slots.BETA1 :] = (*adam.betas, adam.eps, adam.decay, adam.decoupled, adam.clip)
        sums = np.zeros((len(sizes), 2))
        for slot, value in (
            (step_slots.STEPS, len(sizes)), (step_slots.TABLE, table.ctypes.data),
            (step_slots.SUMS, sums.ctypes.data),
            (step_slots.RATES, corrected.ctypes.data), (step_slots.OF_SAMPLE, 4 * features.stride(0)),
            (step_slots.INPUTS, features.data_ptr()), (step_slots.TARGETS, y.data_ptr()),
            (step_slots.COUNTS, 0 if counts is None else counts.data_ptr()),
            (step_slots.WEIGHT, parameters[0].data_ptr()), (step_slots.LABEL, parameters[1].data_ptr()),
            (step_slots.MEANS, adam.means[0].data_ptr()), (step_slots.SQUARES, adam.squares[0].data_ptr()),
            (step_slots.MEANS_LABEL, adam.means[1].data_ptr()),
            (step_slots.SQUARES_LABEL, adam.squares[1].data_ptr()),
        ):  # fmt: skip
            q[slot] = value
        STEPS.call(q)
        found: list[list[float]] = sums.T.tolist()
        return found

    def _make_room(self, samples: int) -> None:
        """Memory for batches of this size."""
        if samples <= self._largest:
            return
        (left, right), outputs = self._ends, self.outputs
        sizes = native.Sizes.of(self.shape, samples, 1)
        self._buffers = {
            step_slots.LEFT_ENDS: torch.ones(samples * left),  # what an empty half hands over
            step_slots.RIGHT_ENDS: torch.ones(samples * right),
            step_slots.BOTH: torch.empty(samples * outputs * right),
            step_slots.VALUES: torch.empty(samples * outputs),
            step_slots.OF_LEFT: torch.empty(samples * left),
            step_slots.OF_RIGHT: torch.empty(samples * right),
            step_slots.POWERS: torch.zeros(2 * sizes.columns, dtype=torch.int32),
        }
        for slot, buffer in self._buffers.items():
            self._q[slot] = buffer.data_ptr()
        self._largest = samples
        self._passes.clear()

    def _vectors(self, samples: int, features: Tensor, weight: Tensor) -> tuple[int, int, int, int]:
        """The row of the table of steps for a batch of this size."""
        key = samples, weight.data_ptr(), *features.stride()
        found = self._passes.get(key)
        if found is None:
            if len(self._passes) > 8:  # the parameters moved again and again
                self._passes.clear()
            found = self._passes[key] = self._pair(samples, features, weight)
        row: tuple[int, int, int, int] = found[0]  # type: ignore[assignment]
        return row

    def _pair(self, samples: int, features: Tensor, weight: Tensor) -> tuple[object, ...]:
        forward = native.plan(self.shape, samples, 1, 1, False, False)
        backward = native.plan(self.shape, samples, 1, 1, True, False)
        state, scratch = torch.empty(forward.sizes.state), torch.empty(max(forward.scratch, backward.scratch))
        of, back = (native.vector(plan, features, weight, state, scratch) for plan in (forward, backward))
        buffers = {slot: buffer.data_ptr() for slot, buffer in self._buffers.items()}
        of[slots.LEFT], of[slots.RIGHT] = buffers[step_slots.LEFT_ENDS], buffers[step_slots.RIGHT_ENDS]
        of[slots.EXPONENTS] = buffers[step_slots.POWERS]
        back[slots.LEFT], back[slots.RIGHT] = buffers[step_slots.OF_LEFT], buffers[step_slots.OF_RIGHT]
        back[slots.GRADIENT] = self.gradients[0].data_ptr()
        back[slots.ADJOINTS] = scratch.data_ptr() + 4 * backward.shared
        address = ctypes.addressof
        return (
            (samples, address(of), address(back), forward.sizes.columns),
            of, back, state, scratch, forward, backward,
        )  # fmt: skip
