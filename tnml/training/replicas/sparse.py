"""Chains trained with features that are mostly zero: whole epochs in one native call, without PyTorch.

It does what `train_replicas` does, to the same numbers up to rounding. On small chains a step is so little
arithmetic that PyTorch's calls take ten times as long. What it cannot do it leaves to the others.
"""

import functools
import importlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tnml.contraction.chain.loading import native_engine
from tnml.loop.processes import device_of
from tnml.loop.results import Row
from tnml.loop.schedules import learning_rate
from tnml.nn import MPSLayer
from tnml.randomness import Stream, generator
from tnml.training.batches import batch_count, batch_slice
from tnml.training.losses import Loss
from tnml.training.losses.cross_entropy import CrossEntropy
from tnml.training.losses.squared_error import SquaredError
from tnml.training.options import TrainOptions

_WIDEST = 12  # bonds; beyond, products of whole batches are faster


@dataclass(frozen=True, eq=False)
class SparseFeatures:
    """Feature vectors with at most two components that are not zero, side by side.

    Attributes:
        places: `[b, n]`, the first of the two.
        shares: `[b, n, 2]`, their values.
    """

    places: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float32]


def sparse_features(phi: npt.NDArray[Any]) -> SparseFeatures | None:
    """The features `[b, n, d]`, d at least 2, in sparse form; None where a vector has other components.

    Example:
        >>> sparse_features(np.array([[[0.0, 0.3, 0.7]]])).places
        array([[1]])
        >>> sparse_features(np.ones((1, 1, 3))) is None
        True
    """
    if phi.ndim != 3 or phi.shape[2] < 2:
        return None
    places = np.minimum((phi != 0).argmax(axis=2), phi.shape[2] - 2)
    pairs = places[:, :, None] + np.arange(2)
    shares = np.take_along_axis(phi, pairs, axis=2)
    if (phi != 0).sum() != (shares != 0).sum():
        return None
    return SparseFeatures(places, shares.astype(np.float32))


def can_train_sparsely(layer: MPSLayer, options: TrainOptions, loss: Loss) -> bool:
    """Whether `train_sparsely` can train such a layer with these options.

    Example:
        >>> can_train_sparsely(MPSLayer(4, 2, 3), TrainOptions(optimizer="adamw"), CrossEntropy())
        True
    """
    return (
        type(loss) in (CrossEntropy, SquaredError)
        and options.optimizer == "adamw"
        and options.clip_norm is None
        and options.average == "none"
        and options.patience is None
        and not options.max_shift
        and options.precision in ("auto", "32")
        and device_of(options.device).type == "cpu"
        and layer.dtype == torch.float32
        and layer.engine in ("auto", "native")
        and not (layer.bond_dropout.p or layer.site_dropout.p)
        and layer.chain_shape.widest <= _WIDEST
        and native_engine() is not None
        and _kernel() is not None
    )


@functools.cache
def _kernel() -> ModuleType | None:
    """The compiled functions; None where numba cannot compile them or has no place to keep them."""
    try:
        return importlib.import_module("tnml.training.replicas.kernel")
    except Exception:  # noqa: BLE001 (as in `native_engine`, which has already warned)
        return None


class _Member:
    """One chain while it is trained: padded copies of its cores and Adam's moments."""

    def __init__(self, layer: MPSLayer, features: SparseFeatures, options: TrainOptions) -> None:
        self.layer = layer
        shape = layer.chain_shape
        self.size = (shape.n_sites, shape.physical, shape.widest, shape.widest)
        self.cores = self._padded(layer.weight.detach().cpu())
        self.label = self._padded_label(layer.label.detach().cpu())
        path = layer.path() if options.decay_to == "path" else None
        self.path = np.zeros_like(self.cores) if path is None else self._padded(path["weight"].cpu())
        self.label_path = np.zeros_like(self.label)
        self.gradients = np.zeros_like(self.cores), np.zeros_like(self.label)
        self.moments = tuple(np.zeros_like(a) for a in (self.cores, self.cores, self.label, self.label))
        order = layer.order.numpy()
        self.places = np.ascontiguousarray(features.places[:, order])
        self.shares = np.ascontiguousarray(features.shares[:, order])

    def _padded(self, weight: torch.Tensor) -> npt.NDArray[np.float32]:
        found = np.zeros(self.size, dtype=np.float32)
        for site, core in enumerate(self.layer.chain_shape.split(weight)):
            found[site, :, : core.shape[1], : core.shape[2]] = core.numpy()
        return found

    def _padded_label(self, label: torch.Tensor) -> npt.NDArray[np.float32]:
        left, outputs, right = label.shape
        found = np.zeros((outputs, *self.size[2:]), dtype=np.float32)
        found[:, :left, :right] = label.transpose(0, 1).numpy()
        return found

    @torch.no_grad()
    def hand_back(self) -> None:
        """Writes the weights into the layer."""
        for site, core in enumerate(self.layer.chain_shape.split(self.layer.weight)):
            core.copy_(torch.from_numpy(self.cores[site, :, : core.shape[1], : core.shape[2]]))
        left, _, right = self.layer.label.shape
        self.layer.label.copy_(torch.from_numpy(self.label[:, :left, :right]).transpose(0, 1))


def train_sparsely(
    layers: Sequence[MPSLayer],
    features: SparseFeatures,
    targets: npt.NDArray[Any],
    options: TrainOptions,
    loss: Loss,
    *,
    weight: npt.NDArray[Any] | None = None,
    on_epoch: Callable[[int, Row], None] | None = None,
) -> bool:
    """Trains layers in place on the same samples, all of them; False if a number became NaN or infinite.

    Then the layers are as before.

    Args:
        layers: of one shape; see `can_train_sparsely`.
        features: in the order of the columns.
        targets: labels `[b]`, or real targets `[b, c]`.
        options: the same for all; nothing is held out.
        loss: cross-entropy or the squared error.
        weight: `[b]` of mean 1; None: all count alike.
        on_epoch: called with the number of the layer, which holds its present weights if the epoch is the
            last one, and its row.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the layers hold their weights of that moment.

    Cost: about 6 n chi² multiply-adds a sample and nonzero component, on one thread.

    Example:
        >>> x = torch.rand(64, 3, generator=torch.Generator().manual_seed(0))
        >>> layer, labels = MPSLayer(3, 2, 2), (x[:, 0] > 0.5).long().numpy()
        >>> options = TrainOptions(epochs=60, lr=0.05, optimizer="adamw", device="cpu")
        >>> phi = sparse_features(layer.features(x).numpy())
        >>> train_sparsely([layer], phi, labels, options, CrossEntropy())
        True
        >>> float((layer(x).argmax(1).numpy() == labels).mean()) > 0.9
        True
    """
    kernel: Any = _kernel()
    members = [_Member(layer, features, options) for layer in layers]
    samples, labelled = len(targets), loss.for_labels
    codes = targets.astype(np.int64) if labelled else np.full(samples, -1)
    real = np.zeros((1, 1), np.float32) if labelled else np.ascontiguousarray(targets, dtype=np.float32)
    each = (np.ones(samples) if weight is None else weight).astype(np.float32)
    steps = batch_count(samples, options.batch_size)
    ends = np.array([batch_slice(samples, options.batch_size, step).stop for step in range(steps)])
    smoothing = float(getattr(loss, "smoothing", 0.0))
    try:
        for epoch in range(options.epochs):
            order = torch.randperm(samples, generator=generator(options.seed, epoch, stream=Stream.ORDER))
            rates = np.array([learning_rate(options, epoch * steps + step, steps) for step in range(steps)])
            for number, member in enumerate(members):
                start = time.monotonic()
                total, hits = kernel.epoch(
                    member.cores, member.label, *member.gradients, member.moments, member.path,
                    member.label_path, member.places, member.shares, codes, real, each, order.numpy(), ends,
                    rates, epoch * steps, member.layer.label_site, smoothing, options.weight_decay,
                    (options.beta1, options.beta2), options.eps,
                )  # fmt: skip
                if not (math.isfinite(total) and np.isfinite(member.label).all()):
                    return False
                seconds = time.monotonic() - start
                row: Row = {"epoch": epoch + 1, "loss": total / samples}
                row |= {"accuracy": hits / samples} if labelled else {}
                row |= {"lr": float(rates[-1]), "seconds": seconds}
                row["samples_per_second"] = samples / max(seconds, 1e-9)
                if epoch + 1 == options.epochs:
                    member.hand_back()
                if on_epoch is not None:
                    on_epoch(number, row)
    except KeyboardInterrupt:
        for member in members:
            member.hand_back()
        raise
    return True
