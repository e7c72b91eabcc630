"""The options of `tnml train`: frozen, and checked when they are made."""

from dataclasses import dataclass, field
from typing import Any

from tnml.diagnostics.callbacks import CALLBACKS
from tnml.errors import InputError, choose
from tnml.training import SweepOptions, TrainOptions
from tnml.training.options import check_for_task
from tnml.training.tasks import CLASSIFICATION, REGRESSION, Task

GROUPS = ("data", "model", "train", "sweep")
SHARED = frozenset({"seed", "device", "devices"})  # asked for once, at the top
TRAINED: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, REGRESSION)}  # from the command line
GROUP_OF = {"gradient": "train", "dmrg": "sweep"}  # each solver's own options
# Sweeps start from bond dimension 1, without noise, and have no dropout.
NOT_SWEPT = frozenset({"bond_dim", "noise", "bond_dropout", "site_dropout"})


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How the data are read.

    Args:
        pool: average over pool x pool blocks of pixels: 2 makes 28 x 28 images 14 x 14.
        resize: [height, width] to interpolate to, after pooling.
        scale: "auto" (bytes up to 255 are pixels, other values must lie in 0..1; columns of a table are
            scaled by their range in the training part), or the range [low, high] of the values in your files.
        drop: columns of a table to leave out, such as id or [id, name].
        download: whether a missing data set may be downloaded.

    Raises:
        InputError: the scale is neither.

    Example:
        >>> DataOptions(scale="0-16")
        Traceback (most recent call last):
        tnml.errors.InputError: scale must be 'auto' or the range [low, high] ... got '0-16'; ...
    """

    pool: int = 1
    resize: tuple[int, int] | None = None
    scale: str | tuple[float, float] = "auto"
    drop: list[str | int] | str = field(default_factory=list)
    download: bool = True

    @property
    def dropped(self) -> list[str]:
        """The columns to leave out, as text; YAML reads a name such as 2020 as a number.

        Example:
            >>> DataOptions(drop=[2020, "id"]).dropped
            ['2020', 'id']
        """
        return [self.drop] if isinstance(self.drop, str) else [str(name) for name in self.drop]

    def __post_init__(self) -> None:
        if isinstance(self.scale, str) and self.scale != "auto":
            raise InputError(
                f"scale must be 'auto' or the range [low, high] of the values, got {self.scale!r}; "
                "for values from 0 to 16 write --data.scale [0,16]"
            )


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The network and its options; the network checks the values and rejects options that it cannot use.

    With `--solver dmrg` the bonds grow in the sweeps, up to `--sweep.max_bond`, and `bond_dim`, `noise` and
    the dropouts do not apply.

    Args:
        network: mps or the name of another network, or {name: mps, option: value} with its own options.
        options: further options that only this network has, {option: value}.
        bond_dim: largest bond dimension.
        features: feature map, a name or {name: legendre, dim: 4}.
        order: order of the sites: raster, snake, hilbert, spiral, or a permutation.
        label_site: sites left of the label core; null puts it in the middle, which is fastest.
        noise: standard deviation of the noise on the starting cores; null chooses it.
        bond_dropout: probability of dropping a bond index in training.
        site_dropout: probability of skipping a site of a sample in training.
        dtype: float32 or float64.
        engine: auto, native (CPU, float32), torch or reference.

    Example:
        >>> ModelOptions(bond_dim=8).order
        'snake'
    """

    network: str | dict[str, Any] = "mps"
    options: dict[str, Any] = field(default_factory=dict)
    bond_dim: int = 20
    features: str | dict[str, Any] = "linear"
    order: str | list[int] = "snake"
    label_site: int | None = None
    noise: float | None = None
    bond_dropout: float = 0.0
    site_dropout: float = 0.0
    dtype: str = "float32"
    engine: str = "auto"

    @property
    def spec(self) -> dict[str, Any]:
        """The network with the options that only it has.

        Raises:
            InputError: an option is given in both places.

        Example:
            >>> ModelOptions(network="tree", options={"depth": 3}).spec
            {'name': 'tree', 'depth': 3}
        """
        named = {"name": self.network} if isinstance(self.network, str) else dict(self.network)
        for name in self.options:
            if name in named:
                raise InputError(f"--model.options gives {name!r}, and so does --model.network; give it once")
        return {**named, **self.options}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """All options of a training run.

    Args:
        dataset: name, folder or file.
        task: "classification" or "regression".
        target: the column to predict, for a table.
        preset: where the defaults came from.
        solver: "gradient" or "dmrg", training by sweeps.
        data: how the data are read.
        model: the network.
        train: the training by gradients, with seed, device and devices.
        sweep: the training by sweeps, with the same seed and device.
        callbacks: names of diagnostics to measure after every epoch or sweep.

    Raises:
        InputError: the solver, the task or a callback is unknown, the loss is not one for the task, or sweeps
            are to run in several processes.

    Example:
        >>> RunOptions(dataset="digits").record()["seed"]
        0
        >>> RunOptions(dataset="digits", solver="dmgr")
        Traceback (most recent call last):
        tnml.errors.InputError: unknown solver 'dmgr'; did you mean 'dmrg'? Choose from: ...
    """

    dataset: str
    task: str = "classification"
    target: str | None = None
    preset: str = "default"
    solver: str = "gradient"
    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    sweep: SweepOptions = field(default_factory=SweepOptions)
    callbacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        choose("solver", self.solver, dict.fromkeys(GROUP_OF))
        task = choose("task", self.task, TRAINED)
        self.training.loss_for(task)
        check_for_task(task, self.training)
        for name in self.callbacks:
            choose("callback", name, CALLBACKS)
        if self.swept and self.train.devices != 1:
            raise InputError(
                f"sweeps run in one process, got --devices {self.train.devices}; leave it at 1, or choose "
                "--solver gradient"
            )

    @property
    def swept(self) -> bool:
        """Whether the training is by sweeps."""
        return self.solver == "dmrg"

    @property
    def training(self) -> TrainOptions | SweepOptions:
        """The training options of the chosen solver."""
        return self.sweep if self.swept else self.train

    def record(self) -> dict[str, Any]:
        """Plain numbers, words and lists for `options.yaml`, which `--config` reads.

        Options that only the other solver uses are left out.
        """
        shared = {name: value for name, value in sorted(self.train.record().items()) if name in SHARED}
        training = self.training.record()
        if self.training.loss is None:
            training["loss"] = TRAINED[self.task].default_loss
        groups: dict[str, dict[str, Any]] = {
            "data": vars(self.data),
            "model": {n: v for n, v in vars(self.model).items() if not (self.swept and n in NOT_SWEPT)},
            GROUP_OF[self.solver]: {n: v for n, v in training.items() if n not in SHARED},
        }
        tidy = {
            group: {
                name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
            }
            for group, values in groups.items()
        }
        first = {"dataset": self.dataset, "task": self.task, "target": self.target, "preset": self.preset}
        return {**first, "solver": self.solver, "callbacks": list(self.callbacks), **shared, **tidy}
