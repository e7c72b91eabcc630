"""What can be chosen about `tnml train`: frozen options that check themselves."""

from dataclasses import dataclass, field
from typing import Any

from tnml.errors import InputError
from tnml.training import TrainOptions

GROUPS = ("data", "model", "train")
SHARED = frozenset({"seed", "device", "devices"})  # asked for once, at the top


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How the data are read.

    Args:
        pool: mean over pool x pool blocks of pixels: 2 takes 28 x 28 to 14 x 14.
        resize: [height, width] to interpolate to, after pooling.
        scale: "auto" (bytes are divided by 255, all else must lie in 0..1), or the range [low, high] of the
            values in your files.
        download: whether a missing set may be downloaded.

    Raises:
        InputError: the scale is another word.

    Example:
        >>> DataOptions(scale="0-16")
        Traceback (most recent call last):
        tnml.errors.InputError: scale must be 'auto' or the range [low, high] ... got '0-16'; ...
    """

    pool: int = 1
    resize: tuple[int, int] | None = None
    scale: str | tuple[float, float] = "auto"
    download: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.scale, str) and self.scale != "auto":
            raise InputError(
                f"scale must be 'auto' or the range [low, high] of the values, got {self.scale!r}; "
                "for values from 0 to 16 write --data.scale [0,16]"
            )


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The matrix product state. The layer checks the values.

    Args:
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

    bond_dim: int = 20
    features: str | dict[str, Any] = "linear"
    order: str | list[int] = "snake"
    label_site: int | None = None
    noise: float | None = None
    bond_dropout: float = 0.0
    site_dropout: float = 0.0
    dtype: str = "float32"
    engine: str = "auto"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Everything a training run is made from.

    Args:
        dataset: name, folder or file.
        preset: where the defaults came from.
        data: how the data are read.
        model: the matrix product state.
        train: the training, with seed, device and devices.

    Example:
        >>> RunOptions(dataset="digits").record()["seed"]
        0
    """

    dataset: str
    preset: str = "default"
    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    train: TrainOptions = field(default_factory=TrainOptions)

    def record(self) -> dict[str, Any]:
        """Plain numbers, words and lists for `options.yaml`, which `--config` reads."""
        train = self.train.record()
        shared = {name: train.pop(name) for name in sorted(SHARED)}
        groups = {"data": vars(self.data), "model": vars(self.model), "train": train}
        tidy = {
            group: {
                name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
            }
            for group, values in groups.items()
        }
        return {"dataset": self.dataset, "preset": self.preset, **shared, **tidy}
