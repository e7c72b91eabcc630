"""Early stopping: the best epoch so far, and when to give up hoping for a better one."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tnml.errors import InputError
from tnml.loop.checkpoint import plain_copy
from tnml.loop.options import LoopOptions
from tnml.loop.results import Row


class Best:
    """Watches `options.monitor` and keeps the weights of its best epoch; without `patience` it does nothing.

    Args:
        options: `patience`, `monitor` and `monitor_mode` are read.

    Example:
        >>> best = Best(LoopOptions(patience=1, monitor="val_loss"))
        >>> for epoch, loss in enumerate([2.0, 1.0, 1.5], start=1):
        ...     best.look({"epoch": epoch, "val_loss": loss}, nn.Linear(1, 1))
        >>> best.epoch, best.exhausted
        (2, True)
    """

    def __init__(self, options: LoopOptions) -> None:
        self.state: Mapping[str, Tensor] | None = None
        self.epoch: int | None = None
        self._value = math.nan
        self._waited = 0
        self._patience = options.patience
        self._monitor = options.monitor
        higher = options.monitor_mode == "max" or (
            options.monitor_mode == "auto" and "accuracy" in options.monitor
        )
        self._sign = -1.0 if higher else 1.0

    @property
    def exhausted(self) -> bool:
        """Whether `patience` epochs have passed without a better one."""
        return self._patience is not None and self._waited >= self._patience

    def look(self, row: Row, module: nn.Module) -> None:
        """Compares an epoch with the best so far and copies the module's weights where it is better.

        Raises:
            InputError: the row has no number called `monitor`.
        """
        if self._patience is None:
            return
        if self._monitor not in row:
            raise InputError(
                f"patience watches monitor={self._monitor!r}, which is not measured; got {', '.join(row)}"
            )
        value = row[self._monitor]
        if self.state is None or self._sign * value < self._sign * self._value or math.isnan(self._value):
            self.state = plain_copy(module.state_dict())
            self.epoch, self._value, self._waited = int(row["epoch"]), value, 0
        else:
            self._waited += 1

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"state": self.state, "epoch": self.epoch, "value": self._value, "waited": self._waited}

    def restore(self, record: Mapping[str, Any]) -> None:
        """Restores what `record` returned."""
        self.state, self.epoch = record["state"], record["epoch"]
        self._value, self._waited = record["value"], record["waited"]
