"""What has to be equal before layers can be trained together, checked in words."""

from collections.abc import Callable, Sequence
from typing import Any

from tnml.errors import InputError
from tnml.loop.protocols import Callback
from tnml.nn import MPSLayer
from tnml.nn.networks import can, classes_with
from tnml.training.options import TrainOptions, check_for_task
from tnml.training.supervised import check_monitor
from tnml.training.tasks import Task

_EQUAL = (
    "epochs", "batch_size", "optimizer", "loss", "label_smoothing", "validation", "precision", "device",
)  # fmt: skip


def one_each(name: str, given: Any, count: int) -> list[Any]:
    """A list of `count`: the things given, or one thing repeated.

    Raises:
        InputError: it is a list of another length.

    Example:
        >>> one_each("x", None, 2)
        [None, None]
    """
    if not isinstance(given, list | tuple):
        return [given] * count
    if len(given) != count:
        raise InputError(f"{name} must be one for all or a list of {count}, one per layer, got {len(given)}")
    return list(given)


def check_layers(layers: Sequence[MPSLayer]) -> None:
    """Raises unless the layers can stand in one stack.

    Raises:
        InputError: there is none, one appears twice, they differ in more than their weights, or an option
            of theirs has no form for replicas.

    Example:
        >>> check_layers([MPSLayer(4, 2, bond_dim=2), MPSLayer(4, 2, bond_dim=3)])
        Traceback (most recent call last):
        tnml.errors.InputError: layers trained together must be equal in bonds; layer 1 has ... first has ...
    """
    if not layers:
        raise InputError("expected at least one layer, got none")
    for number, layer in enumerate(layers):
        if not can(layer, "replicas"):
            names = classes_with("replicas")
            raise InputError(f"layer {number} must be an {names}, got {type(layer).__name__}")
        if layer.bond_dropout.p or layer.site_dropout.p:
            raise InputError(f"layer {number} has dropout, which draws for one layer; train it by itself")
        if layer.weight.is_complex():
            raise InputError(f"layer {number} must be real, got {layer.weight.dtype}")
        if not (layer.weight.requires_grad and layer.label.requires_grad):
            raise InputError(f"layer {number} has frozen parameters; train it by itself")
        for what, of in _FACTS.items():
            here, first = of(layer), of(layers[0])
            if here != first:
                raise InputError(
                    f"layers trained together must be equal in {what}; layer {number} has {here}, "
                    f"the first has {first}"
                )
    if len({id(layer) for layer in layers}) < len(layers):
        raise InputError("one layer is there twice; make copies (copy.deepcopy) where that is meant")


_FACTS: dict[str, Callable[[MPSLayer], Any]] = {
    "bonds": lambda layer: layer.bond_dims,
    "label site": lambda layer: layer.label_site,
    "outputs": lambda layer: layer.out_features,
    "features": lambda layer: layer.features if layer.features.name == "callable" else layer.features.spec,
    "dtype": lambda layer: layer.weight.dtype,
    "device": lambda layer: layer.weight.device,
    "engine": lambda layer: layer.engine,
}


def check_callbacks(
    callbacks: Sequence[Sequence[Callback]], options: Sequence[TrainOptions], task: Task
) -> None:
    """Raises unless there is one sequence of callbacks for each layer, or nothing, and `monitor` is a column.

    Raises:
        InputError: there are more or fewer sequences, or nothing gives the column.

    Example:
        >>> from tnml.training.tasks import REGRESSION
        >>> check_callbacks((), [TrainOptions(device="cpu")] * 2, REGRESSION)
    """
    if callbacks and len(callbacks) != len(options):
        raise InputError(
            f"callbacks must be one sequence for each of {len(options)} layers, got {len(callbacks)}"
        )
    for each in options:
        check_monitor(each, task, callbacks[0] if callbacks else ())


def check_options(
    options: TrainOptions | Sequence[TrainOptions] | None, count: int, task: Task
) -> list[TrainOptions]:
    """One `TrainOptions` per layer.

    Raises:
        InputError: they differ where they must not, or ask for what replicas do not have.

    Example:
        >>> from tnml.training.tasks import REGRESSION
        >>> len(check_options(None, 3, REGRESSION))
        3
    """
    chosen: list[TrainOptions] = one_each("options", options or TrainOptions(), count)
    first = chosen[0]
    for number, each in enumerate(chosen):
        for name in _EQUAL:
            if getattr(each, name) != getattr(first, name):
                raise InputError(
                    f"layers trained together need one {name}; layer {number} has {getattr(each, name)!r}, "
                    f"the first has {getattr(first, name)!r}"
                )
        refused = {
            "optimizer": each.optimizer == "lbfgs",
            "precision": each.precision == "bf16-mixed",
            "devices": each.devices > 1,
            "tensorboard": each.tensorboard,
            "max_shift": each.max_shift > 0,
        }
        for name, asked in refused.items():
            if asked:
                raise InputError(
                    f"{name}={getattr(each, name)!r} has no form for layers trained together; "
                    "train them one by one, or leave it out"
                )
        check_for_task(task, each)
    return chosen
