"""Classifiers of images without any regularisation: does a larger bond dimension overfit?"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tnml.data import load, stratified_split
from tnml.diagnostics import gauge_free_parameters
from tnml.files import write_text
from tnml.nn import MPSLayer
from tnml.study.plain_values import check_options
from tnml.training import StepView, TrainOptions, evaluate, train_classifier

_CURVE = 20  # points of a learning curve, about

_NEEDED = frozenset({"data", "n_train", "n_test", "pool", "bond_dim", "seed", "steps", "lr", "batch_size"})


def run(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """One run on images: Adam, cross-entropy, no augmentation, smoothing, averaging or dropout.

    An interrupted run continues from the checkpoint in its folder.

    Args:
        options: "data" (a name for `tnml.data.load`), "n_train" (a stratified part drawn with the seed; all
            where there are no more), "n_test", "pool" (side of the squares that pixels are averaged over; 1
            leaves the images), "bond_dim", "seed", "steps", "lr", "batch_size". May be left
            out: "regularisation" (0), the L2 penalty.
        folder: of the run; receives the checkpoint and the learning curve.

    Raises:
        InputError: an option is unknown, missing or out of range, or the data are not there.
        TrainingDiverged: the loss became NaN or infinite.
    """
    check_options(options, _NEEDED, {"regularisation"})
    x, y, shape = _images(options, "train")
    x_test, y_test, _ = _images(options, "test")
    classes = int(y.max()) + 1
    layer = MPSLayer(
        x.shape[1], classes, bond_dim=options["bond_dim"], order="snake", shape=shape, seed=options["seed"]
    )
    epochs = max(1, round(options["steps"] / -(-len(x) // options["batch_size"])))
    settings = TrainOptions(
        epochs=epochs,
        lr=options["lr"],
        batch_size=options["batch_size"],
        clip_norm=1.0,
        weight_decay=options.get("regularisation", 0.0),
        seed=options["seed"],
        device="cpu",
    )
    every = max(1, epochs // _CURVE)
    stored = folder / "curve.json"
    curve: dict[str, dict[str, Any]] = json.loads(stored.read_text()) if stored.exists() else {}

    def watch(view: StepView) -> None:  # not `on_epoch`, which comes after the checkpoint
        if view.step == view.steps_per_epoch and (view.epoch % every == 0 or view.epoch == epochs):
            found, means = evaluate(layer, x_test, y_test), view.means()
            curve[str(view.epoch)] = {
                "epoch": view.epoch,
                "train_error": 1 - means["accuracy"],
                "test_error": 1 - found["accuracy"],
                "train_loss": means["loss"],
                "test_loss": found["loss"],
            }
            write_text(stored, json.dumps(curve))

    result = train_classifier(
        layer,
        x,
        y,
        settings,
        x_test=x_test,
        y_test=y_test,
        run_dir=folder / "training",
        resume=(folder / "training").exists(),
        on_step=watch,
    )
    train = evaluate(layer, x, y)
    return {
        "train_error": 1 - train["accuracy"],
        "test_error": 1 - result.test["accuracy"],
        "train_loss": train["loss"],
        "test_loss": result.test["loss"],
        "error_name": "error rate",
        "n_parameters": sum(p.numel() for p in layer.parameters()),
        "gauge_free_parameters": gauge_free_parameters(layer),
        "epochs": epochs,
        "seconds": result.seconds,
        "history": list(curve.values()),
    }


def _images(
    options: Mapping[str, Any], split: str
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int] | None]:
    data = load(options["data"], split=split, pool=options["pool"])
    most = options[f"n_{split}"]
    if most < len(data):
        _, chosen = stratified_split(data.y, most / len(data), seed=options["seed"])
        data = data.subset(chosen)
    return torch.as_tensor(data.x), torch.as_tensor(data.y), data.image_shape
