"""The networks of an estimator, one or several: trained (together if faster), evaluated, compressed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tnml.checks import one_of
from tnml.loop.progress import ProgressReporter
from tnml.loop.protocols import Callback
from tnml.loop.results import Row, TrainingInterrupted
from tnml.nn import MPSLayer, TensorNetworkLayer
from tnml.nn.networks import can, compressible
from tnml.randomness import Stream, generator
from tnml.training import TrainOptions, TrainResult, train_replicas, truncate_layer, worth_it
from tnml.training.losses import Loss, measure
from tnml.training.replicas.sparse import SparseFeatures, can_train_sparsely, sparse_features, train_sparsely
from tnml.training.samples import split_rows
from tnml.training.tasks import Task

BLOCK = 256  # samples per prediction; always this many, so that no sample's bits depend on the others
_MEASURED_TOGETHER = ("seconds",)  # of all networks: the sum is the time of the fit


def train_members(
    layers: Sequence[TensorNetworkLayer],
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    options: TrainOptions,
    *,
    task: Task,
    alone: Callable[..., TrainResult],
    sample_weight: npt.NDArray[Any] | None,
    callbacks: Sequence[Callback],
    progress: ProgressReporter | None,
    quick: bool = False,
    **data: Any,
) -> list[Row]:
    """The mean history of networks that are trained in place on the same samples.

    All hold out the same samples and see the rest in the same order. Short chains are trained together, which
    takes little more time than training one. Long chains, which would gain nothing, and whatever replicas
    cannot do (dropout, L-BFGS, shifts, other networks) are trained one after the other, to the same numbers.

    Args:
        layers: the networks.
        x: inputs.
        y: targets, in the form that the task needs.
        options: the same for all networks.
        task: what is to be learned.
        alone: trains one of them.
        sample_weight: weights with mean 1, or None.
        callbacks: called for every network.
        progress: the reporter, or None.
        quick: train without PyTorch if that is possible, to other roundings; the last epoch alone is then
            measured on what is held out.
        data: further arguments of `alone`.

    Raises:
        TrainingInterrupted: after Ctrl-C, with the mean history until then.

    Example:
        >>> from tnml.training import train_regressor
        >>> from tnml.training.tasks import REGRESSION
        >>> x = np.random.RandomState(0).rand(40, 3).astype(np.float32)
        >>> layers = [MPSLayer(3, 1, bond_dim=2, seed=seed) for seed in range(3)]
        >>> given = {"task": REGRESSION, "alone": train_regressor, "sample_weight": None, "callbacks": ()}
        >>> rows = train_members(layers, x, x[:, :1], TrainOptions(epochs=2), progress=None, **given)
        >>> [row["epoch"] for row in rows]
        [1, 2]
    """
    histories: list[list[Row]] = [[] for _ in layers]
    if quick and not callbacks:
        with _kept_in(histories, progress, options.epochs) as tell:
            if _trained_sparsely(layers, x, y, options, task, sample_weight, tell):
                return mean_history(histories)
        histories = [[] for _ in layers]
    if _together(layers, options):
        with _kept_in(histories, progress, options.epochs) as tell:
            train_replicas(
                [cast(MPSLayer, layer) for layer in layers],
                x,
                y,
                options,
                task=cast(Literal["regression", "classification"], task.name),
                sample_weight=sample_weight,
                callbacks=[callbacks] * len(layers) if callbacks else (),
                on_epoch=tell,
            )
        return mean_history(histories)
    given = {"sample_weight": sample_weight, "callbacks": callbacks, "progress": progress, **data}
    for place, layer in enumerate(layers):
        try:
            histories[place] = alone(layer, x, y, options, **given).history
        except TrainingInterrupted as stop:
            if len(layers) == 1:
                raise
            histories[place] = stop.history or []
            raise TrainingInterrupted(history=mean_history(histories)) from stop
    return mean_history(histories)


def orders_of_members(rule: str, first: Any, sites: int, members: int, seed: int) -> list[Any]:
    """The order of the sites of every network of an ensemble.

    Args:
        rule: "same" or "random".
        first: of the first network; a name or a permutation.
        sites: how many.
        members: how many.
        seed: of the fit.

    Raises:
        InputError: the rule is unknown.

    Example:
        >>> orders_of_members("random", "raster", 3, 2, seed=0)
        ['raster', [1, 2, 0]]
    """
    if one_of("member_orders", rule, ("same", "random")) == "same":
        return [first] * members
    random = [generator(seed, member, stream=Stream.SITES) for member in range(1, members)]
    return [first, *(torch.randperm(sites, generator=each).tolist() for each in random)]


def _trained_sparsely(
    layers: Sequence[TensorNetworkLayer],
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    options: TrainOptions,
    task: Task,
    weight: npt.NDArray[Any] | None,
    tell: Callable[[int, Row], None],
) -> bool:
    """Whether the layers could be trained by `train_sparsely`, and are."""
    if not all(can(layer, "replicas") for layer in layers):
        return False
    chains, loss = [cast(MPSLayer, layer) for layer in layers], options.loss_for(task)
    given = sparse_features(x) if can_train_sparsely(chains[0], options, loss) else None
    if given is None:
        return False
    labels = torch.from_numpy(y) if task.stratified else None
    keep, held = (rows.numpy() for rows in split_rows(len(y), labels, options.validation, options.seed))
    some = SparseFeatures(given.places[keep], given.shares[keep])
    each, others = (None, None) if weight is None else (weight[keep], weight[held])
    each = None if each is None else each / each.mean()

    def measured(network: int, row: Row) -> None:
        if len(held) and row["epoch"] == options.epochs:
            row |= _held_out(layers[network], x[held], y[held], loss, others)
        tell(network, row)

    return train_sparsely(chains, some, y[keep], options, loss, weight=each, on_epoch=measured)


@torch.no_grad()
def _held_out(
    layer: TensorNetworkLayer, x: npt.NDArray[Any], y: npt.NDArray[Any], loss: Loss, weight: Any
) -> Row:
    """The columns of a history that are measured on held-out samples."""
    inputs, targets = torch.from_numpy(x).to(layer.dtype), torch.from_numpy(y)
    if targets.is_floating_point():
        targets = targets.to(layer.dtype)
    share = None if weight is None else torch.from_numpy(weight / weight.mean()).to(layer.dtype)
    found = measure(layer, loss.plain(), inputs, targets, weight=share)
    return {f"val_{name}": value for name, value in found.items()}


def _together(layers: Sequence[TensorNetworkLayer], options: TrainOptions) -> bool:
    """Whether training the layers as replicas is possible, and faster."""
    if not all(can(layer, "replicas") for layer in layers):
        return False
    first = cast(MPSLayer, layers[0])
    alone = first.bond_dropout.p or first.site_dropout.p or options.max_shift or options.optimizer == "lbfgs"
    return not alone and worth_it(first, len(layers), options.batch_size)


@contextmanager
def _kept_in(
    histories: Sequence[list[Row]], progress: ProgressReporter | None, epochs: int
) -> Iterator[Callable[[int, Row], None]]:
    """Keeps the epochs of all networks, and passes those of the first one to a reporter.

    Raises:
        TrainingInterrupted: after Ctrl-C in the block, with the mean of what is kept.
    """

    def tell(network: int, row: Row) -> None:
        histories[network].append(row)
        if network == 0 and progress is not None:
            progress.epoch(row, epochs)

    if progress is not None:
        progress.start()
    try:
        yield tell
    except KeyboardInterrupt as stop:
        raise TrainingInterrupted(history=mean_history(histories)) from stop
    finally:
        if progress is not None:
            progress.stop()


def mean_history(histories: Sequence[Sequence[Row]]) -> list[Row]:
    """One row per epoch: the means over the networks that reached it, and the sum of their seconds.

    Example:
        >>> one, other = ({"epoch": 1, "loss": loss, "seconds": 1.0} for loss in (0.5, 1.5))
        >>> mean_history([[one], [other]])
        [{'epoch': 1, 'loss': 1.0, 'seconds': 2.0}]
    """
    if len(histories) == 1:
        return list(histories[0])
    rows: list[Row] = []
    for epoch in range(max(len(history) for history in histories)):
        there = [history[epoch] for history in histories if epoch < len(history)]
        row: Row = {}
        for name, first in there[0].items():
            values = [float(each[name]) for each in there if name in each]
            whole = isinstance(first, int)  # epochs, which are the same for all
            total = sum(values) if name in _MEASURED_TOGETHER else float(np.mean(values))
            row[name] = first if whole else total
        rows.append(row)
    return rows


@torch.no_grad()
def in_blocks(
    layer: TensorNetworkLayer,
    x: npt.NDArray[Any],
    function: Callable[[TensorNetworkLayer, Tensor], Tensor],
    device: torch.device,
) -> npt.NDArray[np.float64]:
    """The values of a function of a layer and samples, `[b, ...]` in double precision.

    All blocks have the same size, the last one padded. So a sample's values are the same to the last bit,
    whatever other samples are given with it.

    Example:
        >>> x = np.ones((3, 4), dtype=np.float32)
        >>> in_blocks(MPSLayer(4, 2), x, lambda layer, x: layer(x), torch.device("cpu")).shape
        (3, 2)
    """
    layer = layer.to(device).eval()
    found = []
    for block in torch.from_numpy(x).to(layer.dtype).split(BLOCK):
        full = torch.cat([block, block.new_zeros(BLOCK - len(block), *block.shape[1:])])
        found.append(function(layer, full.to(device))[: len(block)].cpu().double())
    return torch.cat(found).numpy()


def smaller(
    layer: TensorNetworkLayer, some: npt.NDArray[Any] | None, limits: Mapping[str, Any]
) -> tuple[TensorNetworkLayer, float]:
    """A copy of a layer with smaller bonds, and its error; on samples by a sweep if sweeps can train it.

    Example:
        >>> max(smaller(MPSLayer(4, 2), None, {"max_bond": 1})[0].bond_dims)
        1
    """
    whole = compressible(layer)
    if some is None:
        return whole.compressed(**limits)
    if can(whole, "sweeps"):
        return truncate_layer(cast(MPSLayer, layer), some, **limits)
    return whole.compressed(**limits, samples=torch.from_numpy(some))
