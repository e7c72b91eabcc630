"""Training on wrong labels: what the losses made for it do for tensor networks and for dense ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tnml.data import load, stratified_split
from tnml.data.noise import asymmetric, corrupt, pair, symmetric
from tnml.data.transitions import estimate_transition, transition_error
from tnml.diagnostics import memorised
from tnml.errors import choose
from tnml.nn import TNN, MPSLayer
from tnml.randomness import seeded
from tnml.study.plain_values import check_options
from tnml.training import TrainOptions, TrainResult, evaluate, train_classifier

METHODS: Mapping[str, Mapping[str, Any]] = {
    "cross-entropy": {"name": "cross-entropy"},
    "gce": {"name": "gce"},
    "sce": {"name": "sce"},
    "forward, known": {"name": "forward"},
    "forward, estimated": {"name": "forward"},
    "sop": {"name": "sop"},
    "small": {"name": "cross-entropy"},
}
"""Each method's loss; "small" is a network with a quarter of the bond dimension, rank or width."""

_NEEDED = frozenset(
    {
        *("data", "pool", "n_train", "n_test", "noise", "kind", "method", "network", "size", "seed"),
        *("epochs", "lr", "batch_size"),
    }
)


def run(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """One run: a classifier trained on labels of which some are wrong, and measured on true ones.

    Args:
        options: "data" ("clusters", or a name for `tnml.data.load`), "pool" (side of the squares that pixels
            are averaged over), "n_train", "n_test", "noise" (the share of wrong labels), "kind"
            ("symmetric", or "asymmetric": each class is taken for one other), "method" (of `METHODS`),
            "network" ("mps", "tnn" or "dense"), "size" (bond dimension, rank, or a tenth of the width),
            "seed", "epochs", "lr", "batch_size". May be left out: "lr_u", "lr_v" of the method "sop", and
            "optimizer" ("adam").
        folder: of the run; nothing is written.

    Raises:
        InputError: an option is unknown, missing or out of range, or the data are not there.
        TrainingDiverged: the loss became NaN or infinite.

    Example:
        >>> options = {"data": "clusters", "pool": 1, "n_train": 60, "n_test": 60, "noise": 0.4,
        ...     "kind": "symmetric", "method": "gce", "network": "dense", "size": 2, "seed": 0,
        ...     "epochs": 1, "lr": 0.01, "batch_size": 20}
        >>> 0 <= run(options, Path())["test_error"] <= 1
        True
    """
    check_options(options, _NEEDED, {"lr_u", "lr_v", "optimizer"})
    method = choose("method", options["method"], METHODS)
    (x, clean), (x_test, y_test), shape = _samples(options)
    truth = _transition(options)
    noisy, flipped = corrupt(clean, truth, seed=options["seed"])
    loss: dict[str, Any] = dict(method)
    known: dict[str, Any] = {}
    if options["method"] == "forward, known":
        loss["transition"] = truth.tolist()
    elif options["method"] == "forward, estimated":
        early, few = _network(options, x, shape), {**options, "epochs": max(1, options["epochs"] // 8)}
        _trained(early, x, noisy, {"name": "cross-entropy"}, few)
        with torch.no_grad():
            found = estimate_transition(early.eval()(x).softmax(1))
        loss["transition"] = found.tolist()
        known["transition_error"] = transition_error(found, truth)
    elif options["method"] == "sop":
        loss |= {name: options[name] for name in ("lr_u", "lr_v") if name in options}
    layer = _network(options, x, shape)
    result = _trained(layer, x, noisy, loss, options, x_test=x_test, y_test=y_test)
    if result.memory is not None and bool(flipped.any()):
        known["suspicion_auc"] = _area(result.memory.noise_score(), flipped)
    return {
        "train_error": 1 - evaluate(layer, x, noisy)["accuracy"],
        "test_error": 1 - result.test["accuracy"],
        "clean_train_error": 1 - evaluate(layer, x, clean)["accuracy"],
        "memorised": memorised(layer, x, noisy, flipped) if bool(flipped.any()) else None,
        "error_name": "error rate",
        "n_parameters": sum(p.numel() for p in layer.parameters()),
        "seconds": result.seconds,
        "history": [
            {"epoch": row["epoch"], "train_error": 1 - row["accuracy"], "train_loss": row["loss"]}
            for row in result.history
        ],
        **known,
    }


def _samples(
    options: Mapping[str, Any],
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[int, int] | None]:
    """Training and test samples, and the shape of images."""
    if options["data"] == "clusters":
        generator = seeded(options["seed"])
        centres = 0.75 * torch.randn(20, 32, generator=generator)

        def drawn(count: int) -> tuple[Tensor, Tensor]:
            which = torch.randint(20, (count,), generator=generator)
            x = centres[which] + torch.randn(count, 32, generator=generator)
            return torch.special.ndtr(x / 1.25), which // 2  # inputs in [0, 1], evenly spread

        return drawn(options["n_train"]), drawn(options["n_test"]), None
    parts = []
    for split in ("train", "test"):
        data = load(options["data"], split=split, pool=options["pool"])
        most = options[f"n_{split}"]
        if most < len(data):
            _, chosen = stratified_split(data.y, most / len(data), seed=options["seed"])
            data = data.subset(chosen)
        parts.append((torch.as_tensor(data.x), torch.as_tensor(data.y).long()))
    return parts[0], parts[1], data.image_shape


def _transition(options: Mapping[str, Any]) -> Tensor:
    """How labels become wrong; "asymmetric" has a list of its own for MNIST, and the next class elsewhere."""
    rho = options["noise"]
    if choose("kind", options["kind"], {"symmetric": True, "asymmetric": False}):
        return symmetric(10, rho)
    return asymmetric("mnist", rho) if options["data"] == "mnist" else pair(10, rho)


def _network(options: Mapping[str, Any], x: Tensor, shape: tuple[int, int] | None) -> nn.Module:
    size, seed = options["size"], options["seed"]
    if options["method"] == "small":
        size = max(2, size // 4)
    kind = choose("network", options["network"], {"mps": "mps", "tnn": "tnn", "dense": "dense"})
    if kind == "mps":
        images: dict[str, Any] = {} if shape is None else {"order": "snake", "shape": shape}
        return MPSLayer(x.shape[1], 10, bond_dim=size, seed=seed, **images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "tnn":
            return TNN([x.shape[1], 256, 256, 10], rank=size, activation="relu")
        width = 10 * size
        return nn.Sequential(
            *(nn.Linear(x.shape[1], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
            nn.Linear(width, 10),
        )


def _trained(
    layer: nn.Module, x: Tensor, y: Tensor, loss: dict[str, Any], options: Mapping[str, Any], **test: Any
) -> TrainResult:
    settings = TrainOptions(
        epochs=options["epochs"],
        lr=options["lr"],
        batch_size=options["batch_size"],
        optimizer=options.get("optimizer", "adam"),
        loss=loss,
        seed=options["seed"],
        device="cpu",
    )
    return train_classifier(layer, x, y, settings, **test)


def _area(score: Tensor, flipped: Tensor) -> float:
    """The share of pairs of a wrong and a right label in which the wrong one has the larger score."""
    wrong, right = score[flipped], score[~flipped]
    below = torch.searchsorted(right.sort().values, wrong)
    upto = torch.searchsorted(right.sort().values, wrong, right=True)
    return float((below + upto).double().sum() / (2 * len(wrong) * len(right)))
