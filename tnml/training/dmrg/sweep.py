"""One step of a sweep after the other: solve at a bond, split, move the center."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tnml.training.dmrg.chain import CenteredChain, absorb_left, absorb_right, largest
from tnml.training.dmrg.environments import Environments, join
from tnml.training.dmrg.local import BondOutputs, Objective, OutputLoss
from tnml.training.dmrg.options import SweepOptions
from tnml.training.dmrg.solvers import SOLVE
from tnml.training.dmrg.split import BondSplit, Metric, data_metric, into_white, split_bond
from tnml.training.seeds import generator

BondRow = dict[str, float]

_BATCH, _NOISE = 0, 1  # streams of seeds
_ROUNDING = 1e-6  # of a split that is only to change the gauge: float32 cannot tell less


@dataclass(frozen=True)
class _Bond:
    """A local problem: what the batch looks like on both sides, the tensor, the rows of the batch."""

    left: Tensor
    right: Tensor
    tensor: Tensor
    rows: Tensor | None


class Sweeper:
    """Everything a sweep works with, and the step from bond to bond.

    Args:
        chain: the weights; changed in place.
        features: of a half sweep (counted from 0 over the whole run), `[n, b, d]`.
        targets: `[b, c]`.
        loss: of the outputs.
        options: see `SweepOptions`.
        changing: whether `features` differ from half sweep to half sweep.

    Raises:
        InputError: the memory budget is too small.
    """

    def __init__(
        self,
        chain: CenteredChain,
        features: Callable[[int], Tensor],
        targets: Tensor,
        loss: OutputLoss,
        options: SweepOptions,
        *,
        changing: bool = False,
        half: int = 0,
    ) -> None:
        self.chain, self.targets, self.loss, self.options = chain, targets, loss, options
        self._features, self._changing, self._half = features, changing, half
        bonds = [options.of_sweep("max_bond", sweep) for sweep in range(options.sweeps)]
        widest = max(largest(chain.bond_dims), *bonds)
        self.around = Environments(features(half), chain.cores, widest, options.memory_gb * 1e9)

    @property
    def steps_per_half(self) -> int:
        """Bonds of the chain."""
        return len(self.chain.cores) - 1

    def prepare(self) -> None:
        """Brings any chain to the gauge of the options, its center to site 0."""
        for right in (False, True):
            sites = range(len(self.chain.cores) - 1, self.chain.at, -1) if not right else range(self.chain.at)
            for site in sites:
                self._gauge(site, right=right)
        while self.chain.at > 0:
            bond = self._bond(right=False, sites=1, seed=(0, self.chain.at))
            metrics = self._metrics(bond)
            white = into_white(bond.tensor, metrics)
            limit = self.options.of_sweep("max_bond", 0)
            found = split_bond(white, metrics, label_right=False, max_bond=limit, max_error=_ROUNDING)
            self._move(bond, found, right=False, sites=1)

    def step(self, sweep: int, index: int) -> BondRow:
        """Improves one bond and moves on.

        Args:
            sweep: from 0.
            index: from 0 to 2 (n - 1) - 1; the second half goes back.

        Returns:
            What happened, see `SweepResult.bonds`.
        """
        options, count = self.options, self.steps_per_half
        right = index < count
        self._turn(2 * sweep + (not right))
        at = self.chain.at
        bond = self._bond(right=right, sites=options.sites, seed=(sweep, index))
        metrics = self._metrics(bond)
        start = into_white(bond.tensor, metrics)
        outputs = BondOutputs(metrics[0].whiten(bond.left), metrics[1].whiten(bond.right))
        targets = self.targets if bond.rows is None else self.targets[bond.rows]
        exact = options.solver == "als"
        proximal = 0.0 if exact else options.of_sweep("proximal", sweep)
        objective = Objective(outputs, targets, self.loss, start, options.ridge, proximal)
        solved, values = SOLVE[options.solver](objective, options.iterations)
        found = split_bond(
            solved,
            metrics,
            label_right=right,
            max_bond=self._limit(sweep, right),
            max_error=options.max_error,
            noise=options.noise,
            generator=generator(options.seed, sweep, index, _NOISE) if options.noise else None,
        )
        self._move(bond, found, right=right, sites=options.sites)
        return {
            "sweep": sweep + 1,
            "bond": at if right else at - 1,
            "loss": objective.mean_loss(values),
            "bond_dim": found.bond,
            "discarded_weight": found.discarded,
            "entropy": found.entropy,
        }

    def _turn(self, half: int) -> None:
        """Takes the features of a half sweep when it begins."""
        if half != self._half and self._changing:
            self.around.renew(self._features(half))
        self._half = half

    def _limit(self, sweep: int, right: bool) -> int:
        """The largest bond allowed; one-site sweeps keep what is there."""
        limit: int = self.options.of_sweep("max_bond", sweep)
        if self.options.sites == 1:
            shape = self.chain.center.shape
            limit = min(limit, shape[3] if right else shape[0])
        return limit

    def _bond(self, *, right: bool, sites: int, seed: tuple[int, int]) -> _Bond:
        """The local problem of the next bond."""
        chain, around, at = self.chain, self.around, self.chain.at
        rows = self._rows(*seed)
        features = around.features

        def some(tensor: Tensor) -> Tensor:
            return tensor if rows is None else tensor.index_select(0, rows)

        center = chain.center
        bonds, c = center.shape, center.shape[2]
        if right and sites == 2:
            nearest = chain.core(at + 1)
            tensor = torch.tensordot(center, nearest, 1).flatten(0, 1).flatten(2)
            sides = (
                join(some(around.left(at)), some(features[at])),
                join(some(features[at + 1]), some(around.right(at + 2))),
            )
        elif right:
            tensor = center.flatten(0, 1)
            sides = join(some(around.left(at)), some(features[at])), some(around.right(at + 1))
        elif sites == 2:
            nearest = chain.core(at - 1)
            tensor = torch.einsum("adl,lecr->adcer", nearest, center)
            tensor = tensor.reshape(nearest.shape[0] * nearest.shape[1], c, -1)
            sides = (
                join(some(around.left(at - 1)), some(features[at - 1])),
                join(some(features[at]), some(around.right(at + 1))),
            )
        else:
            tensor = center.transpose(1, 2).reshape(bonds[0], c, -1)
            sides = some(around.left(at)), join(some(features[at]), some(around.right(at + 1)))
        return _Bond(*sides, tensor, rows)

    def _rows(self, sweep: int, index: int) -> Tensor | None:
        """The samples of a local problem; None for all."""
        count, size = len(self.targets), self.options.batch_size
        if size is None or size >= count:
            return None
        order = torch.randperm(count, generator=generator(self.options.seed, sweep, index, _BATCH))
        return order[:size].sort().values.to(self.targets.device)

    def _metrics(self, bond: _Bond) -> tuple[Metric, Metric]:
        if self.options.metric == "frobenius":
            return Metric(), Metric()
        damping = self.options.damping
        return data_metric(bond.left, damping), data_metric(bond.right, damping)

    def _move(self, bond: _Bond, found: BondSplit, *, right: bool, sites: int) -> None:
        """Leaves the side without label behind, scaled so that the samples beyond it have size one."""
        chain, at = self.chain, self.chain.at
        side, kept = (bond.left, found.left) if right else (bond.right, found.right.T)
        size = _size(side @ kept)
        d = chain.center.shape[1]
        if right:
            core = (found.left / size).reshape(-1, d, found.bond)
            rest = found.right * size
            if sites == 2:
                center = rest.reshape(found.bond, rest.shape[1], d, -1).transpose(1, 2)
            else:
                center = absorb_right(rest, chain.core(at + 1))
        else:
            core = (found.right / size).reshape(found.bond, d, -1)
            rest = found.left * size
            if sites == 2:
                center = rest.reshape(-1, d, rest.shape[1], found.bond)
            else:
                center = absorb_left(rest, chain.core(at - 1))
        chain.move(core, center, right=right)
        self.around.recenter(chain.at)

    def _gauge(self, site: int, *, right: bool) -> None:
        """Makes the core of a site away from the center an isometry in the metric, and hands the rest on.

        Args:
            site: all cores further out are isometries already.
            right: whether the center lies to the right.
        """
        chain, around = self.chain, self.around
        core, features = chain.core(site), around.features[site]
        rows = self._rows(0, site)
        outer = around.left(site) if right else around.right(site + 1)
        if rows is not None:
            outer, features = outer.index_select(0, rows), features.index_select(0, rows)
        side = join(outer, features) if right else join(features, outer)
        metric = Metric() if self.options.metric == "frobenius" else data_metric(side, self.options.damping)
        matrix = core.reshape(-1, core.shape[2]) if right else core.reshape(core.shape[0], -1).T
        found = split_bond(
            into_white(matrix.unsqueeze(1), (metric, Metric())),
            (metric, Metric()),
            label_right=True,
            max_bond=matrix.shape[1],
            max_error=0.0,
        )
        size = _size(side @ found.left)
        isometry, rest = found.left / size, found.right.squeeze(1) * size  # [p, k], [k, bond]
        nearer = site + 1 if right else site - 1
        if right:
            chain.cores[site] = isometry.view(core.shape[0], core.shape[1], -1).contiguous()
        else:
            chain.cores[site] = isometry.T.reshape(-1, core.shape[1], core.shape[2]).contiguous()
        beside = chain.center if nearer == chain.at else chain.core(nearer)
        moved = (
            torch.tensordot(rest, beside, 1) if right else torch.tensordot(beside, rest.T, 1)
        ).contiguous()
        if nearer == chain.at:
            chain.center = moved
        else:
            chain.cores[nearer] = moved


def _size(vectors: Tensor) -> float:
    """Root mean square length of vectors `[b, k]`; 1 where all vanish.

    Example:
        >>> _size(torch.full((3, 4), 2.0))
        4.0
    """
    size = vectors.square().sum(1).mean().sqrt().item()
    return size if size > 0 else 1.0
