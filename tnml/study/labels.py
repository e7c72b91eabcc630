"""Classification with label noise: how much is memorised, and what predicts it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tnml.data.noise import corrupt, symmetric
from tnml.data.synthetic import classification, target
from tnml.diagnostics import Susceptibility, gauge_free_parameters, geometric_complexity, memorised
from tnml.nn import MPSLayer
from tnml.study.plain_values import check_options
from tnml.training import StepView, TrainOptions, evaluate, train_classifier

_PROBE = 64  # inputs of the susceptibility's batch, outside the training set
_OTHER = 10**6  # added to a run's seed for samples that are neither trained nor tested on

_NEEDED = frozenset(
    {"target_options", "n_train", "n_test", "noise", "bond_dim", "seed", "epochs", "lr", "batch_size"}
)


def run(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """One run: two classes, the sign of a teacher that an MPS computes, some labels flipped.

    An MPS of the teacher's bond dimension has the true boundary.

    Args:
        options: "target_options" (of the teacher, see `tnml.data.synthetic.mps_teacher`), "n_train",
            "n_test", "noise" (share of the training labels flipped), "bond_dim", "seed", "epochs", "lr",
            "batch_size". May be left out: "regularisation" (0), the L2 penalty.
        folder: of the run; nothing is written.

    Raises:
        InputError: an option is unknown, missing or out of range.
        TrainingDiverged: the loss became NaN or infinite.

    Example:
        >>> options = {"target_options": {"n_sites": 4}, "n_train": 40, "n_test": 40, "noise": 0.3,
        ...     "bond_dim": 2, "epochs": 2, "lr": 0.01, "batch_size": 20, "seed": 0}
        >>> 0 <= run(options, Path())["memorised"] <= 1
        True
    """
    check_options(options, _NEEDED, {"regularisation"})
    seed = options["seed"]
    teacher = target("mps", **{**options["target_options"], "seed": seed})

    def samples(count: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = classification(teacher, count, seed=number, threshold=0.0)
        return drawn.x.float(), drawn.labels

    x, clean = samples(options["n_train"], 2 * seed)
    x_test, y_test = samples(options["n_test"], 2 * seed + 1)
    noisy, flipped = corrupt(clean, symmetric(2, options["noise"]), seed=seed)
    features = teacher.features or "legendre"
    layer = MPSLayer(teacher.n_sites, 2, bond_dim=options["bond_dim"], features=features, seed=seed)
    settings = TrainOptions(
        epochs=options["epochs"],
        lr=options["lr"],
        batch_size=options["batch_size"],
        schedule="constant",
        weight_decay=options.get("regularisation", 0.0),
        seed=seed,
        device="cpu",
    )
    probe = Susceptibility(samples(_PROBE, _OTHER + seed)[0], 2, batch_size=_PROBE, seed=seed)
    curve: list[dict[str, Any]] = []

    def watch(view: StepView) -> None:
        if view.step == view.steps_per_epoch:
            row = probe(layer, view.optimizer)
            test = evaluate(layer, x_test, y_test)
            train = evaluate(layer, x, noisy)
            curve.append(
                {
                    "epoch": view.epoch,
                    "train_error": 1 - train["accuracy"],
                    "test_error": 1 - test["accuracy"],
                    **row,
                }
            )

    result = train_classifier(layer, x, noisy, settings, x_test=x_test, y_test=y_test, on_step=watch)
    train = evaluate(layer, x, noisy)
    return {
        "train_error": 1 - train["accuracy"],
        "test_error": 1 - result.test["accuracy"],
        "train_loss": train["loss"],
        "test_loss": result.test["loss"],
        "clean_train_error": 1 - evaluate(layer, x, clean)["accuracy"],
        "error_name": "error rate",
        "memorised": memorised(layer, x, noisy, flipped) if bool(flipped.any()) else None,
        "zeta": probe.zeta,
        "geometric_complexity": float(geometric_complexity(layer, x)),
        "n_parameters": sum(p.numel() for p in layer.parameters()),
        "gauge_free_parameters": gauge_free_parameters(layer),
        "teacher_bond": teacher.bond_dim,
        "seconds": result.seconds,
        "history": curve,
    }
