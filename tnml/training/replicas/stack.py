"""The weights of replicas as one matrix, the step that trains them all, and their measurement."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.contraction.chain.replicas import ReplicaChains, pieces, replica_chains
from tnml.loop.optim import Pull, WeightAverage, make_optimizer
from tnml.loop.schedules import learning_rate
from tnml.nn import MPSLayer
from tnml.training.losses import Loss
from tnml.training.options import TrainOptions

# What replicas may differ in without needing an optimiser of their own.
_APART = (
    "seed",
    "patience",
    "monitor",
    "monitor_mode",
    "device",
    "validation",
    "loss",
    "checkpoint_every",
    "checkpoint_seconds",
)
_FEATURE_BYTES = 2**29  # features of all samples are kept up to this size, else made batch by batch


class Bank:
    """Inputs and targets of all replicas, as rows to choose from; what replicas share is kept once.

    Args:
        layers: their order of sites and features.
        x: `[n, ...]` inputs of each replica; the same tensor where replicas share it.
        y: `[n]` or `[n, c]` targets, likewise.
        weight: `[n]` of the samples of each replica, or None where all count alike.

    Example:
        >>> layer, x = MPSLayer(4, 2), torch.rand(3, 4)
        >>> bank = Bank([layer, layer], [x, x], [torch.zeros(3, 2), torch.ones(3, 2)])
        >>> bank.x.shape, bank.place(torch.tensor([[2], [2]]), [0, 1]).flatten().tolist()
        (torch.Size([3, 8]), [2, 2, 2, 5])
    """

    def __init__(
        self,
        layers: Sequence[MPSLayer],
        x: Sequence[Tensor],
        y: Sequence[Tensor],
        weight: Sequence[Tensor] | None = None,
    ) -> None:
        first, count = layers[0], len(x[0])
        device, dtype = first.weight.device, first.weight.dtype
        orders = [tuple(layer.order.tolist()) for layer in layers]
        kept_x, of_x = _distinct([(id(one), order) for one, order in zip(x, orders, strict=True)])
        beside = y if weight is None else weight
        kept_y, of_y = _distinct([(id(one), id(other)) for one, other in zip(y, beside, strict=True)])
        self._offsets = torch.tensor([of_x, of_y], device=device).mul_(count).unsqueeze(2)
        self.y = torch.cat([y[replica] for replica in kept_y]).to(device)
        self.weight = None if weight is None else torch.cat([weight[k] for k in kept_y]).to(device, dtype)
        size = len(kept_x) * count * first.n_sites * first.features.dim * dtype.itemsize
        one_map = first.features.n_columns is None  # whatever the order of the sites
        late = x[0].dim() == 2 and size > _FEATURE_BYTES and one_map
        self._features = first.features if late else None
        with torch.no_grad():
            if late:
                rows = [x[k].to(device, dtype)[:, layers[k].order.to(device)] for k in kept_x]
            else:
                rows = [layers[k].local_features(x[k].to(device)).flatten(1) for k in kept_x]
        self.x = torch.cat(rows)

    def place(self, index: Tensor, replicas: Sequence[int]) -> Tensor:
        """Rows `[2, k, b]` of inputs and targets, of the samples `index [k, b]` of some replicas."""
        return index + self._offsets[:, list(replicas)]

    def fill(self, rows: Tensor, features: Tensor) -> Tensor:
        """Writes the features of the rows `[2, k, b]` into `features [k, b, n, d]`; gives their targets."""
        chosen = rows[0].flatten()
        if self._features is None:
            torch.index_select(self.x, 0, chosen, out=features.view(len(chosen), -1))
        else:
            features.copy_(self._features(self.x.index_select(0, chosen)).view(features.shape))
        targets: Tensor = self.y.index_select(0, rows[1].flatten()).unflatten(0, rows.shape[1:])
        return targets

    def weights(self, rows: Tensor) -> Tensor | None:
        """The weights `[k, b]` of the rows `[2, k, b]`; None where all samples count alike."""
        if self.weight is None:
            return None
        return self.weight.index_select(0, rows[1].flatten()).view(rows.shape[1:])


def _distinct(things: Sequence[object]) -> tuple[list[int], list[int]]:
    """Where each distinct thing comes first, and for every thing which of those it is."""
    first: dict[object, int] = {}
    which = [first.setdefault(thing, len(first)) for thing in things]
    return [which.index(number) for number in range(len(first))], which


class _Group(NamedTuple):
    """Replicas in neighbouring rows that one optimiser trains."""

    rows: slice
    options: TrainOptions
    parameter: Tensor
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    pull: Pull | None


def group_key(options: TrainOptions) -> str:
    """Equal for options whose replicas one optimiser can train.

    Example:
        >>> group_key(TrainOptions(seed=1)) == group_key(TrainOptions(seed=2))
        True
    """
    return repr([(name, value) for name, value in options.record().items() if name not in _APART])


class Stack:
    """Equal layers as rows `[k, p]` of one matrix: their cores, then their label core.

    Args:
        layers: of one chain shape, dtype and device; those that can share an optimiser stand side by side.
        options: one for each.

    Example:
        >>> stack = Stack([MPSLayer(4, 2, seed=s) for s in (0, 1)], [TrainOptions()] * 2)
        >>> stack.weight.shape
        torch.Size([2, 72])
    """

    def __init__(self, layers: Sequence[MPSLayer], options: Sequence[TrainOptions]) -> None:
        first = layers[0]
        self._shape, self._engine, self._label = first.chain_shape, first.engine, first.label.shape
        rows = [torch.cat([layer.weight.detach(), layer.label.detach().flatten()]) for layer in layers]
        self.weight = torch.stack(rows)
        self.gradient = torch.zeros_like(self.weight)
        self._path: Tensor | None = None
        if any(each.decay_to == "path" and each.weight_decay for each in options):
            paths = [layer.path() for layer in layers]
            self._path = torch.stack(
                [torch.cat([path["weight"], path["label"].flatten()]) for path in paths]
            ).to(self.weight)
        self._groups: list[_Group] = []
        self._chains: dict[int, ReplicaChains] = {}
        self._split(options)

    def _split(self, options: Sequence[TrainOptions]) -> None:
        keys = [group_key(each) for each in options]
        cuts = [0, *(i for i in range(1, len(keys)) if keys[i] != keys[i - 1]), len(keys)]
        for begin, end in itertools.pairwise(cuts):
            rows, chosen = slice(begin, end), options[begin]
            parameter = self.weight[rows].requires_grad_()
            parameter.grad = self.gradient[rows]
            average = WeightAverage([parameter], chosen.ema_decay) if chosen.average == "ema" else None
            pull = None
            if self._path is not None and chosen.decay_to == "path" and chosen.weight_decay:
                pull = Pull([parameter], [self._path[rows]], chosen)
            optimizer = make_optimizer([parameter], chosen)
            self._groups.append(_Group(rows, chosen, parameter, optimizer, average, pull))

    @torch.no_grad()
    def keep(self, rows: Sequence[int], options: Sequence[TrainOptions]) -> None:
        """Continues with some of the rows only; optimisers and averages keep what they know of them.

        Args:
            rows: in order.
            options: of these rows.
        """
        before, index = self._groups, torch.tensor(rows, device=self.weight.device)
        self.weight, self.gradient = self.weight[index], self.gradient[index]
        self._path = None if self._path is None else self._path[index]
        self._groups, self._chains = [], {}
        self._split(options)
        firsts = {group_key(group.options): group for group in before}
        for group in self._groups:
            old = firsts[group_key(group.options)]
            inside = index[group.rows] - old.rows.start
            state = old.optimizer.state[old.parameter]
            group.optimizer.state[group.parameter] = {
                name: value[inside] if _by_row(value, old.parameter) else value
                for name, value in state.items()
            }
            if group.average is not None and old.average is not None:
                group.average.values = [old.average.values[0][inside]]
                group.average.steps = old.average.steps

    @torch.no_grad()
    def step(
        self, bank: Bank, rows: Tensor, loss: Loss, step: int, steps_per_epoch: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One step of every replica on its own batch; the losses `[k]` before it, and sums `[k]` of metrics.

        Args:
            bank: the samples.
            rows: `[2, k, b]` as `bank.place` gives them.
            loss: of outputs and targets.
            step: from 0, over all epochs.
            steps_per_epoch: for the schedule.
        """
        chains = self._chains_of(rows.shape[2])
        y = bank.fill(rows, chains.features)
        left_bond, classes, right_bond = self._label
        start = self._shape.n_weights
        scale = torch.exp2(chains.forward()).unsqueeze(2)
        label = self.weight[:, start:].view(-1, left_bond, classes * right_bond)
        both = torch.bmm(chains.left, label).unflatten(2, (classes, right_bond))
        right = chains.right.unsqueeze(2)
        outputs = (both * right).sum(3).mul_(scale)
        mean, gradient = loss.mean_and_gradient(outputs, y, bank.weights(rows))
        adjoint = gradient.mul_(scale).unsqueeze(3)
        torch.sum(both.mul_(adjoint), 2, out=chains.grad_right)
        of_both = (adjoint * right).flatten(2)
        torch.bmm(of_both, label.mT, out=chains.grad_left)
        of_label = self.gradient[:, start:].view(label.shape)
        torch.bmm(chains.left.mT, of_both, out=of_label)
        chains.backward()
        self._update(step, steps_per_epoch)
        return mean, {name: value.sum(1) for name, value in loss.metrics(outputs, y).items()}

    def _update(self, step: int, steps_per_epoch: int) -> None:
        for group in self._groups:
            if group.options.clip_norm is not None:
                gradient = self.gradient[group.rows]
                norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
                gradient.mul_((group.options.clip_norm / (norm + 1e-6)).clamp_(max=1.0))
            rate = learning_rate(group.options, step, steps_per_epoch)
            group.optimizer.param_groups[0]["lr"] = rate
            if group.pull is not None:
                group.pull(rate)
            group.optimizer.step()
            if group.average is not None:
                group.average.update()

    def rates(self) -> list[float]:
        """The learning rate of each row's last step."""
        return [
            float(group.optimizer.param_groups[0]["lr"])
            for group in self._groups
            for _ in range(group.parameter.shape[0])
        ]

    def finite(self) -> Tensor:
        """`[k]`: whether every weight of a row is finite."""
        return torch.isfinite(self.weight).all(1)

    @torch.no_grad()
    def final(self) -> Tensor:
        """The weights that count `[k, p]`: the averages where they are kept."""
        if all(group.average is None for group in self._groups):
            return self.weight
        return torch.cat(
            [self.weight[g.rows] if g.average is None else g.average.values[0] for g in self._groups]
        )

    @torch.no_grad()
    def measure(self, bank: Bank, rows: Tensor, loss: Loss, batch_size: int = 1000) -> dict[str, Tensor]:
        """Means over rows `[2, k, m]` of the bank, with the weights that count: the loss and its metrics."""
        weight = self.final()
        left_bond, classes, right_bond = self._label
        label = weight[:, self._shape.n_weights :].view(-1, left_bond, classes * right_bond)
        sums: dict[str, Tensor] = {}
        chains: dict[int, ReplicaChains] = {}
        for first, last in pieces(rows.shape[2], batch_size):
            size = last - first
            if size not in chains:
                chains[size] = replica_chains(self._shape, weight, size, engine=self._engine)
            now = chains[size]
            y = bank.fill(rows[:, :, first:last], now.features)
            scale = torch.exp2(now.forward()).unsqueeze(2)
            both = torch.bmm(now.left, label).unflatten(2, (classes, right_bond))
            outputs = (both * now.right.unsqueeze(2)).sum(3).mul_(scale)
            found = {"loss": loss.mean(outputs, y, bank.weights(rows[:, :, first:last])).double() * size}
            found |= {name: value.sum(1).double() for name, value in loss.metrics(outputs, y).items()}
            sums = {name: sums[name] + value if sums else value for name, value in found.items()}
        return {name: value / rows.shape[2] for name, value in sums.items()}

    @torch.no_grad()
    def write(self, row: Tensor, layer: MPSLayer) -> None:
        """Puts one row of weights into a layer."""
        count = self._shape.n_weights
        layer.weight.copy_(row[:count])
        layer.label.copy_(row[count:].view(layer.label.shape))

    def _chains_of(self, batch: int) -> ReplicaChains:
        if batch not in self._chains:
            self._chains[batch] = replica_chains(
                self._shape, self.weight.detach(), batch, gradient=self.gradient, engine=self._engine
            )
        return self._chains[batch]


def _by_row(value: object, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape
