"""One step of a sweep after the other: solve at a bond, split, move the center."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tnml.randomness import SweepStream, generator
from tnml.training.dmrg.chain import CenteredChain, largest
from tnml.training.dmrg.environments import Environments
from tnml.training.dmrg.evidence import evidence_rank
from tnml.training.dmrg.local import BondOutputs, Objective
from tnml.training.dmrg.metric import Metric, data_metric, into_white
from tnml.training.dmrg.options import SweepOptions
from tnml.training.dmrg.sides import Side
from tnml.training.dmrg.solvers import SOLVE
from tnml.training.dmrg.split import BondSplit, split_bond
from tnml.training.losses import Loss

BondRow = dict[str, float]


class SweepBatch(NamedTuple):
    """The samples of a half sweep.

    Attributes:
        features: `[b, d]` of every site of the chain, None at the label core.
        targets: `[b, c]`.
        weight: `[b]`, of mean 1 over the training part; None where all count alike.
    """

    features: Sequence[Tensor | None]
    targets: Tensor
    weight: Tensor | None = None


_ROUNDING = 1e-6  # of a split that only changes the gauge: float32 cannot resolve less


@dataclass(frozen=True)
class _Window:
    """The one or two sites that are improved together, and what the batch looks like beside them."""

    left: Side
    right: Side
    tensor: Tensor
    label_right: bool


class Sweeper:
    """Everything a sweep works with, and the step from bond to bond.

    Args:
        chain: the weights; changed in place.
        batch: of a half sweep, counted from 0 over the whole run.
        loss: of the outputs.
        options: see `SweepOptions`.
        half: the half sweep to begin with.

    Raises:
        InputError: the memory budget is too small.
    """

    def __init__(
        self,
        chain: CenteredChain,
        batch: Callable[[int], SweepBatch],
        loss: Loss,
        options: SweepOptions,
        half: int = 0,
    ) -> None:
        self.chain, self.loss, self.options = chain, loss, options
        self._batch, self._half = batch, half
        self._take(half)

    def _take(self, half: int) -> None:
        """The samples of a half sweep."""
        features, self.targets, self.weight = self._batch(half)
        options, chain = self.options, self.chain
        # The memory budget has to hold for the widest bonds of all sweeps to come.
        bonds = [options.of_sweep("max_bond", sweep) for sweep in range(options.sweeps)]
        widest = max(largest(chain.bond_dims), *bonds)
        outputs = 1 if chain.label is None else self.targets.shape[1]
        self.around = Environments(
            features, chain.cores, widest, options.memory_gb * 1e9, outputs, self.weight
        )
        self._half = half

    @property
    def _opening(self) -> int:
        """Half sweeps, from the first, that leave every bond one direction more than is evident.

        Without it few bonds grow: what a direction is good for shows only once others are open, too.
        """
        return max(1, 2 * self.options.sweeps - 2)

    @property
    def steps_per_half(self) -> int:
        """Bonds of the chain."""
        return len(self.chain.cores) - 1

    def prepare(self) -> None:
        """Brings any chain to the gauge of the options, its center to site 0."""
        chain = self.chain
        for site in range(len(chain.cores) - 1, chain.at, -1):
            self._gauge(site, right=False)
        for site in range(chain.at):
            self._gauge(site, right=True)
        # A center wider than the first sweep allows is left for that sweep to cut, which solves as it cuts.
        limit = max(self.options.of_sweep("max_bond", 0), chain.center.shape[0])
        while chain.at > 0:
            self.pass_on(right=False, max_bond=limit)

    def truncate(self) -> float:
        """Cuts every bond as the options of the first sweep say, solving nothing; the center is site 0 again.

        Returns:
            The relative error by the metric, the root of the summed discarded weights.
        """
        options, total = self.options, 0.0
        for right, count in ((True, self.steps_per_half), (False, self.steps_per_half)):
            for _ in range(count):
                limit, error = options.of_sweep("max_bond", 0), options.of_sweep("max_error", 0)
                total += self.pass_on(right=right, max_bond=limit, max_error=error)
        return math.sqrt(total)

    def pass_on(self, *, right: bool, max_bond: int, max_error: float = _ROUNDING) -> float:
        """Moves the center by one site, solving nothing; gives the discarded weight."""
        window, found = self._cut(right, max_bond, max_error)
        self._move(window, found, right=right, sites=1)
        return found.discarded

    def apart(self, *, max_bond: int) -> tuple[Tensor, Tensor]:
        """The center, which has the label leg, in two: a core `(l, d, k)` and a label core `(k, c, r)`."""
        window, found = self._cut(True, max_bond, _ROUNDING)
        core, label = self._scaled(window, found, right=True)
        return core.reshape(-1, self.chain.center.shape[1], found.bond), label

    def _cut(self, right: bool, max_bond: int, max_error: float) -> tuple[_Window, BondSplit]:
        """The center split towards the next site, as it is."""
        window = self._window(right=right, sites=1)
        metrics = self._metrics(window)
        found = split_bond(
            into_white(window.tensor, metrics),
            metrics,
            label_right=window.label_right,
            center_right=right,
            max_bond=max_bond,
            max_error=max_error,
        )
        return window, found

    def step(self, sweep: int, index: int) -> BondRow:
        """Improves one bond and moves on.

        Args:
            sweep: from 0.
            index: from 0 to 2 (number of bonds) - 1; the second half goes back.

        Returns:
            What happened, see `SweepResult.bonds`.
        """
        options = self.options
        right = index < self.steps_per_half
        half = 2 * sweep + (not right)
        # Contractions belong to their samples: other samples need new ones, the same samples keep theirs.
        if half != self._half and options.renews:
            self._take(half)
        at = self.chain.at
        window = self._window(right=right, sites=options.sites)
        metrics = self._metrics(window)
        objective = Objective(
            BondOutputs(window.left, window.right, metrics),
            self.targets,
            self.loss,
            self.loss.start(into_white(window.tensor, metrics), options.ridge),
            options.ridge,
            options.of_sweep("proximal", sweep),
            self.weight,
            options.observations,
        )
        solved, outputs = SOLVE[options.solver](objective, options.iterations)
        limit = self._limit(sweep, right)
        if options.solver == "evidence":
            rank = evidence_rank(objective, solved, label_right=window.label_right)
            limit = min(limit, rank + (half < self._opening))
        found = split_bond(
            solved,
            metrics,
            label_right=window.label_right,
            center_right=right,
            max_bond=limit,
            max_error=options.of_sweep("max_error", sweep),
            noise=options.noise if sweep < options.sweeps - 1 else 0.0,
            generator=generator(options.seed, sweep, index, SweepStream.NOISE),
        )
        self._move(window, found, right=right, sites=options.sites)
        return {
            "sweep": sweep + 1,
            "bond": at if right else at - 1,
            "loss": objective.mean_loss(outputs),
            "bond_dim": found.bond,
            "discarded_weight": found.discarded,
            "entropy": found.entropy,
        }

    def _limit(self, sweep: int, right: bool) -> int:
        """The largest bond allowed; one-site sweeps keep what is there."""
        limit: int = self.options.of_sweep("max_bond", sweep)
        if self.options.sites == 1:
            shape = self.chain.center.shape
            limit = min(limit, shape[3] if right else shape[0])
        return limit

    def _window(self, *, right: bool, sites: int) -> _Window:
        """The next local problem."""
        chain, around, center = self.chain, self.around, self.chain.center
        first = chain.at if right or sites == 1 else chain.at - 1
        last = chain.at if sites == 1 else first + 1
        if sites == 1:
            left = around.left_side(first, joined=right)
            side = around.right_side(last, joined=not right)
            tensor = center.flatten(0, 1) if right else center.transpose(1, 2).flatten(2)
            # The label leg of the label core stays on this site, the side that the center leaves.
            label_right = right if chain.label is None else chain.label == chain.at and not right
            return _Window(left, side, tensor, label_right)
        tensor = self._merged(first)
        label_right = right if chain.label is None else chain.label == last
        return _Window(around.left_side(first), around.right_side(last), tensor, label_right)

    def _merged(self, first: int) -> Tensor:
        """The tensors of two neighbouring sites as one `(l d, c, d r)`.

                 k                             k
                 │                             │
            l ─ center ─ r ─ other ─ m    a ─ other ─ l ─ center ─ r
                 │            │                │           │
                 d            c                e           d

        The label leg is k, on the center, or c or e where the other site is the label core.
        """
        chain, center = self.chain, self.chain.center
        other = chain.core(first + 1 if chain.at == first else first)
        other_is_label = chain.label is not None and chain.label != chain.at
        other_is_label &= chain.label in (first, first + 1)
        if chain.at == first:
            legs = "ldkr,rcm->ldkcm"
            l, d, k, _ = center.shape
            _, c, m = other.shape
            merged = torch.einsum(legs, center, other)
            return merged.reshape(l * d, c, m) if other_is_label else merged.reshape(l * d, k, c * m)
        a, e, _ = other.shape
        _, d, k, r = center.shape
        merged = torch.einsum("ael,ldkr->aekdr", other, center)
        return merged.reshape(a, e, d * r) if other_is_label else merged.reshape(a * e, k, d * r)

    def _metrics(self, window: _Window) -> tuple[Metric, Metric]:
        if self.options.metric == "frobenius":
            return Metric(), Metric()
        damping = self.options.damping
        return data_metric(window.left.some(), damping), data_metric(window.right.some(), damping)

    def _move(self, window: _Window, found: BondSplit, *, right: bool, sites: int) -> None:
        """Leaves the side without the center behind, scaled so that the samples beyond it have size one."""
        chain, at = self.chain, self.chain.at
        d = chain.center.shape[1]
        core, rest = self._scaled(window, found, right=right)
        k, nearest = found.bond, at + 1 if right else at - 1
        on_label, to_label = chain.label == at, chain.label == nearest
        if not on_label:  # the joint leg (l d) or (d r) in two; at the label core there is no d
            core = core.reshape(-1, d, k) if right else core.reshape(k, d, -1)
        if sites == 1:
            center = self._absorbed(rest, nearest, right=right, label=to_label)
        elif to_label:
            center = rest.unsqueeze(1)
        else:
            c, e = rest.shape[1], chain.core(nearest).shape[1]
            center = rest.reshape(k, c, e, -1).transpose(1, 2) if right else rest.reshape(-1, e, c, k)
        chain.move(core, center, right=right)
        self.around.recenter(chain.at)

    def _scaled(self, window: _Window, found: BondSplit, *, right: bool) -> tuple[Tensor, Tensor]:
        """What a split leaves behind, scaled, and what goes on."""
        isometry, rest = (found.left, found.right) if right else (found.right, found.left)
        side = window.left if right else window.right
        flat = isometry.flatten(1) if right else isometry.flatten(0, 1).T
        size = _size(side.some() @ flat)  # else contractions would grow or vanish along a long chain
        return isometry / size, rest * size

    def _absorbed(self, rest: Tensor, nearest: int, *, right: bool, label: bool) -> Tensor:
        """The core of the next site times what a move of one site brings, as a center."""
        core = self.chain.core(nearest)
        if right:  # rest (k, c, r)
            center = torch.einsum("kcr,rds->kdcs", rest, core)
        else:  # rest (l, c, k)
            center = torch.einsum("adl,lck->adck", core, rest)
        return center.transpose(1, 2) if label else center

    def _gauge(self, site: int, *, right: bool) -> None:
        """Makes the core of a site away from the center an isometry in the metric, and hands the rest on.

        Args:
            site: all cores further out are isometries already.
            right: whether the center lies to the right.
        """
        chain, core = self.chain, self.chain.core(site)
        side = (self.around.left_side(site) if right else self.around.right_side(site)).some()
        frobenius = self.options.metric == "frobenius"
        metrics = (Metric() if frobenius else data_metric(side, self.options.damping)), Metric()
        matrix = core.flatten(0, 1) if right else core.flatten(1).T
        # A split that cuts nothing: an orthogonal factorisation in the metric.
        found = split_bond(
            into_white(matrix.unsqueeze(1), metrics),
            metrics,
            label_right=True,
            center_right=True,
            max_bond=matrix.shape[1],
            max_error=0.0,
        )
        isometry, rest = found.left.squeeze(1), found.right.squeeze(1)  # [p, k], [k, bond]
        size = _size(side @ isometry)
        isometry, rest = isometry / size, rest * size
        nearest = site + 1 if right else site - 1
        beside = chain.center if nearest == chain.at else chain.core(nearest)
        if right:
            chain.cores[site] = isometry.reshape(core.shape[0], core.shape[1], -1).contiguous()
            moved = torch.tensordot(rest, beside, 1).contiguous()
        else:
            chain.cores[site] = isometry.T.reshape(-1, core.shape[1], core.shape[2]).contiguous()
            moved = torch.tensordot(beside, rest.T, 1).contiguous()
        if nearest == chain.at:
            chain.center = moved
        else:
            chain.cores[nearest] = moved


def _size(vectors: Tensor) -> float:
    """Root mean square length of vectors `[b, .., k]`; 1 where all vanish.

    Example:
        >>> _size(torch.full((3, 4), 2.0))
        4.0
    """
    size = vectors.flatten(1).square().sum(1).mean().sqrt().item()
    return size if size > 0 else 1.0
