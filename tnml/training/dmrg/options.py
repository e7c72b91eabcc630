"""Everything that can be chosen about training by sweeps."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tnml.checks import entries, is_whole, keep_number, keep_whole, number, whole
from tnml.errors import InputError, choose
from tnml.loop.options import check_device
from tnml.training.losses import Loss, SquaredError, loss_of
from tnml.training.losses.squared_error import LabelSquaredError
from tnml.training.losses.table import check_loss, loss_record
from tnml.training.tasks import Task

SOLVERS = ("newton-cg", "cg", "lbfgs", "als", "evidence")
_EXACT = ("als", "evidence")  # solve least squares exactly
METRICS = ("data", "frobenius")
LABELS = ("stays", "travels")

SCHEDULED = ("max_bond", "max_error", "proximal")  # one value, or one for each sweep

# These may change when a run is resumed.
FREE = frozenset({"sweeps", "tolerance", "device", "memory_gb", "checkpoint_seconds"})


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """The options of training by two-site or one-site sweeps; a wrong value raises when the object is made.

    A sweep goes from the left end to the right end and back. At each bond the local tensor is improved with
    all other cores fixed, on `batch_size` samples, and then split by an SVD. The local objective is

        mean loss + ridge / 2 |B|² + proximal / 2 |B - B_before|²

    with |B| measured by `metric`: under "data" |B|² is the mean square of the outputs that B would give if
    the two sides of the bond were independent of each other, so `ridge` and `proximal` mean the same at
    every bond and on any data; under "frobenius" it is the sum of squares of B between isometries.

    Args:
        sweeps: how many, at most.
        tolerance: ends the run before that, after a sweep whose loss is less than this share below that of
            the sweep before, provided that all schedules have reached their last value; None never does.
        sites: 2 lets bonds grow and shrink; 1 keeps them (they can only shrink) and is cheaper.
        label: "stays" keeps the label core where the layer has it: away from it local tensors have no label
            leg, are ten times smaller for ten classes, and splitting them loses little. "travels" lets the
            label leg move with the center, as in arXiv 1605.05775; every bond then has to carry the label at
            every split, and at the end the label core comes after the first site. One output always travels:
            its core would keep the bonds beside it from growing.
        max_bond: largest bond dimension; or one number for each sweep, the last one for all that follow.
        max_error: at each bond singular values are dropped while the root of their summed squares stays
            below this share of the norm, by `metric`; or one number for each sweep, the last one for all that
            follow. A large one leaves out what few samples say, but in the first sweeps what is small yet.
        metric: what truncation, damping and |B| are measured by: "data", the second moments of what the
            samples (a subset beyond about 20,000 vectors) look like on both sides, or "frobenius".
        damping: under "data", share of the mean square of the local features that is added to every
            direction, so that directions the data hardly show are neither blown up nor trusted.
        solver: of the local problem. "newton-cg": a Newton step by `iterations` steps of conjugate
            gradients, shortened until the loss falls; "cg": nonlinear conjugate gradients (Polak-Ribière);
            "lbfgs": L-BFGS with a strong Wolfe line search; "als": exact least squares, the solution of
            least norm where there are many (`loss="mse"` only); "evidence": the same with the ridge and the
            bond of largest evidence, up to `max_bond`, and in all sweeps but the last one direction more, for
            `loss="mse"` and a label that travels.
        iterations: of the solver at each bond; "als" and "evidence" need none.
        loss: as of `TrainOptions`. "newton-cg" needs a convex loss with curvature ("cross-entropy", "mse",
            "huber"), "cg" one with curvature, "als" and "evidence" need "mse" and "lbfgs" takes all.
        label_smoothing: share of the target spread evenly over the classes, cross-entropy only.
        ridge: see above; 0 for none. Not used by "evidence".
        proximal: see above, or one number for each sweep, the last one for all that follow. It keeps the
            step so small that the truncation after it does not undo it; not used by "als" and "evidence".
        noise: standard deviation of Gaussian noise added to the local tensor before the split, relative to
            its root mean square entry, in all sweeps but the last; it opens directions that the data alone
            would never open, and costs accuracy: try without it first.
        batch_size: samples of each half sweep, drawn afresh for each; None takes all.
        max_shift: shift the training images by up to this many pixels, afresh in each half sweep.
        validation: fraction of the training samples held out; measured after every sweep.
        observations: how many independent observations a sample of mean weight stands for; "evidence" only.
        memory_gb: most memory, in units of 10^9 bytes, for the contractions of all samples with the sites
            left and right of the bond. Where they need more, some are kept and the others recomputed.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
        seed: of everything random.
        checkpoint_seconds: longest time without a checkpoint; None writes one at the end of each sweep only.

    Raises:
        InputError: a value is out of its range or a name is unknown.

    Example:
        >>> SweepOptions(max_bond=(10, 20), sweeps=3).of_sweep("max_bond", 2)
        20
        >>> SweepOptions(solver="asl")
        Traceback (most recent call last):
        tnml.errors.InputError: unknown solver 'asl'; did you mean 'als'? Choose from: ...
    """

    sweeps: int = 5
    tolerance: float | None = None
    sites: int = 2
    label: str = "stays"
    max_bond: int | Sequence[int] = 20
    max_error: float | Sequence[float] = 3e-3
    metric: str = "data"
    damping: float = 0.1
    solver: str = "newton-cg"
    iterations: int = 4
    loss: str | dict[str, Any] | None = None
    label_smoothing: float = 0.0
    ridge: float = 1e-3
    proximal: float | Sequence[float] = 1.0
    noise: float = 0.0
    batch_size: int | None = None
    max_shift: int = 0
    validation: float = 0.0
    observations: float = 1.0
    memory_gb: float = 4.0
    device: str = "auto"
    seed: int = 0
    checkpoint_seconds: float | None = 60.0

    def __post_init__(self) -> None:
        choose("solver", self.solver, dict.fromkeys(SOLVERS))
        choose("metric", self.metric, dict.fromkeys(METRICS))
        choose("label", self.label, dict.fromkeys(LABELS))
        if self.loss is not None:
            check_loss(self.loss)
        keep_whole(self, "sweeps", "iterations", least=1)
        keep_whole(self, "seed", "max_shift")
        if not is_whole(self.sites, 1, 2):
            raise InputError(f"sites must be 1 or 2, got {self.sites!r}")
        keep_whole(self, "sites")
        keep_number(self, "ridge", "noise", "damping", least=0.0)
        keep_number(self, "label_smoothing", "validation", least=0.0, below=1.0)
        keep_number(self, "memory_gb", "observations", above=0.0)
        if self.tolerance is not None:
            keep_number(self, "tolerance", least=0.0, below=1.0)
        self._keep_schedules()
        if self.batch_size is not None:
            keep_whole(self, "batch_size", least=1)
        if self.checkpoint_seconds is not None:
            keep_number(self, "checkpoint_seconds", above=0.0)
        check_device(self.device)
        self._check_together()

    def _keep_schedules(self) -> None:
        """Checks the options that may change from sweep to sweep, and keeps them as Python's own numbers."""
        bonds = tuple(whole(name, value, 1) for name, value in self._schedule("max_bond"))
        pulls = tuple(number(name, value, least=0.0) for name, value in self._schedule("proximal"))
        cuts = tuple(number(name, value, least=0.0, below=1.0) for name, value in self._schedule("max_error"))
        for name, values in (("max_bond", bonds), ("proximal", pulls), ("max_error", cuts)):
            several = entries(getattr(self, name)) is not None
            object.__setattr__(self, name, values if several else values[0])

    def _schedule(self, name: str) -> list[tuple[str, Any]]:
        """Every value of an option that may change from sweep to sweep, with the name an error calls it."""
        value = getattr(self, name)
        listed = entries(value)
        if listed is None:
            return [(name, value)]
        if not listed:
            raise InputError(f"{name} must be a number or at least one number, got {value!r}")
        return [(f"every entry of {name}", entry) for entry in listed]

    def _check_together(self) -> None:
        if self.label_smoothing and self.loss not in (None, "cross-entropy"):
            raise InputError(
                f"label_smoothing goes with loss='cross-entropy', got loss={self.loss!r}; set it to 0"
            )
        if self.solver == "evidence" and self.label != "travels":
            raise InputError(
                f"solver='evidence' needs label='travels', got label={self.label!r}: all samples of a target "
                "share one noise, which local problems without the label cannot tell"
            )
        if self.solver in _EXACT and self.loss != "mse":
            raise InputError(
                f"solver={self.solver!r} solves least squares exactly and needs loss='mse', got loss="
                f"{self.loss or 'cross-entropy'!r}; choose loss='mse' or solver='newton-cg'"
            )

    def loss_for(self, task: Task) -> Loss:
        """The loss of a task with these options.

        Raises:
            InputError: the loss named is not one of this task, or the solver has no use for it.

        Example:
            >>> from tnml.training.tasks import CLASSIFICATION
            >>> SweepOptions(label_smoothing=0.1).loss_for(CLASSIFICATION)
            CrossEntropy(smoothing=0.1)
        """
        chosen = task.default_loss if self.loss is None else self.loss
        loss = loss_of(chosen, task.name, label_smoothing=self.label_smoothing)
        if loss.by_sample:
            raise InputError(
                f"sweeps cannot minimise loss={chosen!r}, which learns from batch to batch; use the loop "
                "(train_classifier, solver='adam')"
            )
        solvers = {
            "newton-cg": loss.convex and loss.smooth,
            "cg": loss.smooth,
            "lbfgs": True,
            **dict.fromkeys(_EXACT, isinstance(loss, SquaredError | LabelSquaredError)),
        }
        if not solvers[self.solver]:
            fitting = " or ".join(repr(name) for name, fits in solvers.items() if fits)
            raise InputError(
                f"solver={self.solver!r} cannot minimise loss={chosen!r}; choose solver {fitting}"
            )
        return loss

    def of_sweep(self, name: str, sweep: int) -> Any:
        """The value of `max_bond`, `max_error` or `proximal` in sweep `sweep`, counted from 0."""
        values = self._schedule(name)
        return values[min(sweep, len(values) - 1)][1]

    def is_settled(self, losses: Sequence[float]) -> bool:
        """Whether a run ends early, after sweeps with these losses; see `tolerance`.

        Example:
            >>> options = SweepOptions(tolerance=0.1, proximal=(1.0, 0.1))
            >>> options.is_settled([1.0, 0.5]), options.is_settled([1.0, 0.95]), options.is_settled([1.0])
            (False, True, False)
        """
        scheduled = max(len(self._schedule(name)) for name in SCHEDULED)
        if self.tolerance is None or len(losses) < max(2, scheduled):
            return False
        return bool(losses[-1] > (1 - self.tolerance) * losses[-2])

    @property
    def starting_bond(self) -> int:
        """The bond dimension of a good starting layer: 1 where the label leg travels, else up to 10.

        Where the label core stays, a chain of bond dimension 1 gives all outputs the same shape, and little
        grows from that; a few noisy directions beside the identity path are enough.
        """
        return 1 if self.label == "travels" else min(10, self.of_sweep("max_bond", 0))

    @property
    def renews(self) -> bool:
        """Whether each half sweep has samples of its own."""
        return self.batch_size is not None or self.max_shift > 0

    def record(self) -> dict[str, Any]:
        """The options as numbers, strings, lists and None, as checkpoints keep them.

        Example:
            >>> SweepOptions(max_bond=(10, 20)).record()["max_bond"]
            [10, 20]
        """
        values = dataclasses.asdict(self)
        # Checkpoints of earlier versions hold this name where none was chosen.
        values["loss"] = loss_record(self.loss or "cross-entropy")
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
