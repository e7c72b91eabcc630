"""Sparse over-parametrisation: a loss that learns, sample by sample, which labels are wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from tnml.checks import keep_number, keep_whole
from tnml.errors import InputError
from tnml.randomness import seeded
from tnml.training.losses.base import Loss, Measured
from tnml.training.losses.cross_entropy import CrossEntropy

_LEAST = 1e-4  # of a probability


@dataclass(frozen=True)
class SparseNoise(Loss):
    """Cross-entropy beside a sparse model of wrong labels: one number of each sample, and one of each class.

        U = u^2 y,   V = v^2 (1 - y)                  y one-hot, entries limited to [0, 1]
        q = softmax(f) + U - V                        limited and normalised
        l = - log q_y  +  |onehot(argmax f) + U - V - y|^2

    u and v start near zero and follow gradient descent with rates of their own; the squares make what they
    learn sparse: they grow for samples that the model cannot fit by the others, which are those with wrong
    labels. The rate of u decides, and must grow where there are fewer steps. Only the loop can train it,
    with one process and no L-BFGS. The model alone predicts.

    Args:
        lr_u: learning rate of u.
        lr_v: learning rate of v.
        init_std: deviation of u and v at the start.
        seed: of that start.

    Raises:
        InputError: a number is out of range.

    Source: Liu, Zhu, Qu and You, Robust training under label noise by over-parameterization, arXiv
    2202.14026.

    Example:
        >>> memory = SparseNoise().begin()
        >>> x, y, index = torch.zeros(1, 2, requires_grad=True), torch.tensor([0]), torch.tensor([4])
        >>> loss, _ = memory(torch.nn.Identity(), x, y, index=index)
        >>> round(loss.item(), 4), memory.noise_score().shape
        (0.6931, torch.Size([5]))
    """

    lr_u: float = 10.0
    lr_v: float = 100.0
    init_std: float = 1e-8
    seed: int = 0

    for_labels: ClassVar[bool] = True
    by_sample: ClassVar[bool] = True

    def __post_init__(self) -> None:
        keep_number(self, "lr_u", "lr_v", least=0.0)
        keep_number(self, "init_std", above=0.0)
        keep_whole(self, "seed")

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The cross-entropy of each sample, which is what the loss starts as but for a constant."""
        return CrossEntropy().values(outputs, y)

    def targets(self, y: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """One-hot labels `[b, c]`."""
        return one_hot(y, outputs).to(dtype)

    def plain(self) -> CrossEntropy:
        """The cross-entropy."""
        return CrossEntropy()

    def begin(self) -> "NoiseMemory":
        """The loss function of one run, which remembers u and v."""
        return NoiseMemory(self)


class NoiseMemory:
    """The loss function of one run with `SparseNoise`, and what it learns about the samples.

    Args:
        loss: its options.

    Example:
        >>> NoiseMemory(SparseNoise()).noise_score()
        tensor([])
    """

    def __init__(self, loss: SparseNoise) -> None:
        self.loss = loss
        self.u, self.v = torch.zeros(0), torch.zeros(0, 0)
        self.callback = _Remembers(self)

    def __call__(
        self,
        module: nn.Module,
        x: Tensor,
        y: Tensor,
        weight: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Measured:
        """The mean loss and the accuracy on a batch; u and v of its samples take their step.

        Args:
            module: `[b, ...]` to logits `[b, c]`.
            x: `[b, ...]`.
            y: `[b]` labels.
            weight: `[b]`, of mean 1.
            index: `[b]` which samples these are.

        Raises:
            InputError: the batch does not tell which samples it holds, or several processes train.
        """
        if index is None:
            raise InputError("this loss keeps numbers of every sample; its batches must tell which they hold")
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise InputError("loss='sop' trains in one process; set devices to 1")
        outputs = module(x)
        metrics = self.loss.metrics(outputs, y)
        if not torch.is_grad_enabled():
            return self.loss.plain().mean(outputs, y, weight), metrics
        rows = index.cpu()
        self._make_room(int(rows.max()) + 1, outputs.shape[-1])
        u, v = (kept[rows].to(outputs).requires_grad_() for kept in (self.u, self.v))
        mean = self._mean(outputs, y, weight, u, v)
        # What u and v learn from needs the outputs as numbers only, and not the gradients of the model.
        slopes = torch.autograd.grad(self._mean(outputs.detach(), y, weight, u, v), (u, v))
        self.u[rows] -= self.loss.lr_u * slopes[0].float().cpu()
        self.v[rows] -= self.loss.lr_v * slopes[1].float().cpu()
        return mean, metrics

    def noise_score(self) -> Tensor:
        """`[n]` u^2 of every row of the training data up to the last one seen; above .5 it is suspect."""
        return self.u.square()

    def _mean(self, outputs: Tensor, y: Tensor, weight: Tensor | None, u: Tensor, v: Tensor) -> Tensor:
        """The mean loss of a batch with its `u` `[b]` and `v` `[b, c]`."""
        truth = one_hot(y, outputs.shape[-1]).to(outputs)
        wrong = (u.square().unsqueeze(1) * truth).clamp(0.0, 1.0)
        instead = (v.square() * (1 - truth)).clamp(0.0, 1.0)
        q = (outputs.softmax(-1) + wrong - instead.detach()).clamp_min(_LEAST)
        q = (q / q.sum(-1, keepdim=True)).clamp(_LEAST, 1.0)
        chosen = one_hot(outputs.argmax(-1), outputs.shape[-1]).to(outputs)
        values = -(truth * q.log()).sum(-1) + (chosen + wrong - instead - truth).square().sum(-1)
        return values.mean() if weight is None else (values * weight).mean()

    def _make_room(self, rows: int, classes: int) -> None:
        """Starting values for samples that were not seen before."""
        known = len(self.u)
        if rows <= known:
            return
        generator = seeded(self.loss.seed + known)
        fresh = self.loss.init_std * torch.randn(rows - known, 1 + classes, generator=generator)
        self.u = torch.cat([self.u, fresh[:, 0]])
        self.v = torch.cat([self.v.reshape(-1, classes), fresh[:, 1:]])


class _Remembers:
    """Keeps what the loss has learned in checkpoints, and tells the share of labels it suspects."""

    def __init__(self, memory: NoiseMemory) -> None:
        self._memory = memory

    def __call__(self, module: nn.Module, optimizer: object, row: object) -> dict[str, float]:
        score = self._memory.noise_score()
        return {"suspected": float((score > 0.5).double().mean()) if len(score) else 0.0}

    def state_dict(self) -> dict[str, Any]:
        return {"u": self._memory.u.clone(), "v": self._memory.v.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._memory.u, self._memory.v = state["u"].clone(), state["v"].clone()
