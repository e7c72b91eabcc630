"""Training a layer by sweeps: `sweep_classifier` and `sweep_regressor`."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tnml.errors import InputError
from tnml.files import user_path
from tnml.loop.checkpoint import plain_copy
from tnml.loop.options import LoopOptions
from tnml.loop.protocols import Callback, Reporter
from tnml.loop.results import Row
from tnml.nn import MPSLayer
from tnml.nn.networks import can, classes_with
from tnml.training.batches import HeldOut
from tnml.training.dmrg.options import SweepOptions
from tnml.training.dmrg.run import SweepRun
from tnml.training.dmrg.sweep import BondRow
from tnml.training.identity import model_identity
from tnml.training.inputs import Array
from tnml.training.losses import measure
from tnml.training.options import check_for_task
from tnml.training.samples import Samples, samples_for
from tnml.training.tasks import CLASSIFICATION, REGRESSION


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What training by sweeps gives back; the layer itself holds the same weights.

    Args:
        history: one row per sweep: "sweep" (from 1), "loss" (mean over its bonds, each after its solution
            and before its split), "largest_bond", "mean_bond", "discarded_weight" (mean over the bonds),
            "seconds", and what was measured on the held-out part.
        bonds: one row per bond and half sweep, in the order of the sweep: "sweep", "bond" (0 is that of the
            sites 0 and 1), "loss", "bond_dim", "discarded_weight" (share of the squared norm, by the metric),
            "entropy" (von Neumann, nats, by the metric).
        state: the final weights, on the CPU.
        seconds: time in the sweeps, over all resumed parts.
        n_train: samples trained on.
        n_validation: samples held out.
        test: "loss" and "accuracy" on the test set, once, with the final weights; empty without one.
    """

    history: list[Row]
    bonds: list[BondRow]
    state: Mapping[str, Tensor]
    seconds: float
    n_train: int
    n_validation: int
    test: Mapping[str, float]


def sweep_classifier(
    layer: MPSLayer,
    x: Array,
    y: Array,
    options: SweepOptions | None = None,
    *,
    x_test: Array | None = None,
    y_test: Array | None = None,
    image_shape: tuple[int, int] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Reporter | None = None,
    on_bond: Callable[[BondRow], None] | None = None,
    sample_weight: Array | None = None,
    callbacks: Sequence[Callback] = (),
) -> SweepResult:
    """Trains `layer`, in place, by sweeps to give logits `[b, c]` of the labels `y`.

    Training starts from the layer's own weights; its bonds become what the sweeps make of them. A layer of
    `bond_dim=options.starting_bond` is a good start: the bonds grow where the data want it.
    Dropout is not used.

    Args:
        layer: real, of two sites at least.
        x: `[b, n]` inputs in [0, 1] or `[b, n, d]` features.
        y: `[b]` whole numbers from 0 to c - 1.
        options: see `SweepOptions`; None takes the defaults.
        x_test: like `x`; measured once, after training.
        y_test: like `y`.
        image_shape: (height, width) of an input, for `max_shift`; None takes a square.
        run_dir: folder of the run, made if missing: `checkpoint.pt`, `metrics.csv` (sweeps) and `bonds.csv`.
        resume: continue what is in `run_dir`, at the bond where it stopped; on the CPU to the same bits.
        progress: the reporter, for example `ProgressReporter(unit="sweep")`; None reports nothing.
        on_bond: called with the record of every bond.
        sample_weight: `[b]`, see `train_classifier`; they count in second moments, too.
        callbacks: called after every sweep, their optimizer is None; see `tnml.training.run`.

    Raises:
        InputError: data, layer and options do not fit, or an input is not finite.
        TrainingDiverged: a tensor became NaN or infinite.
        TrainingInterrupted: after Ctrl-C, once the checkpoint is written.

    Cost: per bond 4 b d chi (d chi + c) multiplications and additions for each iteration, b c d chi² for the
        contractions and an SVD of (d chi) x (d chi); linear in sites and samples, quadratic in chi until
        the SVD takes over. With `label="travels"` each iteration takes 4 b d² chi² c, and the SVD is of
        (d chi) x (d chi c).

    Source: Stoudenmire and Schwab, arXiv 1605.05775; see `SweepOptions` for what differs.

    Example:
        >>> x = torch.rand(200, 6, generator=torch.Generator().manual_seed(0))
        >>> y = (x[:, 0] > x[:, 5]).long()
        >>> options = SweepOptions(sweeps=4, max_bond=4, device="cpu")
        >>> layer = MPSLayer(6, 2, bond_dim=options.starting_bond)
        >>> result = sweep_classifier(layer, x, y, options)
        >>> (layer(x).argmax(1) == y).float().mean().item() > 0.9
        True
    """
    options = options or SweepOptions()
    check_layer(layer)
    check_trainable(layer)
    data = samples_for(
        CLASSIFICATION,
        layer,
        x,
        y,
        x_test,
        y_test,
        sample_weight=sample_weight,
        image_shape=image_shape,
        max_shift=options.max_shift,
    )
    return _train(layer, data, options, run_dir, resume, progress, on_bond, callbacks)


def sweep_regressor(
    layer: MPSLayer,
    x: Array,
    y: Array,
    options: SweepOptions | None = None,
    *,
    x_test: Array | None = None,
    y_test: Array | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Reporter | None = None,
    on_bond: Callable[[BondRow], None] | None = None,
    sample_weight: Array | None = None,
    callbacks: Sequence[Callback] = (),
) -> SweepResult:
    """Trains `layer`, in place, by sweeps to give the real targets `y` with least mean squared error.

    Args:
        layer: real, of two sites at least.
        x: `[b, n]` inputs in [0, 1] or `[b, n, d]` features.
        y: `[b]` where c is 1, or `[b, c]`.
        options: see `SweepOptions`; None takes exact least squares by the Frobenius norm.
        x_test: like `x`; measured once, after training.
        y_test: like `y`.
        run_dir: see `sweep_classifier`.
        resume: see `sweep_classifier`.
        progress: see `sweep_classifier`.
        on_bond: see `sweep_classifier`.
        sample_weight: see `sweep_classifier`.
        callbacks: see `sweep_classifier`.

    Raises:
        InputError: data, layer and options do not fit, or a number is not finite.
        TrainingDiverged: a tensor became NaN or infinite.
        TrainingInterrupted: after Ctrl-C, once the checkpoint is written.

    Example:
        >>> x = torch.rand(200, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> y = x[:, 0] * x[:, 1] - x[:, 2] * x[:, 3]
        >>> layer = MPSLayer(4, 1, bond_dim=1, dtype="float64")
        >>> result = sweep_regressor(layer, x, y)
        >>> bool((layer(x)[:, 0] - y).abs().max() < 1e-6)
        True
    """
    options = options or SweepOptions(
        loss="mse", solver="als", metric="frobenius", max_error=1e-6, ridge=0.0, max_bond=10
    )
    check_for_task(REGRESSION, options)
    check_layer(layer)
    check_trainable(layer)
    data = samples_for(REGRESSION, layer, x, y, x_test, y_test, sample_weight=sample_weight)
    return _train(layer, data, options, run_dir, resume, progress, on_bond, callbacks)


def check_layer(layer: MPSLayer) -> None:
    """Raises unless sweeps can train this layer.

    Raises:
        InputError: it is not a network that sweeps train, it is complex, or has one site.

    Example:
        >>> check_layer(MPSLayer(1, 2))
        Traceback (most recent call last):
        tnml.errors.InputError: sweeps need at least two sites, got 1; train it with gradients
    """
    if not can(layer, "sweeps"):
        raise InputError(
            f"sweeps train an {classes_with('sweeps')}, got {type(layer).__name__}; train it with gradients"
        )
    if layer.n_sites < 2:
        raise InputError(f"sweeps need at least two sites, got {layer.n_sites}; train it with gradients")
    if layer.weight.is_complex():
        raise InputError(
            f"sweeps train real layers, got {layer.weight.dtype}; choose dtype='float32' or 'float64'"
        )


def check_trainable(layer: MPSLayer) -> None:
    """Raises where a parameter is frozen or of low precision: a sweep changes every core by an SVD.

    Raises:
        InputError: one is.

    Example:
        >>> check_trainable(MPSLayer(4, 2).requires_grad_(False))
        Traceback (most recent call last):
        tnml.errors.InputError: sweeps change every core, and weight, label of the layer are frozen; ...
    """
    if layer.weight.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"sweeps need singular values, which torch has for float32 and float64, got "
            f"{layer.weight.dtype}; train layer.float(), and convert it afterwards"
        )
    frozen = [name for name, parameter in layer.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise InputError(
            f"sweeps change every core, and {', '.join(frozen)} of the layer are frozen; free them with "
            "layer.requires_grad_(), or train what is free with gradients"
        )


def _train(
    layer: MPSLayer,
    data: Samples,
    options: SweepOptions,
    run_dir: str | os.PathLike[str] | None,
    resume: bool,
    progress: Reporter | None,
    on_bond: Callable[[BondRow], None] | None,
    callbacks: Sequence[Callback],
) -> SweepResult:
    loss = options.loss_for(data.task)
    part, held = data.parts(options.validation, options.seed)
    identity = {**data.identity(), **model_identity(layer, LoopOptions())}
    for name in ("model.bond_dim", "model.label_site", "buffer layout"):  # sweeps change them
        identity.pop(name, None)
    history, bonds, seconds = SweepRun(
        layer=layer,
        x=part.x,
        targets=loss.targets(part.y, data.outputs, part.x.dtype),
        weight=part.weight,
        loss=loss,
        options=options,
        image_shape=data.image_shape,
        evaluate=HeldOut(held, loss.plain()) if len(held.x) else None,
        reporter=progress,
        on_bond=on_bond,
        run_dir=None if run_dir is None else user_path(run_dir),
        resume=resume,
        identity=identity,
        callbacks=tuple(callbacks),
    ).execute()
    test: dict[str, float] = {}
    if data.test is not None:
        device = layer.weight.device
        with torch.no_grad():
            test = measure(layer, loss.plain(), data.test[0].to(device), data.test[1].to(device))
    return SweepResult(
        history=history,
        bonds=bonds,
        state=plain_copy(layer.state_dict()),
        seconds=seconds,
        n_train=len(part.x),
        n_validation=len(held.x),
        test=test,
    )
