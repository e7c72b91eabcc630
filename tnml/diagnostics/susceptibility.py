"""Susceptibility to label noise: how readily one step fits labels that mean nothing.

Source: Forouzesh, Sedghi and Thiran, Leveraging unlabeled data to track memorization, arXiv 2212.04461.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tnml.checks import whole
from tnml.diagnostics.isolation import device_beside, devices_of
from tnml.errors import InputError
from tnml.randomness import forked_rng, reseed

LossFn = Callable[[Tensor, Tensor], Tensor]
StepFn = Callable[[nn.Module, Tensor, Tensor], nn.Module | None]
OptimizerOrMaker = torch.optim.Optimizer | Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Susceptibility:
    """Measures phi and zeta once per epoch; give it to `callbacks=` of a training, or call it yourself.

        phi_t = Phi(w_t) - Phi(w~_t),     zeta_t = mean of phi_1 .. phi_t

    Phi is the loss on a batch of inputs with labels drawn at random, and w~ the weights after one step of the
    optimiser on that batch. A low zeta says that the model resists memorising. The step is made by copies of
    model and optimiser (momenta included), in train mode, so training continues undisturbed; the
    learning rate is what it is at the time of the call. Dropout draws the same masks before and after the
    step. Compare models of one data set, optimiser and epoch only.

    Args:
        x_unlabelled: `[n, ...]` inputs, best from outside the training set.
        classes: number of classes; the labels are 0 to classes - 1.
        batch_size: samples of a batch; all of them where there are fewer.
        seed: of batches and labels. Call t draws from (seed, t) alone.
        step_fn: makes the step instead of the optimiser, for training by sweeps: called with a copy of the
            model, the batch and its labels, it changes the copy or returns another model.

    Raises:
        InputError: there is no input, or a number is out of range.

    Cost: about two forward passes, one backward pass and one step on the batch, and a copy of model and
    optimiser.

    Source: Forouzesh et al., arXiv 2212.04461. The mean is the plain one; their notebook leaves out epoch 0
    and still divides by t.

    Example:
        >>> net = nn.Linear(3, 2)
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> probe = Susceptibility(torch.rand(8, 3), classes=2)
        >>> row = probe(net, optimizer)
        >>> sorted(row), row["phi"] == row["zeta"], row["phi"] > 0
        (['phi', 'zeta'], True, True)
    """

    def __init__(
        self,
        x_unlabelled: Tensor,
        classes: int,
        batch_size: int = 128,
        seed: int = 0,
        *,
        step_fn: StepFn | None = None,
    ) -> None:
        self.classes = whole("classes", classes, 2)
        self.batch_size, self.seed = whole("batch_size", batch_size, 1), whole("seed", seed)
        if x_unlabelled.dim() < 2 or not len(x_unlabelled):
            raise InputError(
                f"expected unlabelled inputs [n, ...], at least one, got shape {list(x_unlabelled.shape)}"
            )
        self.x, self.step_fn = x_unlabelled, step_fn
        self.phi: list[float] = []

    def __call__(
        self,
        model: nn.Module,
        optimizer: OptimizerOrMaker | None = None,
        loss_fn: LossFn | Mapping[str, float] = cross_entropy,
    ) -> dict[str, float]:
        """One row: phi of this call, and zeta, the mean of all phi so far.

        Args:
            model: `[b, ...]` to logits `[b, c]`.
            optimizer: that of the training. Or a function that makes one for given parameters, where the real
                one is out of reach: the step then has no history, and phi is not that of the paper. None only
                with `step_fn`.
            loss_fn: mean loss of logits `[b, c]` and labels `[b]`. A row of the history, which callbacks get
                here, stands for the cross-entropy.

        Raises:
            InputError: the optimiser is missing, or holds no parameter of the model.
        """
        measured = cross_entropy if isinstance(loss_fn, Mapping) else loss_fn
        device = device_beside(model, self.x)
        memo: dict[int, Any] = {}
        with forked_rng(*devices_of(model)), torch.inference_mode(False):
            x, labels, masks = self.batch(len(self.phi))
            x, labels = x.to(device), labels.to(device)
            twin = copy.deepcopy(model, memo).train()

            def loss_of(net: nn.Module) -> Tensor:
                reseed(device, masks)
                return measured(net(x), labels)

            if self.step_fn is None:
                stepper = _twin_optimizer(model, twin, optimizer, memo)
                before = _step(stepper, lambda: loss_of(twin))
            else:
                with torch.no_grad():
                    before = float(loss_of(twin))
                twin = (self.step_fn(twin, x, labels) or twin).train()
            with torch.no_grad():
                after = float(loss_of(twin))
        self.phi.append(before - after)
        return {"phi": self.phi[-1], "zeta": self.zeta}

    def on_epoch_end(
        self, model: nn.Module, optimizer: OptimizerOrMaker | None, epoch: int
    ) -> dict[str, float]:
        """The same with the cross-entropy; `epoch` is ignored."""
        del epoch
        return self(model, optimizer)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"phi": self.phi}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.phi = [float(value) for value in state["phi"]]

    def batch(self, call: int) -> tuple[Tensor, Tensor, int]:
        """Inputs `[b, ...]`, labels `[b]` and the seed of the dropout masks of call `call` (from 0)."""
        words = np.random.SeedSequence([self.seed, call]).generate_state(2, np.uint64)
        drawing, masks = (int(word) >> 1 for word in words)
        generator = torch.Generator().manual_seed(drawing)
        count = min(self.batch_size, len(self.x))
        chosen = torch.randperm(len(self.x), generator=generator)[:count]
        labels = torch.randint(self.classes, (count,), generator=generator)
        return self.x[chosen.to(self.x.device)], labels, masks

    @property
    def zeta(self) -> float:
        """The mean of all phi so far.

        Raises:
            InputError: nothing has been measured yet.
        """
        if not self.phi:
            raise InputError("zeta is the mean of what was measured, and nothing was; call the object first")
        return sum(self.phi) / len(self.phi)


def select_models(
    zeta: Tensor | Sequence[float], train_accuracy: Tensor | Sequence[float]
) -> Bool[Tensor, " k"]:
    """Which of k models to trust: zeta below the mean of all, accuracy on the noisy training set above it.

    Args:
        zeta: `[k]` of models trained on one data set.
        train_accuracy: `[k]`.

    Raises:
        InputError: the lengths differ, or a number is not finite.

    Source: Forouzesh et al., arXiv 2212.04461, region 1.

    Example:
        >>> select_models([0.1, 0.1, 0.4], [0.9, 0.6, 0.9])
        tensor([ True, False, False])
    """
    z, accuracy = (torch.as_tensor(v, dtype=torch.float64) for v in (zeta, train_accuracy))
    if z.dim() != 1 or z.shape != accuracy.shape or not len(z):
        raise InputError(
            f"expected one zeta and one accuracy per model, got shapes {list(z.shape)} and "
            f"{list(accuracy.shape)}"
        )
    if not bool((torch.isfinite(z) & torch.isfinite(accuracy)).all()):
        raise InputError("a zeta or an accuracy is NaN or infinite; leave that model out")
    return (z < z.mean()) & (accuracy > accuracy.mean())


def _step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> float:
    """Takes one step and gives the loss before it; the closure serves line searches and all others alike."""
    values: list[float] = []

    def closure() -> float:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = loss()
            value.backward()
        values.append(float(value.detach()))
        return values[-1]

    optimizer.step(closure)
    return values[0]


def _twin_optimizer(
    model: nn.Module, twin: nn.Module, optimizer: OptimizerOrMaker | None, memo: dict[int, Any]
) -> torch.optim.Optimizer:
    """The optimiser of the copied model: a copy with its state, or a new one."""
    if optimizer is None:
        raise InputError("the optimiser of the training is needed for the step; or give step_fn")
    if not isinstance(optimizer, torch.optim.Optimizer):
        return optimizer([p for p in twin.parameters() if p.requires_grad])
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not held & {id(p) for p in model.parameters()}:
        raise InputError("the optimiser holds no parameter of this model; give the one that trains it")
    copied = copy.deepcopy(optimizer, memo)  # the memo leads from the model's parameters to the copy's
    for name, value in vars(optimizer).items():
        # What an optimiser does not pickle, L-BFGS needs all the same. A `step` in here is a scheduler's,
        # which would step the original.
        if name != "step" and name not in vars(copied):
            setattr(copied, name, copy.deepcopy(value, memo))
    return copied
