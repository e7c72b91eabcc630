"""The folder of a run: where it is, and what it contains."""

from contextlib import suppress
from pathlib import Path

import yaml

from tnml.cli.options import RunOptions
from tnml.errors import InputError
from tnml.files import write_text

OPTIONS, MODEL = "options.yaml", "model.safetensors"
RUNS = Path("runs")


def open_folder(options: RunOptions, out: Path | None, *, claim: bool) -> Path:
    """The folder of a new run with its `options.yaml`: `out`, or the next free `runs/NAME-001`.

    Args:
        options: stored, so that the run can be repeated and resumed.
        out: the folder given with `--out`, or None.
        claim: whether this process makes the folder; the other processes of a group only name it.

    Raises:
        InputError: `out` already holds a run, or cannot be written to.

    Example:
        >>> open_folder(RunOptions(dataset="digits"), Path("here"), claim=False)
        PosixPath('here')
    """
    if not claim:
        return out or RUNS / "unnamed"
    if out is not None and (out / OPTIONS).exists():
        raise InputError(
            f"{out} already holds a run; continue it with --resume {out}, or choose another --out"
        )
    folder = out or next_free(RUNS, Path(options.dataset).stem)
    remove_leftovers(folder)
    write_text(folder / OPTIONS, yaml.safe_dump(options.record(), sort_keys=False))
    return folder


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of a run that was killed while it wrote its options or its model.

    `tnml.training`, which writes the checkpoint and the metrics, removes the temporary files of those.

    Example:
        >>> remove_leftovers(Path("no-such-folder"))
    """
    for name in (OPTIONS, MODEL):
        for leftover in folder.glob(f".{name}.*.tmp"):
            leftover.unlink(missing_ok=True)


def discard_unused(folder: Path) -> None:
    """Removes the folder of a run that never started, if it holds nothing but the options."""
    if [path.name for path in folder.iterdir()] == [OPTIONS]:
        (folder / OPTIONS).unlink()
        with suppress(OSError):  # there are other runs next to it
            folder.rmdir()
            if folder.parent == RUNS:
                RUNS.rmdir()


def next_free(parent: Path, name: str) -> Path:
    """A new folder in `parent` that did not exist before: name-001, 002, ...

    Raises:
        InputError: it cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     next_free(Path(folder), "bsb").name
        'bsb-001'
    """
    number = 1
    while True:
        folder = parent / f"{name}-{number:03d}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise InputError(
                f"cannot make the folder {folder}: {error.strerror}; choose another with --out"
            ) from error
        else:
            return folder
