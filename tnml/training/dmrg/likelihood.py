"""Maximum likelihood by sweeps: two cores of a Born machine at a time, bonds grow where the data want it.

With all other cores isometries the squared norm of psi is |B|², and the likelihood of the local tensor is

    min_B  mean(-log |f(B)|²) + |B|²          f linear in B; at the minimum |B| = 1

which is convex wherever no amplitude changes its sign. That is the local objective of every sweep, with the
loss below, metric="frobenius" and ridge=2.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tnml.checks import whole
from tnml.errors import InputError
from tnml.files import user_path
from tnml.loop.checkpoint import plain_copy
from tnml.loop.options import LoopOptions
from tnml.loop.protocols import Callback, Reporter
from tnml.loop.results import Row
from tnml.nn import BornMachine, MPSLayer
from tnml.training.dmrg.chain import give
from tnml.training.dmrg.options import SweepOptions
from tnml.training.dmrg.run import SweepRun
from tnml.training.dmrg.sweep import BondRow
from tnml.training.dmrg.train import SweepResult, check_layer, check_trainable
from tnml.training.identity import model_identity
from tnml.training.inputs import Array
from tnml.training.losses import Loss
from tnml.training.losses.base import measure
from tnml.training.losses.likelihood import NegativeLogLikelihood
from tnml.training.samples import Samples, samples_for
from tnml.training.tasks import DENSITY

Part = tuple[Tensor, Tensor, Tensor | None]  # samples, targets and weights
_MEASURED = 10_000  # samples of the training part whose likelihood is measured after every sweep
_FIXED: Mapping[str, Any] = {
    "metric": "frobenius",
    "ridge": 2.0,
    "loss": None,
    "label_smoothing": 0.0,
    "max_shift": 0,
}
USUAL = SweepOptions(
    metric="frobenius", ridge=2.0, label="travels", max_error=1e-3, proximal=1.0, iterations=6, sweeps=4
)
"""The options of `sweep_density` where none are given."""


@dataclass(frozen=True)
class SquaredAmplitude(Loss):
    """-log of the summed squares of the outputs that count: of amplitudes, the likelihood but for the norm.

    Targets `[b, c]` are 1 where an output counts, else 0. The curvature is the absolute value of the second
    derivative: exact for one output, and never negative for several, where the loss is not convex.

    Example:
        >>> SquaredAmplitude().values(torch.tensor([[0.5, 2.0]]), torch.tensor([[1.0, 0.0]]))
        tensor([1.3863])
    """

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample."""
        return -self._squares(outputs, y).log()

    def gradient(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The derivative with respect to the outputs."""
        return -2 * y * outputs / self._squares(outputs, y).unsqueeze(-1)

    def curvature(self, outputs: Tensor, y: Tensor, direction: Tensor) -> Tensor:
        """The absolute second derivative, applied to a direction."""
        return 2 * y * direction / self._squares(outputs, y).unsqueeze(-1)

    def start(self, tensor: Tensor, ridge: float) -> Tensor:
        """The multiple of a local tensor whose objective is lowest: |B|² = 2 / ridge."""
        size = tensor.norm()
        return tensor * (math.sqrt(2 / ridge) / size) if ridge and size > 0 else tensor

    def _squares(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (y * outputs.square()).sum(-1).clamp_min(torch.finfo(outputs.dtype).tiny)


def sweep_density(
    machine: BornMachine,
    x: Array,
    options: SweepOptions | None = None,
    *,
    patience: int | None = None,
    x_test: Array | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Reporter | None = None,
    on_bond: Callable[[BondRow], None] | None = None,
    sample_weight: Array | None = None,
    callbacks: Sequence[Callback] = (),
) -> SweepResult:
    """Trains `machine`, in place, by sweeps to give the samples the largest likelihood.

    Bonds grow up to `max_bond` where singular values stay above `max_error`. The history has the negative
    log-likelihood in nats after each sweep, of the training part ("loss", of at most 10,000 samples) and of
    the held-out part ("val_loss"). "loss" of a bond is the mean of -log |f|² alone.

    Args:
        machine: real, of two sites at least; `BornMachine(n, 1).start_(x)` is a good start.
        x: `[b, columns]` samples; of classes see `BornMachine`.
        options: see `SweepOptions`; `metric="frobenius"`, `ridge=2` and the loss are those of the likelihood.
        patience: sweeps without a better held-out likelihood after which the run ends; the weights of the
            best sweep come back. None trains all sweeps and keeps the last weights.
        x_test: like `x`; measured once, after training.
        run_dir: see `sweep_classifier`.
        resume: see `sweep_classifier`.
        progress: see `sweep_classifier`.
        on_bond: see `sweep_classifier`.
        sample_weight: see `sweep_classifier`.
        callbacks: see `sweep_classifier`; they are given the layer psi.

    Raises:
        InputError: data, machine and options do not fit, or a number is not finite.
        TrainingDiverged: a tensor became NaN or infinite.
        TrainingInterrupted: after Ctrl-C, once the checkpoint is written.

    Cost: see `sweep_classifier`.

    Source: Han et al., Phys. Rev. X 8, 031012 (arXiv 1709.01662), with a Newton step in place of gradients.

    Example:
        >>> import dataclasses
        >>> x = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]).repeat(20, 1)
        >>> machine = BornMachine(3, 1).start_(x)
        >>> result = sweep_density(machine, x, dataclasses.replace(USUAL, device="cpu", sweeps=6))
        >>> abs(result.history[-1]["loss"] - torch.log(torch.tensor(2.0)).item()) < 0.01
        True
    """
    options = options or USUAL
    _check(machine, options, patience)
    data = samples_for(DENSITY, machine, x, None, x_test, None, sample_weight=sample_weight)
    part, held = data.parts(options.validation, options.seed)
    inputs, targets = _split(machine, part.x)
    _to_scale_one(machine.psi, inputs[:1000])
    step = max(1, len(part.x) // _MEASURED)
    some = part.x[::step], part.y[::step], None if part.weight is None else part.weight[::step]
    apart = (held.x, held.y, held.weight) if len(held.x) else None
    watched = (*callbacks, *(() if patience is None else (_Best(),)))
    history, bonds, seconds = SweepRun(
        layer=machine.psi,
        x=inputs,
        targets=targets,
        weight=part.weight,
        loss=SquaredAmplitude(),
        options=options,
        image_shape=None,
        evaluate=partial(_row, machine, some, apart),
        reporter=progress,
        on_bond=on_bond,
        run_dir=None if run_dir is None else user_path(run_dir),
        resume=resume,
        identity=_identity(data, machine),
        callbacks=watched,
        is_over=None if patience is None else lambda rows: _waited(rows, patience),
    ).execute()
    if patience is not None:
        watched[-1].put_back(machine.psi)
    _centre(machine.psi)
    test = {} if data.test is None else {"loss": _measured(machine, (*data.test, None))}
    return SweepResult(
        history=history,
        bonds=bonds,
        state=plain_copy(machine.state_dict()),
        seconds=seconds,
        n_train=len(part.x),
        n_validation=len(held.x),
        test=test,
    )


def _identity(data: Samples, machine: BornMachine) -> dict[str, Any]:
    """What resuming compares; sweeps change the rest."""
    identity = {**data.identity(), **model_identity(machine, LoopOptions())}
    changing = {"model.bond_dim", "model.label_site", "buffer layout", "buffer psi.layout"}
    return {name: value for name, value in identity.items() if name not in changing}


def _row(machine: BornMachine, some: Part, apart: Part | None, layer: MPSLayer) -> Row:
    """The likelihood of the training part and of what is held out."""
    del layer  # it is the machine's own
    row: Row = {"loss": _measured(machine, some)}
    if apart is not None:
        row["val_loss"] = _measured(machine, apart)
    return row


class _Best:
    """The weights of the sweep with the best held-out likelihood; checkpoints keep them."""

    def __init__(self) -> None:
        self.loss, self.state = math.inf, dict[str, Tensor]()

    def __call__(self, layer: nn.Module, optimizer: Any, row: Row) -> None:
        if row["val_loss"] < self.loss:
            self.loss, self.state = row["val_loss"], plain_copy(layer.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss, "state": self.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.loss, self.state = float(state["loss"]), dict(state["state"])

    def put_back(self, layer: MPSLayer) -> None:
        if self.state:
            layer.load_state_dict(self.state)


def _check(machine: BornMachine, options: SweepOptions, patience: int | None) -> None:
    """Raises unless sweeps of likelihood can train this machine with these options."""
    if not isinstance(machine, BornMachine):
        raise InputError(f"sweep_density trains a BornMachine, got {type(machine).__name__}")
    check_layer(machine.psi)
    check_trainable(machine.psi)
    for name, needed in _FIXED.items():
        given = getattr(options, name)
        if given != needed and not (name == "loss" and given == "nll"):
            raise InputError(
                f"sweeps of the likelihood need {name}={needed!r}, got {given!r}; start from "
                "dataclasses.replace(tnml.training.dmrg.likelihood.USUAL, ...)"
            )
    if options.solver not in ("newton-cg", "cg", "lbfgs"):
        raise InputError(
            f"solver={options.solver!r} is for least squares; choose 'newton-cg', 'cg' or 'lbfgs'"
        )
    if patience is not None:
        whole("patience", patience, 1)
        if not options.validation:
            raise InputError("patience needs a held-out part to watch, got validation=0; try validation=0.1")


def _split(machine: BornMachine, x: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs of the sites, and which outputs count for each sample."""
    outputs = machine.psi.out_features
    if machine.classes is None:
        return x, x.new_ones(len(x), outputs)
    labels = x[:, -1].round().long()
    known = torch.nn.functional.one_hot(labels.clamp(min=0), machine.classes)
    counted = torch.where((labels >= 0).unsqueeze(1), known, torch.ones_like(known))
    return x[:, :-1], counted.repeat_interleave(machine.hidden, 1).to(x)


@torch.no_grad()
def _to_scale_one(layer: MPSLayer, x: Tensor) -> None:
    """Scales all cores alike so that amplitudes are of order one: the gauge puts their scale into one core.

    The density stays the same. Of 28 x 28 pixels the amplitudes of a product are about 10^-45.
    """
    log = float(layer.typical_log_norm(x.to(layer.weight.device)))
    if math.isfinite(log):
        layer.weight.mul_(math.exp(-log / layer.n_sites))


def _measured(machine: BornMachine, part: Part) -> float:
    x, y, weight = (None if t is None else t.to(machine.psi.weight.device) for t in part)
    return measure(machine, NegativeLogLikelihood(), x, y, 1000, weight)["loss"]  # type: ignore[arg-type]


def _waited(rows: Sequence[Row], patience: int) -> bool:
    """Whether the best held-out loss is that many sweeps ago."""
    losses = [row["val_loss"] for row in rows]
    return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


def _centre(layer: MPSLayer) -> None:
    """Puts the label core of one output back into the middle, where contractions are fastest."""
    place, middle = layer.label_site, layer.n_sites // 2
    if layer.out_features > 1 or place == middle:
        return
    cores, matrix = [core.detach() for core in layer.cores], layer.label_core.detach()[:, 0]
    if place:
        cores[place - 1] = torch.tensordot(cores[place - 1], matrix, 1)
    else:
        cores[0] = torch.tensordot(matrix, cores[0], 1)
    bond = cores[middle].shape[0]
    give(layer, cores, torch.eye(bond).to(matrix).unsqueeze(1), middle)
