"""What a run writes down as it goes: `metrics.csv`, and TensorBoard event files where asked for."""

import csv
import io
import os
from collections.abc import Sequence
from typing import Any

from tnml.errors import InputError
from tnml.files import user_path, write_text
from tnml.loop.results import Row


def write_metrics(path: str | os.PathLike[str], history: Sequence[Row]) -> None:
    """Writes the whole history as CSV, one line per epoch; atomic, so no line is ever doubled, lost or half.

    Columns come in the order in which they first appear; a number that an epoch lacks is left empty.

    Raises:
        InputError: the folder cannot be written to.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "metrics.csv"
        ...     write_metrics(path, [{"epoch": 1, "loss": 0.5}])
        ...     path.read_text().split()
        ['epoch,loss', '1,0.5']
    """
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, text.getvalue())


class TensorBoard:
    """Writes every row of the history to TensorBoard event files in a folder.

    Args:
        folder: where the event files go.
        next_epoch: the first epoch this run will write; rows of an earlier, killed run from there on are
            hidden.

    Raises:
        InputError: the package tensorboard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], next_epoch: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "tensorboard=True needs the package tensorboard, which is not installed; "
                "run `python -m pip install tensorboard` or leave the option out"
            ) from error
        self._writer: Any = SummaryWriter(str(user_path(folder)), purge_step=next_epoch)

    def write(self, row: Row) -> None:
        """Writes one epoch."""
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()
