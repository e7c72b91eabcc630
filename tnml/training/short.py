"""Steps of supervised training by one call of the native engine, where layer, loss and optimiser allow it."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tnml.contraction.chain.loading import native_steps
from tnml.loop.options import LoopOptions
from tnml.loop.protocols import Batch, Sums
from tnml.nn.native import LabelledChain, NativeLayer, native_chain_of
from tnml.torch_private import group_of_plain_adam, settings_of_adam, state_of_adam

MOST_WORK = 2e6  # operations of a forward pass: beyond, its arithmetic takes longer than all around it


class ShortSteps:
    """The short way through the steps of one run; see `tnml.loop.protocols.ShortWay`.

    Numbers differ from those of the long way by rounding. Whether the way is open depends on the layer, the
    loss, the optimiser and the size of a batch, never on who watches the run or how many steps are taken
    together, so that runs resume to the same bits.

    Args:
        module: what is trained.
        loss: "cross-entropy" or "mse".
        smoothing: of the labels.
        optimizer: of the run.
        options: `clip_norm` is read.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: str,
        smoothing: float,
        optimizer: torch.optim.Optimizer,
        options: LoopOptions,
    ) -> None:
        self._module, self._optimizer = module, optimizer
        self._loss, self._smoothing, self._clip = loss, smoothing, options.clip_norm or 0.0
        # what a full batch takes decides, so that the last one of an epoch does not go another way
        self._full_batch = options.record().get("batch_size", 0)
        self._steps: Any = None

    def is_open(self, samples: int) -> bool:
        """Whether a step on a batch of this size can be taken."""
        return self._chain(samples) is not None

    def take(self, batch: Batch, sizes: Sequence[int], rates: Sequence[float]) -> Sums | None:
        """Takes steps; for each the sums of the loss and its metrics over the samples. None: it took none."""
        chain, engine = self._chain(max(sizes)), native_steps()
        if chain is None or engine is None:
            return None
        parameters, outputs = (chain.weight, chain.label), chain.label.shape[1]
        targets = _targets(batch.y, outputs, self._loss)
        states = [state_of_adam(self._optimizer, p) for p in parameters]
        if targets is None or len(targets) != sum(sizes) or states[0]["step"] != states[1]["step"]:
            return None
        if self._steps is None or self._steps.shape is not chain.shape:
            self._steps = engine.NativeSteps(chain.shape, outputs, self._loss, self._smoothing)
        counts = None if batch.weight is None else batch.weight.float().contiguous()
        with torch.no_grad():
            features = cast("NativeLayer", self._module).local_features(batch.x).resolve_neg()
            adam = engine.Adam(
                means=tuple(state["exp_avg"] for state in states),
                squares=tuple(state["exp_avg_sq"] for state in states),
                steps=int(states[0]["step"]),
                clip=self._clip,
                **settings_of_adam(self._optimizer),
            )
            found = self._steps.take(features, targets, counts, sizes, rates, parameters, adam)
            for state in states:
                state["step"] += len(sizes)
        torch.autograd.graph.increment_version(parameters)
        for parameter, gradient in zip(parameters, self._steps.gradients, strict=True):
            if parameter.grad is not gradient:
                parameter.grad = gradient
        return {"loss": found[0], "accuracy": found[1]} if batch.y.dim() == 1 else {"loss": found[0]}

    def _chain(self, samples: int) -> LabelledChain | None:
        """The chain if steps on that many samples can be taken."""
        chain = native_chain_of(self._module)
        if chain is None or max(samples, self._full_batch) * chain.shape.flops_forward > MOST_WORK:
            return None
        group = group_of_plain_adam(self._optimizer)
        if group is None or [id(p) for p in group["params"]] != [id(chain.weight), id(chain.label)]:
            return None
        return chain


def _targets(y: Tensor, outputs: int, loss: str) -> Tensor | None:
    """The targets as the native engine takes them; None where they are not what the loss wants."""
    if loss == "mse":
        return y.contiguous() if y.dtype == torch.float32 and y.shape[1:] == (outputs,) else None
    if y.dtype != torch.int64 or y.dim() != 1 or not len(y):
        return None
    least, most = torch.aminmax(y)
    return y.contiguous() if int(least) >= 0 and int(most) < outputs else None
